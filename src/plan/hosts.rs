//! Hosts: their status, their loss, and the brake.

use crate::model::{
    name::HostName,
    spec::service::{OnHostLoss, SchedulingStrategy},
    state::{Brake, EventLevel, EventSubject, HostRecord, Schedulability},
    task::{DesiredStatus, StopCode},
    time::Timestamp,
    world::{HostStatus, Subject, World},
};

use super::draft::Draft;

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
    match silence(world, host) {
        Silence::Untrusted => HostStatus::Untrusted,
        Silence::Lost { .. } => HostStatus::Lost,
        Silence::Suspect { .. } => HostStatus::Suspect,
        Silence::No => match world.state.hosts.get(host).map(|record| record.schedulability).unwrap_or_default() {
            Schedulability::Active => HostStatus::Active,
            Schedulability::Cordoned => HostStatus::Cordoned,
            Schedulability::Draining => HostStatus::Draining,
        },
    }
}

/// Whether the host's engine has answered since the controller started, and still does: orders can be sent.
pub(super) fn takes_orders(world: &World, host: &HostName) -> bool {
    matches!(host_status(world, host), HostStatus::Active | HostStatus::Cordoned | HostStatus::Draining)
        && world.contacts.get(host).is_some_and(|contact| {
            let seen = contact.looked_at.is_some_and(|at| world.now.since_ms(at) < STALE_LOOK_MS);
            seen && contact.error.is_none()
        })
}

