//! What copies leave when a controller dies, a host is silent or a client goes away: containers that lent a volume, and volumes
//! with an archive. Lists show them, and they go at the next occasion, by names that nothing later bears.

use std::collections::BTreeMap;

use super::{
    copy::{Copies, is_lender, lends_something},
    fleet::Fleet,
    restore::is_staged,
};
use crate::engine::{Engine, EngineError};
use roadstead_core::model::{
    name::{HostName, RuntimeId},
    observed::HostObservation,
    ownership::Owner,
    time::Timestamp,
    volume::{VolumeClaim, VolumeRecord},
    world::World,
};

/// Of one host, so many at once.
const MAX_AT_ONCE: usize = 16;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leftover {
    Lender(RuntimeId),
    Staged(String),
}

/// What was seen of them.
#[derive(Default)]
pub(super) struct Leftovers {
    /// Lending containers in each host's last look, and when that began.
    lenders: BTreeMap<HostName, (Timestamp, Vec<RuntimeId>)>,
    /// When each was last tried to be removed: the next list tells whether that helped.
    tried: BTreeMap<(HostName, Leftover), Timestamp>,
}

impl Leftovers {
    /// Takes note of what one look shows.
    pub(super) fn note(&mut self, look: &HostObservation) {
        let lenders = look.containers.values().filter(|view| view.owner == Owner::Foreign && is_lender(&view.name));
        let lenders: Vec<RuntimeId> = lenders.map(|view| view.id.clone()).take(MAX_AT_ONCE).collect();
        match lenders.is_empty() {
            true => drop(self.lenders.remove(&look.host)),
            false => drop(self.lenders.insert(look.host.clone(), (look.started_at, lenders))),
        }
    }

    /// Removes what nobody needs, while nothing is copied, read or put back.
    pub(super) fn follow(&mut self, world: &World, fleet: &Fleet, copies: &Copies) {
        let seen = self.seen(world);
        self.tried.retain(|what, _| seen.contains_key(what));
        if seen.is_empty() || !copies.is_idle() {
            return;
        }
        for ((host, leftover), seen_at) in seen {
            let what = (host, leftover);
            if self.tried.get(&what).is_some_and(|tried| *tried >= seen_at) {
                continue;
            }
            let Some((engine, _)) = fleet.engine(&what.0, 0) else { continue };
            self.tried.insert(what.clone(), world.now);
            fleet.tasks.spawn(async move {
                if let Err(error) = remove(&*engine, &what.1).await {
                    tracing::debug!(host = %what.0, leftover = ?what.1, %error, "it is left for now");
                }
            });
        }
    }

    fn seen(&self, world: &World) -> BTreeMap<(HostName, Leftover), Timestamp> {
        let lenders = self.lenders.iter().flat_map(|(host, (at, lenders))| {
            lenders.iter().map(|id| ((host.clone(), Leftover::Lender(id.clone())), *at))
        });
        let is_awaited = |host: &HostName, name: &str| {
            let waits = |record: &VolumeRecord| {
                let from = record.moving.as_ref().and_then(|moving| moving.from_volume.as_deref());
                record.host == *host && from == Some(name)
            };
            world.state.volumes.values().any(waits)
        };
        let staged = world.volumes.iter().flat_map(|(host, seen)| {
            let staged = seen.volumes.iter().filter(move |(name, claim)| match claim {
                VolumeClaim::Shared { .. } => is_staged(name) && !is_awaited(host, name),
                VolumeClaim::Task { .. } => false,
            });
            let at = seen.started_at;
            staged.take(MAX_AT_ONCE).map(move |(name, _)| ((host.clone(), Leftover::Staged(name.clone())), at))
        });
        lenders.chain(staged).collect()
    }
}

async fn remove(engine: &dyn Engine, leftover: &Leftover) -> Result<(), EngineError> {
    match leftover {
        Leftover::Staged(name) => engine.remove_volume(name).await,
        Leftover::Lender(id) => match engine.inspect(id.as_str(), &|_| Owner::Foreign).await? {
            Some(found) if lends_something(&found) => engine.remove(id, false).await,
            Some(_) | None => Ok(()),
        },
    }
}
