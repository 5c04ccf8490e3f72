//! Services: what each one has, what it wants, and the way between.

use std::{cell::OnceCell, sync::Arc};

use crate::model::{
    name::{HostName, RevisionId, ServiceName, TaskId},
    spec::{
        TaskDefinitionSpec,
        service::{SchedulingStrategy, ServiceSpec},
    },
    state::{Deployment, DeploymentStatus, EventLevel, RolloutState},
    task::{DesiredStatus, LastStatus, Launch, StopCode, Task},
    time::Timestamp,
    traffic::Side,
    world::{HostStatus, Subject},
};

use super::{
    breaker, daemon, deployment,
    draft::{Counts, Draft, Host, Service, ServiceNo, TaskNo},
    health, hosts,
    place::Wants,
    rebalance, replica, revision, rollout, throttle, traffic, volumes,
};

/// A service with all that reconciling it needs.
pub(super) struct Subjected<'a> {
    pub(super) no: ServiceNo,
    pub(super) name: &'a ServiceName,
    pub(super) spec: &'a ServiceSpec,
    /// What its tasks shall run.
    pub(super) target: RevisionId,
    /// What new tasks run: the target; while the rollout stands still, the last completed revision, if there is one.
    pub(super) starts: Option<RevisionId>,
    /// The content of what new tasks run.
    pub(super) definition: Arc<TaskDefinitionSpec>,
    /// Set while the rollout stands still, and why.
    pub(super) standstill: Option<String>,
    /// Tasks that older deployments than this one started are to be replaced, of whatever revision.
    restarted_by: Option<u64>,
    /// It stops before it is started anew, and is never there twice: a singleton, or a task that owns a volume (S19).
    pub(super) exclusive: bool,
    /// Its live tasks; of a pool, those on its side.
    pub(super) live: &'a [TaskNo],
    /// All its live tasks.
    pub(super) all: &'a [TaskNo],
    /// Which of two target groups new tasks are in.
    pub(super) side: Side,
    /// Whether it is what the PRIMARY deployment brings.
    pub(super) is_primary: bool,
    /// What placement is asked for a task of it, once that is needed.
    pub(super) wants: OnceCell<Wants>,
    /// Tasks of it that this draft had placed when `live` was taken.
    placed_before: u64,
}

/// What a service's tasks on one side shall run.
#[derive(Clone, Copy)]
pub(super) enum Runs<'r> {
    /// What the PRIMARY deployment brings.
    Target,
    /// What is in service beside it, whatever becomes of that.
    InService(&'r RevisionId),
}

/// One pass may make room for the next: a task that was never sent is over at once. More passes than this never help.
const MAX_PASSES: usize = 16;

/// Reconciles every service until nothing changes any more, so that planning again finds nothing to do (S12).
pub(super) fn reconcile(draft: &mut Draft<'_>) {
    let mark = draft.waiting_mark();
    for _ in 0..MAX_PASSES {
        draft.forget_waiting(mark);
        let edits = draft.tasks.edits();
        pass(draft);
        if draft.tasks.edits() == edits {
            return;
        }
    }
}

/// Reconciles every service once, and ends the tasks of services that are no longer declared.
fn pass(draft: &mut Draft<'_>) {
    let (services, shortcuts) = (draft.services.len(), draft.shortcuts);
    let counts = draft.tasks.counts(services);
    for (service, counts) in draft.services.iter_mut().zip(&counts) {
        // What is steady stays so: no other service changes its tasks.
        service.steady |= shortcuts && is_steady(service, *counts);
    }
    let undeclared = counts.last().is_some_and(|counts| counts.live > 0);
    if !undeclared && draft.services.iter().all(|service| service.steady) {
        return;
    }
    let members = draft.tasks.members(services);
    for no in 0..services {
        if !draft.services[no].steady {
            one(draft, no, members.of(no));
        }
    }
    if draft.braked() {
        return;
    }
    for no in members.of(services) {
        let reason = format!("service {} is no longer declared", draft.task(*no).service);
        stop(draft, *no, StopCode::ServiceSchedulerInitiated, &reason);
    }
}

/// Whether a task is as its service wants it, and stays so until something happens.
pub(super) fn is_kept(draft: &Draft<'_>, service: &Service<'_>, host: Option<&Host<'_>>, task: &Task) -> bool {
    task.is_wanted()
        && task.healthy_at.is_some()
        && !health::is_unhealthy(task, &service.manifest.spec)
        && service.target.as_ref().is_some_and(|target| target.as_ref() == Ok(&task.revision))
        && task.cluster == service.manifest.spec.cluster
        && !health::crash_loops(task, service.manifest.spec.crash_loop, draft.now())
        && host.is_none_or(|host| host.status != HostStatus::Draining)
}

