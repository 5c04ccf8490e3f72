//! The copies that are under way: what is durable says which there shall be, so after a crash they are begun again.

use std::{collections::BTreeMap, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::{
    copy::{Claimed, Copies, Copy},
    fleet::Fleet,
    leftovers::Leftovers,
};
use roadstead_core::turn::Input;
use roadstead_core::{
    model::{
        name::TaskId,
        ownership::FleetKey,
        time::Timestamp,
        volume::{MoveStage, VolumeId, VolumeRecord, stays_on_host},
        world::World,
    },
    plan::absorb::{Copied, CopyFailed},
};

/// Copies at once: each takes the controller's own line twice.
const AT_ONCE: usize = 2;

/// A try of a move, by when it was asked for and how many went wrong before.
type Try = (Timestamp, u32);

/// The copies that are under way.
pub(super) struct Movers {
    pub(super) copies: Copies,
    running: BTreeMap<VolumeId, (Try, CancellationToken)>,
    pub(super) leftovers: Leftovers,
}

impl Movers {
    pub(super) fn new(key: FleetKey) -> Self {
        Self { copies: Copies::new(key), running: BTreeMap::new(), leftovers: Leftovers::default() }
    }

    /// Begins what is to be copied and is not, and ends what is not to be copied any more.
    pub(super) fn follow(&mut self, world: &World, fleet: &Fleet) {
        self.leftovers.follow(world, fleet, &self.copies);
        if self.running.is_empty() && world.state.volumes.is_empty() {
            return;
        }
        self.running.retain(|id, (of, stop)| {
            let goes_on = world.state.volumes.get(id).and_then(wanted) == Some(*of);
            if !goes_on {
                stop.cancel();
            }
            goes_on
        });
        for record in world.state.volumes.values() {
            let Some(of) = wanted(record) else { continue };
            let not_before = record.moving.as_ref().and_then(|moving| moving.not_before);
            if self.running.contains_key(&record.id)
                || self.running.len() >= AT_ONCE
                || not_before.is_some_and(|at| at > world.now)
            {
                continue;
            }
            // A backup under way ends first.
            let Some(claimed) = self.copies.claim(&record.id) else { continue };
            let stop = fleet.stop.child_token();
            self.running.insert(record.id.clone(), (of, stop.clone()));
            begin(world, fleet, record, claimed, stop);
        }
    }
}

/// The try that a volume is to be copied in, if it is.
fn wanted(record: &VolumeRecord) -> Option<Try> {
    let copying = record.moving.as_ref().filter(|moving| moving.stage == MoveStage::Copying);
    copying.map(|moving| (moving.since, moving.failures))
}

fn begin(world: &World, fleet: &Fleet, record: &VolumeRecord, claimed: Claimed, stop: CancellationToken) {
    let Some(moving) = record.moving.clone() else { return };
    let (id, inputs, clock) = (record.id.clone(), fleet.inputs.clone(), fleet.clock.clone());
    let engine = |host| fleet.engine(host, 0).map(|(engine, _)| engine);
    let copy = match (engine(&record.host), engine(&moving.to), image_for(world, record)) {
        (Some(from), Some(to), Some(image)) => Ok(Copy {
            bytes: Arc::clone(&claimed.bytes),
            id: id.clone(),
            since: moving.since,
            source: moving.from_volume.clone().unwrap_or_else(|| record.id.name.clone()),
            from,
            to,
            to_host: moving.to.clone(),
            image,
            key: fleet.key.clone(),
            stop,
        }),
        (_, _, None) => Err("no image is known that a container with the volume could be made from".to_owned()),
        (None, _, _) => Err(format!("host {} is not connected", record.host)),
        (_, None, _) => Err(format!("host {} is not connected", moving.to)),
    };
    let (ends, is_move) = (fleet.stop.clone(), moving.from_volume.is_none());
    fleet.tasks.spawn(async move {
        let result = match copy {
            // A defect in it must not leave the move without an end.
            Ok(copy) => tokio::spawn(copy.run()).await.unwrap_or_else(|error| {
                Err(CopyFailed { reason: format!("the copy died: {error}"), for_good: is_move })
            }),
            Err(reason) => Err(CopyFailed { reason, for_good: false }),
        };
        drop(claimed);
        // The controller ends, the move does not: the next one begins the copy again.
        if ends.is_cancelled() {
            return;
        }
        let copied = Copied { id, since: moving.since, at: clock.now(), result };
        let _ = inputs.send(Input::Copied(copied)).await;
    });
}

/// An image of a task that used the volume: its hosts have it, or can get it.
pub fn image_for(world: &World, record: &VolumeRecord) -> Option<String> {
    let used_by = |id: &TaskId| world.state.tasks.get(id);
    let last = record.last_used_by.as_ref().and_then(used_by);
    // By its digest, as the hosts have it.
    let last = last.and_then(|task| {
        let container = task.containers.values().next()?;
        let pinned = world.state.revision(&task.revision).map(|revision| revision.image(&container.image));
        Some(pinned.unwrap_or_else(|| container.image.clone()))
    });
    last.or_else(|| {
        let revisions = world.state.revisions.values().flat_map(|numbers| numbers.values().rev());
        let specs = revisions.filter_map(|revision| Some((revision, revision.spec.as_deref()?)));
        let mut using = specs.filter(|(_, spec)| stays_on_host(spec).any(|name| name == record.id.name));
        let (revision, spec) = using.next()?;
        spec.container_definitions.first().map(|container| revision.image(&container.image))
    })
}
