//! Target groups: who is a target, whether it can take requests, and which rules send some.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::load_balancer::trouble;
use roadstead_control::control::handle::Snapshot;
use roadstead_core::{
    model::{
        name::{HostName, TargetGroupName, TaskId},
        spec::{ServiceSpec, target_group::TargetProtocol},
        state::State,
        task::Task,
        traffic::{Target, TargetHealth},
    },
    plan::traffic,
};

/// One target group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetGroupView {
    /// Name.
    pub name: String,
    /// Cluster.
    pub cluster: String,
    /// HTTP, HTTPS, TCP.
    #[schema(value_type = String)]
    pub protocol: TargetProtocol,
    /// The port of a target that says none itself.
    pub port: u16,
    /// Targets that can take requests.
    pub healthy_targets_count: u32,
    /// The service whose tasks are its targets.
    pub service: Option<String>,
    /// The rules that name it, and its share of their requests just now.
    pub rules: Vec<RuleShareView>,
    /// Its targets, by task.
    pub targets: Vec<TargetView>,
}

/// A rule that names a target group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleShareView {
    /// `LOADBALANCER/LISTENER/RULE`, or `LOADBALANCER/LISTENER` for its default action.
    pub rule: String,
    /// The group's weight in it just now; 0: it gets no requests.
    pub weight: u32,
}

/// One target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetView {
    /// The task.
    pub task_id: String,
    /// Where it runs.
    pub host: String,
    /// Where it is reached.
    pub address: String,
    /// Where it is reached.
    pub port: u16,
    /// initial, healthy, unhealthy, unused, draining, unavailable.
    #[schema(value_type = String)]
    pub state: TargetState,
    /// Its weight among the group's targets; 0: it gets no new requests.
    pub weight: u32,
    /// Why it is not healthy.
    pub reason: Option<String>,
}

/// ELB's states of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetState {
    /// No check has ended yet.
    Initial,
    /// It can take requests.
    Healthy,
    /// It cannot.
    Unhealthy,
    /// No rule sends requests to its group: nobody checks it.
    Unused,
    /// It finishes what it does.
    Draining,
    /// No load balancer host can be asked.
    Unavailable,
}

/// All target groups.
pub fn list(snapshot: &Snapshot, cluster: Option<&str>) -> Vec<TargetGroupView> {
    let state = &snapshot.world.state;
    let desired = &state.desired;
    let home = desired.home_cluster();
    let mut targets: BTreeMap<TargetGroupName, BTreeMap<&TaskId, (&Task, Target)>> = BTreeMap::new();
    for task in state.tasks.values() {
        for (group, target) in traffic::targets(state, task) {
            targets.entry(group).or_default().insert(&task.id, (task, target));
        }
    }
    let mut rules: BTreeMap<TargetGroupName, Vec<RuleShareView>> = BTreeMap::new();
    for (rule, shares) in traffic::forwards(state) {
        for share in shares {
            let view = RuleShareView { rule: rule.to_string(), weight: share.weight };
            rules.entry(share.target_group).or_default().push(view);
        }
    }
    let groups = desired.target_groups.iter().map(|(name, manifest)| {
        let spec = &manifest.spec;
        let edges: Vec<&HostName> = traffic::edges_of(state, name).into_iter().collect();
        let targets = targets.remove(name).into_iter().flat_map(BTreeMap::into_values);
        let targets: Vec<TargetView> =
            targets.map(|(task, target)| view(snapshot, name, task, target, &edges)).collect();
        TargetGroupView {
            name: name.to_string(),
            cluster: spec.cluster.as_ref().unwrap_or(&home).to_string(),
            protocol: spec.protocol,
            port: spec.port,
            healthy_targets_count: healthy(&targets),
            service: service_of(state, name),
            rules: rules.remove(name).unwrap_or_default(),
            targets,
        }
    });
    groups.filter(|view| cluster.is_none_or(|cluster| cluster == view.cluster)).collect()
}

fn healthy(targets: &[TargetView]) -> u32 {
    let healthy = targets.iter().filter(|target| target.state == TargetState::Healthy).count();
    u32::try_from(healthy).unwrap_or(u32::MAX)
}

fn service_of(state: &State, group: &TargetGroupName) -> Option<String> {
    let has_it = |spec: &ServiceSpec| {
        let mut own = spec.load_balancers.iter();
        own.any(|own| own.target_group == *group || own.alternate_target_group.as_ref() == Some(group))
    };
    let mut services = state.desired.services.iter();
    services.find(|(_, manifest)| has_it(&manifest.spec)).map(|(name, _)| name.to_string())
}

fn view(snapshot: &Snapshot, group: &TargetGroupName, task: &Task, target: Target, edges: &[&HostName]) -> TargetView {
    let (state, reason) = match (target.leaves, edges) {
        (true, _) => (TargetState::Draining, Some("it finishes what it does".to_owned())),
        (false, []) => {
            (TargetState::Unused, Some("no load balancer that runs anywhere has a rule to its group".to_owned()))
        }
        (false, edges) => checked(snapshot, group, &task.id, edges),
    };
    TargetView {
        task_id: task.id.to_string(),
        host: task.host.to_string(),
        address: target.address.to_string(),
        port: target.port,
        state,
        weight: u32::from(!target.leaves),
        reason,
    }
}

/// What the edges say together: one that cannot be asked says nothing, and of the others the worst counts.
fn checked(
    snapshot: &Snapshot,
    group: &TargetGroupName,
    task: &TaskId,
    edges: &[&HostName],
) -> (TargetState, Option<String>) {
    let mut worst = None;
    let mut silent = None;
    for host in edges {
        if let Some((_, reason)) = trouble(snapshot, host) {
            silent.get_or_insert(format!("load balancer host {host}: {reason}"));
            continue;
        }
        let seen = snapshot.world.edges.get(*host).and_then(|seen| seen.target(group, task));
        let said = match seen.map(|seen| seen.health) {
            Some(TargetHealth::Healthy) => (0, TargetState::Healthy, None),
            Some(TargetHealth::Initial) => {
                (1, TargetState::Initial, Some(format!("no check from {host} has ended yet")))
            }
            None => (1, TargetState::Initial, Some(format!("load balancer host {host} does not know it yet"))),
            Some(TargetHealth::Unhealthy) => {
                let words = seen.and_then(|seen| seen.reason.as_deref()).unwrap_or("no reason is known");
                (2, TargetState::Unhealthy, Some(format!("from {host}: {words}")))
            }
        };
        if worst.as_ref().is_none_or(|(rank, _, _)| *rank < said.0) {
            worst = Some(said);
        }
    }
    match worst {
        Some((_, state, reason)) => (state, reason),
        None => (TargetState::Unavailable, silent),
    }
}
