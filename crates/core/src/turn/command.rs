//! What people may order, and what each order changes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    model::{
        container::HealthStatus,
        name::{HostName, ServiceName, TaskId},
        standalone::RunTask,
        state::{Brake, Change, Event, EventLevel, FleetRecord, HostRecord, Schedulability},
        task::{DesiredStatus, LastStatus, Launch, StopCode, Task},
        time::Timestamp,
        volume::VolumeId,
    },
    plan::absorb::{self, Refusal, RolloutVerb, VolumeVerb},
};

use super::{Core, host_event};

/// Confirmed tokens that are remembered.
const MAX_CONFIRMED: usize = 8;

/// An order from a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "order")]
pub enum Command {
    /// cordon, uncordon, drain.
    SetSchedulability {
        /// Which host.
        host: HostName,
        /// To what.
        to: Schedulability,
        /// Of a drain: after so many seconds standalone tasks are stopped, too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_s: Option<u32>,
    },
    /// Stop a task now; its service starts another.
    StopTask {
        /// Which.
        task: TaskId,
        /// Why, in the person's words.
        reason: Option<String>,
    },
    /// Pause, continue, abort, undo or restart a service's rollout.
    Rollout {
        /// Which service's.
        service: ServiceName,
        /// What.
        #[serde(flatten)]
        verb: RolloutVerb,
    },
    /// Start standalone tasks; sent as a request of its own.
    #[serde(skip)]
    RunTask(Box<RunTask>),
    /// Protect a task from scale-in and deployments.
    ProtectTask {
        /// Which.
        task: TaskId,
        /// For so long; absent: no longer.
        minutes: Option<u32>,
    },
    /// Carry out a held change of the manifests.
    Confirm {
        /// The token that the controller printed.
        token: String,
    },
    /// Release the brake: replace what is on lost hosts although too many are lost.
    ReleaseBrake,
    /// Accept a host's new engine identity (a reinstalled machine).
    Repin {
        /// Which host.
        host: HostName,
    },
    /// Move a volume, or say where it is.
    Volume {
        /// Which.
        #[serde(flatten)]
        volume: VolumeId,
        /// What.
        #[serde(flatten)]
        verb: VolumeVerb,
    },
    /// Read the manifests now; answered once what they say is decided upon.
    Rescan,
}

/// Why an order is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such thing.
    #[error("{0}")]
    NotFound(String),
    /// Not now, or not so.
    #[error("{0}")]
    Refused(String),
    /// The controller is stopping, or overloaded.
    #[error("the controller does not take orders just now: {0}")]
    Unavailable(String),
}

impl From<Refusal> for CommandError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown(words) => Self::NotFound(words),
            Refusal::Refused(words) => Self::Refused(words),
        }
    }
}

impl Core {
    /// Carries out a person's order.
    ///
    /// # Errors
    /// [`CommandError`] in words for the person.
    pub fn command(&mut self, now: Timestamp, command: Command) -> Result<(String, Vec<Change>), CommandError> {
        self.world.now = now;
        let (words, mut changes) = match command {
            Command::SetSchedulability { host, to, timeout_s } => self.set_schedulability(&host, to, timeout_s)?,
            Command::StopTask { task, reason } => self.stop_task(&task, reason)?,
            Command::RunTask(request) => self.run_task(&request)?,
            Command::Rollout { service, verb } => absorb::rollout(&self.world.state, &service, &verb, now)?,
            Command::Volume { volume, verb } => absorb::volume(&self.world.state, &volume, &verb, now)?,
            Command::ProtectTask { task, minutes } => absorb::protect(&self.world.state, &task, minutes, now)?,
            Command::Confirm { token } => self.confirm(&token)?,
            Command::ReleaseBrake => self.release_brake()?,
            Command::Repin { host } => self.repin(&host)?,
            Command::Rescan => ("the manifests are read".to_owned(), Vec::new()),
        };
        self.apply(&changes);
        // A confirmation lets the held manifests in.
        changes.extend(self.sync());
        Ok((words, changes))
    }

    fn set_schedulability(
        &mut self,
        host: &HostName,
        to: Schedulability,
        timeout_s: Option<u32>,
    ) -> Result<(String, Vec<Change>), CommandError> {
        self.declared(host)?;
        let before = self
            .world
            .state
            .hosts
            .get(host)
            .cloned()
            .unwrap_or_else(|| HostRecord { name: host.clone(), ..HostRecord::default() });
        let now = self.world.now;
        let drain_until = timeout_s
            .filter(|_| to == Schedulability::Draining)
            .map(|timeout_s| now.plus_ms(u64::from(timeout_s) * 1_000));
        let words = match to {
            Schedulability::Active => format!("host {host} takes tasks again"),
            Schedulability::Cordoned => format!("host {host} takes no new tasks; what runs there stays"),
            Schedulability::Draining => {
                let standalone =
                    drain_until.map_or_else(String::new, |at| format!("; standalone ones are stopped at {at}"));
                format!("host {host} is being drained: its tasks start elsewhere before they stop there{standalone}")
            }
        };
        if before.schedulability == to && drain_until.is_none() {
            return Ok((words, Vec::new()));
        }
        let event = host_event(now, host, "HostSchedulability", words.clone());
        Ok((words, vec![Change::Host(HostRecord { schedulability: to, drain_until, ..before }), event]))
    }

