//! What is spoken after the upgrade to [`PROTOCOL`]: one byte kind, four bytes length (big-endian), the payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io;
use tokio_util::codec::{Decoder, Encoder};

/// The protocol's name in the `Upgrade` header.
pub const PROTOCOL: &str = "roadstead-exec/1";
/// Most bytes of one payload; longer data goes in several frames.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 10;
const HEAD_BYTES: usize = 5;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// To the command; empty: its input ends.
    Stdin(Bytes),
    /// From the command.
    Stdout(Bytes),
    /// From the command.
    Stderr(Bytes),
    /// The terminal's size.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters.
        columns: u16,
    },
    /// The command ended with this code; the last frame.
    Exit(i64),
    /// The controller cannot go on, in words; the last frame.
    Error(String),
}

/// Reads and writes [`Frame`]s.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameCodec;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const RESIZE: u8 = 3;
const EXIT: u8 = 4;
const ERROR: u8 = 5;

impl Encoder<Frame> for FrameCodec {
    type Error = io::Error;

    fn encode(&mut self, frame: Frame, into: &mut BytesMut) -> io::Result<()> {
        let (kind, payload) = match frame {
            Frame::Stdin(bytes) => (STDIN, bytes),
            Frame::Stdout(bytes) => (STDOUT, bytes),
            Frame::Stderr(bytes) => (STDERR, bytes),
            Frame::Resize { rows, columns } => {
                let mut payload = BytesMut::with_capacity(4);
                payload.put_u16(rows);
                payload.put_u16(columns);
                (RESIZE, payload.freeze())
            }
            Frame::Exit(code) => (EXIT, Bytes::copy_from_slice(&code.to_be_bytes())),
            Frame::Error(text) => (ERROR, Bytes::from(text)),
        };
        let mut rest = payload;
        loop {
            let piece = rest.split_to(rest.len().min(MAX_PAYLOAD_BYTES));
            into.reserve(HEAD_BYTES + piece.len());
            into.put_u8(kind);
            into.put_u32(piece.len() as u32);
            into.put_slice(&piece);
            // A text that is too long is cut; data goes on in the next frame.
            if rest.is_empty() || kind == ERROR {
                return Ok(());
            }
        }
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, from: &mut BytesMut) -> io::Result<Option<Frame>> {
        let Some(mut head) = from.get(..HEAD_BYTES) else { return Ok(None) };
        let (kind, length) = (head.get_u8(), head.get_u32() as usize);
        if length > MAX_PAYLOAD_BYTES {
            return Err(invalid("a frame is too long"));
        }
        if from.len() < HEAD_BYTES + length {
            from.reserve(HEAD_BYTES + length - from.len());
            return Ok(None);
        }
        from.advance(HEAD_BYTES);
        let mut payload = from.split_to(length).freeze();
        let frame = match (kind, length) {
            (STDIN, _) => Frame::Stdin(payload),
            (STDOUT, _) => Frame::Stdout(payload),
            (STDERR, _) => Frame::Stderr(payload),
            (RESIZE, 4) => Frame::Resize { rows: payload.get_u16(), columns: payload.get_u16() },
            (EXIT, 8) => Frame::Exit(payload.get_i64()),
            (ERROR, _) => Frame::Error(String::from_utf8_lossy(&payload).into_owned()),
            _ => return Err(invalid("a frame of no known kind")),
        };
        Ok(Some(frame))
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> io::Result<Vec<Frame>> {
        let mut buffer = BytesMut::from(bytes);
        std::iter::from_fn(|| FrameCodec.decode(&mut buffer).transpose()).collect()
    }

    #[test]
    fn frames_come_back_as_they_were() {
        let frames = [
            Frame::Stdin(Bytes::from_static(b"ls\n")),
            Frame::Stdin(Bytes::new()),
            Frame::Stdout(Bytes::from_static(&[0, 255])),
            Frame::Stderr(Bytes::from_static(b"x")),
            Frame::Resize { rows: 24, columns: 300 },
            Frame::Exit(-1),
            Frame::Error("gone".to_owned()),
        ];
        let mut wire = BytesMut::new();
        for frame in &frames {
            FrameCodec.encode(frame.clone(), &mut wire).unwrap();
        }
        assert_eq!(decoded(&wire).unwrap(), frames);
        for cut in 0..wire.len() {
            let some = decoded(&wire[..cut]).unwrap();
            assert_eq!(some, frames[..some.len()], "cut at {cut}");
        }
    }

    #[test]
    fn long_data_is_split_and_long_frames_are_refused() {
        let mut wire = BytesMut::new();
        FrameCodec.encode(Frame::Stdout(vec![7; MAX_PAYLOAD_BYTES + 1].into()), &mut wire).unwrap();
        let lengths: Vec<usize> = decoded(&wire)
            .unwrap()
            .iter()
            .map(|frame| if let Frame::Stdout(bytes) = frame { bytes.len() } else { 0 })
            .collect();
        assert_eq!(lengths, [MAX_PAYLOAD_BYTES, 1]);
        for bad in [[1, 255, 255, 255, 255].as_slice(), &[9, 0, 0, 0, 0], &[3, 0, 0, 0, 1, 0], &[4, 0, 0, 0, 0]] {
            assert!(decoded(bad).is_err(), "{bad:?}");
        }
    }
}
