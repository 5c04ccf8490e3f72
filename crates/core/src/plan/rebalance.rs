//! `availabilityZoneRebalancing`: a service at rest whose zones have become uneven gets one more task where it has fewest.
//! Scale-in then takes one where it has most, once the new one is healthy. One at a time.
//!
//! Rule: "Balancing an Amazon ECS service across Availability Zones", ECS developer guide.

use std::collections::BTreeMap;

use crate::model::{
    name::HostName,
    spec::{
        ServiceSpec,
        service::{AvailabilityZoneRebalancing, PlacementStrategyType, SchedulingStrategy},
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
    let is_zone = |field: &str| matches!(field, "attribute:availability-zone" | "attribute:ecs.availability-zone");
    let zones_first = spec
        .placement_strategy
        .first()
        .is_none_or(|first| first.kind == PlacementStrategyType::Spread && first.field.as_deref().is_some_and(is_zone));
    zones_first
        && spec.availability_zone_rebalancing == AvailabilityZoneRebalancing::Enabled
        && spec.scheduling_strategy == SchedulingStrategy::Replica
}

/// Starts one task in a zone that has at least two fewer than another; nothing when none can be started there.
pub(super) fn move_one(draft: &mut Draft<'_>, service: &Subjected<'_>, bounds: Bounds, slot: u32, keepers: &[TaskNo]) {
    let record = draft.services[service.no].record();
    let primary = record.and_then(|record| record.primary());
    let at_rest = primary.is_some_and(|primary| primary.rollout_state == RolloutState::Completed)
        && keepers.len() == service.spec.desired_count as usize
        && service.counted_live(draft) < bounds.ceiling
        && service.throttled_until(draft).is_none()
        // Scale-in has to be free to take the one that is too many, and not the new one.
        && keepers.iter().all(|no| service.healthy(draft, *no) && protected_until(draft, *no).is_none());
    if !applies(service.spec) || !at_rest {
        return;
    }
    let mut zones: BTreeMap<&str, (usize, Vec<&HostName>)> = BTreeMap::new();
    for host in draft.hosts.iter().filter(|host| host.status == HostStatus::Active && host.heard) {
        let Some(zone) = host.zone() else { continue };
        zones.entry(zone).or_default().1.push(host.name);
    }
    for no in keepers {
        let zone = draft.tasks.host(*no).and_then(|host| draft.hosts[host].zone());
        if let Some((count, _)) = zone.and_then(|zone| zones.get_mut(zone)) {
            *count += 1;
        }
    }
    let most = zones.values().map(|(count, _)| *count).max().unwrap_or(0);
    let mut poor: Vec<_> = zones.into_iter().filter(|(_, (count, _))| count + 2 <= most).collect();
    poor.sort_by_key(|(zone, (count, _))| (*count, *zone));
    for (zone, (_, hosts)) in poor {
        let reason = format!("zone {zone} has fewer tasks of {} than another", service.name);
        if hosts.into_iter().any(|host| place::start(draft, service, slot, Some(host), &reason).is_ok()) {
            return;
        }
    }
}
