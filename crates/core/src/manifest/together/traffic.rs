//! Load balancers together: the groups that their rules name, their hosts, and who has which port.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Declared, Fallen, Judge, Kept, Tables,
    network::ZONE,
    rivals,
    targets::{groups_of, rules_of},
};
use crate::{
    manifest::{
        check,
        node::{Node, Step, at},
        report::{Finding, quote},
        suggest::did_you_mean,
    },
    model::{
        desired::{Desired, Manifest},
        name::{ClusterName, HostName, LoadBalancerName, SecurityGroupName, ServiceName, TargetGroupName},
        spec::{
            Kind, LoadBalancerSpec, load_balancer::ListenerProtocol, network::Encapsulation,
            service::PlacementConstraintType, subnet::SubnetDriver, target_group::TargetProtocol,
            task_definition::Protocol,
        },
    },
};

/// What stays as it was keeps what it names: a service its groups and load balancers, a load balancer its groups.
pub(super) fn keep(desired: &mut Desired, tables: &Tables, kept: &Kept<'_>) {
    let previous = kept.previous;
    let stays = |file: &str, failed: bool| failed || kept.covers(file);
    let mut groups: BTreeSet<TargetGroupName> = BTreeSet::new();
    let mut balancers: BTreeSet<LoadBalancerName> = BTreeSet::new();
    for (name, service) in &desired.services {
        if stays(&service.file, tables.services.failed.contains(name)) {
            for entry in &service.spec.load_balancers {
                groups.extend(groups_of(entry).map(|(_, name)| name.clone()));
                balancers.extend(rules_of(entry).filter_map(|(_, rule)| Some(rule.split_once('/')?.0.into())));
            }
        }
    }
    put_back(&mut desired.load_balancers, &previous.load_balancers, balancers);
    let mut security_groups: BTreeSet<SecurityGroupName> = BTreeSet::new();
    for (name, balancer) in &desired.load_balancers {
        if stays(&balancer.file, !tables.load_balancers.good.contains_key(name)) {
            groups.extend(balancer.spec.forwards().flat_map(|(_, _, groups)| groups).map(|it| it.target_group.clone()));
            security_groups.extend(balancer.spec.security_groups.iter().cloned());
        }
    }
    put_back(&mut desired.target_groups, &previous.target_groups, groups);
    put_back(&mut desired.security_groups, &previous.security_groups, security_groups);
}

fn put_back<N: Ord + Clone, S: Clone>(
    now: &mut BTreeMap<N, Manifest<S>>,
    before: &BTreeMap<N, Manifest<S>>,
    names: impl IntoIterator<Item = N>,
) {
    for name in names {
        if let Some(before) = before.get(&name) {
            now.entry(name).or_insert_with(|| before.clone());
        }
    }
}

/// The clusters of load balancers and target groups that stay as they were.
pub(super) fn clusters<'a>(desired: &'a Desired, tables: &'a Tables) -> impl Iterator<Item = &'a ClusterName> {
    let groups = desired.target_groups.iter().filter(|(name, _)| !tables.target_groups.good.contains_key(*name));
    let balancers = desired.load_balancers.iter().filter(|(name, _)| !tables.load_balancers.good.contains_key(*name));
    let groups = groups.filter_map(|(_, group)| group.spec.cluster.as_ref());
    groups.chain(balancers.filter_map(|(_, balancer)| balancer.spec.cluster.as_ref()))
}

/// Ports of a cluster's hosts, and the service that publishes each.
pub(super) type Published<'a> = BTreeMap<(&'a ClusterName, u16), &'a ServiceName>;

