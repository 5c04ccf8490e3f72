//! A task: one shot, on one host, its state only moving forward (S18).
//!
//! Rules: "Task lifecycle", ECS developer guide.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    container::{ContainerState, HealthStatus, PortBinding},
    name::{ClusterName, ContainerName, HostName, RevisionId, RuntimeId, ServiceName, TaskId},
    network::{SANDBOX, TaskNetwork},
    small_map::SmallMap,
    spec::service::LaunchType,
    standalone::Standalone,
    state::EventSubject,
    time::Timestamp,
    traffic::Side,
};

/// ECS's `lastStatus`, in the order in which a task goes through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LastStatus {
    /// Decided; nothing was sent yet.
    Provisioning,
    /// Sent to its host.
    Pending,
    /// Some of its containers run.
    Activating,
    /// All essential containers run.
    Running,
    /// Leaves load balancers and DNS.
    Deactivating,
    /// Told to stop.
    Stopping,
    /// Containers ended; leftovers are being removed.
    Deprovisioning,
    /// Over.
    Stopped,
}

/// ECS's `desiredStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DesiredStatus {
    /// To run.
    Running,
    /// Ordered to stop; never wanted again (S9).
    Stopped,
}

/// ECS's `stopCode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopCode {
    /// Never came up.
    TaskFailedToStart,
    /// An essential container ended.
    EssentialContainerExited,
    /// A person said so.
    UserInitiated,
    /// Its service said so.
    ServiceSchedulerInitiated,
    /// Its host goes away.
    TerminationNotice,
    /// Its host is lost.
    HostLost,
}

/// One container of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskContainer {
    /// Its name on the host.
    pub created_name: String,
    /// Whether the task stops when it stops.
    pub essential: bool,
    /// Image reference.
    pub image: String,
    /// The digest that it runs by; else the image's content id, once seen.
    pub image_digest: Option<String>,
    /// The engine's id, once known; `None` again when a complete fresh look shows it gone.
    pub runtime_id: Option<RuntimeId>,
    /// As last seen.
    pub state: Option<ContainerState>,
    /// As last seen.
    pub health: HealthStatus,
    /// Whether it has a check.
    pub has_health_check: bool,
    /// As last seen.
    pub exit_code: Option<i64>,
    /// The kernel killed it for memory.
    pub oom_killed: bool,
    /// Restarts by the engine.
    pub restart_count: u32,
    /// Last start by the host's clock.
    pub started_at: Option<Timestamp>,
    /// When a look first showed it started, by ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_started_at: Option<Timestamp>,
    /// Host ports: allocated, exclusive until a look shows the container gone (S4).
    pub ports: Vec<PortBinding>,
    /// It ended well only because its engine was stopped, and the others of its task came back with the engine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub taken_down: bool,
    /// That the controller started it again after it had ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revived: Option<Revived>,
    /// Why its check from the host fails, in words, while it is UNHEALTHY by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_reason: Option<String>,
}

/// How often the controller started a container again, while one time followed closely on the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revived {
    /// At least 1.
    pub times: u32,
    /// The last time.
    pub at: Timestamp,
}

/// The outcome of the last launch order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Launch {
    /// Not ordered yet.
    NotIssued,
    /// Ordered; the answer is not here, or will never be (S9).
    Issued {
        /// When it was ordered.
        at: Timestamp,
    },
    /// Answered.
    Answered {
        /// When the answer was here: a look that began earlier says nothing about it.
        at: Timestamp,
    },
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its service; of a standalone task its group, see [`ServiceName::of_family`].
    pub service: ServiceName,
    /// REPLICA: 1, 2, 3 …, freed when it ends. DAEMON: 0.
    pub slot: u32,
    /// What it runs; frozen.
    pub revision: RevisionId,
    /// Where it runs; never changes.
    pub host: HostName,
    /// EC2 or FARGATE.
    pub launch_type: LaunchType,
    /// CPU units it reserves on its host.
    pub cpu: u32,
    /// MiB it reserves on its host.
    pub memory: u32,
    /// What is wanted of it.
    pub desired_status: DesiredStatus,
    /// How far it is.
    pub last_status: LastStatus,
    /// Over its essential containers.
    pub health_status: HealthStatus,
    /// As the load balancers say of it as a target; none of what never was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_health: Option<HealthStatus>,
    /// Which of its service's two target groups it is in.
    #[serde(default, skip_serializing_if = "Side::is_blue")]
    pub side: Side,
    /// The last launch order.
    pub launch: Launch,
    /// Its containers by name.
    pub containers: SmallMap<ContainerName, TaskContainer>,
    /// The epoch of the controller that decided it.
    pub epoch: u64,
    /// When it was decided.
    pub created_at: Timestamp,
    /// When it reached RUNNING.
    pub started_at: Option<Timestamp>,
    /// When it was first healthy.
    pub healthy_at: Option<Timestamp>,
    /// When it was ordered to stop.
    pub stopping_at: Option<Timestamp>,
    /// When it was over.
    pub stopped_at: Option<Timestamp>,
    /// Why it stops.
    pub stop_code: Option<StopCode>,
    /// Why it stops, in words a person can act on.
    pub stopped_reason: Option<String>,
    /// When its containers were restarted, newest last, at most [`MAX_RESTARTS_KEPT`].
    pub restarts: Vec<Timestamp>,
    /// Second containers of it, as last seen: a name is the lock against making one twice, and a person may rename what has
    /// it. They are removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strays: Vec<RuntimeId>,
    /// The deployment that started it; 0 when that is not known.
    #[serde(default)]
    pub deployment: u64,
    /// Until then neither scale-in nor a deployment stops it: a person said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected_until: Option<Timestamp>,
    /// Its place in the task network, with `networkMode: awsvpc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Arc<TaskNetwork>>,
    /// Its containers ask their host for names, which answers for as long as they are there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uses_names: bool,
    /// Of a standalone task what was said when it was started; absent also when the database that knew it was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standalone: Option<Arc<Standalone>>,
}

