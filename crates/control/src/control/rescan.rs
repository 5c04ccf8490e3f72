//! A person's wish that the manifests are read now, followed until what was found is in force.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, oneshot};

use roadstead_core::turn::CommandError;

/// So many may wait at once.
const MAX_WAITING: usize = 64;

/// The wishes, numbered: what ingest and driver share.
#[derive(Default)]
pub(super) struct Rescan {
    asked: AtomicU64,
    wake: Notify,
}

impl Rescan {
    fn ask(&self) -> u64 {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.wake.notify_one();
        number
    }

    /// The newest wish: a read that begins now follows it and all before it.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Ends when there may be a new one.
    pub(super) async fn wished(&self) {
        self.wake.notified().await;
    }
}

type Answer = oneshot::Sender<Result<String, CommandError>>;

/// Who waits for a read.
#[derive(Default)]
pub(super) struct Waiting {
    waiting: Vec<(u64, Answer)>,
    read: u64,
}

impl Waiting {
    /// Asks for a read; `answer` is given once what it found is decided upon and durable.
    pub(super) fn ask(&mut self, rescan: &Rescan, answer: Answer) {
        if self.waiting.len() >= MAX_WAITING {
            let reason = "the manifests are being read for many others".to_owned();
            let _ = answer.send(Err(CommandError::Unavailable(reason)));
            return;
        }
        self.waiting.push((rescan.ask(), answer));
    }

    /// What was asked for up to here was read and taken in.
    pub(super) fn note(&mut self, read: u64) {
        self.read = self.read.max(read);
    }

    /// Answers those whose read is taken in.
    pub(super) fn answer(&mut self) {
        let (read, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(number, _)| *number <= self.read);
        self.waiting = waiting;
        let read: Vec<(u64, Answer)> = read;
        for (_, answer) in read {
            let _ = answer.send(Ok("the manifests were read".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_waits_for_a_read_that_began_after_the_question() {
        let (rescan, mut waiting) = (Rescan::default(), Waiting::default());
        let ask = |waiting: &mut Waiting| {
            let (answer, answered) = oneshot::channel();
            waiting.ask(&rescan, answer);
            answered
        };
        let mut first = ask(&mut waiting);
        let read = rescan.asked();
        // While that read goes on, somebody writes another manifest and asks.
        let mut second = ask(&mut waiting);
        waiting.answer();
        assert!(first.try_recv().is_err(), "nothing was read yet");
        waiting.note(read);
        waiting.answer();
        assert!(
            first.try_recv().is_ok() && second.try_recv().is_err(),
            "this read may have been too early for the second"
        );
        waiting.note(rescan.asked());
        waiting.answer();
        assert!(second.try_recv().is_ok());
        let crowd: Vec<_> = (0..MAX_WAITING + 1).map(|_| ask(&mut waiting)).collect();
        let refused = crowd.into_iter().filter_map(|mut answered| answered.try_recv().ok());
        assert_eq!(refused.filter(Result::is_err).count(), 1, "a bounded number waits");
    }
}
