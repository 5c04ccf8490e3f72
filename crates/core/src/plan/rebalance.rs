//! `availabilityZoneRebalancing`: a service at rest whose zones, or hosts of one zone, have become uneven gets one more task
//! where it has fewest. Scale-in then takes one where it has most, once the new one is healthy. One at a time.
//!
//! Rule: "Balancing an Amazon ECS service across Availability Zones", ECS developer guide.

use std::collections::BTreeMap;

use crate::model::{
    name::HostName,
    spec::{
        ServiceSpec, TaskDefinitionSpec,
        service::{AvailabilityZoneRebalancing, PlacementStrategyType, SchedulingStrategy},
        task_definition::VolumeScope,
    },
    state::RolloutState,
    world::HostStatus,
};

use super::{
    draft::{Draft, TaskNo},
    place,
    replica::{Bounds, protected_until},
    service::Subjected,
};

/// Whether a service's tasks are moved between zones: only where zones come first in placement, too.
pub(super) fn applies(spec: &ServiceSpec) -> bool {
    let zones_first = spec
        .placement_strategy
        .first()
        .is_none_or(|first| first.kind == PlacementStrategyType::Spread && first.field.as_deref().is_some_and(is_zone));
    zones_first
        && spec.availability_zone_rebalancing == AvailabilityZoneRebalancing::Enabled
        && spec.scheduling_strategy == SchedulingStrategy::Replica
}

/// Starts one task in a zone, or else on a host of a zone, that has at least two fewer than another; nothing when none can be
/// started there.
pub(super) fn move_one(draft: &mut Draft<'_>, service: &Subjected<'_>, bounds: Bounds, slot: u32, keepers: &[TaskNo]) {
    if !applies(service.spec) || owns_a_volume(&service.definition) {
        return;
    }
    let record = draft.services[service.no].record();
    let primary = record.and_then(|record| record.primary());
    let at_rest = primary.is_some_and(|primary| primary.rollout_state == RolloutState::Completed)
        && keepers.len() == service.spec.desired_count as usize
        && service.counted_live(draft) < bounds.ceiling
        // Scale-in has to be free to take the one that is too many, and not the new one.
        && keepers.iter().all(|no| service.healthy(draft, *no) && protected_until(draft, *no).is_none());
    if !at_rest {
        return;
    }
    if let Some(at) = service.throttled_until(draft) {
        draft.wake_at(at);
        return;
    }
    // Scale-in counts tasks wherever they are, so their number does; a new one goes where hosts take tasks.
    let mut in_zone: BTreeMap<Option<&str>, usize> = BTreeMap::new();
    let mut zones: BTreeMap<Option<&str>, Vec<(usize, &HostName)>> = BTreeMap::new();
    for (no, host) in draft.hosts.iter().enumerate() {
        let tasks = keepers.iter().filter(|task| draft.tasks.host(**task) == Some(no)).count();
        *in_zone.entry(host.zone()).or_default() += tasks;
        if host.status == HostStatus::Active && host.heard {
            zones.entry(host.zone()).or_default().push((tasks, host.name));
        }
    }
    zones.values_mut().for_each(|hosts| hosts.sort_unstable());
    let most = in_zone.iter().filter(|(zone, _)| zone.is_some()).map(|(_, tasks)| *tasks).max().unwrap_or(0);
    let poor = zones.iter().filter_map(|(zone, hosts)| Some((in_zone.get(zone).copied()?, (*zone)?, hosts)));
    let mut poor: Vec<_> = poor.filter(|(tasks, ..)| tasks + 2 <= most).collect();
    poor.sort_by_key(|(tasks, zone, _)| (*tasks, *zone));
    for (_, zone, hosts) in poor {
        let reason = format!("zone {zone} has fewer tasks of {} than another", service.name);
        if hosts.iter().any(|(_, host)| place::start(draft, service, slot, Some(host), &reason).is_ok()) {
            return;
        }
    }
    if !spreads_over_hosts(service.spec) {
        return;
    }
    // Between the hosts of one zone: scale-in then takes one of the zone that has one too many.
    for hosts in zones.into_values() {
        let most = hosts.last().map_or(0, |(tasks, _)| *tasks);
        for (_, host) in hosts.into_iter().filter(|(tasks, _)| tasks + 2 <= most) {
            let reason = format!("{host} has fewer tasks of {} than another host", service.name);
            if place::start(draft, service, slot, Some(host), &reason).is_ok() {
                return;
            }
        }
    }
}

/// Whether nothing but zones and hosts decides where its tasks go.
fn spreads_over_hosts(spec: &ServiceSpec) -> bool {
    spec.placement_strategy.iter().all(|strategy| {
        let field = strategy.field.as_deref();
        strategy.kind == PlacementStrategyType::Spread
            && field.is_some_and(|field| is_zone(field) || matches!(field, "host" | "instanceId"))
    })
}

fn is_zone(field: &str) -> bool {
    matches!(field, "attribute:availability-zone" | "attribute:ecs.availability-zone")
}

/// Whether tasks keep data in a volume of their host's Docker: such a task is never moved by itself.
fn owns_a_volume(definition: &TaskDefinitionSpec) -> bool {
    let docker = definition.volumes.iter().filter_map(|volume| volume.docker_volume_configuration.as_ref());
    docker.into_iter().any(|volume| volume.scope == VolumeScope::Shared)
}
