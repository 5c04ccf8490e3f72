//! Which tasks a service gives up when it wants fewer.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    Placer,
    fleet::{HostId, Tally},
    rank::{MAX_RULES, Rule, strategy_rules},
};
use crate::model::{
    name::{HostName, ServiceName, TaskId},
    spec::service::{LaunchType, PlacementStrategy},
    time::Timestamp,
};

/// A live task of the service.
#[derive(Clone, Copy, Debug)]
pub struct ScaleInCandidate<'a> {
    /// Its id.
    pub id: &'a TaskId,
    /// Its host.
    pub host: &'a HostName,
    /// RUNNING and not UNHEALTHY; those that are not go first.
    pub ready: bool,
    /// When it was decided.
    pub created_at: Timestamp,
    /// CPU units it reserves.
    pub cpu: u32,
    /// MiB it reserves.
    pub memory: u32,
}

/// Not ready first, then the dearest, then the newest.
type Key = (bool, [u64; MAX_RULES], Timestamp);

impl Placer<'_> {
    /// `n` of these tasks, in the order in which to stop them; all of them when there are no more.
    ///
    /// ECS's rule: with spread, so that the groups stay even, then the newest on the host with most of the service;
    /// with binpack, on the host that would have most left; with none, the zone with most, then the host with most.
    pub fn choose_scale_in(
        &mut self,
        service: &ServiceName,
        tasks: &[ScaleInCandidate<'_>],
        launch_type: LaunchType,
        strategies: &[PlacementStrategy],
        n: usize,
    ) -> Vec<TaskId> {
        // By host, the next to go at the end. What runs on hosts that are no longer known goes before everything.
        let mut on_host: BTreeMap<HostId, Vec<&ScaleInCandidate<'_>>> = BTreeMap::new();
        let mut homeless: Vec<&ScaleInCandidate<'_>> = Vec::new();
        for task in tasks {
            match self.fleet.id(task.host) {
                Some(host) => on_host.entry(host).or_default().push(task),
                None => homeless.push(task),
            }
        }
        homeless.sort_by_key(|task| task.id);
        let mut chosen: Vec<TaskId> = homeless.into_iter().take(n).map(|task| task.id.clone()).collect();

        let mut counts = vec![0; self.fleet.hosts.len()];
        let mut room = self.fleet.room.clone();
        for (host, tasks) in &mut on_host {
            tasks.sort_by_key(|task| (Reverse(task.ready), task.created_at, Reverse(task.id)));
            counts[*host] = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        }
        // Not by the clock: what must stay now is not drawn again a moment later.
        let lot = self.lot(service).and(tasks.len() as u64);
        let mut tally = Tally::new(counts);
        let mut rules = strategy_rules(launch_type, strategies, &mut self.fleet, &mut tally, lot);
        rules.push(Rule::FewestOfService);

        while chosen.len() < n {
            let mut best: Option<(HostId, Key)> = None;
            for (host, next) in on_host.iter().filter_map(|(host, tasks)| Some((*host, *tasks.last()?))) {
                let before = room[host];
                room[host].cpu += i64::from(next.cpu);
                room[host].memory += i64::from(next.memory);
                let mut costs = [0; MAX_RULES];
                for (rule, cost) in rules.iter().zip(&mut costs) {
                    *cost = rule.cost(&self.fleet, &room, &tally, host);
                }
                room[host] = before;
                let key = (!next.ready, costs, next.created_at);
                if best.as_ref().is_none_or(|(_, highest)| key >= *highest) {
                    best = Some((host, key));
                }
            }
            let Some((host, _)) = best else { break };
            if let Some(task) = on_host.get_mut(&host).and_then(Vec::pop) {
                room[host].cpu += i64::from(task.cpu);
                room[host].memory += i64::from(task.memory);
                tally.remove(&self.fleet, host);
                chosen.push(task.id.clone());
            }
        }
        chosen
    }
}
