//! What containers printed, as lines. Time stamps are always asked for and taken off the lines.

use bollard::container::LogOutput;
use bollard::query_parameters::{LogsOptions, LogsOptionsBuilder};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::view::timestamp;
use super::{EngineError, EngineStream, LogLine, LogOptions, OutputStream};
use roadstead_core::model::time::Timestamp;

/// Docker cuts long lines into pieces of 16 KiB; they are joined again up to this.
const LINE_MAX_BYTES: usize = 64 * 1024;

pub(super) fn query(options: &LogOptions) -> LogsOptions {
    let mut query = LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true).follow(options.follow);
    if let Some(Timestamp(ms)) = options.since {
        query = query.since(i32::try_from(ms / 1000).unwrap_or(i32::MAX));
    }
    if let Some(tail) = options.tail {
        query = query.tail(&tail.to_string());
    }
    query.build()
}

pub(super) fn lines(output: EngineStream<LogOutput>) -> EngineStream<LogLine> {
    let lines = futures_util::stream::unfold((output, Some(Assembler::default())), |(mut output, state)| async {
        let mut assembler = state?;
        loop {
            let item: Result<LogLine, EngineError> = match output.next().await {
                Some(Ok(piece)) => match assembler.push(piece) {
                    Some(line) => Ok(line),
                    None => continue,
                },
                Some(Err(error)) => return Some((Err(error), (output, None))),
                None => return assembler.rest().map(|line| (Ok(line), (output, Some(assembler)))),
            };
            return Some((item, (output, Some(assembler))));
        }
    });
    Box::pin(lines)
}

/// Joins the pieces of long lines, apart for each output.
#[derive(Default)]
struct Assembler {
    stdout: Option<Partial>,
    stderr: Option<Partial>,
}

struct Partial {
    at: Option<Timestamp>,
    bytes: BytesMut,
}

impl Assembler {
    fn push(&mut self, piece: LogOutput) -> Option<LogLine> {
        let (stream, message) = match piece {
            LogOutput::StdErr { message } => (OutputStream::Stderr, message),
            LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message } => {
                (OutputStream::Stdout, message)
            }
        };
        let (at, text) = split_timestamp(&message);
        let ends = text.last() == Some(&b'\n');
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let slot = self.slot(stream);
        let partial = slot.get_or_insert_with(|| Partial { at, bytes: BytesMut::new() });
        partial.bytes.extend_from_slice(text);
        if !ends && partial.bytes.len() < LINE_MAX_BYTES {
            return None;
        }
        slot.take().map(|partial| partial.line(stream))
    }

    /// A line that was not ended when the output was.
    fn rest(&mut self) -> Option<LogLine> {
        [OutputStream::Stdout, OutputStream::Stderr]
            .into_iter()
            .find_map(|stream| self.slot(stream).take().map(|partial| partial.line(stream)))
    }

    fn slot(&mut self, stream: OutputStream) -> &mut Option<Partial> {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }
}

impl Partial {
    fn line(self, stream: OutputStream) -> LogLine {
        LogLine { stream, at: self.at, bytes: self.bytes.freeze() }
    }
}

fn split_timestamp(message: &Bytes) -> (Option<Timestamp>, &[u8]) {
    // `2006-01-02T15:04:05.000000000+00:00` is 35 bytes long.
    let space = message.iter().take(40).position(|byte| *byte == b' ');
    let stamp = space.and_then(|space| message.get(..space)).and_then(|stamp| std::str::from_utf8(stamp).ok());
    match (stamp.and_then(timestamp), space) {
        (Some(at), Some(space)) => (Some(at), message.get(space + 1..).unwrap_or_default()),
        (Some(_) | None, Some(_) | None) => (None, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &str) -> Result<LogOutput, EngineError> {
        let message = Bytes::from(format!("2026-01-02T03:04:05.678901234Z {text}"));
        Ok(LogOutput::StdOut { message })
    }

    async fn assemble(pieces: Vec<Result<LogOutput, EngineError>>) -> Vec<Result<LogLine, EngineError>> {
        lines(Box::pin(futures_util::stream::iter(pieces))).collect().await
    }

    #[tokio::test]
    async fn long_lines_are_joined_and_bounded() {
        let flood = "x".repeat(16 * 1024);
        let mut pieces = vec![piece("one\r\n"), piece("tw"), piece("o\n"), piece("\n")];
        pieces.extend((0..5).map(|_| piece(&flood)));
        let message = Bytes::from_static(b"no stamp\n");
        pieces.insert(2, Ok(LogOutput::StdErr { message }));
        let lines = assemble(pieces).await;
        let lines: Vec<LogLine> = lines.into_iter().map(|line| line.expect("a line")).collect();
        let texts: Vec<&[u8]> = lines.iter().take(4).map(|line| &*line.bytes).collect();
        assert_eq!(texts, [&b"one"[..], b"no stamp", b"two", b""]);
        assert_eq!(lines[0].at.map(|at| at.to_string()).as_deref(), Some("2026-01-02T03:04:05.678Z"));
        assert_eq!((lines[1].at, lines[1].stream), (None, OutputStream::Stderr));
        let lengths: Vec<usize> = lines.iter().skip(4).map(|line| line.bytes.len()).collect();
        assert_eq!(lengths, [64 * 1024, 16 * 1024]);
    }

    #[tokio::test]
    async fn nothing_follows_an_error() {
        let error = EngineError::NotFound { what: "x".into() };
        let lines = assemble(vec![piece("a\n"), Err(error), piece("b\n")]).await;
        assert!(matches!(lines[..], [Ok(_), Err(EngineError::NotFound { .. })]));
    }
}
