//! From what is wanted of each task to orders: launch, stop, remove.

use std::sync::Arc;

use crate::model::{
    action::{Action, ActionKey, StopStep, Verb, VerbName},
    container::ContainerState,
    name::{ContainerName, RuntimeId},
    spec::TaskDefinitionSpec,
    state::EventLevel,
    task::{DesiredStatus, LastStatus, Launch, StopCode, Task, TaskContainer},
    world::{HostStatus, Subject},
};

use super::{
    draft::{Draft, TaskNo},
    gc,
    images::{self, Resolving},
    launch::{self, Revivals, Surroundings, Unmet},
    network::{self, Around},
    service, throttle, traffic,
};

/// A launch of unknown outcome is repeated under the same names no sooner than this.
const RELAUNCH_AFTER_MS: u64 = 3_000;
/// The same for a container of a standalone task that exists: a start that is still on its way must not find it when it has
/// run and ended already, since it would run again.
const RESTART_STANDALONE_AFTER_MS: u64 = 60_000;

/// Issues every order that can be carried out now.
pub(super) fn issue(draft: &mut Draft<'_>) {
    let busy: Vec<TaskNo> = draft.tasks.with(|traits| traits.busy).map(|(no, _)| no).collect();
    let mut kept = None;
    let mut resolving = Resolving::default();
    for no in busy {
        if !draft.is_heard(no) {
            if has_orders(draft, no) {
                wait_for_host(draft, no);
            }
            continue;
        }
        let has_strays = !draft.task(no).strays.is_empty();
        if has_strays {
            remove_strays(draft, no);
        }
        match draft.task(no).desired_status {
            // The second one may have its ports.
            DesiredStatus::Running if has_strays => {
                let wakes_when = "the second one is seen gone";
                draft.waiting(subject(draft, no), "one of its containers is there twice", wakes_when, None);
            }
            DesiredStatus::Running => launch_task(draft, no, &mut resolving),
            DesiredStatus::Stopped => {}
        }
        // What cannot be launched is stopped at once.
        if draft.task(no).desired_status == DesiredStatus::Stopped {
            stop_task(draft, no, &mut kept);
        }
    }
    images::ask_anew(draft);
}

fn subject(draft: &Draft<'_>, no: TaskNo) -> Subject {
    Subject::Task(draft.task(no).id.clone())
}

/// Whether something is left to order of a task, which may only seem so: a container that ended may have done its work.
fn has_orders(draft: &Draft<'_>, no: TaskNo) -> bool {
    let task = draft.task(no);
    let is_missing = |row: &TaskContainer| matches!(row.state, None | Some(ContainerState::Created));
    let comes_back = || {
        let revision = draft.revision(&task.revision).map(|revision| launch::of_task(task, revision));
        revision.as_ref().and_then(|revision| revision.spec.as_deref()).is_some_and(|spec| {
            let revivals = Revivals::of(task, spec, draft.now());
            !revivals.due.is_empty() || revivals.next.is_some()
        })
    };
    match task.desired_status {
        DesiredStatus::Running => {
            !task.strays.is_empty()
                || task.launch == Launch::NotIssued
                || task.containers.values().any(is_missing)
                || comes_back()
        }
        DesiredStatus::Stopped => true,
    }
}

fn wait_for_host(draft: &mut Draft<'_>, no: TaskNo) {
    let task = draft.task(no);
    let what = match task.desired_status {
        DesiredStatus::Running => "start",
        DesiredStatus::Stopped => "stop",
    };
    let why = match draft.host_status(no) {
        Some(HostStatus::Untrusted) => format!("host {} is UNTRUSTED: not one command is sent to it", task.host),
        Some(HostStatus::Lost) => format!("host {} is LOST", task.host),
        Some(HostStatus::Suspect | HostStatus::Active | HostStatus::Cordoned | HostStatus::Draining) => {
            format!("host {} does not answer just now", task.host)
        }
        None => format!("host {} is no longer declared", task.host),
    };
    let wakes_when = format!("host {} answers", task.host);
    draft.waiting(subject(draft, no), format!("cannot {what} it: {why}"), wakes_when, None);
}

