//! Changes that are sent to hosts, and what they do there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Broken, Checks, Predicate, broken, data, network, traffic, volumes};
use crate::{
    engine::machine::{Answer, Request},
    fleet::{FakeHost, Reach},
};
use roadstead_control::engine::EngineError;
use roadstead_core::model::{
    container::ContainerState,
    name::{HostName, RuntimeId, TaskId},
    ownership::Claim,
    spec::task_definition::DependencyCondition,
    state::{Revision, State},
    task::{DesiredStatus, LastStatus, Task},
    time::Timestamp,
};

/// Until a look shows that somebody took a container away, and beyond that the deadlines of its launch's requests: so long
/// another one may be started beside it.
const UNSEEN_MS: u64 = 180_000;

impl Checks {
    /// A change is sent.
    pub(crate) fn sent(
        &mut self,
        durable: &State,
        hosts: &BTreeMap<HostName, FakeHost>,
        host: &FakeHost,
        request: &Request,
        now: Timestamp,
    ) -> Result<(), Broken> {
        match request {
            Request::Pull(_) | Request::Network(..) | Request::Edge(..) | Request::Unpack { .. } => Ok(()),
            Request::RemoveVolume(name) => volumes::s5_of_the_dead(&self.data, durable, host, name),
            Request::RemoveImage(id) => s1_image_nobody_needs(durable, host, id, now),
            Request::Create(config) if data::lends(config) => data::s4_lent(durable, host, config),
            Request::Create(config) => {
                let Some(claim) = Claim::from_labels(&config.labels) else {
                    return broken(Predicate::S1, format!("{} is made without labels of ours", config.name));
                };
                s8_intent_before_effect(durable, host, &claim.task)?;
                s9_not_wanted_again(durable, &claim.task)
            }
            Request::Start(id) => {
                let Some(claim) = host.ours.get(id) else { return s1_not_ours(host, id, "started") };
                s9_not_wanted_again(durable, &claim.task)?;
                data::s4_not_while_copied(durable, host, id)?;
                self.s20_dependencies(durable, host, claim, now)
            }
            Request::Stop(id) => {
                let Some(claim) = host.ours.get(id) else { return s1_not_ours(host, id, "stopped") };
                s8_stop_was_decided(durable, claim, id, host.machine.state(id))?;
                traffic::s10_left_balancers(durable, hosts, host, claim, id)?;
                network::s10_left_names(self, durable, hosts, claim, now)
            }
            Request::Remove { id, .. } => match host.ours.get(id) {
                Some(_) => Ok(()),
                None if host.machine.config(id).is_some_and(data::lends) => Ok(()),
                None => s1_not_ours(host, id, "removed"),
            },
        }
    }

    /// A change was done. `times` are when it was sent and when it was done.
    #[allow(clippy::too_many_arguments, reason = "what there is to see")]
    pub(crate) fn applied(
        &mut self,
        durable: &State,
        hosts: &BTreeMap<HostName, FakeHost>,
        name: &HostName,
        request: &Request,
        before: Option<ContainerState>,
        result: &Result<Answer, EngineError>,
        times: (Timestamp, Timestamp),
    ) -> Result<(), Broken> {
        let Some(host) = hosts.get(name) else { return Ok(()) };
        match (request, result) {
            (Request::Create(config), Ok(Answer::Created(created))) => {
                let Some(claim) = host.ours.get(&created.id) else { return Ok(()) };
                *self.creates.entry(claim.service.clone()).or_default() += 1;
                if !self.committed.contains(&claim.task) {
                    return broken(Predicate::S8, format!("container {} on {name} has no committed row", config.name));
                }
                if times.1.since_ms(times.0) < 5_000 {
                    volumes::s4_not_empty(&self.data, durable, hosts, name, claim)?;
                }
                self.s19_made_once(claim, times)?;
                s4_once(hosts, claim)
            }
            (Request::Start(id), Ok(_)) if before.is_some_and(|state| !state.is_live()) => {
                let Some(claim) = host.ours.get(id) else { return Ok(()) };
                self.s19_runs_once(claim, before, times)?;
                // Late requests are ghosts until they are seen (S9).
                if times.1.since_ms(times.0) < 5_000 {
                    volumes::s4_with_its_data(durable, name, claim)?;
                    s2_ceiling(durable, hosts, claim)?;
                    self.s19_never_two(durable, hosts, name, claim)?;
                }
                Ok(())
            }
            (Request::RemoveVolume(volume), Ok(_)) => self.data.s4_kept(durable, hosts, volume),
            (Request::Network(..), Ok(_)) => network::s4_slices(self, durable, hosts, name),
            (Request::Stop(id) | Request::Remove { id, .. }, Ok(_)) => {
                if !host.ours.contains_key(id) && host.machine.state(id).is_some() {
                    return broken(Predicate::S1, format!("{id:.12} on {name} is somebody else's"));
                }
                s1_strangers(host)
            }
            (
                Request::Create(_)
                | Request::Start(_)
                | Request::Stop(_)
                | Request::Remove { .. }
                | Request::RemoveVolume(_)
                | Request::Unpack { .. }
                | Request::Pull(_)
                | Request::RemoveImage(_)
                | Request::Network(..)
                | Request::Edge(..),
                Ok(_) | Err(_),
            ) => Ok(()),
        }
    }

