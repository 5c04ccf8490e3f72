//! Services: what each one has, what it wants, and the way between.

use std::collections::BTreeMap;

use crate::model::{
    container::{HealthStatus, PortBinding},
    desired::Manifest,
    name::{HostName, RevisionId, ServiceName, TaskId},
    spec::{
        TaskDefinitionSpec,
        service::{PlacementConstraint, SchedulingStrategy, ServiceSpec},
    },
    state::{Deployment, DeploymentStatus, EventLevel, EventSubject, RolloutState, ServiceRecord},
    task::{DesiredStatus, LastStatus, Launch, StopCode, Task},
    time::Timestamp,
    world::{HostStatus, Subject},
};

use super::{
    daemon, deployment,
    draft::Draft,
    health, launch,
    placement::{
        HostInput, HostPort, Placed, Placement, Placer, PortRequest, Refusal, Request, ScaleInCandidate, Unplaceable,
    },
    replica, revision,
};

/// A service with all that reconciling it needs.
pub(super) struct Subjected<'a> {
    pub(super) name: &'a ServiceName,
    pub(super) spec: &'a ServiceSpec,
    /// What its tasks shall run.
    pub(super) target: RevisionId,
    /// The target's content.
    pub(super) definition: std::sync::Arc<TaskDefinitionSpec>,
    /// Its live tasks, by id.
    pub(super) live: Vec<TaskId>,
    /// Tasks of it that this draft had placed when `live` was taken.
    placed_before: u64,
}

/// One pass may make room for the next: a task that was never sent is over at once. More passes than this never help.
const MAX_PASSES: usize = 16;

/// Reconciles every service until nothing changes any more, so that planning again finds nothing to do (S12).
pub(super) fn reconcile(draft: &mut Draft<'_>) {
    let mark = draft.waiting_mark();
    for _ in 0..MAX_PASSES {
        draft.forget_waiting(mark);
        let edits = draft.edits();
        pass(draft);
        if draft.edits() == edits {
            return;
        }
    }
}

/// A live task at the beginning of a pass.
enum Member<'w> {
    /// As the world has it: no look-up is needed to read it.
    Untouched(&'w Task),
    /// Changed or added by this draft.
    Edited(TaskId),
}

/// Reconciles every service once, and ends the tasks of services that are no longer declared.
fn pass(draft: &mut Draft<'_>) {
    let world = draft.world;
    let mut members: BTreeMap<ServiceName, Vec<Member<'_>>> = BTreeMap::new();
    let mut add = |service: &ServiceName, member| match members.get_mut(service) {
        Some(tasks) => tasks.push(member),
        None => {
            members.insert(service.clone(), vec![member]);
        }
    };
    for task in world.state.tasks.values() {
        match draft.edited(&task.id) {
            None if task.is_live() => add(&task.service, Member::Untouched(task)),
            Some(task) if task.is_live() => add(&task.service, Member::Edited(task.id.clone())),
            Some(_) | None => {}
        }
    }
    for task in draft.added_tasks().filter(|task| task.is_live()) {
        add(&task.service, Member::Edited(task.id.clone()));
    }
    for (name, manifest) in &world.state.desired.services {
        let members = members.remove(name).unwrap_or_default();
        one(draft, name, manifest, members);
    }
    for (name, tasks) in members {
        if draft.braked() {
            continue;
        }
        for task in tasks {
            let reason = format!("service {name} is no longer declared");
            stop(draft, &task.into_id(), StopCode::ServiceSchedulerInitiated, &reason);
        }
    }
}

impl Member<'_> {
    fn into_id(self) -> TaskId {
        match self {
            Self::Untouched(task) => task.id.clone(),
            Self::Edited(id) => id,
        }
    }
}

