//! What is in volumes: no write is lost by a move, what is restored is what was sent, nothing of a copy is left.

use std::collections::{BTreeMap, BTreeSet};

use super::{Broken, Predicate, broken, traffic::Held};
use crate::{
    engine::machine::{Pieces, writable},
    fleet::{FakeHost, Ground},
};
use roadstead_core::model::{
    container::ContainerConfig,
    name::{HostName, RuntimeId},
    ownership::Claim,
    spec::service::SchedulingStrategy,
    state::{Change, State},
    volume::{MoveStage, VolumeId, VolumeMove, VolumeRecord, stays_on_host},
};

/// On containers that lend a volume to whoever copies it.
const LENDS: &str = "dev.roadstead.lends";
/// On volumes that a move made.
pub(super) const MOVED: &str = "dev.roadstead.moved-at-ms";
/// What volumes are called into which an archive is put first.
const STAGED: &str = "rs-restore-";

type Hosts = BTreeMap<HostName, FakeHost>;

/// What is known of the data of volumes that have a place.
#[derive(Debug, Default)]
pub(crate) struct Data {
    newest: BTreeMap<String, Newest>,
    /// Archives that people put back.
    sent: BTreeMap<String, BTreeSet<Pieces>>,
    /// Where people said that a volume is, or shall be.
    pinned: BTreeMap<String, HostName>,
    /// Volumes whose data people gave up, wherever it is.
    given_up: BTreeSet<String>,
}

/// The last that a task wrote, or a person put there.
#[derive(Debug)]
struct Newest {
    host: HostName,
    content: Pieces,
    /// What was there before an archive takes its place.
    before: Option<Pieces>,
    /// A task wrote to it since it was moved.
    is_used: bool,
}

/// Whether a container lends a volume and is never started.
pub(crate) fn lends(config: &ContainerConfig) -> bool {
    config.labels.contains_key(LENDS)
}

fn content<'h>(hosts: &'h Hosts, host: &HostName, volume: &str) -> Option<&'h Pieces> {
    Some(&hosts.get(host)?.machine.volumes.get(volume)?.content)
}

fn record<'s>(durable: &'s State, volume: &str) -> Option<&'s VolumeRecord> {
    durable.volumes.values().find(|record| record.id.name == volume)
}

fn is_copied(moving: &VolumeMove) -> bool {
    moving.stage == MoveStage::Copying
}

impl Data {
    /// The database was lost: which copy is the right one, a person has to know.
    pub(super) fn database_lost(&mut self) {
        self.newest.clear();
        self.pinned.clear();
    }

    /// All that was on a machine is gone.
    pub(crate) fn reinstalled(&mut self, host: &HostName) {
        self.newest.retain(|_, newest| newest.host != *host);
    }

    /// A person gives up what is in a volume.
    pub(crate) fn gives_up(&mut self, volume: &str) {
        self.given_up.insert(volume.to_owned());
    }

    pub(super) fn is_given_up(&self, volume: &str) -> bool {
        self.given_up.contains(volume)
    }

    /// A person sends an archive.
    pub(crate) fn sends(&mut self, volume: &str, archive: &Pieces) {
        self.sent.entry(volume.to_owned()).or_default().insert(archive.clone());
    }

    /// A task writes: what it finds must be the last that was written. Whether it is followed.
    pub(crate) fn wrote(
        &mut self,
        durable: &State,
        hosts: &Hosts,
        (name, claim): (&HostName, &Claim),
        volume: &str,
        content_now: &Pieces,
    ) -> Result<bool, Broken> {
        let id = VolumeId { cluster: claim.cluster.clone(), name: volume.to_owned() };
        let service = durable.desired.services.get(&claim.service);
        let is_daemon = service.is_some_and(|service| service.spec.scheduling_strategy == SchedulingStrategy::Daemon);
        if is_daemon || !durable.volumes.contains_key(&id) {
            self.newest.remove(volume);
            return Ok(false);
        }
        let found = content(hosts, name, volume).cloned().unwrap_or_default();
        if let Some(newest) = self.newest.get(volume).filter(|newest| newest.content != found) {
            let words = format!(
                "{} on {name} finds {found:?} in volume {volume}, and the last that was written is {:?} on {}",
                claim.created_name, newest.content, newest.host
            );
            return Err(Broken::new(Predicate::S4, words));
        }
        let newest = Newest { host: name.clone(), content: content_now.clone(), before: None, is_used: true };
        self.newest.insert(volume.to_owned(), newest);
        Ok(true)
    }

