//! What happened, in words: identical for identical seeds (S22).

use crate::model::time::Timestamp;

/// A trace; only its hash is kept unless words are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    lines: Option<Vec<String>>,
    hash: u64,
}

impl Trace {
    pub(super) fn new(keep: bool) -> Self {
        Self { lines: keep.then(Vec::new), hash: 0xcbf2_9ce4_8422_2325 }
    }

    pub(super) fn line(&mut self, now: Timestamp, text: impl FnOnce() -> String) {
        let line = format!("{:>8.3} s  {}", (now.0 % 100_000_000) as f64 / 1000.0, text());
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(line);
        }
    }

    pub(super) fn into_parts(self) -> (u64, Vec<String>) {
        (self.hash, self.lines.unwrap_or_default())
    }
}
