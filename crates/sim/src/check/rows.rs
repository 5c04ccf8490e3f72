//! What is committed, against what was and against what is really there.

use std::collections::{BTreeMap, BTreeSet};

use super::{Broken, Checks, Predicate, broken, network, traffic};
use crate::fleet::{Durable, FakeHost, Ground};
use roadstead_core::model::{
    container::{ContainerState, HealthStatus},
    desired::Desired,
    name::{HostName, RevisionId},
    state::{Change, Deployment, DeploymentStatus, FleetRecord, RolloutState, ServiceRecord, State},
    task::{DesiredStatus, LastStatus, StopCode, Task},
    time::Timestamp,
};

impl Ground {
    /// The changes become durable, one by one, and each is looked at.
    pub(crate) fn commit(&mut self, changes: &[Change]) {
        if self.history.is_some() {
            self.record(Durable::Committed(changes.to_vec()));
        }
        for change in changes {
            let checked = self.judge(change);
            self.breaks(checked);
            self.durable.apply(change);
            self.mark(change);
        }
        if changes.iter().any(|change| matches!(change, Change::Subnet(_))) {
            let checked = network::s4_slices_of(&self.durable);
            self.breaks(checked);
        }
        for change in changes {
            if let Change::Task(task) = change
                && let Some(task) = self.durable.tasks.get(&task.id)
            {
                let checked = s4_ports(&self.durable, task);
                self.breaks(checked);
            }
        }
    }

    fn judge(&mut self, change: &Change) -> Result<(), Broken> {
        let now = self.now;
        let Self { durable, hosts, checks, counters, .. } = self;
        match change {
            Change::Task(task) => {
                checks.committed.insert(task.id.clone());
                checks.note_given_up(durable, task);
                if let Some(was) = durable.tasks.get(&task.id) {
                    s9_stays_stopped(was, task)?;
                    s18_forward(was, task)?;
                    s5_no_verdict_from_silence(checks, hosts, was, task)?;
                    // What was on a host that is no longer declared is left as it is.
                    let is_declared = durable.desired.hosts.contains_key(&task.host);
                    return if is_declared { s5_seen_gone(checks, hosts, was, task) } else { Ok(()) };
                }
                network::s4_address(durable, task)?;
                checks.s19_fires_once(task, counters.commits)
            }
            Change::Fleet(fleet) => s6_epoch(&durable.fleet, fleet, std::mem::take(&mut checks.newborn)),
            Change::Revision(revision) => s6_revision(hosts, durable, &revision.id, &revision.hash),
            Change::Service(service) => {
                s16_one_rollout(service)?;
                traffic::s10_turns_to_somebody(durable, service, now)?;
                s17_rollbacks(durable.services.get(&service.name), service)
            }
            Change::Desired(desired) => self.s13_blast_radius(desired),
            Change::Volume(_) | Change::VolumeRemoved(_) => checks.data.committed(durable, hosts, change),
            Change::RevisionRemoved(_)
            | Change::Host(_)
            | Change::HostRemoved(_)
            | Change::ServiceRemoved(_)
            | Change::Schedule(_)
            | Change::ScheduleRemoved(_)
            | Change::TaskRemoved(_)
            | Change::Observation(_)
            | Change::Subnet(_)
            | Change::SubnetRemoved(_)
            | Change::Certificate(_)
            | Change::CertificateRemoved(_)
            | Change::AcmeAccount(_)
            | Change::AcmeOrder(_)
            | Change::AcmeOrderRemoved(_)
            | Change::Event(_) => Ok(()),
        }
    }

    fn mark(&mut self, change: &Change) {
        match change {
            Change::Task(task) => self.trace.line(self.now, &["task", task.id.as_str()], || {
                format!(
                    "    task {} of {} on {}: {:?}/{:?} {}",
                    task.id,
                    task.revision,
                    task.host,
                    task.desired_status,
                    task.last_status,
                    task.stopped_reason.as_deref().unwrap_or_default()
                )
            }),
            Change::Event(event) => {
                match event.reason.as_str() {
                    "VolumeMoved" => self.count("volume moved"),
                    "VolumeRestored" => self.count("volume restored"),
                    "VolumeMoveFailed" => self.count("volume not moved"),
                    _ => {}
                }
                self.trace.line(self.now, &["said", &event.reason], || format!("    “{}”", event.message));
            }
            Change::Desired(_)
            | Change::Revision(_)
            | Change::RevisionRemoved(_)
            | Change::Host(_)
            | Change::HostRemoved(_)
            | Change::Service(_)
            | Change::ServiceRemoved(_)
            | Change::Schedule(_)
            | Change::ScheduleRemoved(_)
            | Change::TaskRemoved(_)
            | Change::Observation(_)
            | Change::Volume(_)
            | Change::VolumeRemoved(_)
            | Change::Subnet(_)
            | Change::SubnetRemoved(_)
            | Change::Certificate(_)
            | Change::CertificateRemoved(_)
            | Change::AcmeAccount(_)
            | Change::AcmeOrder(_)
            | Change::AcmeOrderRemoved(_)
            | Change::Fleet(_) => {}
        }
    }

