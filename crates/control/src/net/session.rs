//! A shell in the node that is told script after script: one line home and back each, where a command of its own would cost
//! the engine a tenth of a second.

use std::time::Duration;

use futures_util::StreamExt;
use rand::Rng;
use tokio::{io::AsyncWriteExt, time::timeout};

use super::NetError;
use crate::engine::{Engine, ExecOptions, ExecSession};
use roadstead_core::model::name::RuntimeId;

/// No script takes longer.
const DEADLINE: Duration = Duration::from_secs(30);
/// What a script prints beyond this is not read: the shell is given up.
const OUTPUT_MAX_BYTES: usize = 8 << 20;

/// Says whose turn it is: what a shell that was given up still reads, it does not do.
const TURN: &str = "/run/roadstead.turn";
/// How a script ends that is not listened to any more.
const OVERTAKEN: i32 = 75;

/// A running shell.
pub(crate) struct Session {
    shell: ExecSession,
    /// Ends what a script prints: no script can print it by chance.
    mark: String,
    /// What came after the last mark.
    rest: Vec<u8>,
}

impl Session {
    /// Starts a shell in the node, and ends the turn of the one before.
    ///
    /// # Errors
    /// As the engine's.
    pub(crate) async fn open(engine: &dyn Engine, node: &RuntimeId) -> Result<Self, NetError> {
        let options = ExecOptions { argv: vec!["/bin/sh".to_owned()], stdin: true, ..ExecOptions::default() };
        let shell = engine.exec(node, options).await?;
        let mark = format!("--{:032x}--", rand::rng().random::<u128>());
        let begin = format!("echo '{mark}' >{TURN}");
        let mut session = Self { shell, mark, rest: Vec::new() };
        session.tell("to begin a session", &begin).await?;
        Ok(session)
    }

    /// Runs a script in a subshell that ends with its first failure, and returns what it printed.
    ///
    /// # Errors
    /// [`NetError::Refused`] with its output when it failed; [`NetError::Lost`] when the shell is of no use any more.
    pub(crate) async fn run(&mut self, what: &str, script: &str) -> Result<String, NetError> {
        let in_turn = format!("[ \"$(cat {TURN})\" = '{}' ] || exit {OVERTAKEN}\n{script}", self.mark);
        self.tell(what, &in_turn).await
    }

    async fn tell(&mut self, what: &str, script: &str) -> Result<String, NetError> {
        let text = format!("( set -e\n{script}\n) </dev/null 2>&1\necho \"{} $?\"\n", self.mark);
        let work = async {
            let lost = |error: std::io::Error| NetError::Lost(error.to_string());
            self.shell.input.write_all(text.as_bytes()).await.map_err(lost)?;
            self.shell.input.flush().await.map_err(lost)?;
            self.answer().await
        };
        let answered = timeout(DEADLINE, work).await;
        let (output, status) = answered.map_err(|_| NetError::Lost(format!("no answer within {DEADLINE:?}")))??;
        match status {
            0 => Ok(output),
            OVERTAKEN => Err(NetError::Lost("another session has begun".to_owned())),
            status => {
                let said = output.trim();
                let said = if said.is_empty() { format!("it ended with {status}") } else { last_words(said) };
                Err(NetError::Refused { what: what.to_owned(), said })
            }
        }
    }

    async fn answer(&mut self) -> Result<(String, i32), NetError> {
        loop {
            if let Some((output, status)) = self.take_answer() {
                return Ok((output, status));
            }
            if self.rest.len() > OUTPUT_MAX_BYTES {
                return Err(NetError::Lost("it prints without end".to_owned()));
            }
            match self.shell.output.next().await {
                Some(Ok(piece)) => self.rest.extend_from_slice(&piece.bytes),
                Some(Err(error)) => return Err(NetError::Lost(error.to_string())),
                None => return Err(NetError::Lost("it ended".to_owned())),
            }
        }
    }

    /// What came before a whole line with the mark, and the status in it.
    fn take_answer(&mut self) -> Option<(String, i32)> {
        let mark = self.mark.as_bytes();
        let at = self.rest.windows(mark.len()).position(|window| window == mark)?;
        let end = at + self.rest.get(at..)?.iter().position(|byte| *byte == b'\n')?;
        let status = std::str::from_utf8(self.rest.get(at + mark.len()..end)?).ok()?.trim().parse().ok()?;
        let output = String::from_utf8_lossy(self.rest.get(..at)?).into_owned();
        self.rest.drain(..=end);
        Some((output, status))
    }
}

/// A person reads the end of it: that is where the error stands.
fn last_words(said: &str) -> String {
    const MAX_CHARS: usize = 400;
    let skipped = said.chars().count().saturating_sub(MAX_CHARS);
    said.chars().skip(skipped).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
