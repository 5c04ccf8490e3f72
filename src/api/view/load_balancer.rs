//! Load balancers: the hosts that they run on, their listeners, and where rules send requests just now.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use roadstead_control::control::handle::Snapshot;
use roadstead_core::{
    model::{
        name::{HostName, LoadBalancerName},
        spec::{
            LoadBalancerSpec,
            load_balancer::{Action, FixedResponse, Listener, ListenerProtocol, Redirect, Rule, WeightedGroup},
        },
        traffic::RuleRef,
        world::{HostStatus, Subject},
    },
    plan::{self, traffic},
};

/// One load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerView {
    /// Name.
    pub name: String,
    /// Cluster.
    pub cluster: String,
    /// active, active_impaired, provisioning, failed.
    #[schema(value_type = String)]
    pub state: LoadBalancerState,
    /// Why it is not active.
    pub reason: Option<String>,
    /// The hosts that it runs on.
    pub hosts: Vec<EdgeView>,
    /// The groups by which the rules of others know it.
    pub security_groups: Vec<String>,
    /// Its ports.
    pub listeners: Vec<ListenerView>,
}

/// ELB's states of a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalancerState {
    /// All its hosts answer.
    Active,
    /// Some of its hosts do.
    ActiveImpaired,
    /// None of its hosts does yet.
    Provisioning,
    /// It has no hosts.
    Failed,
}

/// A host that a load balancer runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EdgeView {
    /// The host.
    pub host: String,
    /// READY, NOT_READY, UNREACHABLE.
    #[schema(value_type = String)]
    pub status: EdgeStatus,
    /// Why it is not ready.
    pub reason: Option<String>,
}

/// Whether load balancers run on a host as they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EdgeStatus {
    /// They do.
    Ready,
    /// They do not yet.
    NotReady,
    /// It cannot be asked; what ran there goes on as it was.
    Unreachable,
}

/// A port that is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerView {
    /// Name.
    pub name: String,
    /// Port.
    pub port: u16,
    /// HTTP, HTTPS, TCP.
    #[schema(value_type = String)]
    pub protocol: ListenerProtocol,
    /// In the order in which they are asked; the last, `default`, is for what no other is for.
    pub rules: Vec<RuleView>,
}

/// A rule, and what it does just now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleView {
    /// Name; `default` for what no rule is for.
    pub name: String,
    /// The lowest is asked first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// What a request must be like, as in the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub conditions: Option<Value>,
    /// Where requests go just now.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub forwards: Vec<ForwardView>,
    /// Where clients are sent, as in the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub redirect: Option<Redirect>,
    /// What is answered, as in the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub fixed_response: Option<FixedResponse>,
}

/// A target group's share of a rule's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForwardView {
    /// The target group.
    pub target_group: String,
    /// Its part of the sum of all weights.
    pub weight: u32,
}

/// All load balancers.
pub fn list(snapshot: &Snapshot, cluster: Option<&str>) -> Vec<LoadBalancerView> {
    let state = &snapshot.world.state;
    let forwards = traffic::forwards(state);
    let views = state.desired.load_balancers.iter().map(|(name, it)| view(snapshot, name, &it.spec, &forwards));
    views.filter(|view| cluster.is_none_or(|cluster| cluster == view.cluster)).collect()
}