/// What is given of a task when it is decided, or found.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// See [`Task::id`].
    pub id: TaskId,
    /// See [`Task::cluster`].
    pub cluster: ClusterName,
    /// See [`Task::service`].
    pub service: ServiceName,
    /// See [`Task::slot`].
    pub slot: u32,
    /// See [`Task::revision`].
    pub revision: RevisionId,
    /// See [`Task::host`].
    pub host: HostName,
    /// See [`Task::launch_type`].
    pub launch_type: LaunchType,
    /// See [`Task::cpu`].
    pub cpu: u32,
    /// See [`Task::memory`].
    pub memory: u32,
    /// See [`Task::containers`].
    pub containers: SmallMap<ContainerName, TaskContainer>,
    /// See [`Task::epoch`].
    pub epoch: u64,
    /// See [`Task::created_at`].
    pub created_at: Timestamp,
}

/// How many restart times a task keeps.
pub const MAX_RESTARTS_KEPT: usize = 20;

impl Task {
    /// A container of it, which it cannot be without, was restarted.
    pub fn note_restart(&mut self, at: Timestamp) {
        self.restarts.push(at);
        let surplus = self.restarts.len().saturating_sub(MAX_RESTARTS_KEPT);
        self.restarts.drain(..surplus);
    }

    /// A task that is wanted and of which nothing was ordered yet.
    pub fn new(given: NewTask) -> Self {
        Self {
            id: given.id,
            cluster: given.cluster,
            service: given.service,
            slot: given.slot,
            revision: given.revision,
            host: given.host,
            launch_type: given.launch_type,
            cpu: given.cpu,
            memory: given.memory,
            desired_status: DesiredStatus::Running,
            last_status: LastStatus::Provisioning,
            health_status: HealthStatus::Unknown,
            target_health: None,
            side: Side::default(),
            launch: Launch::NotIssued,
            containers: given.containers,
            epoch: given.epoch,
            created_at: given.created_at,
            started_at: None,
            healthy_at: None,
            stopping_at: None,
            stopped_at: None,
            stop_code: None,
            stopped_reason: None,
            restarts: Vec::new(),
            strays: Vec::new(),
            deployment: 0,
            protected_until: None,
            network: None,
            uses_names: false,
            standalone: None,
        }
    }

    /// Its containers as its task definition has them: the one that holds its network is nobody's business.
    pub fn defined_containers(&self) -> impl Iterator<Item = (&ContainerName, &TaskContainer)> {
        self.containers.iter().filter(|(name, _)| name.as_str() != SANDBOX)
    }

    /// Whether it belongs to no service: it is placed once, and never replaced.
    pub fn is_standalone(&self) -> bool {
        self.service.family().is_some()
    }

    /// Where its story is told.
    pub fn told_in(&self) -> EventSubject {
        match self.is_standalone() {
            true => EventSubject::Task(self.id.clone()),
            false => EventSubject::Service(self.service.clone()),
        }
    }

    /// Whether it counts against its service's ceiling: it runs, or may.
    pub fn is_live(&self) -> bool {
        self.last_status < LastStatus::Deprovisioning
    }

    /// Whether it is wanted and not over.
    pub fn is_wanted(&self) -> bool {
        self.desired_status == DesiredStatus::Running && self.last_status < LastStatus::Deactivating
    }

    /// Moves `last_status` forward; backward moves are ignored (S18).
    pub fn advance(&mut self, to: LastStatus) {
        self.last_status = self.last_status.max(to);
    }

    /// Orders it to stop; the first order's reason stands.
    pub fn order_stop(&mut self, at: Timestamp, code: StopCode, reason: impl Into<String>) {
        if self.desired_status == DesiredStatus::Stopped {
            return;
        }
        self.desired_status = DesiredStatus::Stopped;
        self.stopping_at = Some(at);
        self.stop_code = Some(code);
        self.stopped_reason = Some(reason.into());
        // Load balancers and DNS come between DEACTIVATING and STOPPING.
        self.advance(LastStatus::Stopping);
    }
}