/// Whether reconciling a service would find nothing to do: told by counting, since nearly every service of nearly every
/// plan is like this. `false` is always right, and only slower.
pub(super) fn is_steady(service: &Service<'_>, counts: Counts) -> bool {
    let spec = &service.manifest.spec;
    spec.scheduling_strategy == SchedulingStrategy::Replica
        && counts.live == spec.desired_count as usize
        && counts.kept == counts.live
        && !rebalance::applies(spec)
        && is_settled(service)
}

/// Whether its PRIMARY deployment is what it wants, and none is under way.
pub(super) fn is_settled(service: &Service<'_>) -> bool {
    let is_over = |deployment: &Deployment| match deployment.status {
        DeploymentStatus::Primary => deployment.rollout_state != RolloutState::InProgress && !deployment.stands_still(),
        DeploymentStatus::Active => false,
        DeploymentStatus::Inactive => true,
    };
    fn known(revision: &Option<Result<RevisionId, String>>) -> Option<&RevisionId> {
        revision.as_ref()?.as_ref().ok()
    }
    let (wanted, target) = (known(&service.wanted), known(&service.target));
    service.is_untouched()
        && service.record().is_some_and(|record| {
            record.primary().is_some_and(|primary| Some(&primary.revision) == target)
                && record.again.is_none()
                && record.pin.as_ref().is_none_or(|pin| Some(&pin.instead_of) == wanted)
                && record.deployments.iter().all(is_over)
        })
}

fn one(draft: &mut Draft<'_>, no: ServiceNo, live: &[TaskNo]) {
    rollout::judge(draft, no);
    let service = match Subjected::new(draft, no, live) {
        Ok(service) => service,
        Err(None) => return,
        Err(Some(reason)) => {
            let subject = Subject::Service(draft.services[no].name.clone());
            return revision::report_unresolved(draft, subject, reason);
        }
    };
    match service.spec.scheduling_strategy {
        SchedulingStrategy::Daemon if draft.shortcuts && daemon::is_steady(draft, &service) => {}
        SchedulingStrategy::Daemon => whole(draft, service, daemon::reconcile),
        SchedulingStrategy::Replica => whole(draft, service, traffic::turns::reconcile),
    }
}

fn whole<'w, 's>(
    draft: &mut Draft<'w>,
    mut service: Subjected<'s>,
    reconcile: impl FnOnce(&mut Draft<'w>, &Subjected<'s>),
) {
    deployment::begin(draft, &service);
    service.stand(draft);
    let service = &service;
    if let Some(why) = &service.standstill {
        let subject = Subject::Service(service.name.clone());
        let wakes_when = format!("you say `roadstead rollout continue {}`, or the manifests change", service.name);
        draft.waiting(subject, why, wakes_when, None);
    }
    note_first_health(draft, service);
    reconcile(draft, service);
    deployment::conclude(draft, service);
}

/// Remembers when each task was first healthy, and wakes the planner when one will be, for the first time or again, and when
/// a person's protection of one ends.
fn note_first_health(draft: &mut Draft<'_>, service: &Subjected<'_>) {
    let now = draft.now();
    for no in service.live {
        replica::protected_until(draft, *no).into_iter().for_each(|at| draft.wake_at(at));
        let task = draft.task(*no);
        match health::healthy(task, service.spec, now) {
            Ok(()) if task.healthy_at.is_none() => {
                draft.tasks.change(*no, |task| task.healthy_at = Some(now));
                draft.change_service_of(*no, |task, record| {
                    throttle::reset(record);
                    breaker::note_healthy(record, service.spec, task);
                });
            }
            Err(Some(at)) => draft.wake_at(at),
            Ok(()) | Err(None) => {}
        }
    }
}

