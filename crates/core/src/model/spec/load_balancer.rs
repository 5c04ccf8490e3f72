//! Kind `LoadBalancer`: who answers on a port of some hosts, and where requests go.
//!
//! Rules: "Listeners" and "Listener rules for your Application Load Balancer", Elastic Load Balancing.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    NotActedOn, TaskDefinitionSpec,
    task_definition::{ContainerDefinition, Protocol},
    tls::{Certificate, Tls},
};
use crate::model::{
    name::{ClusterName, SecurityGroupName, TargetGroupName},
    quantity::Seconds,
};

/// So many target groups share one rule's requests (ELB).
pub const MAX_FORWARDS: usize = 5;
/// The greatest weight (ELB).
pub const MAX_WEIGHT: u32 = 999;
/// So many values in one rule's conditions; ELB's limit is 5, which nobody needs here.
pub const MAX_CONDITION_VALUES: usize = 64;

/// Where authorities ask (RFC 8555, 8.3).
const CHALLENGE_PORT: u16 = 80;

/// Who answers on ports of some hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancerSpec {
    /// The cluster; the one that all hosts are in when absent, else `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// The labels of the hosts that it runs on, all of them showing the same; every host of the cluster when empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<String, String>,
    /// The groups by which the rules of others know it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub security_groups: Vec<SecurityGroupName>,
    /// Its ports.
    pub listeners: Vec<Listener>,
    /// A connection on which nothing happens is closed after this.
    #[serde(default = "sixty_seconds")]
    #[schemars(range(min = 1, max = 4000))]
    pub idle_timeout: Seconds,
    /// Whether every request is written to the output of its container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub access_logs: bool,
}

/// A port that is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// Unique in the load balancer.
    pub name: String,
    /// The port, on every address of the hosts.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// What is spoken on it.
    #[serde(default)]
    pub protocol: ListenerProtocol,
    /// Asked in the order of their priority; TCP has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// What happens to requests that no rule is for: 404 when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_action: Option<Action>,
    /// Whether clients are told of by the PROXY protocol, as another load balancer before this one does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_proxy_protocol: bool,
    /// For HTTPS: its certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ListenerProtocol {
    /// HTTP/1.1; with HTTPS also HTTP/2.
    #[default]
    Http,
    /// HTTP over TLS.
    Https,
    /// Bytes.
    Tcp,
}

/// Which requests go where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Unique in the listener: services name it as `LOADBALANCER/LISTENER/RULE`.
    pub name: String,
    /// The lowest is asked first; without one, after those that have one, in the order written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50000))]
    pub priority: Option<u32>,
    /// All of them must hold; every request when empty.
    #[serde(default)]
    pub conditions: Conditions,
    /// What happens.
    pub action: Action,
}

/// What a request must be like: of each condition that is said one value must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Conditions {
    /// The `Host` header without its port; `*` and `?` are wildcards, case does not matter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_header: Vec<String>,
    /// The path; `*` and `?` are wildcards, case matters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path_pattern: Vec<String>,
    /// Headers: all of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http_header: Vec<HttpHeader>,
    /// Methods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http_request_method: Vec<String>,
    /// Parameters of the query.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query_string: Vec<QueryString>,
    /// Addresses of clients.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "super::network::cidrs")]
    #[schemars(with = "Vec<String>")]
    pub source_ip: Vec<Ipv4Net>,
}

/// A header of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpHeader {
    /// Its name.
    pub name: String,
    /// One of these; `*` and `?` are wildcards, case does not matter.
    pub values: Vec<String>,
}

/// A parameter of the query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueryString {
    /// Its name; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its value; `*` and `?` are wildcards, case does not matter.
    pub value: String,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "ActionFields")]
pub enum Action {
    /// It goes to a target.
    Forward(Forward),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// It is answered here.
    FixedResponse(FixedResponse),
}

/// An [`Action`] as it is written: one of these.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ActionFields {
    /// It goes to a target.
    forward: Option<Forward>,
    /// The client is sent elsewhere.
    redirect: Option<Redirect>,
    /// It is answered here.
    fixed_response: Option<FixedResponse>,
}

impl TryFrom<ActionFields> for Action {
    type Error = &'static str;

    fn try_from(fields: ActionFields) -> Result<Self, Self::Error> {
        match (fields.forward, fields.redirect, fields.fixed_response) {
            (Some(forward), None, None) => Ok(Self::Forward(forward)),
            (None, Some(redirect), None) => Ok(Self::Redirect(redirect)),
            (None, None, Some(answer)) => Ok(Self::FixedResponse(answer)),
            (None, None, None) => Err("an action is one of `forward`, `redirect` and `fixedResponse`"),
            (Some(_) | None, Some(_) | None, Some(_) | None) => {
                Err("an action is only one of `forward`, `redirect` and `fixedResponse`")
            }
        }
    }
}

impl JsonSchema for Action {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Action".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        ActionFields::json_schema(generator)
    }
}

/// Target groups that share requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Forward(#[schemars(with = "ForwardForms")] pub Vec<WeightedGroup>);