enum Silence {
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

fn silence(world: &World, host: &HostName) -> Silence {
    let Some(contact) = world.contacts.get(host) else {
        return Silence::Suspect { lost_at: world.now, link_silent: true };
    };
    if contact.untrusted.is_some() {
        return Silence::Untrusted;
    }
    let limits = world
        .state
        .desired
        .hosts
        .get(host)
        .map(|manifest| world.state.desired.cluster(&manifest.spec.cluster).host_loss)
        .unwrap_or_default();
    let engine_heard = contact.engine_answered_at.unwrap_or(contact.watched_since).max(contact.watched_since);
    let link_heard = contact.link_answered_at.unwrap_or(contact.watched_since).max(engine_heard);
    let (engine_silent, link_silent) = (world.now.since_ms(engine_heard), world.now.since_ms(link_heard));
    let lost_at =
        link_heard.plus_ms(limits.lost_after.as_ms()).min(engine_heard.plus_ms(limits.engine_lost_after.as_ms()));
    if lost_at <= world.now {
        Silence::Lost { for_ms: engine_silent.max(link_silent) }
    } else if engine_silent >= limits.suspect_after.as_ms() {
        Silence::Suspect { lost_at, link_silent: link_silent >= limits.suspect_after.as_ms() }
    } else {
        Silence::No
    }
}

/// Whether its engine answered later than `since`: silence that has not been noticed yet is no answer.
fn answered_after(world: &World, host: &HostName, since: Timestamp) -> bool {
    world.contacts.get(host).and_then(|contact| contact.engine_answered_at).is_some_and(|at| at > since)
}

fn lost_after_ms(world: &World, host: &HostName) -> u64 {
    let desired = &world.state.desired;
    let limits = desired.hosts.get(host).map(|manifest| desired.cluster(&manifest.spec.cluster).host_loss);
    limits.unwrap_or_default().lost_after.as_ms()
}

/// When a host that stays silent changes its status next.
fn next_change(world: &World, host: &HostName) -> Option<Timestamp> {
    let manifest = world.state.desired.hosts.get(host)?;
    let contact = world.contacts.get(host)?;
    match silence(world, host) {
        Silence::No => {
            let suspect_after = world.state.desired.cluster(&manifest.spec.cluster).host_loss.suspect_after;
            let heard = contact.engine_answered_at.unwrap_or(contact.watched_since).max(contact.watched_since);
            // Only a host that does not answer now can become SUSPECT; others need no alarm clock.
            contact.error.is_some().then(|| heard.plus_ms(suspect_after.as_ms()))
        }
        Silence::Suspect { lost_at, .. } => Some(lost_at),
        Silence::Lost { .. } | Silence::Untrusted => None,
    }
}

/// Marks losses and returns, pulls or releases the brake, and gives up tasks on lost hosts.
pub(super) fn judge(draft: &mut Draft<'_>) {
    let world = draft.world;
    for host in world.state.desired.hosts.keys() {
        if let Some(at) = next_change(world, host) {
            draft.wake_at(at);
        }
        let record = draft.host(host);
        match (silence(world, host), record.lost_since) {
            (Silence::Lost { for_ms }, None) => {
                let message =
                    format!("host {host} has not answered for {:.1} s: it counts as lost", for_ms as f64 / 1000.0);
                draft.event(EventSubject::Host(host.clone()), EventLevel::Warning, "HostLost", message);
                draft.put_host(HostRecord { lost_since: Some(world.now), ..record });
            }
            (Silence::No, Some(since)) if answered_after(world, host, since) => {
                draft.event(
                    EventSubject::Host(host.clone()),
                    EventLevel::Normal,
                    "HostReturned",
                    format!("host {host} answers again"),
                );
                draft.put_host(HostRecord { lost_since: None, ..record });
            }
            (Silence::Lost { .. }, Some(_)) | (Silence::No, _) | (Silence::Suspect { .. } | Silence::Untrusted, _) => {}
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
    } else {
        give_up_lost_tasks(draft);
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
    let mut fleet = draft.fleet().clone();
    let lost_since = |draft: &Draft<'_>, host: &HostName| draft.host(host).lost_since;
    if let Some(brake) = &fleet.brake {
        let back = |host: &HostName| {
            lost_since(draft, host).is_none() && answered_after(world, host, brake.since)
                || !world.state.desired.hosts.contains_key(host)
        };
        let answered = brake.hosts.iter().find(|host| back(host));
        if let Some(host) = answered {
            draft.event(
                EventSubject::Fleet,
                EventLevel::Normal,
                "BrakeReleased",
                format!("host {host} answers: replacing goes on"),
            );
            fleet.brake = None;
            fleet.brake_ended_at = Some(world.now);
            draft.put_fleet(fleet);
            return;
        }
        if !brake.released {
            return;
        }
    }
    // What a person released stays released; only further losses are judged again.
    let released: Vec<HostName> = fleet.brake.iter().flat_map(|brake| brake.hosts.clone()).collect();
    // A host that is only suspected counts, too: hosts that fell silent together are not lost in the same instant.
    let recent: Vec<&HostName> = world
        .state
        .desired
        .hosts
        .keys()
        .filter(|host| !released.contains(host))
        .filter(|host| match lost_since(draft, host) {
            Some(since) => world.now.since_ms(since) < BRAKE_WINDOW_MS,
            None => matches!(silence(world, host), Silence::Suspect { link_silent: true, .. }),
        })
        .collect();
    // Only a loss of this very plan pulls the brake: it does not come back because an old loss is remembered.
    if !recent.iter().any(|host| lost_since(draft, host) == Some(world.now)) {
        return;
    }
    let all = world.state.desired.hosts.keys().filter(|host| !released.contains(host)).count();
    let zone_of =
        |host: &HostName| world.state.desired.hosts.get(host).and_then(|manifest| manifest.labels.get(ZONE_LABEL));
    let whole_zone = recent.iter().find_map(|host| {
        let zone = zone_of(host)?;
        let members: Vec<_> = world.state.desired.hosts.keys().filter(|other| zone_of(other) == Some(zone)).collect();
        // A zone that is the whole fleet is judged by the count of hosts.
        (members.len() >= 2 && members.len() < all && members.iter().all(|member| recent.contains(member)))
            .then(|| zone.clone())
    });
    let reason = if recent.len() * 2 > all {
        format!(
            "{} of {all} hosts fell silent within a minute: perhaps this controller is the one cut off, so nothing is replaced",
            recent.len()
        )
    } else if let Some(zone) = whole_zone {
        format!("every host of zone {zone} fell silent within a minute: nothing is replaced until one answers")
    } else {
        return;
    };
    draft.event(EventSubject::Fleet, EventLevel::Warning, "BrakePulled", reason.clone());
    fleet.brake =
        Some(Brake { since: world.now, reason, hosts: recent.into_iter().cloned().collect(), released: false });
    draft.put_fleet(fleet);
}

/// Orders tasks on lost hosts to stop, so that their services replace them; what of them still runs is stopped when the
/// host is seen again. Daemon tasks and services that wait stay wanted.
fn give_up_lost_tasks(draft: &mut Draft<'_>) {
    let world = draft.world;
    let lost: Vec<&HostName> =
        world.state.desired.hosts.keys().filter(|host| draft.host(host).lost_since.is_some()).collect();
    if lost.is_empty() {
        return;
    }
    // When the brake has just ended, the other hosts' silence counts anew: they come back one by one.
    if let Some(ended_at) = draft.fleet().brake_ended_at {
        let grace_ms = lost.iter().map(|host| lost_after_ms(world, host)).max().unwrap_or(0);
        let until = ended_at.plus_ms(grace_ms);
        if until > world.now {
            draft.wake_at(until);
            return;
        }
    }
    let replaceable = |service| {
        world.state.desired.services.get(service).is_some_and(|manifest| {
            manifest.spec.on_host_loss == OnHostLoss::Replace
                && manifest.spec.scheduling_strategy == SchedulingStrategy::Replica
        })
    };
    let given_up: Vec<_> = draft
        .tasks()
        .filter(|task| {
            task.desired_status == DesiredStatus::Running && lost.contains(&&task.host) && replaceable(&task.service)
        })
        .map(|task| (task.id.clone(), task.host.clone()))
        .collect();
    for (id, host) in given_up {
        draft.change_task(&id, |task| {
            task.order_stop(
                world.now,
                StopCode::HostLost,
                format!("host {host} is lost; what still runs there is stopped when it is seen again"),
            );
        });
    }
}
