//! Services and their target groups: which rules send requests to them, which container answers, and who has what for itself.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Declared, Fallen, Judge,
    expose::{Route, route_of},
    network::Wish,
    rivals,
};
use crate::{
    manifest::{
        check,
        node::{Node, Step, at},
        report::{Finding, quote, quote_all},
    },
    model::{
        desired::Desired,
        name::{LoadBalancerName, ServiceName, TargetGroupName},
        spec::{
            Kind, LoadBalancerSpec, ServiceSpec,
            load_balancer::ServiceLoadBalancer,
            task_definition::{ContainerDefinition, NetworkMode, Protocol},
        },
        traffic::RuleRef,
    },
};

/// What a service has for itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Group(TargetGroupName),
    Rule(RuleRef),
    Route(Route),
}

/// The groups that a service names, and in which fields.
pub(super) fn groups_of(entry: &ServiceLoadBalancer) -> impl Iterator<Item = (&'static str, &TargetGroupName)> {
    let alternate = entry.alternate_target_group.iter().map(|name| ("alternateTargetGroup", name));
    std::iter::once(("targetGroup", &entry.target_group)).chain(alternate)
}

/// The rules that a service names, and in which fields.
pub(super) fn rules_of(entry: &ServiceLoadBalancer) -> impl Iterator<Item = (&'static str, &str)> {
    let production = entry.production_listener_rule.iter().map(|rule| ("productionListenerRule", rule.as_str()));
    production.chain(entry.test_listener_rule.iter().map(|rule| ("testListenerRule", rule.as_str())))
}

