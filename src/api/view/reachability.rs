//! Whether a packet reaches a task, and by which rule.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use roadstead_control::control::handle::Snapshot;
use roadstead_core::{
    model::{name::HostName, task::Task},
    plan::network::verdict::{Endpoint, Flow, Judgement, NotJudged, Packet, verdict},
};

/// The first packet of a conversation with a task, and what becomes of it; answers to what passed always pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReachabilityView {
    /// The task that it is for.
    pub task_id: String,
    /// Who sends it, as the task sees it.
    pub from: String,
    /// The task's address.
    pub to: String,
    /// `tcp 8080`, `udp 53`, `icmp`.
    pub packet: String,
    /// Whether it arrives: both ends let it pass.
    pub passes: bool,
    /// What the sender's end says.
    pub egress: EndView,
    /// What the task's end says.
    pub ingress: EndView,
    /// Hosts that may not have these rules in force, and why.
    pub notes: Vec<String>,
}

/// What one end says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndView {
    /// Whether it lets the packet pass.
    pub passes: bool,
    /// The rule, or what is missing.
    pub reason: String,
    /// The security group whose rule it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_group: Option<String>,
}

/// What becomes of a packet to a task.
pub fn view(snapshot: &Snapshot, task: &Task, from: Endpoint, flow: Flow) -> Result<ReachabilityView, NotJudged> {
    let state = &snapshot.world.state;
    let sender = match &from {
        Endpoint::Task(id) => state.tasks.get(id).map(|sender| &sender.host),
        Endpoint::Address(_) => None,
    };
    let packet = Packet { from: from.clone(), to: Endpoint::Task(task.id.clone()), flow };
    let verdict = verdict(state, &packet)?;
    let mut hosts: Vec<&HostName> = sender.into_iter().chain([&task.host]).collect();
    hosts.dedup();
    Ok(ReachabilityView {
        task_id: task.id.to_string(),
        from: verdict.from.to_string(),
        to: verdict.to.to_string(),
        packet: flow.to_string(),
        passes: verdict.passes(),
        egress: end(&verdict.egress),
        ingress: end(&verdict.ingress),
        notes: hosts.into_iter().filter_map(|host| not_ready(snapshot, host)).collect(),
    })
}

fn end(judgement: &Judgement) -> EndView {
    let security_group = match judgement {
        Judgement::Rule(rule) => Some(rule.group.to_string()),
        Judgement::NoTask | Judgement::Always(_) | Judgement::Refused(_) => None,
    };
    EndView { passes: judgement.passes(), reason: judgement.to_string(), security_group }
}

fn not_ready(snapshot: &Snapshot, host: &HostName) -> Option<String> {
    let reason = super::host::network(snapshot, host)?.reason?;
    Some(format!("host {host} may have other rules in force: {reason}"))
}