/// Whether reconciling a service would find nothing to do: told in one go over its tasks, since nearly every service of
/// nearly every plan is like this. `false` is always right, and only slower.
fn is_steady(
    draft: &Draft<'_>,
    name: &ServiceName,
    spec: &ServiceSpec,
    target: &RevisionId,
    members: &[Member<'_>],
) -> bool {
    let is_kept = |member: &Member<'_>| match member {
        Member::Untouched(task) => {
            task.is_wanted()
                && task.healthy_at.is_some()
                && task.health_status != HealthStatus::Unhealthy
                && task.revision == *target
                && task.cluster == spec.cluster
                && !replica::crash_loops(draft, task)
                && draft.statuses.get(&task.host) != Some(&HostStatus::Draining)
        }
        Member::Edited(_) => false,
    };
    let is_settled = |deployment: &Deployment| match deployment.status {
        DeploymentStatus::Primary => deployment.rollout_state != RolloutState::InProgress,
        DeploymentStatus::Active => false,
        DeploymentStatus::Inactive => true,
    };
    spec.scheduling_strategy == SchedulingStrategy::Replica
        && members.len() == spec.desired_count as usize
        && draft.untouched_service(name).is_some_and(|record| {
            record.deployments.first().is_some_and(|primary| primary.revision == *target)
                && record.deployments.iter().all(is_settled)
        })
        && members.iter().all(is_kept)
}

fn one(draft: &mut Draft<'_>, name: &ServiceName, manifest: &Manifest<ServiceSpec>, members: Vec<Member<'_>>) {
    let target = match revision::wanted(draft, &manifest.spec) {
        Ok(target) => target,
        Err(reason) => return revision::report_unresolved(draft, Subject::Service(name.clone()), reason),
    };
    let Some(definition) = draft.revision(&target).and_then(|revision| revision.spec.clone()) else { return };
    if is_steady(draft, name, &manifest.spec, &target, &members) {
        return;
    }
    let live = members.into_iter().map(Member::into_id).collect();
    let placed_before = draft.placed(name);
    let service = Subjected { name, spec: &manifest.spec, target, definition, live, placed_before };
    deployment::begin(draft, &service);
    note_first_health(draft, &service);
    match manifest.spec.scheduling_strategy {
        SchedulingStrategy::Replica => replica::reconcile(draft, &service),
        SchedulingStrategy::Daemon => daemon::reconcile(draft, &service),
    }
    deployment::conclude(draft, &service);
}

/// Remembers when each task was first healthy, and wakes the planner when one will be.
fn note_first_health(draft: &mut Draft<'_>, service: &Subjected<'_>) {
    let now = draft.now();
    for id in &service.live {
        let Some(task) = draft.task(id).filter(|task| task.healthy_at.is_none()) else { continue };
        match health::healthy(task, service.spec.minimum_healthy_seconds.as_ms(), now) {
            Ok(()) => {
                draft.change_task(id, |task| task.healthy_at = Some(now));
                let mut record = draft.service(service.name);
                super::throttle::reset(&mut record);
                draft.put_service(record);
            }
            Err(Some(at)) => draft.wake_at(at),
            Err(None) => {}
        }
    }
}

impl Subjected<'_> {
    /// Its live tasks that are wanted.
    pub(super) fn wanted<'d>(&self, draft: &'d Draft<'_>) -> Vec<&'d Task> {
        self.live.iter().filter_map(|id| draft.task(id)).filter(|task| task.is_wanted()).collect()
    }

    /// Whether a task was healthy when it was last seen.
    pub(super) fn serves(&self, draft: &Draft<'_>, task: &Task) -> bool {
        health::healthy(task, self.spec.minimum_healthy_seconds.as_ms(), draft.now()).is_ok()
    }

    /// Whether a task is healthy now: its host can be asked.
    pub(super) fn healthy(&self, draft: &Draft<'_>, task: &Task) -> bool {
        draft.heard.contains(&task.host) && self.serves(draft, task)
    }

    /// Live tasks that count against the ceiling, those placed in this draft included: not those on hosts that cannot be
    /// asked (ghosts, S2).
    pub(super) fn counted_live(&self, draft: &Draft<'_>) -> usize {
        let known = self
            .live
            .iter()
            .filter_map(|id| draft.task(id))
            .filter(|task| task.is_live() && !is_ghost(draft, task))
            .count();
        known + self.placed_now(draft)
    }

    /// How many tasks of it were placed since `live` was taken.
    pub(super) fn placed_now(&self, draft: &Draft<'_>) -> usize {
        usize::try_from(draft.placed(self.name) - self.placed_before).unwrap_or(usize::MAX)
    }

    /// When the next start is allowed, if not now (start throttle).
    pub(super) fn throttled_until(&self, draft: &Draft<'_>) -> Option<Timestamp> {
        draft.service(self.name).not_before.filter(|at| *at > draft.now())
    }
}

