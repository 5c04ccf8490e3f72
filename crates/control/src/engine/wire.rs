//! HTTP connections to one engine's socket. It knows for each request whether any of it was sent, and
//! bounds what an answer may bring.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, Response, header};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;

use crate::host::{BoxIo, Lane, Transport, TransportError};

/// The body type of bollard's requests, which it gives no name to.
type Body = Either<Full<Bytes>, StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, io::Error>> + Send>>>>;
pub(super) type Request = http::Request<Body>;

/// Connections kept open for the next call. The control loops run fewer calls per host at once.
const IDLE_MAX: usize = 8;
/// Docker's answers have about ten header lines.
const HEADER_MAX_BYTES: usize = 64 * 1024;
/// An answer's bytes per JSON object, at least, on average: `{}` alone takes hundreds of bytes of memory once it is read.
const BYTES_PER_OBJECT: u64 = 64;

/// The way to one engine.
pub(super) struct Wire {
    transport: Arc<dyn Transport>,
    socket: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

/// One HTTP connection; it is closed when this is dropped.
pub(super) struct Connection {
    sender: SendRequest<Body>,
    meter: Arc<Meter>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why no answer came.
#[derive(Debug)]
pub(super) enum WireError {
    /// Nothing was sent.
    NotSent(TransportError),
    /// Something may have been sent.
    Sent(hyper::Error),
}

impl Wire {
    pub(super) fn new(transport: Arc<dyn Transport>, socket: PathBuf) -> Self {
        Self { transport, socket, idle: Mutex::default() }
    }

    /// Sends `request` on an idle connection, or a new one, whose answer may be `limit_bytes` long.
    /// `sent` turns true before the first byte can leave.
    pub(super) async fn exchange(
        &self,
        mut request: Request,
        lane: Lane,
        limit_bytes: u64,
        sent: &AtomicBool,
    ) -> Result<(Response<Incoming>, Connection), WireError> {
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("docker"));
        // Each round but the last uses up an idle connection.
        loop {
            let reused = match lane {
                Lane::Calls => self.take_idle().await,
                Lane::Streams | Lane::Bulk => None,
            };
            let is_reused = reused.is_some();
            let mut connection = match reused {
                Some(connection) => connection,
                None => self.connect(lane).await.map_err(WireError::NotSent)?,
            };
            connection.meter.allow(limit_bytes);
            match lane {
                Lane::Calls => connection.meter.allow_objects(limit_bytes / BYTES_PER_OBJECT),
                Lane::Streams | Lane::Bulk => {}
            }
            sent.store(true, Ordering::SeqCst);
            let mut error = match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok((response, connection)),
                Err(error) => error,
            };
            // The request comes back only when no byte of it was written.
            let Some(unsent) = error.take_message() else {
                let error = error.into_error();
                return Err(match nobody_listened(&error) {
                    Some(missing) => WireError::NotSent(missing),
                    None => WireError::Sent(error),
                });
            };
            sent.store(false, Ordering::SeqCst);
            if !is_reused {
                let detail = format!("the engine closed the connection: {}", error.into_error());
                return Err(WireError::NotSent(TransportError::Lost { detail }));
            }
            request = unsent;
        }
    }

    /// Keeps a connection whose answer has been read to its end.
    pub(super) fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
    }

    async fn take_idle(&self) -> Option<Connection> {
        loop {
            let mut connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if connection.sender.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    async fn connect(&self, lane: Lane) -> Result<Connection, TransportError> {
        let io = self.transport.dial(&self.socket, lane).await?;
        let meter = Arc::new(Meter::default());
        let metered = MeteredIo { io, meter: Arc::clone(&meter) };
        let (sender, connection) = http1::Builder::new()
            .max_header_size(HEADER_MAX_BYTES)
            .handshake(TokioIo::new(metered))
            .await
            .map_err(|error| TransportError::Lost { detail: error.to_string() })?;
        let task = tokio::spawn(drive(connection.with_upgrades()));
        Ok(Connection { sender, meter, task })
    }
}

impl Connection {
    /// The bound on what this connection may still bring.
    pub(super) fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }
}

/// Errors of a connection reach whoever waits for its answer; here they would be told twice.
async fn drive(connection: impl Future<Output = hyper::Result<()>>) {
    let _ = connection.await;
}

/// How many more bytes may be read before somebody asks for more; none at first.
#[derive(Debug, Default)]
pub(super) struct Meter {
    remaining_bytes: AtomicU64,
    remaining_objects: AtomicU64,
    exceeded: AtomicBool,
}

impl Meter {
    /// From now on `bytes` may come, of whatever sort.
    pub(super) fn allow(&self, bytes: u64) {
        self.remaining_bytes.store(bytes, Ordering::SeqCst);
        self.allow_objects(u64::MAX);
    }

    fn allow_objects(&self, objects: u64) {
        self.remaining_objects.store(objects, Ordering::SeqCst);
    }

    /// Whether more came than was allowed. The connection is dead then.
    pub(super) fn exceeded(&self) -> bool {
        self.exceeded.load(Ordering::SeqCst)
    }

    fn spend(&self, read: &[u8]) -> io::Result<()> {
        let objects = read.iter().filter(|byte| **byte == b'{').count();
        let take = |from: &AtomicU64, some: usize| {
            from.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |remaining| remaining.checked_sub(some as u64))
                .is_ok()
        };
        if take(&self.remaining_bytes, read.len()) && take(&self.remaining_objects, objects) {
            return Ok(());
        }
        self.exceeded.store(true, Ordering::SeqCst);
        Err(io::Error::other("the answer is too long"))
    }
}

struct MeteredIo {
    io: BoxIo,
    meter: Arc<Meter>,
}

impl AsyncRead for MeteredIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        Poll::Ready(self.meter.spend(buf.filled().get(before..).unwrap_or_default()))
    }
}

impl AsyncWrite for MeteredIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A relay takes a request before it knows that nobody listens at the socket: no engine has seen such a one.
fn nobody_listened(error: &hyper::Error) -> Option<TransportError> {
    let cause = std::error::Error::source(error)?.downcast_ref::<io::Error>()?;
    TransportError::of_io(cause).filter(|cause| matches!(cause, TransportError::SocketMissing { .. })).cloned()
}
