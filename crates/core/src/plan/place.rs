//! From services and requests to placement: what it is told of the fleet, and what it is asked.

use std::{cell::OnceCell, collections::BTreeSet, sync::Arc};

use crate::model::{
    container::PortBinding,
    desired::Desired,
    name::{ClusterName, HostName, RevisionId, ServiceName, SubnetName, TaskId},
    spec::{
        ServiceSpec, TaskDefinitionSpec,
        network::NetworkConfiguration,
        service::{LaunchType, PlacementConstraint, PlacementStrategy},
    },
    standalone::Standalone,
    state::{EventLevel, EventSubject, ServiceRecord, State},
    task::{LastStatus, NewTask, Task},
    world::{HostStatus, Subject},
};

use super::{
    draft::{Draft, Host, HostNo, TaskNo},
    hosts, launch, network,
    placement::{
        self, Home, HostInput, HostPort, Placed, Placement, Placer, PortRequest, Refusal, Request, ScaleInCandidate,
        Unplaceable,
    },
    rebalance, revision,
    service::Subjected,
    volumes,
};

/// What placement is asked for each task of a service.
#[derive(Default)]
pub(super) struct Wants {
    cpu: u32,
    memory: u32,
    gpus: u32,
    ports: Vec<PortRequest>,
    constraints: Vec<PlacementConstraint>,
    architecture: Option<String>,
    homes: Vec<Home>,
    /// With awsvpc.
    subnets: Option<Vec<SubnetName>>,
}

impl Wants {
    fn of(
        definition: &TaskDefinitionSpec,
        constraints: &[PlacementConstraint],
        homes: Vec<Home>,
        (desired, cluster, configuration): (&Desired, &ClusterName, Option<&NetworkConfiguration>),
    ) -> Self {
        let (cpu, memory) = launch::reservation(definition);
        let is_public = network::is_public(configuration);
        let ports = launch::published_ports(definition, is_public).into_iter().map(|port| PortRequest {
            container_port: port.container_port,
            host_port: port.host_port,
            protocol: port.protocol,
        });
        Self {
            cpu,
            memory,
            gpus: launch::gpus(definition),
            ports: ports.collect(),
            constraints: constraints.iter().chain(&definition.placement_constraints).cloned().collect(),
            architecture: definition.runtime_platform.as_ref().and_then(|platform| platform.cpu_architecture.clone()),
            homes,
            subnets: network::subnets_of(desired, cluster, definition, configuration),
        }
    }

    /// Without strategies, and as the first one that never failed.
    fn request<'r>(
        &'r self,
        service: &'r ServiceName,
        cluster: &'r ClusterName,
        launch_type: LaunchType,
    ) -> Request<'r> {
        Request {
            service,
            cluster,
            cpu: self.cpu,
            memory: self.memory,
            gpus: self.gpus,
            ports: &self.ports,
            architecture: self.architecture.as_deref(),
            constraints: &self.constraints,
            homes: &self.homes,
            subnets: self.subnets.as_deref(),
            silent: &[],
            strategies: &[],
            launch_type,
            recent_failures: &[],
            nth: 0,
        }
    }
}

impl Subjected<'_> {
    fn request<'r>(&'r self, draft: &'r Draft<'_>) -> Request<'r> {
        let network = (&*draft.world.state.desired, &self.spec.cluster, self.spec.network_configuration.as_ref());
        let constraints = &self.spec.placement_constraints;
        let make = || Wants::of(&self.definition, constraints, volumes::homes(draft, self), network);
        let wants = self.wants.get_or_init(make);
        Request {
            strategies: &self.spec.placement_strategy,
            recent_failures: draft.services[self.no].record().map_or(&[], |record| &record.failures),
            nth: draft.services[self.no].placed,
            ..wants.request(self.name, &self.spec.cluster, self.spec.launch_type)
        }
    }
}

/// Hosts that a daemon of this service belongs on, ascending.
pub(super) fn eligible_hosts(draft: &mut Draft<'_>, service: &Subjected<'_>) -> Vec<HostNo> {
    if draft.shortcuts
        && let Some(hosts) = placement::eligible_by_itself(draft.host_inputs(), &service.request(draft))
    {
        return hosts;
    }
    let names = draft.with_placer(|draft, placer| placer.eligible(&service.request(draft)));
    names.iter().filter_map(|name| draft.host_no(name)).collect()
}