/// As it is written: `auth-blue`, or groups with weights.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "a form of the schema only")]
enum ForwardForms {
    /// One group gets them all.
    One(TargetGroupName),
    /// They share.
    Weighted(Vec<WeightedGroup>),
}

/// A target group and its share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WeightedGroup {
    /// Its name.
    pub target_group: TargetGroupName,
    /// Its part of the sum of all weights.
    #[serde(default = "one")]
    #[schemars(range(max = 999))]
    pub weight: u32,
}

/// Where a client is sent. What is absent stays as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Redirect {
    /// HTTP or HTTPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<RedirectProtocol>,
    /// The host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path, with its `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The query, without its `?`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// For good (HTTP_301) or for now (HTTP_302).
    pub status_code: RedirectStatus,
}

/// Protocols of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RedirectProtocol {
    /// http://
    Http,
    /// https://
    Https,
}

/// For good or for now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RedirectStatus {
    /// Moved for good.
    #[serde(rename = "HTTP_301")]
    Permanent,
    /// Found elsewhere for now.
    #[default]
    #[serde(rename = "HTTP_302")]
    Found,
}

/// An answer that no target gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FixedResponse {
    /// 2xx, 4xx or 5xx.
    #[schemars(range(min = 200, max = 599))]
    pub status_code: u16,
    /// `text/plain` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Up to 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message_body: Option<String>,
}

impl Listener {
    /// What happens to requests that no rule is for.
    pub fn default_action(&self) -> Action {
        let not_found =
            || Action::FixedResponse(FixedResponse { status_code: 404, content_type: None, message_body: None });
        self.default_action.clone().unwrap_or_else(not_found)
    }

    /// Its rules, the first to be asked first.
    pub fn rules_in_order(&self) -> Vec<&Rule> {
        let mut rules: Vec<&Rule> = self.rules.iter().collect();
        rules.sort_by_key(|rule| rule.priority.unwrap_or(u32::MAX));
        rules
    }
}

impl Listener {
    /// Whether authorities ask here whether the names of its load balancer are ours.
    pub fn is_asked(&self) -> bool {
        self.protocol == ListenerProtocol::Http && self.port == CHALLENGE_PORT
    }

    /// Its certificates: of HTTPS alone.
    pub fn certificates(&self) -> &[Certificate] {
        match (self.protocol, &self.tls) {
            (ListenerProtocol::Https, Some(tls)) => &tls.certificates,
            (ListenerProtocol::Https, None) | (ListenerProtocol::Http | ListenerProtocol::Tcp, _) => &[],
        }
    }
}

impl Action {
    /// The groups that requests are forwarded to.
    pub fn groups(&self) -> &[WeightedGroup] {
        match self {
            Self::Forward(forward) => &forward.0,
            Self::Redirect(_) | Self::FixedResponse(_) => &[],
        }
    }
}

impl LoadBalancerSpec {
    /// With these listeners on every host of the cluster, and what holds when nothing is said.
    pub fn of_listeners(listeners: Vec<Listener>) -> Self {
        Self {
            cluster: None,
            hosts: BTreeMap::new(),
            security_groups: Vec::new(),
            listeners,
            idle_timeout: sixty_seconds(),
            access_logs: false,
        }
    }

    /// Whether a listener of it speaks a protocol.
    pub fn speaks(&self, protocol: ListenerProtocol) -> bool {
        self.listeners.iter().any(|listener| listener.protocol == protocol)
    }

    /// The certificates of its listeners; one of several may come more than once.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.listeners.iter().flat_map(Listener::certificates)
    }

    /// Whether a listener answers authorities that ask whether the names of its load balancer are ours.
    pub fn answers_challenges(&self, listener: &Listener) -> bool {
        listener.is_asked() && self.certificates().any(Certificate::is_ordered)
    }

    /// Every action of it that forwards: by listener and rule (none: the default action).
    pub fn forwards(&self) -> impl Iterator<Item = (&Listener, Option<&Rule>, &[WeightedGroup])> {
        self.listeners.iter().flat_map(|listener| {
            let of_rules = listener.rules.iter().map(move |rule| (listener, Some(rule), rule.action.groups()));
            let otherwise = listener.default_action.as_ref().map_or(&[][..], Action::groups);
            of_rules.chain(std::iter::once((listener, None, otherwise))).filter(|(_, _, groups)| !groups.is_empty())
        })
    }
}

/// Where a service's tasks are targets (ECS's `LoadBalancer`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "ServiceLoadBalancerFields")]
pub struct ServiceLoadBalancer {
    /// The target group.
    pub target_group: TargetGroupName,
    /// For BLUE_GREEN, CANARY and LINEAR: the one that takes turns with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alternate_target_group: Option<TargetGroupName>,
    /// The rule that clients come by: `LOADBALANCER/LISTENER/RULE`, or `LOADBALANCER/LISTENER` for its default action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub production_listener_rule: Option<String>,
    /// The rule by which a new revision is tried before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_listener_rule: Option<String>,
    /// The container that answers; the only one with a port when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Its port; its first one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_port: Option<u16>,
}

