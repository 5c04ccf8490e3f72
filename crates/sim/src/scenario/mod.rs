//! What one run of the simulator is made of, drawn or written: a fleet, what happens to it and when, how often requests go
//! wrong. A value that is kept as a file, so that a run that failed can be run for ever, and made smaller.

mod change;
mod draw;
mod images;
mod networks;
mod probes;
mod traffic;
mod volumes;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use change::{Change, Sickness};
pub(crate) use change::{ENDS_WELL, SICKNESS, short};
pub(crate) use draw::{FIXED_PORT, JOB, change as draw_change, draw_desired, plain_desired};
pub use draw::{Shape, draw};
pub(crate) use probes::{PROBED, TCP_PORT};

use roadstead_core::{
    model::{
        desired::Desired,
        name::{HostName, ServiceName},
        spec::{TaskDefinitionSpec, service::SchedulingStrategy},
        state::Schedulability,
    },
    plan::absorb::{RolloutVerb, VolumeVerb},
};

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scenario {
    /// Decides what is not written here: how long a request takes, which of them go wrong.
    pub seed: u64,
    /// The manifests at the beginning.
    pub desired: Desired,
    /// What happens, and when after the start.
    pub script: Vec<Scripted>,
    /// How often requests and commits go wrong by chance, while faults last.
    pub rates: Rates,
    /// Requests and commits that go wrong for certain.
    pub mishaps: Vec<(Point, Mishap)>,
    /// How long faults last. Then all is healed, but for …
    pub faults_ms: u64,
    /// … these hosts, which stay cut off for ever (L2).
    pub broken_for_ever: BTreeSet<HostName>,
    /// Manifests are written as YAML and admitted, not handed over as values.
    pub through_yaml: bool,
}

impl Scenario {
    /// The same manifests and their changes, and nothing else.
    pub fn without_faults(&self) -> Self {
        let script = self.script.iter().filter(|scripted| matches!(scripted.what, Happening::Manifests { .. }));
        Self {
            script: script.cloned().collect(),
            rates: Default::default(),
            mishaps: Vec::new(),
            broken_for_ever: Default::default(),
            ..self.clone()
        }
    }

    /// Whether a service can always be whole when all is well: no fixed ports, bounds that let it move.
    pub fn always_fits(&self, service: &str) -> bool {
        let mut desired = self.desired.clone();
        for scripted in &self.script {
            if let Happening::Manifests { change } = &scripted.what {
                change.make(&mut desired);
            }
        }
        let Some(manifest) = desired.services.get(service) else { return false };
        let configuration = &manifest.spec.deployment_configuration;
        !has_fixed_port(&desired, service)
            && manifest.spec.scheduling_strategy == SchedulingStrategy::Replica
            && configuration.maximum_percent.unwrap_or(200) > 100
            && self.broken_for_ever.is_empty()
    }
}

/// Whether a service's tasks want a certain port of their host, so that two do not fit on one.
pub(crate) fn has_fixed_port(desired: &Desired, service: &str) -> bool {
    desired.task_definitions.get(service).is_some_and(|definition| takes_fixed_port(&definition.spec))
}