    /// What became of a volume is committed.
    pub(super) fn committed(&mut self, durable: &State, hosts: &Hosts, change: &Change) -> Result<(), Broken> {
        match change {
            Change::Volume(now) => match durable.volumes.get(&now.id) {
                Some(was) => self.changed(hosts, was, now),
                None => {
                    // Of a volume that no task was placed on yet.
                    if now.last_used_by.is_none() && now.service.as_str().is_empty() {
                        self.pinned.insert(now.id.name.clone(), now.host.clone());
                    }
                    Ok(())
                }
            },
            Change::VolumeRemoved(id) => {
                self.newest.remove(&id.name);
                self.pinned.remove(&id.name);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn changed(&mut self, hosts: &Hosts, was: &VolumeRecord, now: &VolumeRecord) -> Result<(), Broken> {
        let name = &now.id.name;
        let here = content(hosts, &now.host, name);
        match (&was.moving, &now.moving) {
            (Some(moving), None) if moving.from_volume.is_none() && was.host != now.host => {
                self.pinned.remove(name);
                let Some(newest) = self.newest.get_mut(name) else { return Ok(()) };
                (newest.host, newest.is_used) = (now.host.clone(), false);
                self.is_here(name, here, "was moved")
            }
            (Some(moving), None) if moving.from_volume.is_some() && was.restored_at != now.restored_at => {
                self.newest.values_mut().for_each(|newest| newest.before = None);
                self.is_here(name, here, "was restored")
            }
            (Some(moving), None) if moving.from_volume.is_some() && is_copied(moving) => {
                // Given up: what was there is there, or nothing may start on it.
                if let Some(newest) = self.newest.get_mut(name)
                    && let Some(before) = newest.before.take()
                    && here == Some(&before)
                {
                    newest.content = before;
                }
                Ok(())
            }
            (Some(before), Some(moving)) if !is_copied(before) && is_copied(moving) => {
                let Some(from) = &moving.from_volume else { return Ok(()) };
                let Some(archive) = content(hosts, &now.host, from).cloned() else { return Ok(()) };
                if !self.sent.get(name).is_some_and(|sent| sent.contains(&archive)) {
                    let words = format!("{archive:?} takes the place of volume {name}, and nobody sent that");
                    return broken(Predicate::S4, words);
                }
                let newest = Newest {
                    host: now.host.clone(),
                    content: archive,
                    before: self.newest.remove(name).map(|newest| newest.before.unwrap_or(newest.content)),
                    is_used: false,
                };
                self.newest.insert(name.clone(), newest);
                Ok(())
            }
            _ if was.host != now.host => {
                // A person knows better.
                self.newest.remove(name);
                self.pinned.insert(name.clone(), now.host.clone());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether a person said that a volume is there, or shall be, and no move took it elsewhere since.
    pub(super) fn is_pinned(&self, volume: &str, host: &HostName) -> bool {
        self.pinned.get(volume) == Some(host)
    }

    fn is_here(&self, volume: &str, here: Option<&Pieces>, what: &str) -> Result<(), Broken> {
        match self.newest.get(volume) {
            Some(newest) if Some(&newest.content) != here => broken(
                Predicate::S4,
                format!("volume {volume} {what}, has {here:?}, and is to have {:?}", newest.content),
            ),
            Some(_) | None => Ok(()),
        }
    }

    /// A volume was removed: what was written last is somewhere.
    pub(super) fn s4_kept(&self, durable: &State, hosts: &Hosts, volume: &str) -> Result<(), Broken> {
        let Some(newest) = self.newest.get(volume).filter(|_| record(durable, volume).is_some()) else {
            return Ok(());
        };
        let mut all = hosts.values().flat_map(|host| host.machine.volumes.values());
        if all.any(|volume| volume.content == newest.content) {
            return Ok(());
        }
        broken(Predicate::S4, format!("the last {:?} of volume {volume} was removed", newest.content))
    }

    /// A volume of no task is removed when it is a copy that nobody needs, or gets other content at once.
    pub(super) fn s5_may_remove(&self, durable: &State, host: &FakeHost, name: &str) -> Result<(), Broken> {
        let Some(volume) = host.machine.volumes.get(name) else { return Ok(()) };
        let is_awaited = |record: &VolumeRecord| {
            let moving = record.moving.as_ref();
            record.host == host.name && moving.is_some_and(|moving| moving.from_volume.as_deref() == Some(name))
        };
        if name.starts_with(STAGED) {
            return match durable.volumes.values().any(is_awaited) {
                true => broken(Predicate::S5, format!("{name} of {} is removed, and is to be restored", host.name)),
                false => Ok(()),
            };
        }
        let words = |why: &str| format!("volume {name} of {} is removed, and {why}", host.name);
        match record(durable, name) {
            Some(record) if record.host == host.name => match &record.moving {
                Some(moving) if moving.from_volume.is_some() && is_copied(moving) => Ok(()),
                Some(_) | None => broken(Predicate::S5, words("its data is there")),
            },
            Some(record) if record.old_copy.as_ref() == Some(&host.name) => match self.is_proven(durable, record) {
                true => Ok(()),
                false => broken(Predicate::S5, words("no task was healthy with the copy")),
            },
            Some(_) | None if volume.labels.contains_key(MOVED) => Ok(()),
            Some(_) | None => broken(Predicate::S1, words("is nothing that was copied")),
        }
    }

    fn is_proven(&self, durable: &State, record: &VolumeRecord) -> bool {
        self.newest.get(&record.id.name).is_none_or(|newest| newest.is_used) && is_used_by_the_healthy(durable, record)
    }
}

/// Whether a task that mounts a volume where its data is was healthy once.
fn is_used_by_the_healthy(durable: &State, record: &VolumeRecord) -> bool {
    let mounts = |revision| {
        let spec = durable.revision(revision).and_then(|revision| revision.spec.as_deref());
        spec.is_some_and(|spec| stays_on_host(spec).any(|name| name == record.id.name))
    };
    let mut tasks = durable.tasks.values();
    tasks.any(|task| task.is_live() && task.host == record.host && task.healthy_at.is_some() && mounts(&task.revision))
}

/// A lending container has only its label, and writes to nothing but a copy or what is staged.
pub(super) fn s4_lent(durable: &State, host: &FakeHost, config: &ContainerConfig) -> Result<(), Broken> {
    for volume in writable(config) {
        let moving = record(durable, volume).and_then(|record| record.moving.as_ref());
        let is_good = match volume.starts_with(STAGED) {
            true => !host.machine.volumes.contains_key(volume),
            false => moving.is_some_and(|moving| is_copied(moving) && moving.to == host.name),
        };
        if !is_good {
            return broken(Predicate::S4, format!("{} of {} would be written to: {moving:?}", volume, host.name));
        }
    }
    Ok(())
}

/// Nobody is started on a volume while it is copied.
pub(super) fn s4_not_while_copied(durable: &State, host: &FakeHost, id: &RuntimeId) -> Result<(), Broken> {
    for volume in host.machine.config(id).into_iter().flat_map(writable) {
        let moving = record(durable, volume).and_then(|record| record.moving.as_ref());
        if moving.is_some_and(is_copied) {
            return broken(Predicate::S4, format!("{id:.12} on {} is started while {volume} is copied", host.name));
        }
    }
    Ok(())
}

/// What was read, when nobody wrote meanwhile, is what was there.
pub(crate) fn s4_read_as_it_was(
    volume: &str,
    before: Option<Pieces>,
    after: Option<Pieces>,
    read: &Pieces,
) -> Result<(), Broken> {
    match before == after && before.as_ref().is_some_and(|before| before != read) {
        true => broken(Predicate::S4, format!("volume {volume} had {before:?} and was read as {read:?}")),
        false => Ok(()),
    }
}

/// A move or a restore between hosts that can be asked ends, and nothing that it needed is left.
pub(super) fn l6_copies_end(ground: &Ground, reachable: &BTreeSet<&HostName>, held: &Held<'_>) -> Result<(), Broken> {
    for record in ground.durable.volumes.values() {
        let name = &record.id.name;
        let Some(moving) = &record.moving else {
            let old = record.old_copy.as_ref().filter(|old| reachable.contains(old));
            let has_user = || is_used_by_the_healthy(&ground.durable, record) && reachable.contains(&record.host);
            match old.filter(|old| content(&ground.hosts, old, name).is_some() && has_user()) {
                Some(old) => return broken(Predicate::L6, format!("{old} keeps the old copy of volume {name}")),
                None => continue,
            }
        };
        // A task that an edge holds has the volume until it ends.
        if reachable.contains(&record.host) && reachable.contains(&moving.to) && !held.has_of(&record.service) {
            return broken(Predicate::L1, format!("volume {name} still {}", moving.words()));
        }
    }
    for (name, host) in ground.hosts.iter().filter(|(name, _)| reachable.contains(name)) {
        let lending = host.machine.ids().filter_map(|id| host.machine.config(id)).find(|config| lends(config));
        if let Some(lending) = lending {
            return broken(Predicate::L6, format!("{name} keeps {}, which lent a volume", lending.name));
        }
        if let Some(staged) = host.machine.volumes.keys().find(|volume| volume.starts_with(STAGED)) {
            return broken(Predicate::L6, format!("{name} keeps volume {staged}"));
        }
    }
    Ok(())
}
