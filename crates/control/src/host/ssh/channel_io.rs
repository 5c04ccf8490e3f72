//! A channel as a byte stream that can stall without stalling its connection.
//!
//! The SSH library hands the messages of all channels on in one loop; a channel that nobody reads
//! stops that loop and with it every other channel. So a pump always drains the channel into a queue
//! of bounded size, and a second one writes, so that no half-done write holds the channel's window.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard, PollSender};
use tokio_util::task::AbortOnDropHandle;

use super::connection::{Connection, Ended, Forwarding, end_of, last_words};
use crate::host::TransportError;

/// Unread bytes that a stream may hold.
pub(super) const QUEUE_MAX_BYTES: usize = 8 << 20;
/// What a queued piece costs besides its bytes, so that a flood of tiny pieces is bounded too.
const PIECE_COST_BYTES: usize = 256;
/// Largest piece handed to the connection at once, and how many wait there.
const WRITE_PIECE_MAX_BYTES: usize = 32 << 10;
const WRITE_PIECES_MAX: usize = 8;
/// How long a dropped stream waits for the host to close its side before it closes without asking.
const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// What is kept of a relay command's complaints.
const COMPLAINT_MAX_BYTES: usize = 2 << 10;

/// What happens when the reader lags by more than the queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lag {
    /// The stream is cut, for it shares its connection.
    Cut,
    /// The connection waits, for it is the stream's own.
    Wait,
}

/// What lives as long as the stream: its place among the sessions, its own connection.
#[derive(Default)]
pub(super) struct Keep {
    pub(super) _session_place: Option<OwnedSemaphorePermit>,
    pub(super) _relay_place: Option<OwnedSemaphorePermit>,
    pub(super) _connection: Option<Arc<Connection>>,
    pub(super) _bulk_place: Option<OwnedSemaphorePermit>,
}

pub(super) type RelayFailure = Box<dyn Fn(u32, &str) -> TransportError + Send>;

/// A channel whose far end is a relay command.
pub(super) struct Relay {
    /// Turns the command's end (exit status, standard error) into the error the reader gets.
    pub(super) failure: RelayFailure,
    /// Noted when the first byte comes through.
    pub(super) forwarding: Arc<OnceLock<Forwarding>>,
}

/// The two directions of a channel.
pub(super) type Halves = (ChannelReadHalf, Arc<ChannelWriteHalf<Msg>>);

pub(super) struct ChannelIo {
    incoming: mpsc::UnboundedReceiver<Result<Piece, TransportError>>,
    current: Bytes,
    outgoing: PollSender<Bytes>,
    ended: Ended,
    _abandon: DropGuard,
}

/// A piece of data and its share of the queue, given back when the reader takes it.
struct Piece {
    data: Bytes,
    _share: OwnedSemaphorePermit,
}

impl ChannelIo {
    pub(super) fn new(
        (read_half, write_half): Halves,
        ended: Ended,
        lag: Lag,
        keep: Keep,
        relay: Option<Relay>,
    ) -> Self {
        let (queue, incoming) = mpsc::unbounded_channel();
        let (outgoing, pieces) = mpsc::channel(WRITE_PIECES_MAX);
        let abandoned = CancellationToken::new();
        let writer = tokio::spawn(write_pieces(Arc::clone(&write_half), pieces));
        let pump = ReadPump {
            read_half,
            queue: Some(queue),
            room: Arc::new(Semaphore::new(QUEUE_MAX_BYTES)),
            ended: ended.clone(),
            abandoned: abandoned.clone(),
            lag,
            relay,
        };
        tokio::spawn(async move {
            let writer = AbortOnDropHandle::new(writer);
            if pump.run().await == Finish::WeClose {
                // A connection that is gone needs no closing.
                let _ = write_half.close().await;
            }
            drop(writer);
            drop(keep);
        });
        Self {
            incoming,
            current: Bytes::new(),
            outgoing: PollSender::new(outgoing),
            ended,
            _abandon: abandoned.drop_guard(),
        }
    }
}

async fn write_pieces(write_half: Arc<ChannelWriteHalf<Msg>>, mut pieces: mpsc::Receiver<Bytes>) {
    while let Some(piece) = pieces.recv().await {
        if write_half.data_bytes(piece).await.is_err() {
            return;
        }
    }
    let _ = write_half.eof().await;
}

#[derive(PartialEq, Eq)]
enum Finish {
    /// The host closed the channel, or the connection is gone.
    Closed,
    /// We are done with it and the host does not know yet.
    WeClose,
}