impl Judge<'_> {
    /// What a service says of its target groups.
    pub(super) fn load_balancers(&self, service: &Declared<ServiceSpec>) -> Option<Finding> {
        let (spec, node) = (&service.manifest.spec, &service.node);
        spec.load_balancers.iter().enumerate().find_map(|(index, entry)| {
            let named = groups_of(entry).find_map(|(field, name)| {
                let path = check::in_service(node, index, field);
                self.target_group(node, &path, name, &spec.cluster, "service")
            });
            named
                .or_else(|| rules_of(entry).find_map(|(field, rule)| self.rule(node, index, field, rule, entry)))
                .or_else(|| self.target(service, &|field| check::in_service(node, index, field), entry))
        })
    }

    /// A rule that is not there, or that sends requests elsewhere.
    fn rule(
        &self,
        node: &Node,
        index: usize,
        field: &'static str,
        rule: &str,
        entry: &ServiceLoadBalancer,
    ) -> Option<Finding> {
        let path = check::in_service(node, index, field);
        let mut parts = rule.splitn(3, '/');
        let (balancer, listener, name) = (parts.next()?, parts.next()?, parts.next());
        let balancers = &self.desired.load_balancers;
        let Some(manifest) = balancers.get(balancer) else {
            let failed = self.tables.load_balancers.failed.contains(balancer);
            let names = balancers.keys().map(LoadBalancerName::as_str);
            return Some(self.unknown(node, &path, "load balancer", balancer, failed, names));
        };
        let listeners = &manifest.spec.listeners;
        let Some(found) = listeners.iter().find(|it| it.name == listener) else {
            let names = listeners.iter().map(|it| it.name.as_str());
            return Some(self.no_part(node, &path, "listener", balancer, listener, names));
        };
        let groups = match name {
            None => found.default_action.as_ref().map(|action| action.groups()),
            Some(name) => match found.rules.iter().find(|it| it.name == name) {
                Some(rule) => Some(rule.action.groups()),
                None => {
                    let names = found.rules.iter().map(|it| it.name.as_str());
                    let of = format!("{balancer}/{listener}");
                    return Some(self.no_part(node, &path, "rule", &of, name, names));
                }
            },
        };
        let groups: Vec<&str> = groups.into_iter().flatten().map(|group| group.target_group.as_str()).collect();
        let own: Vec<&str> = groups_of(entry).map(|(_, name)| name.as_str()).collect();
        groups.iter().all(|group| !own.contains(group)).then(|| {
            let to = if groups.is_empty() { "nowhere".to_owned() } else { format!("to {}", quote_all(groups)) };
            let message = format!("{} forwards {to}, not to a target group of this service", quote(rule));
            let finding = Finding::error("rule", node.locate(&path), message)
                .help(format!("`forward` to {}", own.iter().map(|name| quote(name)).collect::<Vec<_>>().join(" or ")));
            match self.tables.load_balancers.good.get(balancer) {
                Some(declared) => {
                    let place = place_of(&declared.manifest.spec, listener, name);
                    self.beside(finding, Some(declared), &place, "the rule")
                }
                None => finding,
            }
        })
    }

    /// A listener that a load balancer has not, or a rule that a listener has not.
    fn no_part<'n>(
        &self,
        node: &Node,
        path: &[Step<'_>],
        what: &str,
        of: &str,
        part: &str,
        others: impl Iterator<Item = &'n str> + Clone,
    ) -> Finding {
        let known = quote_all(others.clone());
        let meant = self.hint(part, others).or((!known.is_empty()).then(|| format!("{} has {known}", quote(of))));
        let message = format!("there is no {what} {}", quote(&format!("{of}/{part}")));
        Finding::error("unknown-reference", node.locate(path), message).maybe_help(meant)
    }

    /// The container and the port that requests go to; `place` says where a field of the entry stands. Of an older revision nobody
    /// knows yet.
    pub(super) fn target(
        &self,
        service: &Declared<ServiceSpec>,
        place: &dyn Fn(&'static str) -> Vec<Step<'static>>,
        entry: &ServiceLoadBalancer,
    ) -> Option<Finding> {
        let wish = Wish::of_service(service);
        let definition = &self.desired.task_definitions.get(wish.task_definition)?.spec;
        let node = &service.node;
        let locate = |field| node.locate(&place(field));
        if definition.network_mode == NetworkMode::None {
            let message = "with `networkMode: none` no request can reach a task";
            let finding = Finding::error("target-group", locate("targetGroup"), message);
            let declared = self.tables.task_definitions.good.get(wish.task_definition);
            return Some(self.beside(finding, declared, at!["networkMode"], "here"));
        }
        if entry.answering(definition).is_some() {
            return None;
        }
        let containers = &definition.container_definitions;
        if let Some(name) = &entry.container_name {
            let Some(container) = containers.iter().find(|container| container.name == *name) else {
                let path = place("containerName");
                let names = containers.iter().map(|container| container.name.as_str());
                return Some(self.unknown(node, &path, "container", name, false, names));
            };
            let known = ports(container);
            let help = if known.is_empty() { MAP_A_PORT.to_owned() } else { format!("it has {}", known.join(", ")) };
            let (field, what) = match entry.container_port {
                Some(port) => ("containerPort", format!("port {port}")),
                None => ("containerName", "port".to_owned()),
            };
            let message = format!("the container {} has no TCP {what}", quote(name));
            return Some(Finding::error("target-group", locate(field), message).help(help));
        }
        let with_ports = containers.iter().filter(|container| !ports(container).is_empty());
        let with_ports: Vec<&str> = with_ports.map(|container| container.name.as_str()).collect();
        let (field, message) = match (with_ports.as_slice(), entry.container_port) {
            ([], _) => ("targetGroup", "no container of the task has a TCP port".to_owned()),
            (_, Some(port)) => {
                ("containerPort", format!("not exactly one container of the task has the TCP port {port}"))
            }
            (_, None) => ("targetGroup", "several containers of the task have ports".to_owned()),
        };
        let help = match with_ports.as_slice() {
            [] => MAP_A_PORT.to_owned(),
            some => format!("say a `containerName`: {} have ports", quote_all(some.iter().copied())),
        };
        Some(Finding::error("target-group", locate(field), message).help(help))
    }

    /// A target group, and a rule, is one service's: its deployments say where requests go.
    pub(super) fn target_clashes(&self) -> Vec<Fallen> {
        let services = self.desired.services.iter();
        let claims = services
            .flat_map(|(name, it)| claims_of(self.desired, &it.spec).into_keys().map(move |claim| (claim, name)));
        let claims: Vec<_> = claims.collect();
        let previous = self.kept.previous;
        let had = |claim: &Claim, name: &ServiceName| {
            previous.services.get(name).is_some_and(|it| claims_of(previous, &it.spec).contains_key(claim))
        };
        let mut told = BTreeSet::new();
        let mut fallen = Vec::new();
        for clash in rivals(&self.tables.services, claims, had) {
            if !told.insert(clash.name) {
                continue;
            }
            let place = |declared: &Declared<ServiceSpec>| match claims_of(self.desired, &declared.manifest.spec)
                .get(&clash.claim)
            {
                Some(Some((index, field))) => check::in_service(&declared.node, *index, field),
                Some(None) | None => at!["expose", "host"].to_vec(),
            };
            let holder = quote(clash.holder.as_str());
            let (message, help) = match &clash.claim {
                Claim::Group(group) => (
                    format!("the targets of {} are those of service {holder}", quote(group.as_str())),
                    "a target group is one service's: declare another one",
                ),
                Claim::Rule(rule) => (
                    format!("the rule {} is that of service {holder}", quote(rule.as_str())),
                    "a rule is one service's: declare another one",
                ),
                Claim::Route((_, host, path)) => (
                    format!(
                        "requests for {} are those of service {holder}",
                        quote(&(host.clone() + path.as_deref().unwrap_or_default()))
                    ),
                    "take another `host`, or a `path`",
                ),
            };
            let span = clash.declared.node.locate(&place(clash.declared));
            let finding = Finding::error("target-clash", span, message).help(help);
            let finding = match clash.held_by {
                Some(other) => self.beside(finding, Some(other), &place(other), "the other"),
                None => finding,
            };
            fallen.push((Kind::Service, clash.name.to_string(), clash.declared.manifest.file.clone(), finding));
        }
        fallen
    }
}