impl<'a> Subjected<'a> {
    /// # Errors
    /// Why it cannot be acted on, if a person must hear of it.
    pub(super) fn new(draft: &Draft<'a>, no: ServiceNo, live: &'a [TaskNo]) -> Result<Self, Option<String>> {
        let Service { name, manifest, target, placed, .. } = &draft.services[no];
        let target = target.clone().ok_or(None)?.map_err(Some)?;
        let definition = draft.revision(&target).and_then(|revision| revision.spec.clone()).ok_or(None)?;
        let spec = &manifest.spec;
        Ok(Self {
            no,
            name,
            spec,
            starts: Some(target.clone()),
            target,
            exclusive: spec.singleton || volumes::owns(spec, &definition),
            definition,
            standstill: None,
            restarted_by: None,
            live,
            all: live,
            side: traffic::turns::live_side(draft, no),
            is_primary: true,
            wants: OnceCell::new(),
            placed_before: *placed,
        })
    }

    /// Its tasks on one side, and what they shall run.
    pub(super) fn pool<'p>(
        &'p self,
        draft: &Draft<'_>,
        side: Side,
        live: &'p [TaskNo],
        runs: Runs<'_>,
    ) -> Subjected<'p> {
        let (revision, is_primary) = match runs {
            Runs::Target => (&self.target, true),
            Runs::InService(revision) => (revision, false),
        };
        let as_it_stands = is_primary && side == self.side;
        let content = draft.revision(revision).and_then(|revision| revision.spec.clone());
        let starts = if as_it_stands { self.starts.clone() } else { content.is_some().then(|| revision.clone()) };
        Subjected {
            no: self.no,
            name: self.name,
            spec: self.spec,
            target: revision.clone(),
            starts,
            definition: content.filter(|_| !as_it_stands).unwrap_or_else(|| Arc::clone(&self.definition)),
            standstill: self.standstill.clone().filter(|_| is_primary),
            restarted_by: self.restarted_by.filter(|_| as_it_stands),
            exclusive: self.exclusive,
            live,
            all: self.all,
            side,
            is_primary,
            wants: OnceCell::new(),
            placed_before: draft.services[self.no].placed,
        }
    }

    /// Looks at how its PRIMARY deployment stands.
    fn stand(&mut self, draft: &Draft<'_>) {
        let Some(record) = draft.services[self.no].record() else { return };
        let Some(primary) = record.primary() else { return };
        self.restarted_by =
            (primary.restart && primary.rollout_state == RolloutState::InProgress).then_some(primary.id);
        if !primary.stands_still() {
            return;
        }
        self.standstill = Some(match primary.paused_words() {
            Some(why) => format!("the rollout of {} stands still: {why}", primary.revision),
            None => format!("the rollout of {} failed: {}", primary.revision, primary.rollout_state_reason),
        });
        // What dies meanwhile is replaced by what is known to be good.
        let content = |id: &RevisionId| Some((id.clone(), draft.revision(id)?.spec.clone()?));
        let known_good = record.completed().next().and_then(content);
        self.wants = OnceCell::new();
        let was_healthy = |no: &TaskNo| {
            let task = draft.task(*no);
            task.revision == self.target && task.healthy_at.is_some()
        };
        self.starts = match known_good {
            Some((id, definition)) => {
                self.exclusive |= volumes::owns(self.spec, &definition);
                self.definition = definition;
                Some(id)
            }
            // A host that dies must not take the service with it where some of this one is proven.
            None => self.live.iter().any(was_healthy).then(|| self.target.clone()),
        };
    }

    /// Whether a task is not what this deployment wants, but for the rollout standing still.
    pub(super) fn is_outdated(&self, task: &Task) -> bool {
        task.revision != self.target || self.restarted_by.is_some_and(|deployment| task.deployment < deployment)
    }

    /// Why it replaces a task, in words.
    pub(super) fn replacement_words(&self, task: &Task) -> String {
        match task.revision == self.target {
            true => format!("{} is started anew", self.target),
            false => format!("{} replaces {}", self.target, task.revision),
        }
    }

    /// Whether this deployment is to replace a task now.
    pub(super) fn replaces(&self, task: &Task) -> bool {
        self.standstill.is_none() && self.is_outdated(task)
    }

    /// Its live tasks that are wanted.
    pub(super) fn wanted<'d>(&'d self, draft: &'d Draft<'_>) -> impl Iterator<Item = (TaskNo, &'d Task)> {
        self.live.iter().map(|no| (*no, draft.task(*no))).filter(|(_, task)| task.is_wanted())
    }

    /// Whether a task was healthy when it was last seen.
    pub(super) fn serves(&self, draft: &Draft<'_>, no: TaskNo) -> bool {
        health::healthy(draft.task(no), self.spec, draft.now()).is_ok()
    }

    /// Whether a task is healthy now: its host can be asked.
    pub(super) fn healthy(&self, draft: &Draft<'_>, no: TaskNo) -> bool {
        draft.is_heard(no) && self.serves(draft, no)
    }

    /// Its tasks that are live and not ghosts, those placed meanwhile not included.
    pub(super) fn known_live<'d>(&'d self, draft: &'d Draft<'_>) -> impl Iterator<Item = (TaskNo, &'d Task)> {
        let live = self.live.iter().map(|no| (*no, draft.task(*no)));
        live.filter(|(no, task)| task.is_live() && !is_ghost(draft, *no))
    }

    /// Live tasks that count against the ceiling, those placed in this draft included: not those on hosts that cannot be
    /// asked (ghosts, S2).
    pub(super) fn counted_live(&self, draft: &Draft<'_>) -> usize {
        let known = match self.exclusive {
            // Never two, not even one that nobody can see (S19).
            true => self.live.iter().filter(|no| draft.task(**no).is_live()).count(),
            false => self.known_live(draft).count(),
        };
        known + self.placed_now(draft)
    }

    /// Of a service of which there are never two: a task that is over by its row and runs by the last look at its host, since
    /// that was not declared for a while (S19).
    pub(super) fn left_behind(&self, draft: &Draft<'_>) -> Option<(TaskId, HostName)> {
        let state = &draft.world.state;
        let hosts = self.exclusive.then(|| state.observations.iter()).into_iter().flatten();
        hosts.filter(|(host, _)| state.desired.hosts.contains_key(*host)).find_map(|(host, look)| {
            let mut ours = look.containers.values().filter(|view| view.state.is_live());
            let runs = ours.find_map(|view| {
                let claim = view.owner.ours().filter(|claim| claim.service == *self.name)?;
                let is_over = state.tasks.get(&claim.task).is_none_or(|task| task.last_status == LastStatus::Stopped);
                is_over.then(|| claim.task.clone())
            })?;
            Some((runs, host.clone()))
        })
    }

    /// How many tasks of it were placed since `live` was taken.
    pub(super) fn placed_now(&self, draft: &Draft<'_>) -> usize {
        usize::try_from(draft.services[self.no].placed - self.placed_before).unwrap_or(usize::MAX)
    }

    /// Tasks in a row that failed.
    pub(super) fn failures(&self, draft: &Draft<'_>) -> u32 {
        draft.services[self.no].record().map_or(0, |record| record.consecutive_failures)
    }

    /// When the next start is allowed, if not now (start throttle).
    pub(super) fn throttled_until(&self, draft: &Draft<'_>) -> Option<Timestamp> {
        draft.services[self.no].record()?.not_before.filter(|at| *at > draft.now())
    }
}

