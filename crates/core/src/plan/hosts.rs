//! Hosts: their status, their loss, and the brake.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use crate::model::{
    name::{ClusterName, HostName},
    observed::HostContact,
    spec::{
        ServiceSpec,
        cluster::HostLoss,
        service::{SchedulingStrategy, ServiceHostLoss},
    },
    state::{Brake, EventLevel, EventSubject, HostRecord, Schedulability},
    task::{DesiredStatus, StopCode},
    time::Timestamp,
    world::{HostStatus, Subject, World},
};

use super::{
    draft::{Draft, Host, HostNo, TaskNo},
    service, volumes,
};

/// The label that stands for the availability zone.
pub(super) const ZONE_LABEL: &str = "availability-zone";
/// Losses within this time of each other are one event for the brake (S14).
const BRAKE_WINDOW_MS: u64 = 60_000;

/// A host whose last complete look is older gets no orders and no tasks, although it answers: nobody knows what runs there.
const STALE_LOOK_MS: u64 = 60_000;

/// A host's status.
///
/// Silence counts from the last answer, and not from before the controller began to watch. A host whose sshd answers
/// while its engine does not is SUSPECT until `engineLostAfter`: its containers mostly go on.
pub fn host_status(world: &World, host: &HostName) -> HostStatus {
    status(silence(world, host), world.state.hosts.get(host))
}

/// A host's status, by its silence and what an operator said.
pub(super) fn status(silence: Silence, record: Option<&HostRecord>) -> HostStatus {
    match silence {
        Silence::Untrusted => HostStatus::Untrusted,
        Silence::Lost { .. } => HostStatus::Lost,
        Silence::Suspect { .. } => HostStatus::Suspect,
        Silence::No => match record.map(|record| record.schedulability).unwrap_or_default() {
            Schedulability::Active => HostStatus::Active,
            Schedulability::Cordoned => HostStatus::Cordoned,
            Schedulability::Draining => HostStatus::Draining,
        },
    }
}

/// Whether the host's engine has answered since the controller started, and still does: orders can be sent.
pub fn takes_orders(world: &World, host: &HostName, status: HostStatus) -> bool {
    matches!(status, HostStatus::Active | HostStatus::Cordoned | HostStatus::Draining)
        && world.contacts.get(host).is_some_and(|contact| {
            let seen = contact.looked_at.is_some_and(|at| world.now.since_ms(at) < STALE_LOOK_MS);
            seen && contact.error.is_none()
        })
}

/// A host of a cluster that may take tasks and was not looked at since the controller started, and until when it is waited for:
/// who places tasks meanwhile spreads them over the others.
pub(super) fn first_look_missing<'w>(draft: &Draft<'w>, cluster: &ClusterName) -> Option<(&'w HostName, Timestamp)> {
    draft.hosts.iter().find_map(|host| {
        let contact = draft.world.contacts.get(host.name)?;
        let is_awaited = host.manifest.spec.cluster == *cluster
            && host.status == HostStatus::Active
            && contact.looked_at.is_none()
            && contact.error.is_none();
        let suspect_after = || draft.world.state.desired.host_loss(host.name).suspect_after;
        is_awaited.then(|| (host.name, engine_heard(contact).plus_ms(suspect_after().as_ms())))
    })
}

/// How a host's silence is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    No,
    /// `link_silent`: not only its engine, the machine does not answer either.
    Suspect {
        lost_at: Timestamp,
        link_silent: bool,
    },
    Lost {
        for_ms: u64,
    },
    Untrusted,
}

pub(super) fn silence(world: &World, host: &HostName) -> Silence {
    silence_by(world, host, world.state.desired.host_loss(host))
}