    /// What was declared goes away only because the manifests once said so; and not much of it without a person's word.
    fn s13_blast_radius(&self, desired: &Desired) -> Result<(), Broken> {
        let before = &self.durable.desired.services;
        let removed: Vec<_> = before.keys().filter(|name| !desired.services.contains_key(*name)).collect();
        let token: String = self.durable.fleet.manifests_hash.chars().take(8).collect();
        let is_confirmed = self.checks.confirmed.contains(&token);
        for name in removed.iter().filter(|_| !is_confirmed) {
            if self.versions.values().all(|version| version.services.contains_key(*name)) {
                return broken(
                    Predicate::S5,
                    format!("{name} is dropped, and the manifests never said so ({:?})", self.folder),
                );
            }
        }
        let most = (before.len() / 5).max(1);
        if removed.len() > most && !is_confirmed {
            return broken(Predicate::S13, format!("one sync removes {} of {} services", removed.len(), before.len()));
        }
        Ok(())
    }
}

impl Checks {
    /// Remembers what `onHostLoss` said when a task is given up as lost: what it says later changes nothing of that.
    fn note_given_up(&mut self, durable: &State, task: &Task) {
        let is_given_up = |task: &Task| task.stop_code == Some(StopCode::HostLost);
        if !is_given_up(task) || durable.tasks.get(&task.id).is_some_and(|was| is_given_up(was)) {
            return;
        }
        let service = durable.desired.services.get(&task.service);
        if service.is_some_and(|service| service.spec.waits_for_lost_host()) {
            self.given_up_in_wait.insert(task.id.clone());
        } else {
            self.given_up_in_wait.remove(&task.id);
        }
    }
}

fn s9_stays_stopped(was: &Task, task: &Task) -> Result<(), Broken> {
    if was.desired_status == DesiredStatus::Stopped && task.desired_status == DesiredStatus::Running {
        return broken(Predicate::S9, format!("task {} was ordered to stop and is wanted again", task.id));
    }
    Ok(())
}

fn s18_forward(was: &Task, task: &Task) -> Result<(), Broken> {
    if task.last_status < was.last_status || task.host != was.host || task.revision != was.revision {
        return broken(
            Predicate::S18,
            format!(
                "task {} went from {:?} on {} to {:?} on {}",
                task.id, was.last_status, was.host, task.last_status, task.host
            ),
        );
    }
    Ok(())
}

/// A task is over only when the last look did not show it running: its ports and its name are free from then on.
fn s5_seen_gone(checks: &Checks, hosts: &BTreeMap<HostName, FakeHost>, was: &Task, task: &Task) -> Result<(), Broken> {
    if was.last_status == LastStatus::Stopped || task.last_status != LastStatus::Stopped {
        return Ok(());
    }
    let (Some(host), Some(looked_at)) = (hosts.get(&task.host), checks.looked_at.get(&task.host)) else {
        return Ok(());
    };
    for (id, claim, state, _) in host.containers() {
        let since = host.machine.times(id).0.map(|at| Timestamp(at.0.saturating_sub(host.clock_ahead_ms)));
        if claim.task == task.id && state.is_live() && since.is_some_and(|since| since < *looked_at) {
            return broken(
                Predicate::S5,
                format!("task {} is taken for over, and {} runs and was seen", task.id, claim.created_name),
            );
        }
    }
    Ok(())
}