    fn stop_task(&mut self, id: &TaskId, reason: Option<String>) -> Result<(String, Vec<Change>), CommandError> {
        let task =
            self.world.state.tasks.get(id).ok_or_else(|| CommandError::NotFound(format!("there is no task {id}")))?;
        if task.desired_status == DesiredStatus::Stopped {
            return Err(CommandError::Refused(format!("task {id} is already stopping or over")));
        }
        let mut task = (**task).clone();
        task.order_stop(
            self.world.now,
            StopCode::UserInitiated,
            reason.unwrap_or_else(|| "a person said so".to_owned()),
        );
        let words = match task.is_standalone() {
            true => format!("task {id} on {} is stopped", task.host),
            false => format!("task {id} on {} is stopped; {} starts another if it wants one", task.host, task.service),
        };
        let event = Change::Event(Event::new(
            self.world.now,
            task.told_in(),
            EventLevel::Normal,
            "TaskStopping",
            format!("task {id} on {} is stopped: {}", task.host, task.stopped_reason.as_deref().unwrap_or_default()),
        ));
        Ok((words, vec![Change::Task(Arc::new(task)), event]))
    }

    fn run_task(&self, request: &RunTask) -> Result<(String, Vec<Change>), CommandError> {
        match &self.fenced {
            Some(reason) => Err(CommandError::Refused(reason.clone())),
            None => Ok(absorb::run(&self.world, request)?),
        }
    }

    fn confirm(&mut self, token: &str) -> Result<(String, Vec<Change>), CommandError> {
        let fleet = &self.world.state.fleet;
        let Some(held) = &fleet.held else {
            return Err(CommandError::NotFound("no change of the manifests is held".to_owned()));
        };
        if held.token != token {
            return Err(CommandError::Refused(format!(
                "the held change is {}, not {token}: the manifests changed since",
                held.token
            )));
        }
        let mut confirmed = fleet.confirmed.clone();
        confirmed.push(token.to_owned());
        let surplus = confirmed.len().saturating_sub(MAX_CONFIRMED);
        confirmed.drain(..surplus);
        let words = format!("confirmed: {}", held.reason);
        Ok((words, vec![Change::Fleet(FleetRecord { confirmed, ..fleet.clone() })]))
    }

    fn release_brake(&mut self) -> Result<(String, Vec<Change>), CommandError> {
        let fleet = &self.world.state.fleet;
        let Some(brake) = fleet.brake.as_ref().filter(|brake| !brake.released) else {
            return Err(CommandError::NotFound("the brake is not on".to_owned()));
        };
        let brake = Some(Brake { released: true, ..brake.clone() });
        let words = "the brake is released: what ran on the lost hosts is replaced".to_owned();
        Ok((words, vec![Change::Fleet(FleetRecord { brake, ..fleet.clone() })]))
    }

    fn repin(&mut self, host: &HostName) -> Result<(String, Vec<Change>), CommandError> {
        self.declared(host)?;
        let Some(record) = self.world.state.hosts.get(host) else {
            return Err(CommandError::Refused(format!("host {host} was never seen: there is nothing to forget")));
        };
        self.untrusted.remove(host);
        let words =
            format!("host {host} is taken for a new machine; the tasks it had count as gone once it was looked at");
        let mut changes = vec![Change::Host(HostRecord { identity: None, ..record.clone() })];
        // What the old machine was asked can no longer appear, and what it had is no ground to go on with a launch: a look
        // at the new one tells all.
        let half_made =
            |task: &Task| matches!(task.launch, Launch::Issued { .. }) || task.last_status < LastStatus::Running;
        for task in self.world.state.tasks.values().filter(|task| task.host == *host && half_made(task)) {
            let mut task = (**task).clone();
            if task.launch != Launch::NotIssued {
                task.launch = Launch::Answered { at: self.world.now };
            }
            for row in task.containers.values_mut() {
                (row.runtime_id, row.state, row.health) = (None, None, HealthStatus::Unknown);
            }
            changes.push(Change::Task(Arc::new(task)));
        }
        Ok((words, changes))
    }

    fn declared(&self, host: &HostName) -> Result<(), CommandError> {
        if self.world.state.desired.hosts.contains_key(host) {
            Ok(())
        } else {
            Err(CommandError::NotFound(format!("there is no host {host}")))
        }
    }
}
