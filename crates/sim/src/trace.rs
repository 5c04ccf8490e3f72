//! What happened, in words; and its hash, which is the same for the same seed (S22).

use roadstead_core::model::time::Timestamp;

/// What becomes of a trace's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// They are never made.
    Nothing,
    /// They are kept.
    Keep,
    /// They are printed as they happen.
    Print,
}

/// A trace.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    tell: Tell,
    lines: Vec<String>,
    hash: u64,
}

impl Trace {
    pub(crate) fn new(tell: Tell) -> Self {
        Self { tell, lines: Vec::new(), hash: 0xcbf2_9ce4_8422_2325 }
    }

    /// `marks` go into the hash, and `words` are for people.
    pub(crate) fn line(&mut self, now: Timestamp, marks: &[&str], words: impl FnOnce() -> String) {
        self.mix(now.0);
        for mark in marks {
            for chunk in mark.as_bytes().chunks(8) {
                let mut bytes = [0; 8];
                bytes[..chunk.len()].copy_from_slice(chunk);
                self.mix(u64::from_le_bytes(bytes));
            }
        }
        let line = || format!("{:>9.3} s  {}", (now.0 % 100_000_000) as f64 / 1000.0, words());
        match self.tell {
            Tell::Nothing => {}
            Tell::Keep => self.lines.push(line()),
            Tell::Print => println!("{}", line()),
        }
    }

    fn mix(&mut self, value: u64) {
        self.hash = (self.hash.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines
    }
}