/// Whether an order may be given now: not while the same is under way, and not before its retry time.
pub(super) fn may_order(draft: &mut Draft<'_>, no: TaskNo, verb: VerbName) -> bool {
    let world = draft.world;
    if world.in_flight.is_empty() && world.retry_at.is_empty() {
        return true;
    }
    let key = ActionKey { task: draft.task(no).id.clone(), verb };
    if world.in_flight.contains(&key) {
        return false;
    }
    match world.retry_at.get(&key) {
        Some((at, why)) if *at > draft.now() => {
            let reason = format!("the last attempt did not succeed: {why}");
            draft.waiting(Subject::Task(key.task), reason, format!("{at}"), Some(*at));
            false
        }
        Some(_) | None => true,
    }
}

/// Gives an order.
pub(super) fn act(draft: &mut Draft<'_>, no: TaskNo, verb: Verb, reason: String) {
    let task = draft.task(no);
    let (id, service, host) = (task.id.clone(), task.service.clone(), task.host.clone());
    draft.act(Action { task: id, service, host, verb, reason });
}

fn launch_task(draft: &mut Draft<'_>, no: TaskNo, resolving: &mut Resolving) {
    if !may_order(draft, no, VerbName::Launch) {
        return;
    }
    let (now, task) = (draft.now(), draft.task(no));
    if let Launch::Issued { at } = task.launch {
        let exists = task.containers.values().any(|row| row.runtime_id.is_some());
        let pause_ms = if task.is_standalone() && exists { RESTART_STANDALONE_AFTER_MS } else { RELAUNCH_AFTER_MS };
        let again_at = at.plus_ms(pause_ms);
        if again_at > now {
            draft.wake_at(again_at);
            return;
        }
    }
    if task.launch == Launch::NotIssued && !images::are_known(draft, no, resolving) {
        return;
    }
    if !network::is_guarded(draft, no) {
        return;
    }
    let task = draft.task(no);
    let revision = draft.revision(&task.revision).map(|revision| launch::of_task(task, revision));
    let Some((revision, spec)) = revision.as_ref().and_then(|revision| Some((revision, revision.spec.as_ref()?)))
    else {
        let reason = format!("the content of {} is not known any more", task.revision);
        draft.tasks.change(no, |task| task.order_stop(now, StopCode::TaskFailedToStart, reason));
        return;
    };
    let zone = draft.tasks.host(no).and_then(|host| draft.hosts[host].zone());
    let cluster = draft.world.state.desired.cluster(&task.cluster);
    let revivals = Revivals::of(task, spec, now);
    let name_server = network::name_server(draft, task);
    let namespace = network::around(draft, task);
    let around = Surroundings { zone, cluster: &cluster, name_server, namespace };
    let containers = launch::steps(task, revision, &revivals, &around);
    let digests = launch::digests(revision, spec);
    let spec = Arc::clone(spec);
    revivals.next.into_iter().for_each(|at| draft.wake_at(at));
    if containers.is_empty() {
        if namespace == Around::Open {
            network::wait_for_namespace(draft, no);
        }
        wait_for_dependencies(draft, no, &spec);
        return;
    }
    for (name, revived) in revivals.due.iter().filter(|(name, _)| containers.iter().any(|step| step.container == *name))
    {
        tell_of_revival(draft, no, name);
        draft.tasks.change(no, |task| {
            task.containers.get_mut(name).into_iter().for_each(|row| row.revived = Some(*revived));
        });
    }
    draft.tasks.change(no, |task| {
        task.launch = Launch::Issued { at: now };
        task.advance(LastStatus::Pending);
        for (name, digest) in digests {
            if let Some(row) = task.containers.get_mut(name.as_str()) {
                row.image_digest = Some(digest);
            }
        }
    });
    let task = draft.task(no);
    let reason = match task.is_standalone() {
        true => format!("a standalone task of {}", task.revision),
        false => format!("{} wants it", task.service),
    };
    act(draft, no, Verb::Launch { containers }, reason);
}

fn tell_of_revival(draft: &mut Draft<'_>, no: TaskNo, name: &ContainerName) {
    let task = draft.task(no);
    let code = task.containers.get(name).and_then(|row| row.exit_code);
    let how = code.map_or_else(String::new, |code| format!(" with exit code {code}"));
    let words = format!("container {name} of task {} on {} ended{how} and is started again", task.id, task.host);
    draft.event(task.told_in(), EventLevel::Warning, "ContainerRestarted", words);
}

