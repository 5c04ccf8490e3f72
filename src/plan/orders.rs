//! From what is wanted of each task to orders: launch, stop, remove.

use crate::model::{
    action::{Action, ActionKey, StopStep, Verb, VerbName},
    container::ContainerState,
    name::{RuntimeId, TaskId},
    spec::TaskDefinitionSpec,
    task::{DesiredStatus, LastStatus, Launch, StopCode, Task},
    world::{HostStatus, Subject},
};

use super::{draft::Draft, hosts, launch};

/// A launch of unknown outcome is repeated under the same names no sooner than this.
const RELAUNCH_AFTER_MS: u64 = 3_000;

/// Issues every order that can be carried out now.
pub(super) fn issue(draft: &mut Draft<'_>) {
    let busy: Vec<TaskId> = draft.tasks().filter(|task| needs_orders(task)).map(|task| task.id.clone()).collect();
    for id in busy {
        let Some(task) = draft.task(&id).cloned() else { continue };
        if !draft.heard.contains(&task.host) {
            wait_for_host(draft, &task);
            continue;
        }
        match task.desired_status {
            DesiredStatus::Running => launch_task(draft, &task),
            DesiredStatus::Stopped => stop_task(draft, &task),
        }
    }
}

/// Whether anything may be left to order: in a steady fleet it is false for every task.
fn needs_orders(task: &Task) -> bool {
    match task.desired_status {
        DesiredStatus::Running => {
            task.launch == Launch::NotIssued
                || task
                    .containers
                    .values()
                    .any(|container| matches!(container.state, None | Some(ContainerState::Created)))
        }
        DesiredStatus::Stopped => {
            task.last_status != LastStatus::Stopped
                || task.containers.values().any(|container| container.runtime_id.is_some())
        }
    }
}

fn wait_for_host(draft: &mut Draft<'_>, task: &Task) {
    let status = draft.statuses.get(&task.host).copied();
    let what = match task.desired_status {
        DesiredStatus::Running => "start",
        DesiredStatus::Stopped => "stop",
    };
    let why = match status {
        Some(HostStatus::Untrusted) => format!("host {} is UNTRUSTED: not one command is sent to it", task.host),
        Some(HostStatus::Lost) => format!("host {} is LOST", task.host),
        Some(HostStatus::Suspect | HostStatus::Active | HostStatus::Cordoned | HostStatus::Draining) => {
            format!("host {} does not answer just now", task.host)
        }
        None => format!("host {} is no longer declared", task.host),
    };
    draft.waiting(
        Subject::Task(task.id.clone()),
        format!("cannot {what} it: {why}"),
        format!("host {} answers", task.host),
        None,
    );
}

/// Whether an order may be given now: not while the same is under way, and not before its retry time.
fn may_order(draft: &mut Draft<'_>, task: &Task, verb: VerbName) -> bool {
    let key = ActionKey { task: task.id.clone(), verb };
    if draft.world.in_flight.contains(&key) {
        return false;
    }
    match draft.world.retry_at.get(&key) {
        Some(at) if *at > draft.now() => {
            let (at, subject) = (*at, Subject::Task(task.id.clone()));
            draft.waiting(subject, "the last attempt did not succeed", format!("{at}"), Some(at));
            false
        }
        Some(_) | None => true,
    }
}

fn launch_task(draft: &mut Draft<'_>, task: &Task) {
    if !may_order(draft, task, VerbName::Launch) {
        return;
    }
    if let Launch::Issued { at } = task.launch {
        let again_at = at.plus_ms(RELAUNCH_AFTER_MS);
        if again_at > draft.now() {
            draft.wake_at(again_at);
            return;
        }
    }
    let Some(revision) = draft.revision(&task.revision).filter(|revision| revision.spec.is_some()).cloned() else {
        let reason = format!("the content of {} was lost with the database", task.revision);
        let now = draft.now();
        draft.change_task(&task.id, |task| task.order_stop(now, StopCode::TaskFailedToStart, reason));
        return;
    };
    let zone =
        draft.world.state.desired.hosts.get(&task.host).and_then(|host| host.labels.get(hosts::ZONE_LABEL)).cloned();
    let containers = launch::steps(task, &revision, zone.as_deref());
    if containers.is_empty() {
        if let Some(spec) = &revision.spec {
            wait_for_dependencies(draft, task, spec);
        }
        return;
    }
    let now = draft.now();
    draft.change_task(&task.id, |task| {
        task.launch = Launch::Issued { at: now };
        task.advance(LastStatus::Pending);
    });
    draft.act(Action {
        task: task.id.clone(),
        service: task.service.clone(),
        host: task.host.clone(),
        verb: Verb::Launch { containers },
        reason: format!("{} wants it", task.service),
    });
}

