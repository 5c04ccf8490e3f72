//! The task network together: subnets in their clusters, who names them, and names that only one service can have.

use std::collections::{BTreeMap, BTreeSet};

use super::{Declared, Fallen, Judge, family_named, family_of, rank, rivals};
use crate::{
    manifest::{
        node::{Node, Step, at},
        report::{Finding, quote},
        suggest::did_you_mean,
    },
    model::{
        name::{ClusterName, SecurityGroupName, ServiceName, SubnetName},
        spec::{
            Kind, ScheduledTaskSpec, SecurityGroupSpec, ServiceSpec, SubnetSpec,
            network::{DEFAULT_SECURITY_GROUP, NetworkConfiguration, default_subnet},
            security_group::Peer,
            service::TaskDefinitionRef,
            subnet::SubnetDriver,
            task_definition::NetworkMode,
        },
    },
};

/// The label of a host that says its zone.
pub(super) const ZONE: &str = "availability-zone";

/// What something says of its tasks' network.
pub(super) struct Wish<'a> {
    pub(super) node: &'a Node,
    cluster: &'a ClusterName,
    /// `auth`, or `auth:3`.
    pub(super) task_definition: &'a str,
    pub(super) configuration: Option<&'a NetworkConfiguration>,
}

impl<'a> Wish<'a> {
    pub(super) fn of_service(service: &'a Declared<ServiceSpec>) -> Self {
        let spec = &service.manifest.spec;
        let task_definition = match &spec.task_definition {
            TaskDefinitionRef::Named(name) => name.as_str(),
            TaskDefinitionRef::Inline(inline) => inline.family.as_deref().unwrap_or_default(),
        };
        let configuration = spec.network_configuration.as_ref();
        Self { node: &service.node, cluster: &spec.cluster, task_definition, configuration }
    }

    pub(super) fn of_scheduled(scheduled: &'a Declared<ScheduledTaskSpec>) -> Self {
        let spec = &scheduled.manifest.spec;
        let configuration = spec.network_configuration.as_ref();
        Self { node: &scheduled.node, cluster: &spec.cluster, task_definition: &spec.task_definition, configuration }
    }
}