/// A [`ServiceLoadBalancer`] as it is written: in our words, or in ECS's.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ServiceLoadBalancerFields {
    /// The target group.
    target_group: Option<TargetGroupName>,
    /// The same as ECS has it: of an ARN its name is taken.
    target_group_arn: Option<String>,
    /// A Classic Load Balancer: there is none here.
    load_balancer_name: Option<String>,
    /// For BLUE_GREEN, CANARY and LINEAR: the one that takes turns with it.
    alternate_target_group: Option<TargetGroupName>,
    /// The rule that clients come by: `LOADBALANCER/LISTENER/RULE`, or `LOADBALANCER/LISTENER` for its default action.
    production_listener_rule: Option<String>,
    /// The rule by which a new revision is tried before.
    test_listener_rule: Option<String>,
    /// The three above as ECS has them.
    advanced_configuration: Option<AdvancedConfiguration>,
    /// The container that answers; the only one with a port when absent.
    container_name: Option<String>,
    /// Its port; its first one when absent.
    #[schemars(range(min = 1))]
    container_port: Option<u16>,
}

/// ECS's `advancedConfiguration`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct AdvancedConfiguration {
    /// The target group that takes turns; of an ARN its name is taken.
    alternate_target_group_arn: Option<String>,
    /// The rule that clients come by.
    production_listener_rule: Option<String>,
    /// The rule by which a new revision is tried before.
    test_listener_rule: Option<String>,
    /// See [`NotActedOn`].
    role_arn: Option<NotActedOn>,
}

impl TryFrom<ServiceLoadBalancerFields> for ServiceLoadBalancer {
    type Error = String;

    fn try_from(fields: ServiceLoadBalancerFields) -> Result<Self, Self::Error> {
        let AdvancedConfiguration {
            alternate_target_group_arn,
            production_listener_rule,
            test_listener_rule,
            role_arn: _,
        } = fields.advanced_configuration.unwrap_or_default();
        let arn = |arn: Option<String>| arn.map(|arn| name_in_arn(&arn).into());
        let target_group = one_of("targetGroup", fields.target_group, arn(fields.target_group_arn))?;
        let Some(target_group) = target_group else {
            return Err(match fields.load_balancer_name {
                Some(_) => {
                    "`loadBalancerName` names a Classic Load Balancer, and there is none here: say a `targetGroup`"
                }
                None => "`targetGroup` is missing here",
            }
            .to_owned());
        };
        let alternate = arn(alternate_target_group_arn);
        Ok(Self {
            target_group,
            alternate_target_group: one_of("alternateTargetGroup", fields.alternate_target_group, alternate)?,
            production_listener_rule: one_of(
                "productionListenerRule",
                fields.production_listener_rule,
                production_listener_rule,
            )?,
            test_listener_rule: one_of("testListenerRule", fields.test_listener_rule, test_listener_rule)?,
            container_name: fields.container_name,
            container_port: fields.container_port,
        })
    }
}

impl ServiceLoadBalancer {
    /// The container and the port that answer: those that are said, else the first TCP port of the only container that fits.
    pub fn answering<'a>(&self, task: &'a TaskDefinitionSpec) -> Option<(&'a str, u16)> {
        let named =
            |container: &&ContainerDefinition| self.container_name.as_ref().is_none_or(|it| *it == container.name);
        let mut fitting = task.container_definitions.iter().filter(named).filter_map(|container| {
            let mut ports = container.port_mappings.iter().filter(|mapping| mapping.protocol == Protocol::Tcp);
            let port = ports.find_map(|mapping| {
                let ports = mapping.container_ports()?;
                self.container_port.map_or(Some(*ports.start()), |port| ports.contains(&port).then_some(port))
            });
            Some((container.name.as_str(), port?))
        });
        fitting.next().filter(|_| fitting.next().is_none())
    }
}

fn one_of<T>(field: &str, ours: Option<T>, of_ecs: Option<T>) -> Result<Option<T>, String> {
    match (ours, of_ecs) {
        (Some(_), Some(_)) => Err(format!("`{field}` is said twice, once in the words of ECS")),
        (ours, of_ecs) => Ok(ours.or(of_ecs)),
    }
}

/// `NAME` of `arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID`; a word that is no ARN is a name.
fn name_in_arn(text: &str) -> &str {
    let of_arn = text.starts_with("arn:").then(|| text.split("targetgroup/").nth(1)?.split('/').next()).flatten();
    of_arn.unwrap_or(text)
}

impl JsonSchema for ServiceLoadBalancer {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ServiceLoadBalancer".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        ServiceLoadBalancerFields::json_schema(generator)
    }
}

/// By hand, since a derived untagged enum forgets what was wrong and where.
impl<'de> Deserialize<'de> for Forward {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::{SeqAccess, Visitor, value::SeqAccessDeserializer};
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Forward;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of a target group, or a list of {targetGroup, weight}")
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Forward(vec![WeightedGroup { target_group: name.into(), weight: 1 }]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(items)).map(Forward)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

fn one() -> u32 {
    1
}

fn sixty_seconds() -> Seconds {
    Seconds(60)
}