const MAP_A_PORT: &str = "`portMappings: [{ containerPort: … }]` in the task definition says where a container listens";

/// Where a rule, or what no rule is for, says what happens.
fn place_of(spec: &LoadBalancerSpec, listener: &str, rule: Option<&str>) -> Vec<Step<'static>> {
    let index = spec.listeners.iter().position(|it| it.name == listener).unwrap_or_default();
    let mut place = vec![Step::Key("listeners"), Step::Index(index)];
    match rule {
        None => place.push(Step::Key("defaultAction")),
        Some(name) => {
            let rules = spec.listeners.get(index).map(|it| it.rules.as_slice()).unwrap_or_default();
            let number = rules.iter().position(|it| it.name == name).unwrap_or_default();
            place.extend([Step::Key("rules"), Step::Index(number), Step::Key("action")]);
        }
    }
    place
}

/// What a service has for itself, and where it says so: number of the entry, field; none: its `expose`.
fn claims_of(desired: &Desired, spec: &ServiceSpec) -> BTreeMap<Claim, Option<(usize, &'static str)>> {
    let mut claims = BTreeMap::new();
    for (index, entry) in spec.load_balancers.iter().enumerate() {
        claims.extend(groups_of(entry).map(|(field, name)| (Claim::Group(name.clone()), Some((index, field)))));
        claims.extend(rules_of(entry).map(|(field, rule)| (Claim::Rule(RuleRef::named(rule)), Some((index, field)))));
    }
    claims.extend(route_of(desired, spec).map(|route| (Claim::Route(route), None)));
    claims
}

/// The container's TCP ports, as they are written.
fn ports(container: &ContainerDefinition) -> Vec<String> {
    let mappings = container.port_mappings.iter().filter(|mapping| mapping.protocol == Protocol::Tcp);
    mappings
        .map(|mapping| match &mapping.container_port_range {
            Some(range) => range.clone(),
            None => mapping.container_port.to_string(),
        })
        .collect()
}
