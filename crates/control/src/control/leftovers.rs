//! What copies leave when a controller dies, a host is silent or a client goes away: containers that lent a volume, and volumes
//! with an archive. Lists show them, and they go at the next occasion, by names that nothing later bears.
//!
//! The container through which a volume was filled is left on purpose until another one has the volume: Docker removes none that a
//! container has. Should an engine carry out late what it was asked before, the removal of what the volume had been, it refuses.

use std::collections::BTreeMap;

use super::{
    copy::{Copies, filled, is_lender, lends_something},
    fleet::Fleet,
    restore::is_staged,
};
use crate::engine::{Engine, EngineError};
use roadstead_core::{
    model::{
        name::{HostName, RuntimeId},
        observed::HostObservation,
        ownership::Owner,
        time::Timestamp,
        volume::{VolumeClaim, VolumeRecord},
        world::World,
    },
    plan::absorb,
};

/// So long after it was first seen such a container stays when no task comes: longer than any request lives on.
const ANCHORED_MS: u64 = 10 * 60_000;
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
    /// Since when each of them that filled a volume was seen, and which volume.
    anchors: BTreeMap<RuntimeId, (Timestamp, String)>,
    /// When each was last tried to be removed: the next list tells whether that helped.
    tried: BTreeMap<(HostName, Leftover), Timestamp>,
}

impl Leftovers {
    /// Takes note of what one look shows.
    pub(super) fn note(&mut self, look: &HostObservation) {
        let lenders = look.containers.values().filter(|view| view.owner == Owner::Foreign && is_lender(&view.name));
        let lenders: Vec<_> = lenders.take(MAX_AT_ONCE).collect();
        for (view, volume) in lenders.iter().filter_map(|view| Some((view, filled(&view.name)?))) {
            self.anchors.entry(view.id.clone()).or_insert_with(|| (look.started_at, volume.to_owned()));
        }
        let lenders: Vec<RuntimeId> = lenders.into_iter().map(|view| view.id.clone()).collect();
        match lenders.is_empty() {
            true => drop(self.lenders.remove(&look.host)),
            false => drop(self.lenders.insert(look.host.clone(), (look.started_at, lenders))),
        }
        let lenders = &self.lenders;
        self.anchors.retain(|id, _| lenders.values().any(|(_, lenders)| lenders.contains(id)));
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
            let is_anchor = |id: &RuntimeId| {
                let anchor = self.anchors.get(id);
                anchor.is_some_and(|(since, volume)| {
                    world.now.since_ms(*since) < ANCHORED_MS && !is_mounted(world, host, volume)
                })
            };
            let free = lenders.iter().filter(move |id| !is_anchor(id));
            free.map(|id| ((host.clone(), Leftover::Lender(id.clone())), *at))
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

/// Whether a container of a task has a volume on a host.
fn is_mounted(world: &World, host: &HostName, volume: &str) -> bool {
    world.state.tasks.values().any(|task| {
        task.host == *host
            && task.containers.values().any(|row| row.runtime_id.is_some())
            && absorb::mounts(&world.state, task, volume)
    })
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A look at a host on which these containers are.
    fn look(at_ms: u64, names: &[&str]) -> HostObservation {
        let view = |name: &&str| {
            let view = json!({
                "id": name, "name": name, "image": "demo:1", "imageId": "", "state": "created", "health": "UNKNOWN",
                "hasHealthCheck": false, "exitCode": null, "oomKilled": false, "startedAt": null, "finishedAt": null,
                "restartCount": 0, "error": "", "ports": [], "owner": Owner::Foreign,
            });
            (RuntimeId::from(*name), serde_json::from_value(view).unwrap())
        };
        HostObservation {
            host: "a".into(),
            started_at: Timestamp(at_ms),
            finished_at: Timestamp(at_ms),
            identity: Default::default(),
            containers: names.iter().map(view).collect(),
        }
    }

    #[test]
    fn what_filled_a_volume_stays_for_a_while_and_what_read_one_goes_at_once() {
        let mut leftovers = Leftovers::default();
        let goes = |leftovers: &Leftovers, now_ms: u64| -> Vec<String> {
            let seen = leftovers.seen(&World { now: Timestamp(now_ms), ..World::default() });
            let ids = seen.into_keys().map(|(_, leftover)| match leftover {
                Leftover::Lender(id) => id.to_string(),
                Leftover::Staged(name) => name,
            });
            ids.collect()
        };
        let all = ["rs-copy-a", "rs-fill-a", "web"];
        leftovers.note(&look(1_000, &all));
        assert_eq!(goes(&leftovers, 2_000), ["rs-copy-a"]);
        leftovers.note(&look(500_000, &all));
        assert_eq!(goes(&leftovers, 1_000 + ANCHORED_MS - 1), ["rs-copy-a"]);
        assert_eq!(goes(&leftovers, 1_000 + ANCHORED_MS), ["rs-copy-a", "rs-fill-a"]);
        leftovers.note(&look(700_000, &[]));
        leftovers.note(&look(800_000, &all));
        assert_eq!(goes(&leftovers, 900_000), ["rs-copy-a"], "it is another one");
    }
}