/// How many of the declared hosts a service's tasks may be on, whatever their status and room; where constraints ask for what
/// runs there, every host of its cluster counts.
pub(super) fn matching_hosts(state: &State, service: &ServiceName, spec: &ServiceSpec) -> usize {
    let definition = revision::wanted_of(state, spec).and_then(|id| state.revision(&id)?.spec.clone());
    let of_definition = definition.iter().flat_map(|definition| &definition.placement_constraints);
    let platform = definition.as_ref().and_then(|definition| definition.runtime_platform.as_ref());
    let wants = Wants {
        constraints: spec.placement_constraints.iter().chain(of_definition).cloned().collect(),
        architecture: platform.and_then(|platform| platform.cpu_architecture.clone()),
        ..Wants::default()
    };
    let request = wants.request(service, &spec.cluster, spec.launch_type);
    // A host as far as constraints may ask for it.
    let hosts = state.desired.hosts.iter().map(|(name, manifest)| {
        let identity = state.hosts.get(name).and_then(|record| record.identity.as_ref());
        HostInput {
            name,
            cluster: &manifest.spec.cluster,
            labels: &manifest.labels,
            architecture: identity.map_or("", |identity| &identity.architecture),
            accepts: Ok(()),
            cpu: 0,
            memory: 0,
            gpus: 0,
            ports_in_use: Vec::new(),
            slices: Vec::new(),
            has_network: false,
        }
    });
    let in_cluster = || state.desired.hosts.values().filter(|host| host.spec.cluster == spec.cluster).count();
    placement::eligible_by_itself(hosts, &request).map_or_else(in_cluster, |hosts| hosts.len())
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
    let silent = hosts::too_silent(draft, service.spec);
    let placement: Placement = draft.with_placer(|draft, placer| {
        let request = Request { silent: &silent, ..service.request(draft) };
        match on {
            Some(host) => placer.place_on(host, &request),
            None => placer.place(&request),
        }
    })?;
    let id = draft.new_task_id();
    let (cpu, memory) = launch::reservation(&service.definition);
    let revision = service.starts.as_ref().unwrap_or(&service.target);
    let mut task = Task::new(NewTask {
        id: id.clone(),
        cluster: service.spec.cluster.clone(),
        service: service.name.clone(),
        slot,
        revision: revision.clone(),
        host: placement.host.clone(),
        launch_type: service.spec.launch_type,
        cpu,
        memory,
        containers: launch::task_containers(service.name, revision, &id, &service.definition, &placement.ports),
        epoch: draft.world.state.fleet.epoch,
        created_at: draft.now(),
    });
    task.network = network::of_placed(&placement, service.spec.network_configuration.as_ref());
    task.uses_names = network::uses_names(draft, &task);
    let primary = draft.services[service.no].record().and_then(ServiceRecord::primary);
    task.deployment = primary.map_or(0, |primary| primary.id);
    task.side = service.side;
    draft.event(
        EventSubject::Service(service.name.clone()),
        EventLevel::Normal,
        "TaskPlaced",
        format!("task {id} of {revision} goes to {}: {reason}", placement.host),
    );
    volumes::note_placed(draft, service, &placement, &id);
    draft.doing("place", Subject::Task(id), Some(&placement.host), reason);
    draft.add_task(task, Some(service.no));
    Ok(())
}

/// What a standalone task is to be.
pub(super) struct Job<'a> {
    pub(super) revision: &'a RevisionId,
    /// The revision's own content.
    pub(super) definition: &'a TaskDefinitionSpec,
    pub(super) cluster: &'a ClusterName,
    pub(super) launch_type: LaunchType,
    pub(super) constraints: &'a [PlacementConstraint],
    pub(super) strategies: &'a [PlacementStrategy],
    pub(super) network: Option<&'a NetworkConfiguration>,
    pub(super) standalone: Arc<Standalone>,
    /// How many were placed of it so far.
    pub(super) nth: u64,
}

/// Places and adds one standalone task.
///
/// # Errors
/// Why no host fits.
pub(super) fn start_standalone(draft: &mut Draft<'_>, job: &Job<'_>, reason: &str) -> Result<TaskId, Unplaceable> {
    let content = job.standalone.content(job.definition);
    let group = ServiceName::of_family(&job.revision.family);
    let network = (&*draft.world.state.desired, job.cluster, job.network);
    let wants = Wants::of(&content, job.constraints, volumes::homes_in(draft, job.cluster, &content), network);
    let placement = draft.with_placer(|_, placer| {
        let request = wants.request(&group, job.cluster, job.launch_type);
        placer.place(&Request { strategies: job.strategies, nth: job.nth, ..request })
    })?;
    let id = draft.new_task_id();
    let mut task = Task::new(NewTask {
        id: id.clone(),
        cluster: job.cluster.clone(),
        slot: 0,
        revision: job.revision.clone(),
        host: placement.host.clone(),
        launch_type: job.launch_type,
        cpu: wants.cpu,
        memory: wants.memory,
        containers: launch::task_containers(&group, job.revision, &id, &content, &placement.ports),
        epoch: draft.world.state.fleet.epoch,
        created_at: draft.now(),
        service: group,
    });
    task.standalone = Some(Arc::clone(&job.standalone));
    task.network = network::of_placed(&placement, job.network);
    task.uses_names = network::uses_names(draft, &task);
    let words = format!("task {id} of {} goes to {}: {reason}", job.revision, placement.host);
    draft.event(EventSubject::Task(id.clone()), EventLevel::Normal, "TaskPlaced", words);
    draft.doing("place", Subject::Task(id.clone()), Some(&placement.host), reason);
    draft.add_task(task, None);
    Ok(id)
}

