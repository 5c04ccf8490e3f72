//! The database in memory: what was committed outlives the controller, and commits can fail.

use async_trait::async_trait;

use crate::{
    fleet::{Durable, FakeFleet},
    scenario::{Mishap, Point},
};
use roadstead_control::{control::seams::Ledger, store::StoreError};
use roadstead_core::model::{
    decision::Decision,
    state::{Change, State},
};

/// See the module.
pub(super) struct FakeLedger(pub(super) FakeFleet);

/// What becomes of a commit.
enum Commit {
    Written,
    Failed(StoreError),
    Killed,
}

impl FakeLedger {
    fn write(&self, changes: &[Change]) -> Commit {
        self.0.ground(|ground| {
            let number = ground.counters.commits;
            ground.counters.commits += 1;
            let mishap = ground.mishap(Point::Commit(number));
            let rates = ground.scenario.rates.clone();
            if mishap == Some(Mishap::KillBefore) || ground.strikes(rates.kill_at_commit / 2) {
                ground.kill("killed before a commit");
                return Commit::Killed;
            }
            let fails = ground.strikes(rates.commit_fails);
            let kind = if fails { ground.within(0, 4) } else { 0 };
            if mishap == Some(Mishap::Lost) || (fails && kind > 0) {
                ground.count("commit fails");
                ground.trace.line(ground.now, &["commit fails"], || "  the database refuses a commit".to_owned());
                return Commit::Failed(match kind {
                    0 | 1 => StoreError::Busy { what: "simulated".into() },
                    2 => StoreError::Full,
                    3 => StoreError::Refused { what: "simulated".into() },
                    _ => StoreError::Io { what: "simulated".into() },
                });
            }
            ground.commit(changes);
            if mishap == Some(Mishap::AnswerLost) || fails {
                ground.count("commit written, answer lost");
                return Commit::Failed(StoreError::Io { what: "simulated, though it is written".into() });
            }
            if mishap == Some(Mishap::KillAfter) || ground.strikes(rates.kill_at_commit / 2) {
                ground.kill("killed after a commit");
                return Commit::Killed;
            }
            Commit::Written
        })
    }
}

#[async_trait]
impl Ledger for FakeLedger {
    async fn load(&self) -> Result<State, StoreError> {
        Ok(self.0.ground(|ground| {
            ground.record(Durable::Read);
            ground.durable.clone()
        }))
    }

    async fn commit(&self, changes: &[Change], _decision: Option<&Decision>) -> Result<(), StoreError> {
        match self.write(changes) {
            Commit::Written => Ok(()),
            Commit::Failed(error) => Err(error),
            Commit::Killed => std::future::pending().await,
        }
    }

    async fn prune(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