    /// As the task definition says, for what has been seen of the other containers so far.
    fn s20_dependencies(&self, durable: &State, host: &FakeHost, claim: &Claim, now: Timestamp) -> Result<(), Broken> {
        let definition = durable.revision(&claim.revision).and_then(|revision| revision.spec.as_ref());
        let Some(definition) = definition else { return Ok(()) };
        // Installed anew under an order that goes on: nobody can know.
        let known = durable.hosts.get(&host.name).and_then(|record| record.identity.as_ref());
        if known.is_some_and(|known| known.engine_id != host.machine.identity.engine_id) {
            return Ok(());
        }
        let container = definition.container_definitions.iter().find(|one| one.name == claim.container.as_str());
        for dependency in container.into_iter().flat_map(|container| &container.depends_on) {
            let found = host
                .ours
                .iter()
                .find(|(_, other)| other.task == claim.task && other.container.as_str() == dependency.container_name);
            // Taken away under an order that goes on: nobody can know.
            let other = (claim.task.clone(), dependency.container_name.as_str().into());
            let struck = self.struck.get(&other).is_some_and(|at| now.since_ms(*at) < UNSEEN_MS + self.stalled_ms);
            let Some((id, _)) = found else {
                if struck {
                    continue;
                }
                return broken(
                    Predicate::S20,
                    format!("{} starts, and {} is not there", claim.created_name, dependency.container_name),
                );
            };
            let (started, finished) = host.machine.times(id);
            let is_ready = match dependency.condition {
                DependencyCondition::Start => started.is_some(),
                DependencyCondition::Complete | DependencyCondition::Success => finished.is_some(),
                DependencyCondition::Healthy => self.ever_healthy.contains(id),
            };
            if !is_ready {
                return broken(
                    Predicate::S20,
                    format!("{} starts before {} is ready", claim.created_name, dependency.container_name),
                );
            }
        }
        Ok(())
    }
}

fn s1_not_ours(host: &FakeHost, id: &RuntimeId, word: &str) -> Result<(), Broken> {
    match host.machine.state(id) {
        Some(_) => broken(Predicate::S1, format!("{id:.12} on {} is {word} and not ours", host.name)),
        None => Ok(()),
    }
}

/// An image that is removed is one that we brought, and none that a task there runs or is about to; one that was decided after
/// the removal pulls it again.
fn s1_image_nobody_needs(durable: &State, host: &FakeHost, id: &str, now: Timestamp) -> Result<(), Broken> {
    let Some(image) = host.machine.stored_images().remove(id) else { return Ok(()) };
    let is_it = |revision: &Revision| {
        revision.images.values().any(|resolved| resolved.digest().is_some_and(|digest| digest == id))
    };
    if !durable.revisions.values().flat_map(BTreeMap::values).any(is_it) {
        return broken(Predicate::S1, format!("image {:?} of {} is removed, and is no revision's", image, host.name));
    }
    let is_here = |task: &&Arc<Task>| {
        let was_known = now.since_ms(task.created_at) > UNSEEN_MS;
        task.host == host.name && task.last_status != LastStatus::Stopped && was_known
    };
    let mut needs = durable.tasks.values().filter(is_here);
    let needs = needs.find(|task| durable.revision(&task.revision).is_some_and(is_it)).map(|task| &task.id);
    match needs {
        Some(task) => {
            broken(Predicate::S1, format!("image {:?} of {} is removed, and task {task} needs it", image, host.name))
        }
        None => Ok(()),
    }
}

fn s1_strangers(host: &FakeHost) -> Result<(), Broken> {
    let is_others = |id: &&RuntimeId| !host.ours.contains_key(*id) && !host.machine.config(id).is_some_and(data::lends);
    let others = host.machine.ids().filter(is_others).count();
    if others == host.strangers {
        return Ok(());
    }
    broken(Predicate::S1, format!("{} has {others} of {} containers of others", host.name, host.strangers))
}