fn silence_by(world: &World, host: &HostName, limits: HostLoss) -> Silence {
    let Some(contact) = world.contacts.get(host) else {
        return Silence::Suspect { lost_at: world.now, link_silent: true };
    };
    if contact.untrusted.is_some() {
        return Silence::Untrusted;
    }
    let engine_heard = engine_heard(contact);
    let link_heard = contact.link_answered_at.unwrap_or(contact.watched_since).max(engine_heard);
    let (engine_silent, link_silent) = (world.now.since_ms(engine_heard), world.now.since_ms(link_heard));
    let lost_at =
        link_heard.plus_ms(limits.lost_after.as_ms()).min(engine_heard.plus_ms(limits.engine_lost_after().as_ms()));
    if lost_at <= world.now {
        Silence::Lost { for_ms: engine_silent.max(link_silent) }
    } else if engine_silent >= limits.suspect_after.as_ms() {
        Silence::Suspect { lost_at, link_silent: link_silent >= limits.suspect_after.as_ms() }
    } else {
        Silence::No
    }
}

fn engine_heard(contact: &HostContact) -> Timestamp {
    contact.engine_answered_at.unwrap_or(contact.watched_since).max(contact.watched_since)
}

/// Whether its engine answered later than `since`: silence that has not been noticed yet is no answer.
pub(super) fn answered_after(world: &World, host: &HostName, since: Timestamp) -> bool {
    world.contacts.get(host).and_then(|contact| contact.engine_answered_at).is_some_and(|at| at > since)
}

/// When a host that stays silent changes its status next.
fn next_change(world: &World, host: &Host<'_>) -> Option<Timestamp> {
    match host.silence {
        Silence::No => {
            let contact = world.contacts.get(host.name)?;
            let suspect_after = || world.state.desired.host_loss(host.name).suspect_after;
            // Only a host that does not answer now can become SUSPECT; others need no alarm clock.
            contact.error.is_some().then(|| engine_heard(contact).plus_ms(suspect_after().as_ms()))
        }
        Silence::Suspect { lost_at, .. } => world.contacts.contains_key(host.name).then_some(lost_at),
        Silence::Lost { .. } | Silence::Untrusted => None,
    }
}

fn lost_since(host: &Host<'_>) -> Option<Timestamp> {
    host.record().and_then(|record| record.lost_since)
}

/// Marks losses and returns, and pulls or releases the brake.
pub(super) fn judge(draft: &mut Draft<'_>) {
    let world = draft.world;
    for no in 0..draft.hosts.len() {
        let host = &draft.hosts[no];
        let name = host.name;
        let subject = || EventSubject::Host(name.clone());
        let next = next_change(world, host);
        match (host.silence, lost_since(host)) {
            (Silence::Lost { for_ms }, None) => {
                let message =
                    format!("host {name} has not answered for {:.1} s: it counts as lost", for_ms as f64 / 1000.0);
                draft.event(subject(), EventLevel::Warning, "HostLost", message);
                draft.hosts[no].change(|record| record.lost_since = Some(world.now));
            }
            (Silence::No, Some(since)) if answered_after(world, name, since) => {
                draft.event(subject(), EventLevel::Normal, "HostReturned", format!("host {name} answers again"));
                draft.hosts[no].change(|record| record.lost_since = None);
            }
            (Silence::Lost { .. }, Some(_)) | (Silence::No, _) | (Silence::Suspect { .. } | Silence::Untrusted, _) => {}
        }
        if let Some(at) = next {
            draft.wake_at(at);
        }
    }
    brake(draft);
    if draft.braked() {
        let reason = draft.fleet().brake.as_ref().map(|brake| brake.reason.clone()).unwrap_or_default();
        draft.waiting(
            Subject::Fleet,
            reason,
            "one of the lost hosts answers, or you say `roadstead brake release`",
            None,
        );
    }
}

impl Draft<'_> {
    /// Whether the brake holds (S14): then nothing is replaced and nothing is scaled in.
    pub(super) fn braked(&self) -> bool {
        self.fleet().brake.as_ref().is_some_and(|brake| !brake.released)
    }
}