/// Ends tasks of which a container waited for another one for too long, or which their host's network keeps from beginning,
/// also while something else of them waits to be ordered again. Their services hear of it in the same plan.
pub(super) fn give_up(draft: &mut Draft<'_>) {
    let busy: Vec<TaskNo> = draft.tasks.with(|traits| traits.busy).map(|(no, _)| no).collect();
    for no in busy {
        let task = draft.task(no);
        if task.desired_status == DesiredStatus::Running && task.strays.is_empty() && draft.is_heard(no) {
            give_up_overdue(draft, no);
            network::give_up(draft, no);
        }
    }
}

fn give_up_overdue(draft: &mut Draft<'_>, no: TaskNo) {
    let task = draft.task(no);
    let spec = draft.revision(&task.revision).and_then(|revision| revision.spec.as_deref());
    let unmet = spec.map(|spec| launch::unmet_dependencies(task, spec)).unwrap_or_default();
    for Unmet { words, until } in unmet {
        let Some((over_at, timeout_s)) = until else { continue };
        if over_at <= draft.now() {
            let reason = format!("{words}, and did so for longer than the startTimeout of {timeout_s} s");
            throttle::count_sick(draft, no);
            service::stop(draft, no, StopCode::TaskFailedToStart, &reason);
            return;
        }
        draft.wake_at(over_at);
    }
}

/// Says what containers of the task wait for.
fn wait_for_dependencies(draft: &mut Draft<'_>, no: TaskNo, spec: &TaskDefinitionSpec) {
    let unmet = launch::unmet_dependencies(draft.task(no), spec);
    if unmet.is_empty() {
        return;
    }
    let words: Vec<String> = unmet.into_iter().map(|unmet| unmet.words).collect();
    draft.waiting(subject(draft, no), words.join("; "), "the other container is seen in that state", None);
}

fn remove_strays(draft: &mut Draft<'_>, no: TaskNo) {
    if !may_order(draft, no, VerbName::Tidy) {
        return;
    }
    let strays = draft.task(no).strays.iter().cloned();
    let stray = |runtime_id| StopStep { runtime_id, timeout_s: launch::DEFAULT_STOP_TIMEOUT_S, wave: 0, remove: true };
    let containers = strays.map(stray).collect();
    act(draft, no, Verb::Tidy { containers }, "the task has it twice".to_owned());
}

fn stop_task(draft: &mut Draft<'_>, no: TaskNo, kept: &mut Option<gc::Kept>) {
    let task = draft.task(no);
    let launching = ActionKey { task: task.id.clone(), verb: VerbName::Launch };
    if draft.world.in_flight.contains(&launching) {
        // Its containers may not be known yet; they are once the launch has answered.
        draft.waiting(subject(draft, no), "its launch has not answered yet", "it answers, or its time is over", None);
        return;
    }
    if !network::has_left_names(draft, no) || !traffic::has_left(draft, no) {
        return;
    }
    let task = draft.task(no);
    let remove = !keeps_containers(task);
    let containers = stop_steps(draft, task, remove);
    if !containers.is_empty() {
        if may_order(draft, no, VerbName::Stop) {
            let reason = draft.task(no).stopped_reason.clone().unwrap_or_default();
            act(draft, no, Verb::Stop { containers }, reason);
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
    if !remove && !gc::keep_is_over(draft, no, kept) {
        return;
    }
    if may_order(draft, no, VerbName::Remove) {
        act(draft, no, Verb::Remove { containers: ended }, "it is over".to_owned());
    }
}

/// How the live containers of a task are stopped.
fn stop_steps(draft: &Draft<'_>, task: &Task, remove: bool) -> Vec<StopStep> {
    let spec = draft.revision(&task.revision).and_then(|revision| revision.spec.as_deref());
    let step = |name: &str, timeout_s: u32, wave: u32| {
        let container = task.containers.get(name)?;
        let runtime_id = container.runtime_id.clone()?;
        let is_live = container.state.is_some_and(ContainerState::is_live);
        is_live.then_some(StopStep { runtime_id, timeout_s, wave, remove })
    };
    match spec {
        Some(spec) => launch::stop_waves(spec)
            .into_iter()
            .filter_map(|(definition, wave)| step(&definition.name, launch::stop_timeout_s(definition), wave))
            .collect(),
        None => {
            task.containers.keys().filter_map(|name| step(name.as_str(), launch::DEFAULT_STOP_TIMEOUT_S, 0)).collect()
        }
    }
}

/// Whether its ended containers stay for a while, so that a person can read the logs of what failed. Not those that an order
/// of unknown outcome might still start.
pub(super) fn keeps_containers(task: &Task) -> bool {
    if matches!(task.launch, Launch::Issued { .. }) {
        return false;
    }
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