fn s8_intent_before_effect(durable: &State, host: &FakeHost, task: &TaskId) -> Result<(), Broken> {
    let Some(row) = durable.tasks.get(task) else {
        return broken(Predicate::S8, format!("a container of task {task} is made, and there is no row of it"));
    };
    if row.host != host.name {
        return broken(Predicate::S18, format!("task {task} of {} is started on {}", row.host, host.name));
    }
    Ok(())
}

fn s8_stop_was_decided(
    durable: &State,
    claim: &Claim,
    id: &RuntimeId,
    state: Option<ContainerState>,
) -> Result<(), Broken> {
    let row = durable.tasks.get(&claim.task);
    match row {
        Some(row)
            if row.desired_status == DesiredStatus::Running
                && state.is_some_and(ContainerState::is_live)
                && !row.strays.contains(id) =>
        {
            broken(Predicate::S8, format!("{} is stopped, and its task is wanted", claim.created_name))
        }
        Some(_) | None => Ok(()),
    }
}

fn s9_not_wanted_again(durable: &State, task: &TaskId) -> Result<(), Broken> {
    if durable.tasks.get(task).is_some_and(|row| row.desired_status == DesiredStatus::Stopped) {
        return broken(Predicate::S9, format!("task {task} was ordered to stop and is started"));
    }
    Ok(())
}

/// A container of a task is there once, but for what a person renamed: its name was the lock.
fn s4_once(hosts: &BTreeMap<HostName, FakeHost>, claim: &Claim) -> Result<(), Broken> {
    let ours = hosts.values().flat_map(|host| host.ours.iter().map(move |ours| (host, ours)));
    let bears_its_name =
        |host: &FakeHost, id, claim: &Claim| host.machine.find(claim.created_name.as_str()).as_ref() == Some(id);
    let same = ours
        .filter(|(_, (_, other))| other.task == claim.task && other.container == claim.container)
        .filter(|(host, (id, other))| bears_its_name(host, *id, other))
        .count();
    if same > 1 {
        return broken(
            Predicate::S4,
            format!("container {} of task {} is there {same} times", claim.container, claim.task),
        );
    }
    Ok(())
}

/// Live tasks of a service that are wanted, on hosts that can be asked; the rest are ghosts.
fn s2_ceiling(durable: &State, hosts: &BTreeMap<HostName, FakeHost>, claim: &Claim) -> Result<(), Broken> {
    let Some(manifest) = durable.desired.services.get(&claim.service) else { return Ok(()) };
    let mut live: BTreeSet<&TaskId> = BTreeSet::new();
    for host in hosts.values() {
        for (_, other, state, _) in host.containers() {
            if other.service == claim.service
                && other.essential
                && state.is_live()
                && durable.tasks.get(&other.task).is_some_and(|row| row.is_wanted())
            {
                live.insert(&other.task);
            }
        }
    }
    let wanted = durable.tasks.values().filter(|task| task.service == claim.service && task.is_wanted()).count();
    let ceiling = super::decisions::bounds(&manifest.spec, hosts.len()).1;
    // Rows are held to the ceiling where they are decided; here what runs is held to the rows.
    if live.len() > ceiling.max(wanted) {
        return broken(
            Predicate::S2,
            format!("{}: {} tasks run, {wanted} are wanted, the ceiling is {ceiling}", claim.service, live.len()),
        );
    }
    Ok(())
}

impl Checks {
    /// With `onHostLoss: wait` nothing is started in place of a task that still runs where nobody can see it. Whatever its
    /// slot: a task that was given up keeps its own until it is seen gone. One that was given up while the service said
    /// `replace` was replaced rightly, whatever a later commit says.
    fn s19_never_two(
        &self,
        durable: &State,
        hosts: &BTreeMap<HostName, FakeHost>,
        name: &HostName,
        claim: &Claim,
    ) -> Result<(), Broken> {
        let Some(manifest) = durable.desired.services.get(&claim.service) else { return Ok(()) };
        if !manifest.spec.waits_for_lost_host() || self.given_up_in_wait.is_empty() {
            return Ok(());
        }
        for (other_name, other) in hosts.iter().filter(|(other, _)| *other != name) {
            if other.reach(Timestamp(u64::MAX)) == Reach::Fine {
                continue;
            }
            for (_, twin, state, _) in other.containers() {
                let is_held = || {
                    self.given_up_in_wait.contains(&twin.task)
                        && durable.tasks.get(&twin.task).is_some_and(|row| row.last_status < LastStatus::Stopped)
                };
                if twin.service == claim.service && twin.essential && state.is_live() && is_held() {
                    return broken(
                        Predicate::S19,
                        format!(
                            "{} is started on {name}; {}, which was given up, still runs on {other_name}, which is silent",
                            claim.created_name, twin.created_name
                        ),
                    );
                }
            }
        }
        Ok(())
    }
}