fn brake(draft: &mut Draft<'_>) {
    let world = draft.world;
    if let Some(brake) = &draft.fleet().brake {
        let back = |name: &&HostName| match draft.host_no(name) {
            Some(no) => lost_since(&draft.hosts[no]).is_none() && answered_after(world, name, brake.since),
            None => true,
        };
        if let Some(host) = brake.hosts.iter().find(back) {
            let message = format!("host {host} answers: replacing goes on");
            draft.event(EventSubject::Fleet, EventLevel::Normal, "BrakeReleased", message);
            draft.change_fleet(|fleet| {
                fleet.brake = None;
                fleet.brake_ended_at = Some(world.now);
            });
            return;
        }
        if !brake.released {
            return;
        }
    }
    // Only a loss of this very plan pulls the brake: it does not come back because an old loss is remembered.
    if !draft.hosts.iter().any(|host| lost_since(host) == Some(world.now)) {
        return;
    }
    // A host that is only suspected counts, too: hosts that fell silent together are not lost in the same instant.
    let is_silent = |host: &Host<'_>| matches!(host.silence, Silence::Suspect { link_silent: true, .. });
    let recent = fallen(draft, is_silent);
    if !recent.iter().any(|host| lost_since(host) == Some(world.now)) {
        return;
    }
    let Some(reason) = too_many(draft, &recent) else { return };
    let hosts = recent.iter().map(|host| host.name.clone()).collect();
    draft.event(EventSubject::Fleet, EventLevel::Warning, "BrakePulled", reason.clone());
    draft.change_fleet(|fleet| fleet.brake = Some(Brake { since: world.now, reason, hosts, released: false }));
}

/// The hosts that the brake judges: what a person released stays released, only further losses are judged again.
fn judged<'d, 'w>(draft: &'d Draft<'w>) -> impl Iterator<Item = &'d Host<'w>> {
    let released: BTreeSet<&HostName> = draft.fleet().brake.iter().flat_map(|brake| &brake.hosts).collect();
    draft.hosts.iter().filter(move |host| !released.contains(host.name))
}

/// Hosts that were lost within the brake's window, or are silent by `is_silent`.
fn fallen<'d, 'w>(draft: &'d Draft<'w>, is_silent: impl Fn(&Host<'w>) -> bool) -> Vec<&'d Host<'w>> {
    let is_recent = |host: &&Host<'w>| match lost_since(host) {
        Some(since) => draft.now().since_ms(since) < BRAKE_WINDOW_MS,
        None => is_silent(host),
    };
    judged(draft).filter(is_recent).collect()
}

/// Why so many hosts at once are rather the controller's own trouble, if they are (S14).
fn too_many(draft: &Draft<'_>, recent: &[&Host<'_>]) -> Option<String> {
    let (fallen, all) = (recent.len(), judged(draft).count());
    if fallen * 2 > all {
        return Some(format!(
            "{fallen} of {all} hosts fell silent within a minute: perhaps this controller is the one cut off, so nothing is replaced"
        ));
    }
    let zone = whole_zone(&draft.hosts, recent)?;
    Some(format!("every host of zone {zone} fell silent within a minute: nothing is replaced until one answers"))
}

/// A zone of two or more hosts of which each fell silent.
fn whole_zone<'w>(hosts: &[Host<'w>], recent: &[&Host<'w>]) -> Option<&'w str> {
    let mut fallen: BTreeMap<&str, usize> = BTreeMap::new();
    for zone in recent.iter().filter_map(|host| host.zone()) {
        *fallen.entry(zone).or_default() += 1;
    }
    let members = |zone: &str| hosts.iter().filter(|host| host.zone() == Some(zone)).count();
    fallen.iter().find(|(zone, fallen)| **fallen >= 2 && **fallen == members(zone)).map(|(zone, _)| *zone)
}

/// Stops what belongs to no service on hosts whose drain has a time-out, once that is over.
pub(super) fn end_standalone_tasks(draft: &mut Draft<'_>) {
    let records = &draft.world.state.hosts;
    let drain_until = |host: &Host<'_>| match host.status {
        HostStatus::Draining => records.get(host.name).and_then(|record| record.drain_until),
        HostStatus::Active | HostStatus::Cordoned | HostStatus::Suspect | HostStatus::Lost | HostStatus::Untrusted => {
            None
        }
    };
    let until: Vec<Option<Timestamp>> = draft.hosts.iter().map(drain_until).collect();
    if until.iter().all(Option::is_none) {
        return;
    }
    for no in draft.tasks.numbers() {
        let Some(at) = draft.tasks.host(no).and_then(|host| until[host]) else { continue };
        let task = draft.task(no);
        if !task.is_standalone() || !task.is_wanted() {
            continue;
        }
        if at > draft.now() {
            draft.wake_at(at);
            continue;
        }
        let reason = format!("host {} is being drained, and the time for it is over", task.host);
        service::stop(draft, no, StopCode::TerminationNotice, &reason);
    }
}

