//! Load balancers: which tasks they send requests to, and when a task may be told to stop.
//!
//! * [`picture`]: what each edge is to show, from what is durable alone;
//! * [`turns`]: two target groups that take turns;
//! * [`analysis`]: how requests are answered while a deployment is under way;
//! * here: a task stops only after every edge has taken it out and what it did is done (S10).

pub(super) mod analysis;
mod hooks;
mod picture;
pub(super) mod queries;
pub(super) mod turns;

pub use picture::{
    addresses, cluster_of, edges, forwards, group_of, groups_of, has_balancers, hosts_of, is_behind, is_registered,
    targets,
};

use std::collections::BTreeSet;

use crate::model::{
    container::ContainerState,
    name::{HostName, TargetGroupName},
    state::{Schedulability, State},
    task::Task,
    time::Timestamp,
    traffic::{Edge, EdgeSeen, TargetHealth},
    world::{Subject, World},
};

use super::draft::{Draft, TaskNo};

/// The edges of the load balancers that have a rule to a target group.
pub fn edges_of<'w>(state: &'w State, group: &TargetGroupName) -> BTreeSet<&'w HostName> {
    let desired = &state.desired;
    let in_turn = |own: &crate::model::spec::load_balancer::ServiceLoadBalancer| {
        own.target_group == *group || own.alternate_target_group.as_ref() == Some(group)
    };
    let takers = desired.services.values().flat_map(|service| &service.spec.load_balancers).filter(|own| in_turn(own));
    let rules: BTreeSet<&str> = takers
        .flat_map(|own| [own.production_listener_rule.as_deref(), own.test_listener_rule.as_deref()])
        .flatten()
        .filter_map(|rule| rule.split('/').next())
        .collect();
    let names_it = |(name, spec): (&crate::model::name::LoadBalancerName, &crate::model::spec::LoadBalancerSpec)| {
        rules.contains(name.as_str())
            || spec.forwards().any(|(_, _, groups)| groups.iter().any(|share| share.target_group == *group))
    };
    let balancers = desired.load_balancers.iter().filter(|(name, manifest)| names_it((*name, &manifest.spec)));
    balancers.flat_map(|(_, manifest)| hosts_of(desired, &manifest.spec)).collect()
}

/// Whether a target group is in a rule of any load balancer: else nobody checks its targets, and nobody waits for that.
pub fn is_used(state: &State, group: &TargetGroupName) -> bool {
    !edges_of(state, group).is_empty()
}

/// What keeps a task from being told to stop.
struct Obstacle {
    words: String,
    wakes_when: &'static str,
    until: Option<Timestamp>,
}

/// Whether a task may be told to stop: every edge has taken it out, and nothing is in flight to it any more, or its time for
/// that is over (S10).
pub(super) fn has_left(draft: &mut Draft<'_>, no: TaskNo) -> bool {
    let task = draft.task(no);
    if task.started_at.is_none() || task.containers.values().all(|row| !row.state.is_some_and(ContainerState::is_live))
    {
        return true;
    }
    let Some(Obstacle { words, wakes_when, until }) = obstacle(draft, task) else { return true };
    let subject = Subject::Task(task.id.clone());
    draft.waiting(subject, words, wakes_when, until);
    false
}