/// A task that was given up on a host that cannot be asked: it may still run (S2).
fn is_ghost(draft: &Draft<'_>, no: TaskNo) -> bool {
    let task = draft.task(no);
    let is_beyond_reach = match draft.host_status(no) {
        Some(HostStatus::Lost | HostStatus::Untrusted) | None => true,
        // A service may count its host as lost earlier than others do.
        Some(HostStatus::Active | HostStatus::Cordoned | HostStatus::Draining | HostStatus::Suspect) => {
            let service = draft.tasks.service(no).map(|service| &draft.services[service].manifest.spec);
            service.is_some_and(|spec| hosts::is_lost_early(draft.world, &task.host, spec))
        }
    };
    task.desired_status == DesiredStatus::Stopped && is_beyond_reach
}

/// Orders a task to stop.
pub(super) fn stop(draft: &mut Draft<'_>, no: TaskNo, code: StopCode, reason: &str) {
    let now = draft.now();
    let task = draft.task(no);
    if task.desired_status != DesiredStatus::Running {
        return;
    }
    let told_in = task.told_in();
    let message = format!("task {} on {} is stopped: {reason}", task.id, task.host);
    if task.launch == Launch::NotIssued {
        // Nothing was ever sent: it is over at once, and makes room.
        let before = task.clone();
        draft.tasks.change(no, |task| {
            task.order_stop(now, code, reason);
            task.advance(LastStatus::Stopped);
            task.stopped_at = Some(now);
        });
        draft.release(&before);
    } else {
        let (service, host) = (task.service.clone(), task.host.clone());
        draft.tasks.change(no, |task| task.order_stop(now, code, reason));
        draft.uncount(&service, &host);
    }
    draft.event(told_in, EventLevel::Normal, "TaskStopping", message);
}
