//! Who starts a container again that ended: its engine by its policy, and where the engine cannot, the controller.

use super::sandbox;
use crate::model::{
    container::ContainerState,
    name::ContainerName,
    spec::{TaskDefinitionSpec, task_definition::ContainerDefinition},
    task::{Revived, Task, TaskContainer},
    time::Timestamp,
};
use crate::plan::throttle;

/// Started again no more than this many times in close succession, an essential container takes its task down.
const MOST_REVIVALS: u32 = 3;
/// A container that stayed up for this long, beyond the pause before its last start, failed for another reason.
const CLOSE_MS: u64 = 5 * 60_000;

/// When a container is started again after it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) enum Restart {
    /// Never.
    Never,
    /// Unless it ended with 0.
    OnFailure,
    /// Whatever its exit code.
    Always,
}

/// Without a policy an essential container always is; another one may have done its work, so it is unless it ended well;
/// and one that others wait for to end is not.
pub(in crate::plan) fn restart(spec: &TaskDefinitionSpec, definition: &ContainerDefinition) -> Restart {
    let must_end = spec.must_end(&definition.name);
    match &definition.restart_policy {
        Some(policy) if !policy.enabled => Restart::Never,
        // Until it succeeds.
        Some(policy) if must_end || policy.ignored_exit_codes.contains(&0) => Restart::OnFailure,
        Some(_) => Restart::Always,
        None if must_end => Restart::Never,
        None if definition.essential => Restart::Always,
        None => Restart::OnFailure,
    }
}

/// The part of it that is its engine's. Docker can leave a container alone that ended with 0, and no other code.
pub(super) fn by_engine(spec: &TaskDefinitionSpec, definition: &ContainerDefinition) -> Restart {
    if by_controller(spec, definition) { Restart::Never } else { restart(spec, definition) }
}

/// Whether the controller restarts it in its engine's place, since it must look at the exit code first. What others wait for
/// to end is over for them once it ended.
pub(in crate::plan) fn by_controller(spec: &TaskDefinitionSpec, definition: &ContainerDefinition) -> bool {
    let policy = definition.restart_policy.as_ref().filter(|policy| policy.enabled);
    policy.is_some_and(|policy| policy.ignored_exit_codes.iter().any(|code| *code != 0))
        && !spec.must_end(&definition.name)
}

/// Whether the controller is to start a container again that its engine leaves as it ended: its engine cannot tell whether to
/// ([`by_controller`]), somebody killed it, which switches the engine's policy off, or what it shares a sandbox with went away
/// under it. The end of any other essential container is that of its task.
pub(in crate::plan) fn comes_back(
    spec: &TaskDefinitionSpec,
    definition: &ContainerDefinition,
    row: &TaskContainer,
    now: Timestamp,
) -> bool {
    let by_policy = match restart(spec, definition) {
        Restart::Never => false,
        Restart::OnFailure => row.exit_code != Some(0) || row.taken_down,
        Restart::Always => true,
    };
    let ignored = definition.restart_policy.as_ref().map_or(&[][..], |policy| &policy.ignored_exit_codes);
    let is_ignored = row.exit_code.is_some_and(|code| ignored.contains(&code));
    let may = !row.essential
        || by_controller(spec, definition)
        || sandbox::joined(spec, definition).is_some()
            && row.revived.is_none_or(|revived| revived.times < MOST_REVIVALS || !is_close(revived, now));
    row.state == Some(ContainerState::Exited) && by_policy && !is_ignored && may && !spec.must_end(&definition.name)
}

/// When a container may be started again after it was once.
fn due_at(revived: Revived) -> Timestamp {
    revived.at.plus_ms(throttle::delay_ms(revived.times))
}

/// Whether what ended by now follows closely on when it was last started again.
fn is_close(revived: Revived, now: Timestamp) -> bool {
    now.since_ms(due_at(revived)) < CLOSE_MS
}

/// What the controller is to start again of a task.
#[derive(Debug, Default)]
pub(in crate::plan) struct Revivals {
    /// Now, with what is noted of it then.
    pub(in crate::plan) due: Vec<(ContainerName, Revived)>,
    /// When the next one is due.
    pub(in crate::plan) next: Option<Timestamp>,
}

impl Revivals {
    /// At once, then with the pauses that failing tasks have.
    pub(in crate::plan) fn of(task: &Task, spec: &TaskDefinitionSpec, now: Timestamp) -> Self {
        let mut revivals = Self::default();
        for definition in spec.containers() {
            let Some((name, row)) = task.containers.get_key_value(definition.name.as_str()) else { continue };
            if !comes_back(spec, definition, row, now) {
                continue;
            }
            let times = match row.revived {
                Some(revived) if due_at(revived) > now => {
                    revivals.next = revivals.next.into_iter().chain([due_at(revived)]).min();
                    continue;
                }
                Some(revived) if is_close(revived, now) => revived.times.saturating_add(1),
                Some(_) | None => 1,
            };
            revivals.due.push((name.clone(), Revived { times, at: now }));
        }
        revivals
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.due.iter().any(|(due, _)| due.as_str() == name)
    }
}