fn obstacle(draft: &Draft<'_>, task: &Task) -> Option<Obstacle> {
    let (world, state) = (draft.world, &draft.world.state);
    // Edges that were told of it before the manifests changed.
    let mut groups: BTreeSet<&TargetGroupName> = groups_of(state, task).map(|(_, group)| group).collect();
    let told = world.edges.values().flat_map(|seen| seen.confirmed.iter().chain(&seen.under_way));
    let of_told = told.flat_map(|edge| edge.groups.iter().filter(|(_, group)| group.targets.contains_key(&task.id)));
    groups.extend(of_told.map(|(name, _)| name));
    // What may show anything, of a task that was a target.
    let may_be = state.desired.load_balancers.values().flat_map(|manifest| hosts_of(&state.desired, &manifest.spec));
    let may_be: BTreeSet<&HostName> = may_be.collect();
    let is_obscure = |host: &&HostName| match world.edges.get(*host) {
        Some(seen) => seen.confirmed.is_none() && seen.is_there.unwrap_or_else(|| may_be.contains(*host)),
        None => true,
    };
    let hosts: BTreeSet<&HostName> = may_be.iter().copied().chain(world.edges.keys()).collect();
    for host in hosts.into_iter().filter(|host| task.target_health.is_some() && is_obscure(host)) {
        if let Some(obstacle) = Hold::Serves.obstacle(draft, host, Timestamp::default()) {
            return Some(obstacle);
        }
    }
    for group in groups {
        let wanted = edges_of(state, group);
        let delay = state.desired.target_groups.get(group).map(|manifest| manifest.spec.deregistration_delay.as_ms());
        let until = task.stopping_at.unwrap_or_default().plus_ms(delay.unwrap_or(0));
        let is_listed = targets(state, task).iter().any(|(name, _)| name == group);
        for host in wanted.iter().copied().chain(world.edges.keys().filter(|host| !wanted.contains(host))) {
            let is_wanted = is_listed && wanted.contains(host);
            let hold = Hold::of(world.edges.get(host), group, task, is_wanted);
            if let Some(obstacle) = hold.and_then(|hold| hold.obstacle(draft, host, until)) {
                return Some(obstacle);
            }
        }
    }
    None
}

/// How an edge holds a task that is to stop.
enum Hold {
    /// It may send requests to it.
    Serves,
    /// It sends no new ones, and some are under way.
    Busy,
}

impl Hold {
    fn of(seen: Option<&EdgeSeen>, group: &TargetGroupName, task: &Task, is_wanted: bool) -> Option<Self> {
        let Some(seen) = seen else { return is_wanted.then_some(Self::Serves) };
        let Some(edge) = &seen.confirmed else {
            return (seen.is_there != Some(false) && is_wanted).then_some(Self::Serves);
        };
        let in_picture = |edge: &Edge| edge.groups.get(group).and_then(|group| group.targets.get(&task.id)).copied();
        if seen.under_way.as_deref().and_then(in_picture).is_some_and(|target| !target.leaves) {
            return Some(Self::Serves);
        }
        match in_picture(edge) {
            // A picture that has it may be on its way there.
            None => is_wanted.then_some(Self::Serves),
            Some(target) if !target.leaves => Some(Self::Serves),
            Some(_) => {
                let is_idle = seen.target(group, &task.id).is_none_or(|target| target.idle);
                (!is_idle).then_some(Self::Busy)
            }
        }
    }

    fn obstacle(self, draft: &Draft<'_>, host: &HostName, until: Timestamp) -> Option<Obstacle> {
        let heard = draft.host_no(host).is_some_and(|host| draft.hosts[host].heard);
        match self {
            Self::Busy if until <= draft.now() => None,
            Self::Busy => Some(Obstacle {
                words: format!("it finishes what load balancer host {host} sent to it"),
                wakes_when: "nothing is in flight, or its deregistrationDelay is over",
                until: Some(until),
            }),
            Self::Serves if heard => Some(Obstacle {
                words: format!("load balancer host {host} has not taken it out yet"),
                wakes_when: "the host confirms it",
                until: None,
            }),
            Self::Serves if is_given_up(draft, host) => None,
            Self::Serves => Some(Obstacle {
                words: format!("load balancer host {host} does not answer, and may still send requests to it"),
                wakes_when: "the host answers, or a person who knows that it is down says `roadstead host cordon`",
                until: None,
            }),
        }
    }
}

/// Whether a person said not to count on a host.
fn is_given_up(draft: &Draft<'_>, host: &HostName) -> bool {
    let record = draft.world.state.hosts.get(host);
    match record.map_or(Schedulability::Active, |record| record.schedulability) {
        Schedulability::Active => false,
        Schedulability::Cordoned | Schedulability::Draining => true,
    }
}

/// Why load balancers take a task for unhealthy, in words.
pub fn reason(world: &World, task: &Task) -> Option<String> {
    groups_of(&world.state, task).find_map(|(_, group)| {
        world.edges.iter().find_map(|(host, seen)| {
            let target = seen.target(group, &task.id).filter(|target| target.health == TargetHealth::Unhealthy)?;
            let words = target.reason.as_deref().unwrap_or("no reason is known");
            Some(format!("its target in {group} fails the check from {host}: {words}"))
        })
    })
}