/// When a host counts as lost for the tasks of a service that says so itself, and whether that is sooner than it is LOST;
/// `None`: when it is LOST.
fn own_limits(world: &World, host: &HostName, own: ServiceHostLoss) -> Option<(HostLoss, bool)> {
    let cluster = world.state.desired.host_loss(host);
    let limits = cluster.of_service(own);
    match limits.lost_after.cmp(&cluster.lost_after) {
        Ordering::Less => Some((limits, true)),
        Ordering::Equal => None,
        Ordering::Greater => Some((limits, false)),
    }
}

/// Whether a host that is not LOST counts as lost for a service's tasks.
pub fn is_lost_early(world: &World, host: &HostName, spec: &ServiceSpec) -> bool {
    let has_error = || world.contacts.get(host).is_some_and(|contact| contact.error.is_some());
    own_limits(world, host, spec.host_loss)
        .is_some_and(|(limits, _)| has_error() && matches!(silence_by(world, host, limits), Silence::Lost { .. }))
}

/// Hosts that are silent for too long to get a new task of a service, by what the service says itself.
pub(super) fn too_silent<'w>(draft: &mut Draft<'w>, spec: &ServiceSpec) -> Vec<&'w HostName> {
    let Some(most) = spec.host_loss.suspect_after else { return Vec::new() };
    let world = draft.world;
    let silent_ms = |host: &HostName| world.contacts.get(host).map(|contact| world.now.since_ms(engine_heard(contact)));
    let names = draft.hosts.iter().map(|host| host.name);
    let silent: Vec<_> = names.filter(|host| silent_ms(host).is_some_and(|ms| ms >= most.as_ms())).collect();
    if !silent.is_empty() {
        // An answer that comes in time is no news.
        draft.wake_at(world.now.plus_ms(1_000));
    }
    silent
}

/// Whether a host counts as lost for a service with its own limits; when it does not yet, and how long its cluster waits.
fn lost_by(world: &World, host: &Host<'_>, (limits, is_sooner): (HostLoss, bool)) -> Result<(), Option<Timestamp>> {
    if is_sooner && lost_since(host).is_some() {
        return Ok(());
    }
    let contact = world.contacts.get(host.name).filter(|contact| contact.error.is_some()).ok_or(None)?;
    match silence_by(world, host.name, limits) {
        Silence::Lost { .. } => Ok(()),
        Silence::Suspect { lost_at, .. } => Err(Some(lost_at)),
        Silence::No => Err(Some(engine_heard(contact).plus_ms(limits.suspect_after.as_ms()))),
        Silence::Untrusted => Err(None),
    }
}