/// Whether a task of this definition takes a fixed host port.
pub(crate) fn takes_fixed_port(definition: &TaskDefinitionSpec) -> bool {
    let mut ports = definition.container_definitions.iter().flat_map(|container| &container.port_mappings);
    ports.any(|port| port.host_port.is_some_and(|port| port != 0))
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scripted {
    /// Milliseconds after the start.
    pub at_ms: u64,
    /// What.
    pub what: Happening,
}

/// What can happen. `nth` chooses among the containers of ours that a host has just then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "happening")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Happening {
    /// Packets to the host, from it, or both are dropped.
    Cut {
        host: HostName,
        there: bool,
        back: bool,
    },
    /// Packets pass again.
    Heal {
        host: HostName,
    },
    /// SIGSTOP of the engine: it takes requests and answers none.
    Hang {
        host: HostName,
    },
    /// The engine goes on, and does what it was asked, in order or not.
    Resume {
        host: HostName,
        shuffled: bool,
    },
    /// kill -9 of the engine and its start.
    KillEngine {
        host: HostName,
    },
    /// The machine loses power and starts again.
    Reboot {
        host: HostName,
    },
    /// The main process ends by itself.
    Crash {
        host: HostName,
        nth: u64,
    },
    /// The kernel kills the main process.
    OutOfMemory {
        host: HostName,
        nth: u64,
    },
    /// docker kill.
    Kill {
        host: HostName,
        nth: u64,
    },
    /// docker stop.
    Stop {
        host: HostName,
        nth: u64,
    },
    /// docker rm -f.
    Remove {
        host: HostName,
        nth: u64,
    },
    /// docker pause.
    Pause {
        host: HostName,
        nth: u64,
    },
    /// docker unpause, of all.
    Unpause {
        host: HostName,
    },
    /// docker rename.
    Rename {
        host: HostName,
        nth: u64,
    },
    /// Somebody's container gets the name of the next one that we create there.
    Squat {
        host: HostName,
    },
    /// Somebody copies the labels of one of ours to a container of his own.
    Forge {
        host: HostName,
        nth: u64,
    },
    DiskFull {
        host: HostName,
    },
    DiskFree {
        host: HostName,
    },
    /// A process takes the host ports that services have fixed.
    TakePorts {
        host: HostName,
    },
    FreePorts {
        host: HostName,
    },
    /// The machine is installed anew: another identity, no containers.
    Reinstall {
        host: HostName,
    },
    /// The machine now says that it is another one, which also runs.
    Clone {
        host: HostName,
        of: HostName,
    },
    /// kill -9 of the controller, which is started again.
    KillController {
        back_after_ms: u64,
        database: Database,
        clock_back_ms: u64,
    },
    /// SIGTERM of the controller, which is started again.
    StopController {
        back_after_ms: u64,
    },
    /// SIGSTOP of the controller for a while.
    Stall {
        for_ms: u64,
    },
    /// A commit to the manifests.
    Manifests {
        change: Change,
    },
    /// The manifests' folder cannot be read for a while.
    Unreadable {
        for_ms: u64,
    },
    /// It is there and empty for a while.
    Empty {
        for_ms: u64,
    },
    /// A service's file has a syntax error for a while.
    BrokenFile {
        nth: u64,
        for_ms: u64,
    },
    /// cordon, drain, uncordon.
    Operator {
        host: HostName,
        to: Schedulability,
    },
    /// A person stops a task.
    StopTask {
        nth: u64,
    },
    /// A person's word about a service's rollout.
    Rollout {
        service: ServiceName,
        verb: RolloutVerb,
    },
    /// A person protects a task for a minute.
    Protect {
        nth: u64,
    },
    /// A person starts standalone tasks of [`JOB`]; the same number is the same request.
    Run {
        number: u64,
        count: u32,
    },
    /// What a service's containers need beside themselves is away: whatever of it starts, of any revision, ends soon.
    Outage {
        service: ServiceName,
        for_ms: u64,
    },
    /// A person's word about a volume.
    Volume {
        volume: String,
        verb: VolumeVerb,
    },
    /// A person reads a volume, and keeps what came; or goes away before that.
    Backup {
        volume: String,
        gone_after_ms: Option<u64>,
    },
    /// A person puts back what the last backup brought, or an archive of before; `cut` tells after which piece it ends.
    Restore {
        volume: String,
        cut: Option<usize>,
    },
    /// A person confirms what is held, if anything.
    Confirm,
    /// A person flushes a host's firewall.
    FlushRules {
        host: HostName,
    },
    /// docker rm -f of what makes a host's part of the task network.
    RemoveNode {
        host: HostName,
    },
    /// docker rm -f of what load balancers run in.
    RemoveBalancers {
        host: HostName,
    },
    /// docker network prune.
    PruneNetworks {
        host: HostName,
    },
    /// The image of what makes it cannot be had.
    NodeImageGone {
        host: HostName,
    },
    NodeImageBack {
        host: HostName,
    },
    /// A person accepts a host's new identity.
    Repin {
        host: HostName,
    },
}

/// What a controller finds of its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Database {
    /// As it was.
    Kept,
    /// Nothing.
    Lost,
    /// A copy from some time before.
    Old,
}

/// How often something goes wrong by chance, in per mille.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rates {
    /// A change never reaches its host.
    pub lose_request: u64,
    /// It is done, and the answer never comes.
    pub lose_answer: u64,
    /// It takes up to 40 s to be done.
    pub slow_request: u64,
    /// The engine fails for no reason of ours.
    pub server_error: u64,
    /// A list is up to 8 s old when it is here.
    pub stale_list: u64,
    /// A follower is not told of an event.
    pub lose_event: u64,
    /// The controller is killed just before or after it sends a change.
    pub kill_at_request: u64,
    /// The controller is killed just before or after a commit.
    pub kill_at_commit: u64,
    /// A commit fails.
    pub commit_fails: u64,
    /// A piece of an archive is not written, although the engine says so.
    pub tear: u64,
}

/// A durable or remote step, counted from the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Point {
    /// The nth change that is sent to any host.
    Request(u64),
    /// The nth commit.
    Commit(u64),
    /// The nth event that a follower would be told.
    Event(u64),
    /// The nth list of containers that is asked for.
    List(u64),
}

/// What goes wrong there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mishap {
    /// The controller is killed before the step.
    KillBefore,
    /// The controller is killed after the step was made and before its answer.
    KillAfter,
    /// The controller is killed when the answer is there.
    KillAtAnswer,
    /// The request, commit or event is lost. A commit then says so.
    Lost,
    /// The answer is lost. A commit says that it failed although it is durable.
    AnswerLost,
    /// The answer comes so much later: meanwhile other things were done, and it is older than they are.
    Late { by_ms: u64 },
}
