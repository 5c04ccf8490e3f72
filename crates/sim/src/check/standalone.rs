//! What is to happen once: a fire of a schedule, the containers of a standalone task and their run.

use super::{Broken, Checks, Predicate, broken};
use roadstead_core::model::{container::ContainerState, ownership::Claim, task::Task, time::Timestamp};

/// A start that took longer is a ghost until it is seen (S9).
const LATE_MS: u64 = 5_000;

impl Checks {
    /// A task appears in the commit of this number: all tasks of a fire appear together.
    pub(super) fn s19_fires_once(&mut self, task: &Task, commit: u64) -> Result<(), Broken> {
        let scheduled = task.standalone.as_ref().and_then(|standalone| standalone.scheduled.clone());
        let Some(scheduled) = scheduled else { return Ok(()) };
        let (by, at) = (scheduled.by.clone(), scheduled.at);
        match *self.fires.entry(scheduled).or_insert(commit) {
            first if first == commit => Ok(()),
            _ => broken(Predicate::S19, format!("{by} of {at} fires twice: again with task {}", task.id)),
        }
    }

    /// A container was made, by a request of these times of sending and arriving. One that comes late may find that what an
    /// earlier one made is gone again: it makes what nobody starts.
    pub(super) fn s19_made_once(&mut self, claim: &Claim, times: (Timestamp, Timestamp)) -> Result<(), Broken> {
        let container = (claim.task.clone(), claim.container.clone());
        let is_late = times.1.since_ms(times.0) >= LATE_MS;
        let excused = self.database_lost || is_late || self.struck.contains_key(&container);
        if claim.service.family().is_none() || self.made_once.insert(container) || excused {
            return Ok(());
        }
        broken(Predicate::S19, format!("{} of a standalone task is made a second time", claim.created_name))
    }

    /// A container that was in this state was started, by a request of these times of sending and arriving.
    pub(super) fn s19_runs_once(
        &self,
        claim: &Claim,
        before: Option<ContainerState>,
        times: (Timestamp, Timestamp),
    ) -> Result<(), Broken> {
        let has_run = matches!(before, Some(ContainerState::Exited | ContainerState::Dead));
        let excused = self.database_lost || times.1.since_ms(times.0) >= LATE_MS;
        if claim.service.family().is_none() || !has_run || excused {
            return Ok(());
        }
        broken(Predicate::S19, format!("{} of a standalone task has run and is started again", claim.created_name))
    }
}