/// The `n` tasks to give up, by ECS's rule of choice; healthy ones go last.
pub(super) fn choose_scale_in(
    draft: &mut Draft<'_>,
    service: &Subjected<'_>,
    tasks: &[TaskNo],
    n: usize,
) -> Vec<TaskNo> {
    let chosen: Vec<TaskId> = draft.with_placer(|draft, placer| {
        let candidate = |no: &TaskNo| {
            let task = draft.task(*no);
            ScaleInCandidate {
                id: &task.id,
                host: &task.host,
                // While tasks move, zones count for more: the new one is not ready yet.
                ready: service.healthy(draft, *no) || rebalance::applies(service.spec),
                created_at: task.created_at,
                cpu: task.cpu,
                memory: task.memory,
            }
        };
        let candidates: Vec<ScaleInCandidate<'_>> = tasks.iter().map(candidate).collect();
        let (launch_type, strategies) = (service.spec.launch_type, &service.spec.placement_strategy);
        placer.choose_scale_in(service.name, &candidates, launch_type, strategies, n)
    });
    let by_id: std::collections::BTreeMap<&TaskId, TaskNo> =
        tasks.iter().map(|no| (&draft.task(*no).id, *no)).collect();
    chosen.iter().filter_map(|id| by_id.get(id).copied()).collect()
}

fn host_port(binding: &PortBinding) -> HostPort {
    HostPort { protocol: binding.protocol, port: binding.host_port }
}

/// A host as placement sees it, but for the ports that others hold there.
pub(super) fn host_input<'w>(host: &Host<'w>) -> HostInput<'w> {
    let identity = host.known().and_then(|record| record.identity.as_ref());
    let spec = &host.manifest.spec;
    HostInput {
        name: host.name,
        labels: &host.manifest.labels,
        cluster: &spec.cluster,
        architecture: identity.map_or("", |identity| identity.architecture.as_str()),
        accepts: match host.status {
            HostStatus::Active if host.heard => Ok(()),
            HostStatus::Active => Err(Refusal::NotSeen),
            HostStatus::Cordoned => Err(Refusal::Cordoned),
            HostStatus::Draining => Err(Refusal::Draining),
            HostStatus::Suspect => Err(Refusal::Suspect),
            HostStatus::Lost => Err(Refusal::Lost),
            HostStatus::Untrusted => Err(Refusal::Untrusted),
        },
        cpu: identity.map_or(0, |identity| identity.cpus.saturating_mul(1024)).saturating_sub(spec.reserved.cpu.0),
        memory: identity.map_or(0, |identity| identity.memory_mib).saturating_sub(spec.reserved.memory.0),
        gpus: spec.gpus,
        ports_in_use: Vec::new(),
        slices: Vec::new(),
        has_network: false,
    }
}

/// The placer over all hosts and tasks of this draft.
pub(super) fn build_placer<'w>(draft: &Draft<'w>) -> Placer<'w> {
    let world = draft.world;
    let unsettled = network::unsettled(draft);
    let hosts = draft.hosts.iter().map(|host| {
        let observation = world.state.observations.get(host.name);
        let containers = observation.into_iter().flat_map(|observation| observation.containers.values());
        let foreign = containers.filter(|container| container.owner.ours().is_none());
        let ports_in_use = foreign.flat_map(|container| container.ports.iter().map(host_port)).collect();
        let slices = network::slices_of(draft, host.name);
        let has_network = network::is_sound(draft, host.name) && !unsettled.contains(&host.manifest.spec.cluster);
        HostInput { ports_in_use, slices, has_network, ..host_input(host) }
    });
    let tasks: Vec<&Task> = draft.tasks.iter().filter(|task| task.last_status != LastStatus::Stopped).collect();
    let placed = tasks.iter().map(|task| placed(draft, task));
    let mut placer = Placer::new(hosts, placed, world.now, world.seed);
    // Of a task that is over, or that nobody knows, something may still be there and have its address (S4).
    let known: OnceCell<BTreeSet<&TaskId>> = OnceCell::new();
    let is_known = |id: &TaskId| known.get_or_init(|| tasks.iter().map(|task| &task.id).collect()).contains(id);
    for (host, observation) in &world.state.observations {
        for claim in observation.containers.values().filter_map(|container| container.owner.ours()) {
            if let Some(network) = claim.network.as_ref().filter(|_| !is_known(&claim.task)) {
                placer.hold(host, network.address);
            }
        }
    }
    placer
}

/// What a task takes where it is.
pub(super) fn placed<'t>(draft: &Draft<'_>, task: &'t Task) -> Placed<'t> {
    Placed {
        service: &task.service,
        host: &task.host,
        cpu: task.cpu,
        memory: task.memory,
        gpus: draft.revision(&task.revision).and_then(|it| it.spec.as_deref()).map_or(0, launch::gpus),
        ports: task.containers.values().flat_map(|container| container.ports.iter().map(host_port)).collect(),
        address: task.network.as_ref().map(|network| network.address),
        counts: task.is_wanted(),
    }
}
