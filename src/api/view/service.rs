//! Services as `DescribeServices` prints them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::deployment::{self, DeploymentView};
use roadstead_control::control::handle::Snapshot;
use roadstead_core::model::{
    name::{RevisionId, ServiceName},
    report::Waiting,
    spec::{
        ServiceSpec,
        cluster::DEFAULT_CLUSTER,
        load_balancer::ServiceLoadBalancer,
        service::{LaunchType, SchedulingStrategy, TaskDefinitionRef},
    },
    state::{DeploymentStatus, Event, EventSubject, RolloutState, State},
    task::LastStatus,
    time::Timestamp,
    world::Subject,
};

/// How many events a service shows.
const EVENTS_SHOWN: usize = 20;

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// Name.
    pub name: String,
    /// Cluster.
    pub cluster: String,
    /// ACTIVE; DRAINING while tasks of one that is no longer declared remain.
    #[schema(value_type = String)]
    pub status: ServiceStatus,
    /// EC2, FARGATE.
    #[schema(value_type = String)]
    pub launch_type: LaunchType,
    /// REPLICA, DAEMON.
    #[schema(value_type = String)]
    pub scheduling_strategy: SchedulingStrategy,
    /// `family:revision` of the primary deployment; as declared before there is one.
    pub task_definition: String,
    /// Tasks wanted.
    pub desired_count: u32,
    /// Tasks that are RUNNING.
    pub running_count: u32,
    /// Tasks on their way there.
    pub pending_count: u32,
    /// PRIMARY first, then those with tasks left.
    pub deployments: Vec<DeploymentView>,
    /// Target groups that it is in.
    pub load_balancers: Vec<ServiceTargetsView>,
    /// The newest, newest first.
    pub events: Vec<ServiceEvent>,
    /// What holds of it now.
    pub conditions: Vec<Condition>,
}

/// Where a service's tasks are targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceTargetsView {
    /// The target group.
    pub target_group: String,
    /// The one that takes turns with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alternate_target_group: Option<String>,
    /// The rule that clients come by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub production_listener_rule: Option<String>,
    /// The rule by which a new revision is tried before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_listener_rule: Option<String>,
    /// The container that answers.
    pub container_name: Option<String>,
    /// Its port.
    pub container_port: Option<u16>,
}

/// ECS's service `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ServiceStatus {
    /// Declared.
    Active,
    /// No longer declared.
    Draining,
}

/// An event in a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceEvent {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// For people.
    pub message: String,
}

/// Something that holds of a service, or does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Steady, Waiting, Pinned.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: bool,
    /// Why.
    pub message: String,
    /// What ends a waiting.
    pub wakes_when: Option<String>,
    /// When a waiting is looked at again by itself.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub wakes_at: Option<Timestamp>,
}

/// What a [`Condition`] speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ConditionType {
    /// It has what it wants.
    Steady,
    /// Something is wanted and cannot be done now.
    Waiting,
    /// It runs another revision than the manifests ask for: that one failed, or a person said so.
    Pinned,
}

/// Tasks by how far they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub running: u32,
    pub pending: u32,
    pub wanted: u32,
}

impl Counts {
    pub fn of(state: &State, service: &ServiceName, revision: Option<&RevisionId>) -> Self {
        let tasks = state.tasks.values().filter(|task| task.service == *service);
        tasks.filter(|task| revision.is_none_or(|revision| *revision == task.revision)).fold(
            Self::default(),
            |mut counts, task| {
                match task.last_status {
                    LastStatus::Running => counts.running += 1,
                    LastStatus::Provisioning | LastStatus::Pending | LastStatus::Activating => counts.pending += 1,
                    LastStatus::Deactivating
                    | LastStatus::Stopping
                    | LastStatus::Deprovisioning
                    | LastStatus::Stopped => {}
                }
                counts.wanted += u32::from(task.is_wanted());
                counts
            },
        )
    }
}

/// Tasks wanted. For a DAEMON those placed, as in ECS: how many hosts match is the planner's affair.
pub(super) fn desired_count(state: &State, service: &ServiceName) -> u32 {
    match state.desired.services.get(service).map(|manifest| &manifest.spec) {
        None => 0,
        Some(ServiceSpec { scheduling_strategy: SchedulingStrategy::Replica, desired_count, .. }) => *desired_count,
        Some(ServiceSpec { scheduling_strategy: SchedulingStrategy::Daemon, .. }) => {
            Counts::of(state, service, None).wanted
        }
    }
}

/// All services: declared ones, and those that are going away. `events` are oldest first.
pub fn list(snapshot: &Snapshot, cluster: Option<&str>, events: &[Event]) -> Vec<ServiceView> {
    let state = &snapshot.world.state;
    let names: BTreeSet<&ServiceName> = state.desired.services.keys().chain(state.services.keys()).collect();
    let views = names.into_iter().filter_map(|name| view(snapshot, name, events));
    views.filter(|view| cluster.is_none_or(|cluster| cluster == view.cluster)).collect()
}