/// Whether a wanted task is to be given up, since its host is lost to its service.
fn is_lost(draft: &mut Draft<'_>, no: TaskNo, host: HostNo, own: ServiceHostLoss) -> bool {
    let (world, name) = (draft.world, draft.hosts[host].name);
    let is_lost = lost_since(&draft.hosts[host]).is_some();
    let limits = own_limits(world, name, own);
    let verdict = match limits {
        None if is_lost => Ok(()),
        None => Err(None),
        Some(limits) => lost_by(world, &draft.hosts[host], limits),
    };
    let lost_after = limits.map_or_else(|| world.state.desired.host_loss(name), |(limits, _)| limits).lost_after;
    // When the brake has just ended, the other hosts' silence counts anew: they come back one by one.
    let resumes_at = draft.fleet().brake_ended_at.map(|at| at.plus_ms(lost_after.as_ms())).filter(|at| *at > world.now);
    let words = match (verdict, resumes_at) {
        (Ok(()), Some(at)) => {
            draft.wake_at(at);
            return false;
        }
        (Ok(()), None) if is_lost => return true,
        (Ok(()), None) => {
            // The brake judges losses by the cluster's limits; those of a service are no way around it.
            let is_silent = |other: &Host<'_>| {
                let limits = world.state.desired.host_loss(other.name).of_service(own);
                matches!(
                    silence_by(world, other.name, limits),
                    Silence::Lost { .. } | Silence::Suspect { link_silent: true, .. }
                )
            };
            let Some(words) = too_many(draft, &fallen(draft, is_silent)) else { return true };
            words
        }
        (Err(at), _) => {
            at.into_iter().for_each(|at| draft.wake_at(at));
            if !is_lost {
                return false;
            }
            format!("host {name} is lost, and its service waits {} s for it", lost_after.0)
        }
    };
    let subject = Subject::Task(draft.task(no).id.clone());
    draft.waiting(subject, words, format!("host {name} answers, or is silent for longer"), None);
    false
}

/// Orders tasks on lost hosts to stop, so that their services replace them; what of them still runs is stopped when the
/// host is seen again. Standalone tasks end likewise, and nothing replaces them. Daemon tasks, services that wait, and tasks
/// that own a volume there stay wanted.
pub(super) fn give_up_lost_tasks(draft: &mut Draft<'_>) {
    let world = draft.world;
    let may_be_lost = |host: &Host<'_>| {
        lost_since(host).is_some() || world.contacts.get(host.name).is_some_and(|contact| contact.error.is_some())
    };
    let silent: Vec<bool> = draft.hosts.iter().map(may_be_lost).collect();
    if !silent.contains(&true) {
        return;
    }
    let replaceable =
        |spec: &ServiceSpec| !spec.waits_for_lost_host() && spec.scheduling_strategy == SchedulingStrategy::Replica;
    let braked = draft.braked();
    for no in draft.tasks.numbers() {
        let Some(host) = draft.tasks.host(no).filter(|host| silent[*host]) else { continue };
        let spec = draft.tasks.service(no).map(|service| &draft.services[service].manifest.spec);
        if draft.task(no).desired_status != DesiredStatus::Running {
            // It makes room when its service counts the host as lost.
            if let Some(limits) = spec
                .filter(|_| draft.task(no).is_live())
                .and_then(|spec| own_limits(world, draft.hosts[host].name, spec.host_loss))
                && let Err(Some(at)) = lost_by(world, &draft.hosts[host], limits)
            {
                draft.wake_at(at);
            }
            continue;
        }
        if braked {
            continue;
        }
        let given_up = spec.map_or_else(|| draft.task(no).is_standalone(), replaceable);
        let own = spec.map(|spec| spec.host_loss).unwrap_or_default();
        if !given_up || !is_lost(draft, no, host, own) {
            continue;
        }
        if let Some(volume) = volumes::held_by(draft, no).filter(|_| !draft.task(no).is_standalone()) {
            let task = draft.task(no);
            let words =
                format!("host {} is lost and is waited for: the data of volume {} is there", task.host, volume.name);
            let wakes_when = format!("host {} answers, or is no longer declared", task.host);
            let subject = Subject::Task(task.id.clone());
            draft.waiting(subject, words, wakes_when, None);
        } else {
            draft.tasks.change(no, |task| {
                let reason =
                    format!("host {} is lost; what still runs there is stopped when it is seen again", task.host);
                task.order_stop(world.now, StopCode::HostLost, reason);
            });
        }
    }
}