fn view(
    snapshot: &Snapshot,
    name: &LoadBalancerName,
    spec: &LoadBalancerSpec,
    forwards: &BTreeMap<RuleRef, Vec<WeightedGroup>>,
) -> LoadBalancerView {
    let desired = &snapshot.world.state.desired;
    let hosts: Vec<EdgeView> = traffic::hosts_of(desired, spec).map(|host| edge(snapshot, host)).collect();
    let ready = hosts.iter().filter(|edge| edge.status == EdgeStatus::Ready).count();
    let state = match ready {
        _ if hosts.is_empty() => LoadBalancerState::Failed,
        ready if ready == hosts.len() => LoadBalancerState::Active,
        0 => LoadBalancerState::Provisioning,
        _ => LoadBalancerState::ActiveImpaired,
    };
    let troubled = || hosts.iter().find_map(|edge| Some(format!("host {}: {}", edge.host, edge.reason.as_deref()?)));
    let nowhere = || hosts.is_empty().then(|| "no host of its cluster has these labels".to_owned());
    LoadBalancerView {
        name: name.to_string(),
        cluster: traffic::cluster_of(desired, spec).to_string(),
        state,
        reason: nowhere().or_else(|| waits(snapshot, name)).or_else(troubled),
        hosts,
        security_groups: spec.security_groups.iter().map(ToString::to_string).collect(),
        listeners: spec.listeners.iter().map(|it| listener(name, it, forwards)).collect(),
    }
}

fn edge(snapshot: &Snapshot, host: &HostName) -> EdgeView {
    let (status, reason) = match trouble(snapshot, host) {
        None => (EdgeStatus::Ready, None),
        Some((status, reason)) => (status, Some(reason)),
    };
    EdgeView { host: host.to_string(), status, reason }
}

/// Why nothing is known of what a host's load balancers do.
pub(super) fn trouble(snapshot: &Snapshot, host: &HostName) -> Option<(EdgeStatus, String)> {
    match plan::host_status(&snapshot.world, host) {
        HostStatus::Active | HostStatus::Cordoned | HostStatus::Draining => {}
        HostStatus::Suspect | HostStatus::Lost | HostStatus::Untrusted => {
            return Some((EdgeStatus::Unreachable, "it cannot be asked: what ran there goes on as it was".to_owned()));
        }
    }
    let reason = match snapshot.world.edges.get(host) {
        None => "it was not looked at yet".to_owned(),
        Some(seen) => match (&seen.problem, &seen.confirmed) {
            (Some(problem), _) => problem.clone(),
            (None, None) => "it does not show what it should yet".to_owned(),
            (None, Some(_)) => return None,
        },
    };
    Some((EdgeStatus::NotReady, reason))
}

/// What the planner says that it waits for.
fn waits(snapshot: &Snapshot, name: &LoadBalancerName) -> Option<String> {
    let is_of = |subject: &Subject| matches!(subject, Subject::LoadBalancer(it) if it == name);
    snapshot.report.waiting.iter().find(|waiting| is_of(&waiting.subject)).map(|waiting| waiting.reason.clone())
}

fn listener(
    balancer: &LoadBalancerName,
    listener: &Listener,
    forwards: &BTreeMap<RuleRef, Vec<WeightedGroup>>,
) -> ListenerView {
    let view = |name: &str, rule: Option<&Rule>, action: Action| {
        let reference = RuleRef::new(balancer, &listener.name, rule.map(|rule| rule.name.as_str()));
        let mut view = RuleView {
            name: name.to_owned(),
            priority: rule.and_then(|rule| rule.priority),
            conditions: rule.and_then(|rule| serde_json::to_value(&rule.conditions).ok()),
            forwards: Vec::new(),
            redirect: None,
            fixed_response: None,
        };
        match action {
            Action::Forward(as_written) => {
                let shares = forwards.get(&reference).unwrap_or(&as_written.0);
                let share = |share: &WeightedGroup| ForwardView {
                    target_group: share.target_group.to_string(),
                    weight: share.weight,
                };
                view.forwards = shares.iter().map(share).collect();
            }
            Action::Redirect(redirect) => view.redirect = Some(redirect),
            Action::FixedResponse(answer) => view.fixed_response = Some(answer),
        }
        view
    };
    let rules = listener.rules_in_order().into_iter().map(|rule| view(&rule.name, Some(rule), rule.action.clone()));
    let otherwise = view("default", None, listener.default_action());
    ListenerView {
        name: listener.name.clone(),
        port: listener.port,
        protocol: listener.protocol,
        rules: rules.chain([otherwise]).collect(),
    }
}