/// One service; `None` when nothing is known of it.
pub fn view(snapshot: &Snapshot, name: &ServiceName, events: &[Event]) -> Option<ServiceView> {
    let state = &snapshot.world.state;
    let spec = state.desired.services.get(name).map(|manifest| &manifest.spec);
    let record = state.services.get(name);
    if spec.is_none() && record.is_none() {
        return None;
    }
    let any_task = state.tasks.values().find(|task| task.service == *name);
    let counts = Counts::of(state, name, None);
    let deployments: Vec<DeploymentView> = deployment::of_service(&snapshot.world, name)
        .into_iter()
        .filter(|deployment| deployment.status != DeploymentStatus::Inactive)
        .collect();
    let declared = spec.map(|spec| match &spec.task_definition {
        TaskDefinitionRef::Named(text) => text.clone(),
        TaskDefinitionRef::Inline(_) => name.to_string(),
    });
    let mut view = ServiceView {
        name: name.to_string(),
        cluster: match (spec, any_task) {
            (Some(spec), _) => spec.cluster.to_string(),
            (None, Some(task)) => task.cluster.to_string(),
            (None, None) => DEFAULT_CLUSTER.to_owned(),
        },
        status: if spec.is_some() { ServiceStatus::Active } else { ServiceStatus::Draining },
        launch_type: spec.map(|spec| spec.launch_type).or(any_task.map(|task| task.launch_type)).unwrap_or_default(),
        scheduling_strategy: spec.map(|spec| spec.scheduling_strategy).unwrap_or_default(),
        task_definition: deployments
            .first()
            .map(|primary| primary.task_definition.clone())
            .or(declared)
            .unwrap_or_default(),
        desired_count: desired_count(state, name),
        running_count: counts.running,
        pending_count: counts.pending,
        deployments,
        load_balancers: spec.map(|spec| targets(state, spec)).unwrap_or_default(),
        events: events_of(name, events),
        conditions: Vec::new(),
    };
    view.conditions = conditions(snapshot, name, &view);
    Some(view)
}

/// What is left out in the manifest is filled in.
fn targets(state: &State, spec: &ServiceSpec) -> Vec<ServiceTargetsView> {
    let family = match &spec.task_definition {
        TaskDefinitionRef::Named(family) => family.as_str(),
        TaskDefinitionRef::Inline(_) => "",
    };
    let definition = state.desired.task_definitions.get(family);
    let view = |own: &ServiceLoadBalancer| {
        let answering = definition.and_then(|it| own.answering(&it.spec));
        ServiceTargetsView {
            target_group: own.target_group.to_string(),
            alternate_target_group: own.alternate_target_group.as_ref().map(ToString::to_string),
            production_listener_rule: own.production_listener_rule.clone(),
            test_listener_rule: own.test_listener_rule.clone(),
            container_name: own.container_name.clone().or_else(|| answering.map(|(name, _)| name.to_owned())),
            container_port: own.container_port.or(answering.map(|(_, port)| port)),
        }
    };
    spec.load_balancers.iter().map(view).collect()
}

fn events_of(name: &ServiceName, events: &[Event]) -> Vec<ServiceEvent> {
    let ours =
        events.iter().rev().filter(|event| matches!(&event.subject, EventSubject::Service(service) if service == name));
    ours.take(EVENTS_SHOWN).map(|event| ServiceEvent { at: event.at, message: event.message.clone() }).collect()
}

fn conditions(snapshot: &Snapshot, name: &ServiceName, view: &ServiceView) -> Vec<Condition> {
    let waiting: Vec<&Waiting> = waiting_of(snapshot, name).collect();
    let rollout =
        view.deployments.first().map(|primary| (primary.rollout_state, primary.rollout_state_reason.as_str()));
    let counted = format!("{} of {} tasks run", view.running_count, view.desired_count);
    let full = view.running_count == view.desired_count && view.pending_count == 0;
    let (steady, message) = match rollout {
        Some((RolloutState::Completed, _)) | None => (full && waiting.is_empty(), counted),
        Some((RolloutState::InProgress, "")) => (false, format!("{counted}; a deployment is under way")),
        Some((RolloutState::Failed, "")) => (false, format!("{counted}; the deployment failed")),
        Some((RolloutState::InProgress | RolloutState::Failed, reason)) => (false, format!("{counted}; {reason}")),
    };
    let steady = Condition { kind: ConditionType::Steady, status: steady, message, wakes_when: None, wakes_at: None };
    let waiting = waiting.into_iter().map(|waiting| Condition {
        kind: ConditionType::Waiting,
        status: true,
        message: waiting.reason.clone(),
        wakes_when: Some(waiting.wakes_when.clone()),
        wakes_at: waiting.wakes_at,
    });
    let pin = snapshot.world.state.services.get(name).and_then(|record| record.pin.as_ref());
    let pinned = pin.map(|pin| Condition {
        kind: ConditionType::Pinned,
        status: true,
        message: format!("it runs {} instead of {}: {}", pin.revision, pin.instead_of, pin.reason),
        wakes_when: Some(format!("the manifests change, or you say `roadstead rollout continue {name}`")),
        wakes_at: None,
    });
    std::iter::once(steady).chain(waiting).chain(pinned).collect()
}

/// What waits of a service: itself, and its tasks.
pub(super) fn waiting_of<'a>(snapshot: &'a Snapshot, name: &'a ServiceName) -> impl Iterator<Item = &'a Waiting> {
    snapshot.report.waiting.iter().filter(move |waiting| concerns(&snapshot.world.state, &waiting.subject, name))
}

/// Whether a report line is about a service or one of its tasks.
pub(super) fn concerns(state: &State, subject: &Subject, name: &ServiceName) -> bool {
    match subject {
        Subject::Service(service) => service == name,
        Subject::Task(task) => state.tasks.get(task).is_some_and(|task| task.service == *name),
        Subject::Fleet
        | Subject::Host(_)
        | Subject::ScheduledTask(_)
        | Subject::Subnet(_)
        | Subject::LoadBalancer(_) => false,
    }
}