impl Judge<'_> {
    /// Whether tasks of a cluster have addresses of their own, or may.
    pub(super) fn has_task_network(&self, cluster: &ClusterName) -> bool {
        let desired = self.desired;
        let services = desired.services.values().map(|it| (&it.spec.cluster, family_named(&it.spec)));
        let scheduled =
            desired.scheduled_tasks.values().map(|it| (&it.spec.cluster, family_of(&it.spec.task_definition)));
        desired.subnets.values().any(|subnet| subnet.spec.cluster == *cluster)
            || services.chain(scheduled).filter(|(of, _)| *of == cluster).any(|(_, family)| {
                desired.task_definitions.get(&family).is_some_and(|it| it.spec.network_mode == NetworkMode::Awsvpc)
            })
    }

    /// A subnet that is not where it must be: within its cluster's network, or on a LAN beside it.
    pub(super) fn outside(&self, name: &SubnetName, subnet: &Declared<SubnetSpec>) -> Option<Finding> {
        let spec = &subnet.manifest.spec;
        if let Some(lan) = spec.lan() {
            return self.unfit_for_lan(name, subnet, &lan);
        }
        let network = self.desired.cluster(&spec.cluster).network.cidr;
        (!network.contains(&spec.cidr)).then(|| {
            let cluster = quote(spec.cluster.as_str());
            let message = format!("{} is not within {network}, the network of cluster {cluster}", spec.cidr);
            let finding = Finding::error("subnet", subnet.node.locate(at!["cidr"]), message)
                .help("choose a part of it, or change the cluster's `network.cidr`");
            let declared = self.tables.clusters.good.get(&spec.cluster);
            match declared.filter(|cluster| cluster.node.find(at!["network", "cidr"]).is_some()) {
                Some(cluster) => self.beside(finding, Some(cluster), at!["network", "cidr"], "the network"),
                None => finding,
            }
        })
    }

    /// Subnets of one cluster that share addresses: who had them before keeps them, else who is declared first.
    pub(super) fn subnet_overlaps(&self) -> Vec<Fallen> {
        let good = &self.tables.subnets.good;
        let had = |name: &SubnetName, spec: &SubnetSpec| {
            let before = self.kept.previous.subnets.get(name).map(|before| &before.spec);
            before.is_some_and(|before| (&before.cluster, before.cidr) == (&spec.cluster, spec.cidr))
        };
        let mut subnets: Vec<(&SubnetName, &SubnetSpec)> =
            self.desired.subnets.iter().map(|(name, subnet)| (name, &subnet.spec)).collect();
        subnets.sort_by_key(|(name, spec)| rank(good.get(*name), had(name, spec)));
        // Those that stand, by their last address: they share none.
        let mut standing: BTreeMap<(&ClusterName, u32), (&SubnetName, &SubnetSpec)> = BTreeMap::new();
        let mut fallen = Vec::new();
        for (name, spec) in subnets {
            let (first, last) = (u32::from(spec.cidr.network()), u32::from(spec.cidr.broadcast()));
            let from_here = standing.range((&spec.cluster, first)..).next();
            let other = from_here
                .map(|(_, other)| *other)
                .filter(|(_, other)| other.cluster == spec.cluster && u32::from(other.cidr.network()) <= last);
            match (other, good.get(name)) {
                (None, _) => {
                    standing.insert((&spec.cluster, last), (name, spec));
                }
                // What stays as it was is not judged.
                (Some(_), None) => {}
                (Some((other, holder)), Some(subnet)) => {
                    let message = format!(
                        "{} overlaps the subnet {}, which is {}",
                        spec.cidr,
                        quote(other.as_str()),
                        holder.cidr
                    );
                    let path = at!["cidr"];
                    let finding = Finding::error("subnet", subnet.node.locate(path), message)
                        .help("an address belongs to one subnet");
                    let finding = self.beside(finding, good.get(other), path, "the other");
                    fallen.push((Kind::Subnet, name.to_string(), subnet.manifest.file.clone(), finding));
                }
            }
        }
        fallen
    }

    /// The subnets and security groups that something names.
    pub(super) fn network(&self, wish: &Wish<'_>) -> Option<Finding> {
        let configuration = &wish.configuration?.awsvpc_configuration;
        self.not_awsvpc(wish).or_else(|| {
            let subnets = configuration.subnets.iter().enumerate();
            subnets
                .into_iter()
                .find_map(|(index, name)| self.subnet(wish, name, index))
                .or_else(|| {
                    let groups = configuration.security_groups.iter().enumerate();
                    groups.into_iter().find_map(|(index, name)| self.security_group(wish, name, index))
                })
                .or_else(|| self.not_on_lan(wish))
        })
    }

    /// Of an older revision nobody knows yet.
    fn not_awsvpc(&self, wish: &Wish<'_>) -> Option<Finding> {
        let definition = self.desired.task_definitions.get(wish.task_definition)?;
        let mode = match definition.spec.network_mode {
            NetworkMode::Awsvpc => return None,
            NetworkMode::Bridge => "bridge",
            NetworkMode::Host => "host",
            NetworkMode::None => "none",
        };
        let family = quote(wish.task_definition);
        let message = "`networkConfiguration` is for tasks with `networkMode: awsvpc`";
        let finding = Finding::error("network", wish.node.locate(at!["networkConfiguration"]), message)
            .label(format!("the task definition {family} has `networkMode: {mode}`"))
            .help("leave it out, or give the task definition `networkMode: awsvpc`");
        let declared = self.tables.task_definitions.good.get(wish.task_definition);
        let declared = declared.filter(|declared| declared.node.get("networkMode").is_some());
        Some(self.beside(finding, declared, at!["networkMode"], "here"))
    }

    fn subnet(&self, wish: &Wish<'_>, name: &SubnetName, index: usize) -> Option<Finding> {
        let path = at!["networkConfiguration", "awsvpcConfiguration", "subnets", index];
        let declared = &self.desired.subnets;
        let own = || declared.iter().filter(|(_, subnet)| subnet.spec.cluster == *wish.cluster).map(|(name, _)| name);
        let is_bridge = |name: &SubnetName| declared.get(name).is_some_and(|it| it.spec.driver == SubnetDriver::Bridge);
        match declared.get(name) {
            Some(subnet) if subnet.spec.cluster == *wish.cluster => None,
            Some(subnet) => {
                let message = format!(
                    "the subnet {} is of cluster {}, not of {}",
                    quote(name.as_str()),
                    quote(subnet.spec.cluster.as_str()),
                    quote(wish.cluster.as_str())
                );
                let finding = Finding::error("subnet", wish.node.locate(path), message);
                Some(self.beside(finding, self.tables.subnets.good.get(name), at!["cluster"], "the subnet"))
            }
            None if !own().any(is_bridge) && *name == default_subnet(wish.cluster) => None,
            None => {
                let failed = self.tables.subnets.failed.contains(name);
                Some(self.unknown(wish.node, path, "subnet", name.as_str(), failed, own().map(SubnetName::as_str)))
            }
        }
    }

    fn security_group(&self, wish: &Wish<'_>, name: &SecurityGroupName, index: usize) -> Option<Finding> {
        if self.has_security_group(name) {
            return None;
        }
        let path = at!["networkConfiguration", "awsvpcConfiguration", "securityGroups", index];
        let failed = self.tables.security_groups.failed.contains(name);
        Some(self.unknown(wish.node, path, "security group", name.as_str(), failed, self.security_groups()))
    }

    pub(super) fn has_security_group(&self, name: &SecurityGroupName) -> bool {
        name.as_str() == DEFAULT_SECURITY_GROUP || self.desired.security_groups.contains_key(name)
    }

    pub(super) fn security_groups(&self) -> impl Iterator<Item = &str> {
        self.desired.security_groups.keys().map(SecurityGroupName::as_str).chain([DEFAULT_SECURITY_GROUP])
    }

    /// Whether some rule names a group, declared or not.
    pub(super) fn is_in_a_rule(&self, name: &SecurityGroupName) -> bool {
        let groups = self.desired.security_groups.values().map(|group| &group.spec);
        let mut peers = groups.flat_map(|spec| {
            let ingress = spec.ingress.iter().flat_map(|rule| &rule.sources);
            ingress.chain(spec.egress.iter().flatten().flat_map(|rule| &rule.destinations))
        });
        peers.any(|peer| match peer {
            Peer::SecurityGroup(named) => named == name,
            Peer::Cidr(_) => false,
        })
    }

    /// The containers that a service's names are of.
    pub(super) fn registries(&self, service: &Declared<ServiceSpec>) -> Option<Finding> {
        let wish = Wish::of_service(service);
        let definition = &self.desired.task_definitions.get(wish.task_definition)?.spec;
        let containers = || definition.container_definitions.iter().map(|container| container.name.as_str());
        for (index, registry) in service.manifest.spec.service_registries.iter().enumerate() {
            let Some(name) = &registry.container_name else { continue };
            if !containers().any(|container| container == name) {
                let path = at!["serviceRegistries", index, "containerName"];
                return Some(self.unknown(wish.node, path, "container", name, false, containers()));
            }
        }
        None
    }

    /// A name stands for one service.
    pub(super) fn name_clashes(&self) -> Vec<Fallen> {
        let of = |name: &ServiceName, spec: &ServiceSpec| {
            let cluster = spec.cluster.clone();
            names_of(name, spec).into_iter().map(move |name| (cluster.clone(), name)).collect::<BTreeSet<_>>()
        };
        let services = self.desired.services.iter();
        let claims = services.flat_map(|(name, it)| of(name, &it.spec).into_iter().map(move |claim| (claim, name)));
        let claims: Vec<_> = claims.collect();
        let had = |claim: &(ClusterName, String), name: &ServiceName| {
            self.kept.previous.services.get(name).is_some_and(|before| of(name, &before.spec).contains(claim))
        };
        let clashes = rivals(&self.tables.services, claims, had).into_iter().map(|clash| {
            let (_, name) = &clash.claim;
            let place = |of: &ServiceName, spec: &ServiceSpec| {
                let mut registries = spec.service_registries.iter();
                let index = registries.position(|it| registered(it.name(), of) == *name).unwrap_or_default();
                [Step::Key("serviceRegistries"), Step::Index(index), Step::Key("name")]
            };
            let message = format!("the name {} is that of service {}", quote(name), quote(clash.holder.as_str()));
            let finding = Finding::error(
                "duplicate-name",
                clash.declared.node.locate(&place(clash.name, &clash.declared.manifest.spec)),
                message,
            )
            .help("a name in a cluster stands for one service: give one of them another, with `serviceRegistries`");
            let finding = match clash.held_by {
                Some(other) => {
                    let path = place(clash.holder, &other.manifest.spec);
                    self.beside(finding, Some(other), &path, "the other")
                }
                None => finding,
            };
            (Kind::Service, clash.name.to_string(), clash.declared.manifest.file.clone(), finding)
        });
        clashes.collect()
    }

    /// What is probably not as it was meant.
    pub(super) fn about_networks(&self, warnings: &mut Vec<(String, Finding)>) {
        for group in self.tables.security_groups.good.values() {
            warnings
                .extend(self.unknown_peers(group).into_iter().map(|finding| (group.manifest.file.clone(), finding)));
        }
        let zones: BTreeSet<(&ClusterName, &str)> = self
            .desired
            .hosts
            .values()
            .filter_map(|host| Some((&host.spec.cluster, host.labels.get(ZONE)?.as_str())))
            .collect();
        for subnet in self.tables.subnets.good.values() {
            let spec = &subnet.manifest.spec;
            let Some(zone) = spec.availability_zone.as_deref() else { continue };
            // Without any host, these are not all manifests.
            if self.desired.hosts.is_empty() || zones.contains(&(&spec.cluster, zone)) {
                continue;
            }
            let cluster = quote(spec.cluster.as_str());
            let message = format!("no host of cluster {cluster} has the label `{ZONE}: {zone}`");
            let others = zones.iter().filter(|(cluster, _)| **cluster == spec.cluster).map(|(_, zone)| *zone);
            let finding = Finding::warning("subnet", subnet.node.locate(at!["availabilityZone"]), message)
                .label("no task gets an address of this subnet")
                .maybe_help(did_you_mean(zone, others));
            warnings.push((subnet.manifest.file.clone(), finding));
        }
    }

    /// Groups in rules that nobody declares, and no load balancer is in: one may be later.
    fn unknown_peers(&self, group: &Declared<SecurityGroupSpec>) -> Vec<Finding> {
        let spec = &group.manifest.spec;
        let ingress = spec.ingress.iter().map(|rule| rule.sources.as_slice()).enumerate();
        let egress = spec.egress.iter().flatten().map(|rule| rule.destinations.as_slice()).enumerate();
        let ingress = ingress.map(|(index, peers)| ("ingress", index, "sources", peers));
        let egress = egress.map(|(index, peers)| ("egress", index, "destinations", peers));
        let mut findings = Vec::new();
        for (way, rule, field, peers) in ingress.chain(egress) {
            for (index, peer) in peers.iter().enumerate() {
                match peer {
                    Peer::SecurityGroup(name) if !self.has_security_group(name) && !self.has_balancer(name) => {
                        let path = at![way, rule, field, index, "securityGroup"];
                        let message = format!("there is no security group {}", quote(name.as_str()));
                        findings.push(
                            Finding::warning("unknown-reference", group.node.locate(path), message)
                                .label("the rule lets nobody pass until there is")
                                .maybe_help(self.hint(name.as_str(), self.security_groups())),
                        );
                    }
                    Peer::SecurityGroup(_) | Peer::Cidr(_) => {}
                }
            }
        }
        findings
    }
}

/// The names that a service is found by, below its cluster's namespace: names have no case.
fn names_of(service: &ServiceName, spec: &ServiceSpec) -> BTreeSet<String> {
    match spec.service_registries.as_slice() {
        [] => BTreeSet::from([service.to_string()]),
        some => some.iter().map(|registry| registered(registry.name(), service)).collect(),
    }
}

fn registered(name: Option<&str>, service: &ServiceName) -> String {
    name.unwrap_or(service.as_str()).to_ascii_lowercase()
}