/// A task that was given up on a host that cannot be asked: it may still run (S2).
pub(super) fn is_ghost(draft: &Draft<'_>, task: &Task) -> bool {
    task.desired_status == DesiredStatus::Stopped
        && matches!(draft.statuses.get(&task.host), Some(HostStatus::Lost | HostStatus::Untrusted) | None)
}

/// Orders a task to stop.
pub(super) fn stop(draft: &mut Draft<'_>, id: &TaskId, code: StopCode, reason: &str) {
    let now = draft.now();
    let Some(task) = draft.task(id).filter(|task| task.desired_status == DesiredStatus::Running) else { return };
    let (service, host) = (task.service.clone(), task.host.clone());
    draft.change_task(id, |task| {
        task.order_stop(now, code, reason);
        if task.launch == Launch::NotIssued {
            // Nothing was ever sent: it is over at once.
            task.advance(LastStatus::Stopped);
            task.stopped_at = Some(now);
        }
    });
    draft.uncount(&service, &host);
    draft.event(
        EventSubject::Service(service),
        EventLevel::Normal,
        "TaskStopping",
        format!("task {id} on {host} is stopped: {reason}"),
    );
}

/// What placement is asked for a task of this service.
fn with_request<'w, T>(
    draft: &mut Draft<'w>,
    service: &Subjected<'_>,
    ask: impl FnOnce(&mut Placer<'w>, &Request<'_>) -> T,
) -> T {
    let (cpu, memory) = launch::reservation(&service.definition);
    let ports: Vec<PortRequest> = launch::published_ports(&service.definition)
        .into_iter()
        .map(|(_, mapping)| PortRequest {
            container_port: mapping.container_port,
            host_port: mapping.host_port,
            protocol: mapping.protocol,
        })
        .collect();
    let constraints: Vec<PlacementConstraint> =
        service.spec.placement_constraints.iter().chain(&service.definition.placement_constraints).cloned().collect();
    let architecture =
        service.definition.runtime_platform.as_ref().and_then(|platform| platform.cpu_architecture.clone());
    let failures: Vec<(Timestamp, HostName)> = draft.service(service.name).failures;
    let nth = draft.placed(service.name);
    let request = Request {
        service: service.name,
        cluster: &service.spec.cluster,
        cpu,
        memory,
        ports: &ports,
        architecture: architecture.as_deref(),
        constraints: &constraints,
        strategies: &service.spec.placement_strategy,
        launch_type: service.spec.launch_type,
        recent_failures: &failures,
        nth,
    };
    ask(draft.placer(), &request)
}

/// Hosts that a daemon of this service belongs on.
pub(super) fn eligible_hosts(draft: &mut Draft<'_>, service: &Subjected<'_>) -> Vec<HostName> {
    with_request(draft, service, |placer, request| placer.eligible(request))
}

/// Places and adds one task of the service's target revision.
///
/// # Errors
/// Why no host fits.
pub(super) fn start(
    draft: &mut Draft<'_>,
    service: &Subjected<'_>,
    slot: u32,
    on: Option<&HostName>,
    reason: &str,
) -> Result<(), Unplaceable> {
    let placement: Placement = with_request(draft, service, |placer, request| match on {
        Some(host) => placer.place_on(host, request),
        None => placer.place(request),
    })?;
    let id = draft.new_task_id();
    let (cpu, memory) = launch::reservation(&service.definition);
    let task = Task {
        id: id.clone(),
        cluster: service.spec.cluster.clone(),
        service: service.name.clone(),
        slot,
        revision: service.target.clone(),
        host: placement.host.clone(),
        launch_type: service.spec.launch_type,
        cpu,
        memory,
        desired_status: DesiredStatus::Running,
        last_status: LastStatus::Provisioning,
        health_status: Default::default(),
        launch: Launch::NotIssued,
        containers: launch::task_containers(service.name, &service.target, &id, &service.definition, &placement.ports),
        epoch: draft.world.state.fleet.epoch,
        created_at: draft.now(),
        started_at: None,
        healthy_at: None,
        stopping_at: None,
        stopped_at: None,
        stop_code: None,
        stopped_reason: None,
        restarts: Vec::new(),
    };
    draft.event(
        EventSubject::Service(service.name.clone()),
        EventLevel::Normal,
        "TaskPlaced",
        format!("task {id} of {} goes to {}: {reason}", service.target, placement.host),
    );
    draft.doing("place", Subject::Task(id), Some(&placement.host), reason);
    draft.add_task(task);
    Ok(())
}