impl Judge<'_> {
    fn cluster_of<'n>(&'n self, named: Option<&'n ClusterName>) -> &'n ClusterName {
        named.unwrap_or(&self.home)
    }

    /// Target groups and load balancers that name what is not there.
    pub(super) fn traffic(&self) -> Vec<Fallen> {
        let mut fallen = Vec::new();
        for (name, group) in &self.tables.target_groups.good {
            let cluster = group.manifest.spec.cluster.as_ref();
            let found = cluster.and_then(|cluster| self.cluster(cluster, &group.node));
            let file = || group.manifest.file.clone();
            fallen.extend(found.map(|finding| (Kind::TargetGroup, name.to_string(), file(), finding)));
        }
        for (name, balancer) in &self.tables.load_balancers.good {
            let cluster = balancer.manifest.spec.cluster.as_ref();
            let found =
                cluster.and_then(|cluster| self.cluster(cluster, &balancer.node)).or_else(|| self.forwards(balancer));
            let file = || balancer.manifest.file.clone();
            fallen.extend(found.map(|finding| (Kind::LoadBalancer, name.to_string(), file(), finding)));
        }
        fallen
    }

    fn forwards(&self, balancer: &Declared<LoadBalancerSpec>) -> Option<Finding> {
        let (spec, node) = (&balancer.manifest.spec, &balancer.node);
        let cluster = self.cluster_of(spec.cluster.as_ref());
        for (index, listener) in spec.listeners.iter().enumerate() {
            let base = at!["listeners", index];
            let rules = listener.rules.iter().enumerate().map(|(number, rule)| {
                (vec![Step::Key("rules"), Step::Index(number), Step::Key("action")], rule.action.groups())
            });
            let otherwise = listener.default_action.iter().map(|it| (vec![Step::Key("defaultAction")], it.groups()));
            for (place, groups) in rules.chain(otherwise) {
                for (number, group) in groups.iter().enumerate() {
                    let path = [base, &place, at!["forward", number, "targetGroup"]].concat();
                    let found = self.target_group(node, &path, &group.target_group, cluster, "load balancer");
                    let found = found.or_else(|| self.unfit(node, &path, &group.target_group, listener.protocol));
                    if found.is_some() {
                        return found;
                    }
                }
            }
        }
        None
    }

    /// A target group that is not there, or is another cluster's.
    pub(super) fn target_group(
        &self,
        node: &Node,
        path: &[Step<'_>],
        name: &TargetGroupName,
        cluster: &ClusterName,
        whose: &str,
    ) -> Option<Finding> {
        let groups = &self.desired.target_groups;
        let Some(group) = groups.get(name) else {
            let failed = self.tables.target_groups.failed.contains(name);
            let names = groups.keys().map(TargetGroupName::as_str);
            return Some(self.unknown(node, path, "target group", name.as_str(), failed, names));
        };
        let own = self.cluster_of(group.spec.cluster.as_ref());
        (own != cluster && self.desired.has_cluster(own)).then(|| {
            let message = format!(
                "the target group {} is of cluster {}, the {whose} of {}",
                quote(name.as_str()),
                quote(own.as_str()),
                quote(cluster.as_str())
            );
            let finding = Finding::error("other-cluster", node.locate(path), message);
            let finding = match group.spec.cluster {
                Some(_) => finding,
                None => finding.help("without `cluster` it is of the one that all hosts are in, else of `default`"),
            };
            self.beside(finding, self.tables.target_groups.good.get(name), at!["cluster"], "the target group")
        })
    }

    /// Requests cannot be sent to a group that takes bytes, nor bytes to one that takes requests.
    fn unfit(
        &self,
        node: &Node,
        path: &[Step<'_>],
        name: &TargetGroupName,
        protocol: ListenerProtocol,
    ) -> Option<Finding> {
        let group = self.desired.target_groups.get(name)?;
        let (listener, fitting) = match (protocol, group.spec.protocol) {
            (ListenerProtocol::Tcp, TargetProtocol::Tcp)
            | (ListenerProtocol::Http | ListenerProtocol::Https, TargetProtocol::Http | TargetProtocol::Https) => {
                return None;
            }
            (ListenerProtocol::Tcp, TargetProtocol::Http | TargetProtocol::Https) => ("a TCP listener", "`TCP`"),
            (ListenerProtocol::Http | ListenerProtocol::Https, TargetProtocol::Tcp) => {
                ("an HTTP listener", "`HTTP` or `HTTPS`")
            }
        };
        let message = format!("{listener} cannot send to the target group {}", quote(name.as_str()));
        let finding = Finding::error("protocol", node.locate(path), message)
            .help(format!("give the target group `protocol:` {fitting}, or the listener another one"));
        Some(self.beside(finding, self.tables.target_groups.good.get(name), at!["protocol"], "the target group's"))
    }

    /// The hosts that a load balancer runs on.
    fn edges<'n>(&'n self, spec: &'n LoadBalancerSpec) -> impl Iterator<Item = &'n HostName> {
        let cluster = self.cluster_of(spec.cluster.as_ref());
        let hosts = self.desired.hosts.iter().filter(move |(_, host)| host.spec.cluster == *cluster);
        let named =
            hosts.filter(|(_, host)| spec.hosts.iter().all(|(label, value)| host.labels.get(label) == Some(value)));
        named.map(|(name, _)| name)
    }

    /// A port of a host is one load balancer's: who had it before keeps it, else who is declared first.
    pub(super) fn port_clashes(&self) -> Vec<Fallen> {
        let ports = |spec: &LoadBalancerSpec| spec.listeners.iter().map(|listener| listener.port).collect::<Vec<_>>();
        let mut claims = Vec::new();
        for (name, balancer) in &self.desired.load_balancers {
            let ports = ports(&balancer.spec);
            for host in self.edges(&balancer.spec) {
                claims.extend(ports.iter().map(|port| ((*port, host), name)));
            }
        }
        let had = |(port, _): &(u16, &HostName), name: &LoadBalancerName| {
            self.kept.previous.load_balancers.get(name).is_some_and(|before| ports(&before.spec).contains(port))
        };
        let mut told = BTreeSet::new();
        let mut fallen = Vec::new();
        for clash in rivals(&self.tables.load_balancers, claims, had) {
            // Two balancers may meet on many hosts.
            if !told.insert(clash.name) {
                continue;
            }
            let (port, host) = clash.claim;
            let place = |spec: &LoadBalancerSpec| {
                let index = spec.listeners.iter().position(|listener| listener.port == port).unwrap_or_default();
                [Step::Key("listeners"), Step::Index(index), Step::Key("port")]
            };
            let message = format!(
                "port {port} of host {} is that of load balancer {}",
                quote(host.as_str()),
                quote(clash.holder.as_str())
            );
            let span = clash.declared.node.locate(&place(&clash.declared.manifest.spec));
            let finding = Finding::error("port-clash", span, message)
                .label("a port already taken on the edge")
                .help("take another port, or other `hosts`");
            let finding = match clash.held_by {
                Some(other) => self.beside(finding, Some(other), &place(&other.manifest.spec), "the other"),
                None => finding,
            };
            let file = clash.declared.manifest.file.clone();
            fallen.push((Kind::LoadBalancer, clash.name.to_string(), file, finding));
        }
        fallen
    }

    /// What is probably not as it was meant.
    pub(super) fn about_traffic(&self, published: &Published<'_>, warnings: &mut Vec<(String, Finding)>) {
        for (name, balancer) in &self.tables.load_balancers.good {
            let found = self
                .no_edge(balancer)
                .into_iter()
                .chain(self.cut_off(balancer))
                .chain(self.idle_listeners(name, balancer))
                .chain(self.unknown_groups(balancer))
                .chain(self.taken_ports(balancer, published));
            warnings.extend(found.map(|finding| (balancer.manifest.file.clone(), finding)));
        }
        // One that is wrong may be the one that has the rule.
        if !self.tables.load_balancers.failed.is_empty() || !self.kept.broken.is_empty() {
            return;
        }
        let balancers = self.desired.load_balancers.values();
        let in_rules: BTreeSet<&TargetGroupName> = balancers
            .flat_map(|balancer| balancer.spec.forwards().flat_map(|(_, _, groups)| groups))
            .map(|group| &group.target_group)
            .collect();
        let entries = || self.desired.services.values().flat_map(|service| &service.spec.load_balancers);
        // One of two that take turns is in no rule until it is its turn.
        let in_turn = |name: &TargetGroupName| {
            entries().any(|entry| {
                groups_of(entry).any(|(_, group)| group == name)
                    && groups_of(entry).any(|(_, group)| in_rules.contains(group))
            })
        };
        for (name, group) in &self.tables.target_groups.good {
            if in_rules.contains(name) || in_turn(name) {
                continue;
            }
            let message =
                format!("no rule of a load balancer sends requests to the target group {}", quote(name.as_str()));
            let finding = Finding::warning("unused", group.node.word(), message)
                .label("its targets stay `unused`: nobody checks them");
            warnings.push((group.manifest.file.clone(), finding));
        }
    }

    fn no_edge(&self, balancer: &Declared<LoadBalancerSpec>) -> Option<Finding> {
        let spec = &balancer.manifest.spec;
        // Without any host, these are not all manifests.
        if self.desired.hosts.is_empty() || self.edges(spec).next().is_some() {
            return None;
        }
        let cluster = self.cluster_of(spec.cluster.as_ref());
        let labels: BTreeSet<&str> = self
            .desired
            .hosts
            .values()
            .filter(|host| host.spec.cluster == *cluster)
            .flat_map(|host| host.labels.values().map(String::as_str))
            .collect();
        let wanted: Vec<String> = spec.hosts.iter().map(|(label, value)| format!("`{label}: {value}`")).collect();
        let cluster = quote(cluster.as_str());
        let message = match wanted.as_slice() {
            [] => format!("cluster {cluster} has no hosts"),
            wanted => format!("no host of cluster {cluster} has the labels {}", wanted.join(", ")),
        };
        let hint = spec.hosts.values().filter(|value| !labels.contains(value.as_str()));
        let hint = hint.into_iter().find_map(|value| did_you_mean(value, labels.iter().copied()));
        let finding = Finding::warning("no-edge", balancer.node.locate(at!["hosts"]), message);
        Some(finding.label("it runs nowhere").maybe_help(hint))
    }

    /// Hosts that have no part in an encrypted task network: from there nobody reaches a task that has an address.
    fn cut_off(&self, balancer: &Declared<LoadBalancerSpec>) -> Option<Finding> {
        let spec = &balancer.manifest.spec;
        let cluster = self.cluster_of(spec.cluster.as_ref());
        if self.desired.cluster(cluster).network.encapsulation != Encapsulation::Wireguard {
            return None;
        }
        let own = || self.desired.subnets.values().map(|it| &it.spec).filter(|it| it.cluster == *cluster);
        let zones: BTreeSet<Option<&str>> =
            own().filter(|it| it.driver == SubnetDriver::Bridge).map(|it| it.availability_zone.as_deref()).collect();
        let is_out = |host: &&HostName| {
            let zone = self.desired.hosts.get(*host).and_then(|host| host.labels.get(ZONE));
            !zones.is_empty() && !zones.contains(&None) && !zones.contains(&zone.map(String::as_str))
        };
        let host = self.edges(spec).find(is_out)?;
        let message = format!("host {} is in the zone of no subnet", quote(host.as_str()));
        let finding = Finding::warning("subnet", balancer.node.locate(at!["hosts"]), message);
        Some(
            finding
                .label("with `encapsulation: wireguard` the load balancer reaches no task with an address from there")
                .help("declare a subnet for its zone, or leave the host out by `hosts`"),
        )
    }

    /// Listeners for whose requests nobody says anything, no service that is exposed either.
    fn idle_listeners(&self, name: &LoadBalancerName, balancer: &Declared<LoadBalancerSpec>) -> Vec<Finding> {
        let Some(Manifest { spec, .. }) = self.desired.load_balancers.get(name) else { return Vec::new() };
        let idle = spec.listeners.iter().enumerate().filter(|(_, listener)| {
            listener.rules.is_empty() && listener.default_action.is_none() && !spec.answers_challenges(listener)
        });
        let finding = |(index, _)| {
            let message = "the listener has no rules and no `defaultAction`";
            Finding::warning("load-balancer", balancer.node.locate(at!["listeners", index]), message)
                .label("every request is answered with 404")
        };
        idle.map(finding).collect()
    }

    /// Groups that nobody declares and no rule names: a load balancer alone makes one, which others then let in.
    fn unknown_groups(&self, balancer: &Declared<LoadBalancerSpec>) -> Vec<Finding> {
        let groups = balancer.manifest.spec.security_groups.iter().enumerate();
        let unknown = groups.filter(|(_, name)| !self.has_security_group(name) && !self.is_in_a_rule(name));
        let finding = |(index, name): (usize, &SecurityGroupName)| {
            let message = format!("there is no security group {}, and no rule names it", quote(name.as_str()));
            Finding::warning("unknown-reference", balancer.node.locate(at!["securityGroups", index]), message)
                .label("it lets the load balancer reach nobody")
                .maybe_help(self.hint(name.as_str(), self.security_groups()))
        };
        unknown.map(finding).collect()
    }

    /// Whether a load balancer is in a security group.
    pub(super) fn has_balancer(&self, group: &SecurityGroupName) -> bool {
        self.desired.load_balancers.values().any(|balancer| balancer.spec.security_groups.contains(group))
    }

    /// Ports of hosts that services have whichever host they are on; those whose constraints choose hosts are not judged.
    pub(super) fn published(&self) -> Published<'_> {
        let mut published = BTreeMap::new();
        for (name, service) in &self.desired.services {
            let Some(definition) = self.desired.task_definitions.get(&super::family_named(&service.spec)) else {
                continue;
            };
            let constraints = &service.spec.placement_constraints;
            let chooses = constraints.iter().chain(&definition.spec.placement_constraints);
            if chooses.into_iter().any(|it| it.kind == PlacementConstraintType::MemberOf) {
                continue;
            }
            for (port, protocol) in check::host_ports(&definition.spec) {
                if protocol == Protocol::Tcp {
                    published.entry((&service.spec.cluster, port)).or_insert(name);
                }
            }
        }
        published
    }

    fn taken_ports(&self, balancer: &Declared<LoadBalancerSpec>, published: &Published<'_>) -> Vec<Finding> {
        let spec = &balancer.manifest.spec;
        if self.edges(spec).next().is_none() {
            return Vec::new();
        }
        let cluster = self.cluster_of(spec.cluster.as_ref());
        let listeners = spec.listeners.iter().enumerate();
        let taken = listeners.filter_map(|(index, it)| Some((index, it.port, published.get(&(cluster, it.port))?)));
        let finding = |(index, port, service): (usize, u16, &&ServiceName)| {
            let message = format!("service {} publishes port {port} of its hosts, too", quote(service.as_str()));
            Finding::warning("port-clash", balancer.node.locate(at!["listeners", index, "port"]), message)
                .label("on a host that has both, one of them cannot start")
                .help("leave the service's `hostPort` out, or keep it from these hosts with `placementConstraints`")
        };
        taken.map(finding).collect()
    }
}