/// A container whose check from the host was good, and would be now, is not taken for unhealthy.
fn s5_no_verdict_from_silence(
    checks: &Checks,
    hosts: &BTreeMap<HostName, FakeHost>,
    was: &Task,
    task: &Task,
) -> Result<(), Broken> {
    let Some(host) = hosts.get(&task.host) else { return Ok(()) };
    for (name, row) in task.containers.iter() {
        let before = was.containers.get(name).map(|row| row.health);
        let fell = before == Some(HealthStatus::Healthy) && row.health == HealthStatus::Unhealthy;
        let struck = checks.struck.contains_key(&(task.id.clone(), name.clone()));
        let is_well = |id| {
            host.machine.state(id) == Some(ContainerState::Running)
                && host.machine.health(id) == Some(HealthStatus::Healthy)
                && !host.machine.has_lost_its_network(id)
        };
        if fell && !struck && row.runtime_id.as_ref().is_some_and(is_well) {
            return broken(Predicate::S5, format!("{} is taken for unhealthy, and it is well", row.created_name));
        }
    }
    Ok(())
}

/// Numbers do not go back, and each controller has an epoch of its own, above that of the one before.
fn s6_epoch(was: &FleetRecord, fleet: &FleetRecord, is_newborn: bool) -> Result<(), Broken> {
    let least = was.epoch + u64::from(is_newborn);
    if fleet.epoch < least || fleet.next_deployment < was.next_deployment {
        let words = if is_newborn { " with a new controller" } else { "" };
        return broken(Predicate::S6, format!("the epoch went from {} to {}{words}", was.epoch, fleet.epoch));
    }
    Ok(())
}

fn s6_revision(
    hosts: &BTreeMap<HostName, FakeHost>,
    durable: &State,
    id: &RevisionId,
    hash: &str,
) -> Result<(), Broken> {
    if durable.revision(id).is_some_and(|known| known.hash != hash) {
        return broken(Predicate::S6, format!("revision {id} is altered"));
    }
    for (name, host) in hosts {
        let known = durable.observations.get(name);
        for (runtime_id, claim) in &host.ours {
            let was_seen = known.is_some_and(|look| look.containers.contains_key(runtime_id));
            if was_seen && claim.revision == *id && claim.revision_hash != hash {
                return broken(Predicate::S6, format!("revision {id} is given to other content than {name} runs"));
            }
        }
    }
    Ok(())
}

fn s16_one_rollout(service: &ServiceRecord) -> Result<(), Broken> {
    let primaries =
        service.deployments.iter().filter(|deployment| deployment.status == DeploymentStatus::Primary).count();
    let under_way = service
        .deployments
        .iter()
        .filter(|deployment| deployment.rollout_state == RolloutState::InProgress && deployment.outcome.is_none())
        .count();
    if primaries > 1 || under_way > 1 {
        return broken(
            Predicate::S16,
            format!("{} has {primaries} PRIMARY deployments and {under_way} under way", service.name),
        );
    }
    Ok(())
}

fn s17_rollbacks(was: Option<&ServiceRecord>, service: &ServiceRecord) -> Result<(), Broken> {
    let mut taken_back = BTreeSet::new();
    for deployment in &service.deployments {
        let (id, name) = (deployment.id, &service.name);
        if let Some(origin) = deployment.rollback_of {
            let is_rollback = |other: &&Deployment| other.id == origin && other.rollback_of.is_some();
            if service.deployments.iter().any(|other| is_rollback(&other)) {
                return broken(Predicate::S17, format!("deployment {id} of {name} rolls a rollback back"));
            }
            if !taken_back.insert(origin) {
                return broken(Predicate::S17, format!("deployment {origin} of {name} is rolled back twice"));
            }
        }
        let before = was.and_then(|was| was.deployments.iter().find(|other| other.id == id));
        if let Some(outcome) = before.and_then(|before| before.outcome)
            && deployment.outcome != Some(outcome)
        {
            let now = deployment.outcome;
            return broken(Predicate::S17, format!("deployment {id} of {name} was {outcome:?} and is now {now:?}"));
        }
    }
    Ok(())
}

/// Host ports have one holder each, from being allocated to being seen free.
fn s4_ports(durable: &State, task: &Task) -> Result<(), Broken> {
    if task.last_status == LastStatus::Stopped {
        return Ok(());
    }
    let ports = |task: &Task| -> Vec<_> {
        task.containers
            .values()
            .flat_map(|container| &container.ports)
            .map(|port| (port.host_port, port.protocol))
            .collect()
    };
    let mine = ports(task);
    if mine.is_empty() {
        return Ok(());
    }
    for other in durable.tasks.values() {
        if other.id != task.id
            && other.host == task.host
            && other.last_status != LastStatus::Stopped
            && let Some(port) = ports(other).into_iter().find(|port| mine.contains(port))
        {
            return broken(
                Predicate::S4,
                format!("tasks {} and {} both hold port {} of {}", task.id, other.id, port.0, task.host),
            );
        }
    }
    Ok(())
}
