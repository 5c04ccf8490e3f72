//! Which of the hosts that fit is best: rules in order, the lower cost wins, the next rule settles a tie, at last the name.
//!
//! Stopping tasks reads the same costs the other way: the dearest host gives one up.

use super::{
    Request,
    fleet::{FieldId, Fleet, HostId, Room, Tally},
};
use crate::model::{
    spec::service::{LaunchType, PlacementStrategy, PlacementStrategyType},
    time::Timestamp,
};

/// ECS's limit.
const MAX_STRATEGIES: usize = 5;
/// Strategies and ties.
pub(super) const MAX_RULES: usize = MAX_STRATEGIES + 3;

/// So many failures …
const FAILURES: usize = 5;
/// … within this many milliseconds make a host the last among equals.
const FAILURE_WINDOW_MS: u64 = 5 * 60 * 1000;

/// One rule.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    /// Fewest tasks of the service in the host's group.
    SpreadGroups(FieldId),
    /// Fewest tasks of the service on the host.
    FewestOfService,
    /// Least CPU left.
    BinpackCpu,
    /// Least memory left.
    BinpackMemory,
    /// By lot.
    Random(Hash),
    /// Not these, by number in rising order.
    AvoidFailing(Vec<HostId>),
    /// Fewest tasks of all services.
    FewestTasks,
}

impl Rule {
    /// One rule a strategy; the fields are checked where manifests are admitted.
    fn of(strategy: &PlacementStrategy, fleet: &mut Fleet<'_>, tally: &mut Tally, lot: Hash) -> Self {
        let field = strategy.field.as_deref().unwrap_or_default();
        match strategy.kind {
            PlacementStrategyType::Spread if matches!(field, "" | "host" | "instanceId") => Self::FewestOfService,
            PlacementStrategyType::Spread => {
                Self::spread(field.strip_prefix("attribute:").unwrap_or(field), fleet, tally)
            }
            PlacementStrategyType::Binpack if field.eq_ignore_ascii_case("cpu") => Self::BinpackCpu,
            PlacementStrategyType::Binpack => Self::BinpackMemory,
            PlacementStrategyType::Random => Self::Random(lot),
        }
    }

    fn spread(attribute: &str, fleet: &mut Fleet<'_>, tally: &mut Tally) -> Self {
        let field = fleet.group_by(attribute);
        tally.count_by(fleet, field);
        Self::SpreadGroups(field)
    }

    /// What choosing this host would cost.
    pub(super) fn cost(&self, fleet: &Fleet<'_>, room: &[Room], tally: &Tally, host: HostId) -> u64 {
        match self {
            Self::SpreadGroups(field) => {
                let grouping = fleet.grouping(*field);
                let group = grouping.group_of[host];
                let count = tally.groups(*field).get(group).copied().unwrap_or(0);
                // Hosts without the attribute are a group like the others, and the last of equals.
                u64::from(count) * 2 + u64::from(grouping.without == Some(group))
            }
            Self::FewestOfService => tally.on_host[host].into(),
            Self::BinpackCpu => u64::try_from(room[host].cpu).unwrap_or(0),
            Self::BinpackMemory => u64::try_from(room[host].memory).unwrap_or(0),
            Self::Random(lot) => lot.and(host as u64).value(),
            Self::AvoidFailing(failing) => failing.binary_search(&host).is_ok().into(),
            Self::FewestTasks => room[host].tasks.into(),
        }
    }
}

/// The strategies' rules. None at all, or FARGATE: spread over zones.
pub(super) fn strategy_rules(
    launch_type: LaunchType,
    strategies: &[PlacementStrategy],
    fleet: &mut Fleet<'_>,
    tally: &mut Tally,
    lot: Hash,
) -> Vec<Rule> {
    let chosen = match launch_type {
        LaunchType::Ec2 => strategies.get(..MAX_STRATEGIES).unwrap_or(strategies),
        LaunchType::Fargate => &[],
    };
    if chosen.is_empty() {
        return vec![Rule::spread("availability-zone", fleet, tally)];
    }
    chosen.iter().map(|strategy| Rule::of(strategy, fleet, tally, lot)).collect()
}

/// All rules for a new task.
pub(super) fn rules(
    request: &Request<'_>,
    fleet: &mut Fleet<'_>,
    tally: &mut Tally,
    now: Timestamp,
    lot: Hash,
) -> Vec<Rule> {
    let mut rules = strategy_rules(request.launch_type, request.strategies, fleet, tally, lot.and(request.nth));
    let failing = failing(request, fleet, now);
    if !failing.is_empty() {
        rules.push(Rule::AvoidFailing(failing));
    }
    rules.extend([Rule::FewestOfService, Rule::FewestTasks]);
    rules
}

fn failing(request: &Request<'_>, fleet: &Fleet<'_>, now: Timestamp) -> Vec<HostId> {
    let mut hosts: Vec<HostId> = request
        .recent_failures
        .iter()
        .filter(|(at, _)| now.since_ms(*at) <= FAILURE_WINDOW_MS)
        .filter_map(|(_, host)| fleet.id(host))
        .collect();
    hosts.sort_unstable();
    let runs = hosts.chunk_by(|a, b| a == b).filter(|run| run.len() >= FAILURES);
    runs.filter_map(|run| run.first().copied()).collect()
}

/// A fixed hash: the same on every machine and in every version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hash(u64);

impl Hash {
    pub(super) fn new(seed: u64, text: &str) -> Self {
        text.bytes().fold(Self(seed), |hash, byte| hash.and(byte.into()))
    }

    /// Mixes in a number (the finisher of SplitMix64).
    pub(super) fn and(self, number: u64) -> Self {
        let mut z = (self.0 ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(z ^ (z >> 31))
    }

    pub(super) fn value(self) -> u64 {
        self.0
    }
}
