//! Whether planning again would find nothing, as the last plan did: most looks show what the one before showed, and a plan
//! that finds nothing costs as much as one that finds something.

use crate::model::{name::HostName, time::Timestamp, world::World};

use super::{
    hosts::{self, Silence},
    image_cleanup,
};

/// A world in which there was nothing to do.
#[derive(Clone, Debug)]
pub struct Quiet {
    world: World,
    until: Timestamp,
}

impl Quiet {
    /// `world` as a plan found it that had neither changes nor orders. `until`: when that plan wanted the next one, or before.
    pub fn new(world: World, until: Timestamp) -> Self {
        Self { world, until }
    }

    /// When it must end.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// Whether a plan of `world` would have neither changes nor orders, told without making it. `false` is always right, and
    /// only slower.
    ///
    /// All that a plan reads is as it was, but for two things: the clock, which has an alarm, and how long ago hosts
    /// answered, of which only what follows from it matters.
    pub fn goes_on(&self, world: &World) -> bool {
        let World {
            now,
            wall_ahead_ms,
            seed,
            state,
            contacts: _,
            volumes,
            storage,
            networks,
            edges,
            in_flight,
            retry_at,
            settling,
        } = &self.world;
        // When each was looked at changes nothing.
        let shows_same_networks = networks.len() == world.networks.len()
            && networks.iter().zip(&world.networks).all(|((host, seen), (other_host, other))| {
                host == other_host
                    && seen.confirmed == other.confirmed
                    && asks_no_more(seen.under_way.as_ref(), other.under_way.as_ref())
                    && seen.slices == other.slices
                    && seen.problem == other.problem
            });
        let shows_same_edges = edges.len() == world.edges.len()
            && edges.iter().zip(&world.edges).all(|((host, seen), (other_host, other))| {
                host == other_host
                    && seen.confirmed == other.confirmed
                    && asks_no_more(seen.under_way.as_ref(), other.under_way.as_ref())
                    && seen.targets == other.targets
                    && seen.is_there == other.is_there
                    && seen.problem == other.problem
            });
        let is_early = *now <= world.now && world.now < self.until;
        let shows_same_volumes = volumes.len() == world.volumes.len()
            && volumes
                .iter()
                .zip(&world.volumes)
                .all(|((host, seen), (other_host, other))| host == other_host && seen.volumes == other.volumes);
        is_early
            && *wall_ahead_ms == world.wall_ahead_ms
            && *seed == world.seed
            && *settling == world.settling
            && *in_flight == world.in_flight
            && *retry_at == world.retry_at
            && *state == world.state
            && shows_same_volumes
            && shows_same_networks
            && shows_same_edges
            && *storage == world.storage
            // What is too full becomes old enough to remove as time goes on.
            && !image_cleanup::is_needed(world)
            && state.desired.hosts.keys().all(|host| Standing::of(&self.world, host) == Standing::of(world, host))
    }
}

/// Whether what is under way to a host now lets nothing happen that did not before: it only ever keeps a task from being stopped.
fn asks_no_more<T: PartialEq>(before: Option<&T>, now: Option<&T>) -> bool {
    before.is_none() || before == now
}

/// What follows from when a host answered last.
#[derive(PartialEq, Eq)]
struct Standing {
    silence: Silence,
    heard: bool,
    /// Its next change of status has an alarm only when it does not answer now.
    has_error: bool,
    answered_since_lost: bool,
    answered_since_brake: bool,
}

impl Standing {
    fn of(world: &World, host: &HostName) -> Self {
        let record = world.state.hosts.get(host);
        let silence = match hosts::silence(world, host) {
            // For how long is only told.
            Silence::Lost { .. } => Silence::Lost { for_ms: 0 },
            other => other,
        };
        let status = hosts::status(silence, record);
        let answered_after =
            |since: Option<Timestamp>| since.is_some_and(|since| hosts::answered_after(world, host, since));
        Self {
            silence,
            heard: hosts::takes_orders(world, host, status),
            has_error: world.contacts.get(host).is_some_and(|contact| contact.error.is_some()),
            answered_since_lost: answered_after(record.and_then(|record| record.lost_since)),
            answered_since_brake: answered_after(world.state.fleet.brake.as_ref().map(|brake| brake.since)),
        }
    }
}
