//! Commands inside containers: the upgraded connection carries their input and their output.

use std::io;

use bollard::models::{ExecConfig, ExecStartConfig};
use bollard::query_parameters::{ResizeExecOptions, ResizeExecOptionsBuilder};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use http::header;
use hyper_util::rt::TokioIo;
use tokio_util::codec::{Decoder, FramedRead};

use super::call::Call;
use super::{EngineError, EngineStream, ExecId, ExecOptions, ExecOutput, ExecSession, OutputStream};

pub(super) fn config(options: &ExecOptions) -> ExecConfig {
    ExecConfig {
        attach_stdin: Some(options.stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(options.tty),
        env: Some(options.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        cmd: Some(options.argv.clone()),
        user: options.user.clone(),
        working_dir: options.working_directory.clone(),
        ..ExecConfig::default()
    }
}

pub(super) fn size(rows: u16, columns: u16) -> ResizeExecOptions {
    ResizeExecOptionsBuilder::new().h(rows.into()).w(columns.into()).build()
}

/// Starts a prepared command. bollard would take a terminal's first bytes for a frame header and wait
/// for frames as a whole, hence the request and the frames are read here.
pub(super) async fn start(call: Call, id: ExecId, tty: bool) -> Result<ExecSession, EngineError> {
    let body = ExecStartConfig { detach: Some(false), tty: Some(tty), ..ExecStartConfig::default() };
    let body = serde_json::to_vec(&body).map_err(|error| call.malformed(&error.to_string()))?;
    let request = http::Request::post(format!("/exec/{}/start", id.0))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "tcp")
        .body(bollard::body_full(Bytes::from(body)))
        .map_err(|error| call.malformed(&error.to_string()))?;
    let (upgraded, connection) = call.upgrade(request).await?;
    let (read, write) = tokio::io::split(TokioIo::new(upgraded));
    let frames = FramedRead::new(read, Frames::new(tty));
    let output = futures_util::stream::unfold(Some((frames, call, connection)), |state| async {
        let (mut frames, call, connection) = state?;
        let item = frames.next().await?.map_err(|error| call.failure(error.into()));
        let next = item.is_ok().then_some((frames, call, connection));
        Some((item, next))
    });
    let output: EngineStream<ExecOutput> = Box::pin(output);
    Ok(ExecSession { id, input: Box::pin(write), output })
}

/// Docker's stream format: a header of 8 bytes (output, 0, 0, 0, length) and so many bytes; with a
/// terminal the bare bytes. Pieces are handed out as they come, so nothing has to fit into memory.
struct Frames {
    tty: bool,
    stream: OutputStream,
    left: usize,
}

impl Frames {
    fn new(tty: bool) -> Self {
        Self { tty, stream: OutputStream::Stdout, left: 0 }
    }
}

impl Decoder for Frames {
    type Item = ExecOutput;
    type Error = io::Error;

    fn decode(&mut self, source: &mut BytesMut) -> io::Result<Option<ExecOutput>> {
        if self.tty {
            self.left = source.len();
        }
        while self.left == 0 {
            let Some((header, _)) = source.split_first_chunk::<8>() else {
                return Ok(None);
            };
            let [output, _, _, _, a, b, c, d] = *header;
            self.stream = match output {
                // Docker reports its own failures on output 3.
                0 | 1 => OutputStream::Stdout,
                2 | 3 => OutputStream::Stderr,
                _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "no frame of Docker's")),
            };
            self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            source.advance(8);
        }
        let ready = source.len().min(self.left);
        self.left -= ready;
        let bytes = source.split_to(ready).freeze();
        Ok((!bytes.is_empty()).then_some(ExecOutput { stream: self.stream, bytes }))
    }

    fn decode_eof(&mut self, source: &mut BytesMut) -> io::Result<Option<ExecOutput>> {
        match self.decode(source)? {
            Some(item) => Ok(Some(item)),
            None if self.tty || (source.is_empty() && self.left == 0) => Ok(None),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(tty: bool, chunks: &[&[u8]]) -> io::Result<Vec<(OutputStream, Vec<u8>)>> {
        let (mut frames, mut buffer, mut out) = (Frames::new(tty), BytesMut::new(), Vec::new());
        for chunk in chunks {
            buffer.extend_from_slice(chunk);
            while let Some(item) = frames.decode(&mut buffer)? {
                out.push((item.stream, item.bytes.to_vec()));
            }
        }
        while let Some(item) = frames.decode_eof(&mut buffer)? {
            out.push((item.stream, item.bytes.to_vec()));
        }
        Ok(out)
    }

    #[test]
    fn frames_are_read_however_they_are_cut() {
        use OutputStream::{Stderr, Stdout};
        let bytes = b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\x01!";
        let whole = decode(false, &[bytes]).expect("frames");
        assert_eq!(whole, [(Stdout, b"hi".to_vec()), (Stderr, b"!".to_vec())]);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        let cut = decode(false, &single).expect("frames");
        assert_eq!(cut, [(Stdout, b"h".to_vec()), (Stdout, b"i".to_vec()), (Stderr, b"!".to_vec())]);
        let raw = decode(true, &[b"\x01raw", b"\x02"]).expect("bytes");
        assert_eq!(raw, [(Stdout, b"\x01raw".to_vec()), (Stdout, b"\x02".to_vec())]);
    }

    #[test]
    fn broken_frames_are_errors_and_huge_ones_are_not_waited_for() {
        assert!(decode(false, &[b"HTTP/1.1 200"]).is_err());
        assert!(decode(false, &[b"\x01\0\0\0\0\0\0\x05hi"]).is_err(), "cut off");
        assert!(decode(false, &[b"\x01\0\0"]).is_err(), "cut off");
        let mut frames = Frames::new(false);
        let mut buffer = BytesMut::from(&b"\x01\0\0\0\xff\xff\xff\xffhi"[..]);
        let item = frames.decode(&mut buffer).expect("a frame").expect("its first bytes");
        assert_eq!(&item.bytes[..], b"hi");
        assert!(buffer.is_empty());
    }
}