fn host_port(binding: &PortBinding) -> HostPort {
    HostPort { protocol: binding.protocol, port: binding.host_port }
}

/// The placer over all hosts and live tasks of this draft.
pub(super) fn build_placer<'w>(draft: &Draft<'w>) -> Placer<'w> {
    let world = draft.world;
    let hosts = world.state.desired.hosts.iter().map(|(name, manifest)| {
        let observation = world.state.observations.get(name);
        let identity = world.state.hosts.get(name).and_then(|record| record.identity.as_ref());
        let answered = draft.heard.contains(name);
        let accepts = match draft.statuses.get(name).copied() {
            Some(HostStatus::Active) if answered => Ok(()),
            Some(HostStatus::Active) | None => Err(Refusal::NotSeen),
            Some(HostStatus::Cordoned) => Err(Refusal::Cordoned),
            Some(HostStatus::Draining) => Err(Refusal::Draining),
            Some(HostStatus::Suspect) => Err(Refusal::Suspect),
            Some(HostStatus::Lost) => Err(Refusal::Lost),
            Some(HostStatus::Untrusted) => Err(Refusal::Untrusted),
        };
        let foreign_ports = observation
            .into_iter()
            .flat_map(|observation| observation.containers.values())
            .filter(|container| container.owner.ours().is_none())
            .flat_map(|container| container.ports.iter().map(host_port))
            .collect();
        HostInput {
            name,
            labels: &manifest.labels,
            cluster: &manifest.spec.cluster,
            architecture: identity.map_or("", |identity| identity.architecture.as_str()),
            accepts,
            cpu: identity
                .map_or(0, |identity| identity.cpus.saturating_mul(1024))
                .saturating_sub(manifest.spec.reserved.cpu.0),
            memory: identity.map_or(0, |identity| identity.memory_mib).saturating_sub(manifest.spec.reserved.memory.0),
            ports_in_use: foreign_ports,
        }
    });
    let tasks = draft.tasks().filter(|task| task.last_status != LastStatus::Stopped).map(|task| Placed {
        service: &task.service,
        host: &task.host,
        cpu: task.cpu,
        memory: task.memory,
        ports: task.containers.values().flat_map(|container| container.ports.iter().map(host_port)).collect(),
        counts: task.is_wanted(),
    });
    Placer::new(hosts, tasks, world.now, world.seed)
}

/// The `n` tasks to give up, by ECS's rule of choice; healthy ones go last.
pub(super) fn choose_scale_in(
    draft: &mut Draft<'_>,
    service: &Subjected<'_>,
    tasks: &[TaskId],
    n: usize,
) -> Vec<TaskId> {
    let tasks: Vec<(Task, bool)> =
        tasks.iter().filter_map(|id| draft.task(id)).map(|task| (task.clone(), service.healthy(draft, task))).collect();
    let candidates: Vec<ScaleInCandidate<'_>> = tasks
        .iter()
        .map(|(task, healthy)| ScaleInCandidate {
            id: &task.id,
            host: &task.host,
            ready: *healthy,
            created_at: task.created_at,
            cpu: task.cpu,
            memory: task.memory,
        })
        .collect();
    let (launch_type, strategies) = (service.spec.launch_type, &service.spec.placement_strategy);
    draft.placer().choose_scale_in(service.name, &candidates, launch_type, strategies, n)
}

/// The record of a service, changed in place.
pub(super) fn change_record(draft: &mut Draft<'_>, name: &ServiceName, change: impl FnOnce(&mut ServiceRecord)) {
    let mut record = draft.service(name);
    change(&mut record);
    draft.put_service(record);
}