struct ReadPump {
    read_half: ChannelReadHalf,
    /// Gone after the end of file.
    queue: Option<mpsc::UnboundedSender<Result<Piece, TransportError>>>,
    room: Arc<Semaphore>,
    ended: Ended,
    abandoned: CancellationToken,
    lag: Lag,
    relay: Option<Relay>,
}

impl ReadPump {
    async fn run(mut self) -> Finish {
        let mut exit_status = None;
        let mut complaint = Vec::new();
        loop {
            let message = tokio::select! {
                biased;
                () = self.abandoned.cancelled() => return self.let_go().await,
                message = self.read_half.wait() => message,
            };
            match message {
                Some(ChannelMsg::Data { data }) => {
                    if let Some(relay) = &self.relay {
                        let _ = relay.forwarding.set(Forwarding::Forbidden);
                    }
                    if let Some(finish) = self.enqueue(data).await {
                        return finish;
                    }
                }
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    let room = COMPLAINT_MAX_BYTES - complaint.len().min(COMPLAINT_MAX_BYTES);
                    complaint.extend(data.iter().take(room));
                }
                Some(ChannelMsg::ExitStatus { exit_status: code }) => exit_status = Some(code),
                // How a relay command ended comes after the end of its output.
                Some(ChannelMsg::Eof) if self.relay.is_none() => self.queue = None,
                Some(ChannelMsg::Close) => {
                    if let Some(code) = exit_status.filter(|code| *code != 0)
                        && let Some(relay) = &self.relay
                    {
                        let error = (relay.failure)(code, &String::from_utf8_lossy(&complaint));
                        self.fail(error);
                    }
                    return Finish::Closed;
                }
                Some(_) => {}
                None => {
                    let error = last_words(&mut self.ended).await;
                    self.fail(error);
                    return Finish::Closed;
                }
            }
        }
    }

    fn fail(&mut self, error: TransportError) {
        if let Some(queue) = self.queue.take() {
            let _ = queue.send(Err(error));
        }
    }

    async fn enqueue(&mut self, data: Bytes) -> Option<Finish> {
        let cost = (data.len() + PIECE_COST_BYTES).min(QUEUE_MAX_BYTES);
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room);
        let share = match room.try_acquire_many_owned(cost) {
            Ok(share) => share,
            Err(_) if self.lag == Lag::Cut => {
                self.fail(TransportError::ReaderTooSlow { limit_bytes: QUEUE_MAX_BYTES });
                return Some(Finish::WeClose);
            }
            Err(_) => {
                let acquired = tokio::select! {
                    () = self.abandoned.cancelled() => return Some(Finish::WeClose),
                    error = end_of(&mut self.ended) => {
                        self.fail(error);
                        return Some(Finish::Closed);
                    }
                    acquired = Arc::clone(&self.room).acquire_many_owned(cost) => acquired,
                };
                let Ok(share) = acquired else {
                    return Some(Finish::WeClose);
                };
                share
            }
        };
        if let Some(queue) = &self.queue {
            let _ = queue.send(Ok(Piece { data, _share: share }));
        }
        None
    }

    /// The reader is gone, and the writer has said end of file. A host that closes its side leaves
    /// nothing behind here; one that does not is closed without asking.
    async fn let_go(mut self) -> Finish {
        if self.lag == Lag::Wait {
            return Finish::WeClose;
        }
        let closed = async {
            loop {
                match self.read_half.wait().await {
                    Some(ChannelMsg::Close) | None => return,
                    Some(_) => {}
                }
            }
        };
        match timeout(CLOSE_GRACE, closed).await {
            Ok(()) => Finish::Closed,
            Err(_) => Finish::WeClose,
        }
    }
}

impl AsyncRead for ChannelIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.current.is_empty() {
            match ready!(self.incoming.poll_recv(cx)) {
                Some(Ok(piece)) => self.current = piece.data,
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.current.len().min(buf.remaining());
        buf.put_slice(&self.current.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ChannelIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if ready!(self.outgoing.poll_reserve(cx)).is_err() {
            return Poll::Ready(Err(self.write_error()));
        }
        let piece = buf.get(..WRITE_PIECE_MAX_BYTES).unwrap_or(buf);
        let sent = self.outgoing.send_item(Bytes::copy_from_slice(piece));
        Poll::Ready(sent.map(|()| piece.len()).map_err(|_| self.write_error()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.close();
        Poll::Ready(Ok(()))
    }
}

impl ChannelIo {
    fn write_error(&self) -> io::Error {
        match self.ended.borrow().clone() {
            Some(error) => error.into(),
            None => io::ErrorKind::BrokenPipe.into(),
        }
    }
}
