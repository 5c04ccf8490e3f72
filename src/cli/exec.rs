//! `exec`: a command inside a container.

use std::{
    convert::Infallible,
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use clap::Args;
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use rustix::termios::{self, OptionalActions, Termios};
use tokio::{
    io::{AsyncWrite, split},
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tokio_util::codec::{FramedRead, FramedWrite};

use super::{Context, client::path, failure::Failure, name::resolve};
use crate::api::{
    frame::{Frame, FrameCodec},
    routes::ExecRequest,
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  roadstead exec web -- env                      in one of the service's running tasks
  roadstead exec -it task/3fa9c2 -- sh           an interactive shell
  echo hello | roadstead exec -i web -- cat
  roadstead exec web -c sidecar -- ps

The exit status is the command's own.")]
pub(super) struct Options {
    /// A task, or a service: then one of its running tasks
    #[arg(value_name = "TASK|SERVICE")]
    subject: String,
    /// The container in the task; the first essential one when absent
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Pass on standard input
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give it a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// The command, after `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Pieces of standard input on their way.
const QUEUE: usize = 16;
const PIECE_BYTES: usize = 16 << 10;

pub(super) async fn run(context: &Context, options: Options) -> Result<(), Failure> {
    if options.tty && !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(Failure::not_tried("-t needs a terminal on standard input and output").hint("leave -t out"));
    }
    let subject = resolve(&context.client, &options.subject).await?;
    let request = ExecRequest {
        argv: options.command,
        container: options.container,
        tty: options.tty,
        stdin: options.stdin,
        size: options.tty.then(size).flatten(),
    };
    let connection = context.client.upgrade(&path(&["exec", subject.kind, &subject.name], &[]), &request).await?;
    let (reader, writer) = split(TokioIo::new(connection));
    let resized = match options.tty {
        true => Some(signal(SignalKind::window_change()).map_err(Failure::not_tried)?),
        false => None,
    };
    // Restored when it is dropped, and by the panic hook.
    let raw = if options.tty { Some(RawTerminal::enter()?) } else { None };
    let feed = feed(FramedWrite::new(writer, FrameCodec), options.stdin, resized);
    let ended = tokio::select! {
        ended = show(FramedRead::new(reader, FrameCodec)) => ended,
        never = feed => match never {},
        () = terminated() => Err(Failure::Status(130)),
    };
    drop(raw);
    match ended? {
        0 => Ok(()),
        code => Err(Failure::Status(u8::try_from(code).unwrap_or(255))),
    }
}

/// Prints until the command ends; its exit code.
async fn show(mut frames: FramedRead<impl tokio::io::AsyncRead + Unpin, FrameCodec>) -> Result<i64, Failure> {
    while let Some(frame) = frames.next().await {
        match frame.map_err(lost)? {
            Frame::Stdout(bytes) => put(&mut io::stdout().lock(), &bytes)?,
            Frame::Stderr(bytes) => put(&mut io::stderr().lock(), &bytes)?,
            Frame::Exit(code) => return Ok(code),
            Frame::Error(text) => return Err(Failure::failed(text)),
            Frame::Stdin(_) | Frame::Resize { .. } => {}
        }
    }
    Err(lost(io::ErrorKind::UnexpectedEof.into()))
}

fn put(out: &mut impl Write, bytes: &[u8]) -> Result<(), Failure> {
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Sends input and sizes. Never ends: when the other side takes no more, its last frame is still on its way, and tells
/// more than an error here.
async fn feed<W: AsyncWrite + Unpin>(
    mut frames: FramedWrite<W, FrameCodec>,
    stdin: bool,
    resized: Option<Signal>,
) -> Infallible {
    let (mut input, mut resized) = (stdin.then(read_stdin), resized);
    if input.is_none() && frames.send(Frame::Stdin(Bytes::new())).await.is_err() {
        return std::future::pending().await;
    }
    loop {
        let frame = tokio::select! {
            piece = next(&mut input) => {
                if piece.is_none() {
                    input = None;
                }
                Frame::Stdin(piece.unwrap_or_default())
            }
            (rows, columns) = next_size(&mut resized) => Frame::Resize { rows, columns },
        };
        if frames.send(frame).await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// The terminal's size whenever it changes.
async fn next_size(resized: &mut Option<Signal>) -> (u16, u16) {
    let Some(signal) = resized else { return std::future::pending().await };
    loop {
        if signal.recv().await.is_none() {
            return std::future::pending().await;
        }
        if let Some(size) = size() {
            return size;
        }
    }
}

/// The next piece; never again after the end.
async fn next(input: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    match input {
        Some(pieces) => pieces.recv().await,
        None => std::future::pending().await,
    }
}

/// Standard input in a thread of its own: a read of a terminal cannot be called off.
fn read_stdin() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    std::thread::spawn(move || {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(length @ 1..) = io::Read::read(&mut io::stdin(), &mut buffer) {
            let piece = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
            if sender.blocking_send(piece).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn terminated() {
    let mut signals =
        [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()].map(signal).into_iter().flatten();
    let (Some(mut terminate), Some(mut hangup), Some(mut interrupt)) = (signals.next(), signals.next(), signals.next())
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn size() -> Option<(u16, u16)> {
    termios::tcgetwinsize(io::stdout()).ok().map(|size| (size.ws_row, size.ws_col))
}

fn lost(error: io::Error) -> Failure {
    Failure::not_tried(format!("the connection to the controller was lost: {error}; the command may still run"))
}

/// The terminal without echo, lines and signals of its own, until dropped.
struct RawTerminal(Arc<Mutex<Option<Termios>>>);

impl RawTerminal {
    fn enter() -> Result<Self, Failure> {
        let before = termios::tcgetattr(io::stdin()).map_err(Failure::not_tried)?;
        let mut raw = before.clone();
        raw.make_raw();
        let saved = Arc::new(Mutex::new(Some(before)));
        let (in_hook, earlier) = (Arc::clone(&saved), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            restore(&in_hook);
            earlier(panic);
        }));
        termios::tcsetattr(io::stdin(), OptionalActions::Flush, &raw).map_err(Failure::not_tried)?;
        Ok(Self(saved))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore(&self.0);
    }
}

fn restore(saved: &Mutex<Option<Termios>>) {
    if let Some(before) = saved.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // Nothing better can be done when the terminal is gone.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Flush, &before);
    }
}