/// Containers of the task wait for others: until their `startTimeout` is over, which counts from the last start.
fn wait_for_dependencies(draft: &mut Draft<'_>, task: &Task, spec: &TaskDefinitionSpec) {
    let unmet = launch::unmet_dependencies(task, spec);
    if unmet.is_empty() {
        return;
    }
    let started_at = match task.launch {
        Launch::Answered { at } => at,
        Launch::NotIssued | Launch::Issued { .. } => draft.now(),
    };
    for (dependency, words) in &unmet {
        let timeout = spec
            .container_definitions
            .iter()
            .find(|other| other.name == *dependency)
            .and_then(|other| other.start_timeout);
        let Some(timeout) = timeout else { continue };
        let over_at = started_at.plus_ms(timeout.as_ms());
        if over_at <= draft.now() {
            let reason = format!("{words}, and did so for longer than the startTimeout of {} s", timeout.0);
            super::replica::note_sick_start(draft, task);
            super::service::stop(draft, &task.id, StopCode::TaskFailedToStart, &reason);
            return;
        }
        draft.wake_at(over_at);
    }
    let words: Vec<String> = unmet.into_iter().map(|(_, words)| words).collect();
    draft.waiting(Subject::Task(task.id.clone()), words.join("; "), "the other container is seen in that state", None);
}

fn stop_task(draft: &mut Draft<'_>, task: &Task) {
    let launching = ActionKey { task: task.id.clone(), verb: VerbName::Launch };
    if draft.world.in_flight.contains(&launching) {
        // Its containers may not be known yet; they are once the launch has answered.
        return;
    }
    let live = stop_order(draft, task);
    if !live.is_empty() {
        if may_order(draft, task, VerbName::Stop) {
            let remove = !keeps_containers(task);
            let containers =
                live.into_iter().map(|(runtime_id, timeout_s)| StopStep { runtime_id, timeout_s, remove }).collect();
            let reason = task.stopped_reason.clone().unwrap_or_default();
            draft.act(Action {
                task: task.id.clone(),
                service: task.service.clone(),
                host: task.host.clone(),
                verb: Verb::Stop { containers },
                reason,
            });
        }
        return;
    }
    let ended: Vec<RuntimeId> = task
        .containers
        .values()
        .filter(|container| container.state != Some(ContainerState::Removing))
        .filter_map(|container| container.runtime_id.clone())
        .collect();
    if ended.is_empty() {
        return;
    }
    if keeps_containers(task) && !super::gc::keep_is_over(draft, task) {
        return;
    }
    if may_order(draft, task, VerbName::Remove) {
        draft.act(Action {
            task: task.id.clone(),
            service: task.service.clone(),
            host: task.host.clone(),
            verb: Verb::Remove { containers: ended },
            reason: "it is over".to_owned(),
        });
    }
}

/// Live containers with their stop time-outs, dependants before what they depend on.
fn stop_order(draft: &Draft<'_>, task: &Task) -> Vec<(RuntimeId, u32)> {
    let spec = draft.revision(&task.revision).and_then(|revision| revision.spec.clone());
    let mut live = Vec::new();
    let mut add = |name: &str, timeout_s: u32| {
        if let Some(container) = task.containers.get(name)
            && container.state.is_some_and(ContainerState::is_live)
            && let Some(id) = &container.runtime_id
        {
            live.push((id.clone(), timeout_s));
        }
    };
    match &spec {
        Some(spec) => {
            for definition in launch::in_dependency_order(spec).into_iter().rev() {
                add(&definition.name, launch::stop_timeout_s(definition));
            }
        }
        None => {
            for name in task.containers.keys() {
                add(name.as_str(), 30);
            }
        }
    }
    live
}

/// Whether its ended containers stay for a while, so that a person can read the logs of what failed.
pub(super) fn keeps_containers(task: &Task) -> bool {
    match task.stop_code {
        Some(StopCode::TaskFailedToStart | StopCode::EssentialContainerExited) => true,
        Some(
            StopCode::UserInitiated
            | StopCode::ServiceSchedulerInitiated
            | StopCode::TerminationNotice
            | StopCode::HostLost,
        )
        | None => false,
    }
}
