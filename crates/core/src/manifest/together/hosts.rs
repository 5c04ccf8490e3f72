//! Hosts together: the ways to them, and addresses that only one can have.

use std::{collections::BTreeMap, net::SocketAddrV4};

use super::{Declared, Fallen, Judge, rivals};
use crate::{
    manifest::{
        check,
        node::{Step, at},
        report::{Finding, quote},
        suggest::did_you_mean,
    },
    model::{
        name::{ClusterName, HostName},
        spec::{HostSpec, Kind, network::Encapsulation},
    },
};

/// Hosts that one may be reached through, one behind the other.
const MAX_JUMPS: usize = 8;

impl Judge<'_> {
    /// Follows `proxyJump` from host to host. A word that names no Host is an address.
    pub(super) fn jump(&self, name: &HostName, host: &Declared<HostSpec>) -> Option<Finding> {
        let path = at!["ssh", "proxyJump"];
        let error = |message: String| Some(Finding::error("proxy-jump", host.node.locate(path), message));
        let mut way = vec![name.as_str()];
        let mut spec = &host.manifest.spec;
        while let Some(next) = spec.ssh.proxy_jump.as_deref().and_then(check::names_a_host) {
            let told = |way: &[&str]| way.iter().chain([&next]).map(|name| quote(name)).collect::<Vec<_>>().join(" → ");
            if way.contains(&next) {
                return match way.len() {
                    1 => error("a host cannot be reached through itself".to_owned()),
                    _ => error("the way to this host goes in a circle".to_owned())
                        .map(|finding| finding.help(told(&way))),
                };
            }
            if way.len() > MAX_JUMPS {
                return error(format!("the way to this host goes through more than {MAX_JUMPS} others"))
                    .map(|finding| finding.help(told(&way)));
            }
            let Some(other) = self.desired.hosts.get(next) else {
                let failed = self.tables.hosts.failed.contains(next);
                return failed.then(|| self.unknown(&host.node, path, "host", next, true, std::iter::empty()));
            };
            way.push(next);
            spec = &other.spec;
        }
        None
    }

    /// Two hosts at one address are one machine registered twice.
    pub(super) fn address_clashes(&self) -> Vec<Fallen> {
        let hosts = self.tables.hosts.good.iter().map(|(name, host)| {
            let spec = &host.manifest.spec;
            let port = spec.ssh.port.unwrap_or(22);
            ((spec.address.to_ascii_lowercase(), port, spec.ssh.proxy_jump.as_deref()), name)
        });
        let had = |name: &HostName| {
            let now = self.tables.hosts.good.get(name).map(|host| &host.manifest.spec.address);
            self.kept.previous.hosts.get(name).is_some_and(|before| Some(&before.spec.address) == now)
        };
        let clashes = rivals(&self.tables.hosts, hosts, |_, name| had(name)).into_iter().map(|clash| {
            let hosts = (quote(clash.holder.as_str()), quote(clash.name.as_str()));
            let message = format!("the hosts {} and {} have the same address", hosts.0, hosts.1);
            let path = at!["address"];
            let finding = Finding::error("duplicate-address", clash.declared.node.locate(path), message);
            fallen(clash.name, clash.declared, self.beside(finding, clash.held_by, path, "the other"))
        });
        clashes.collect()
    }

    /// Routes of a cluster go to one host by an address.
    pub(super) fn private_address_clashes(&self) -> Vec<Fallen> {
        let desired = &self.desired.hosts;
        let claim = |spec: &HostSpec| {
            let at = if self.is_encrypted(&spec.cluster) {
                spec.endpoint()?
            } else {
                SocketAddrV4::new(spec.route_address()?, 0)
            };
            Some((spec.cluster.clone(), at))
        };
        let hosts = desired.iter().filter_map(|(name, host)| Some((claim(&host.spec)?, name)));
        let had = |what: &(ClusterName, SocketAddrV4), name: &HostName| {
            self.kept.previous.hosts.get(name).is_some_and(|before| claim(&before.spec).as_ref() == Some(what))
        };
        let field = |name: &HostName| match desired.get(name).map(|host| &host.spec) {
            Some(spec) if spec.wireguard.endpoint.is_some() && self.is_encrypted(&spec.cluster) => "endpoint",
            Some(spec) if spec.private_address.is_some() => "privateAddress",
            Some(_) | None => "address",
        };
        let is_private = |name: &HostName| field(name) != "address";
        let path = |name: &HostName| match field(name) {
            "endpoint" => vec![Step::Key("wireguard"), Step::Key("endpoint")],
            field => vec![Step::Key(field)],
        };
        // Two that are reached at one address by different ports may have no network between them.
        let clashes = rivals(&self.tables.hosts, hosts, had)
            .into_iter()
            .filter(|clash| is_private(clash.holder) || is_private(clash.name))
            .map(|clash| {
                let message = format!(
                    "other hosts would reach {} and {} at the same address",
                    quote(clash.holder.as_str()),
                    quote(clash.name.as_str())
                );
                let finding = Finding::error(
                    "duplicate-address",
                    clash.declared.node.locate(&path(clash.name)),
                    message,
                )
                .help(match field(clash.name) {
                    "endpoint" => "each host has an endpoint of its own: another address, or another port of it",
                    _ => "`privateAddress` is the host's own address in the network that it shares with the others",
                });
                let finding = self.beside(finding, clash.held_by, &path(clash.holder), "the other");
                fallen(clash.name, clash.declared, finding)
            });
        clashes.collect()
    }

    /// What is probably not as it was meant.
    pub(super) fn about_hosts(&self, warnings: &mut Vec<(String, Finding)>) {
        let mut in_cluster: BTreeMap<&ClusterName, usize> = BTreeMap::new();
        for host in self.desired.hosts.values() {
            *in_cluster.entry(&host.spec.cluster).or_default() += 1;
        }
        for host in self.tables.hosts.good.values() {
            let is_alone = in_cluster.get(&host.manifest.spec.cluster).is_none_or(|hosts| *hosts < 2);
            let found = self.unknown_jump(host).into_iter().chain(self.unroutable(host, is_alone));
            warnings.extend(found.map(|finding| (host.manifest.file.clone(), finding)));
        }
    }

    fn unknown_jump(&self, host: &Declared<HostSpec>) -> Option<Finding> {
        let jump = host.manifest.spec.ssh.proxy_jump.as_deref().and_then(check::names_a_host)?;
        (!self.desired.hosts.contains_key(jump)).then(|| {
            let span = host.node.locate(at!["ssh", "proxyJump"]);
            let message = format!("there is no Host {}: it is taken as an address", quote(jump));
            let names = self.desired.hosts.keys().map(HostName::as_str);
            Finding::warning("proxy-jump", span, message).maybe_help(did_you_mean(jump, names))
        })
    }

    fn is_encrypted(&self, cluster: &ClusterName) -> bool {
        self.desired.cluster(cluster).network.encapsulation == Encapsulation::Wireguard
    }

    /// Whether the other hosts' routes can go to a host.
    fn unroutable(&self, host: &Declared<HostSpec>, is_alone: bool) -> Option<Finding> {
        let spec = &host.manifest.spec;
        if !self.has_task_network(&spec.cluster) {
            return None;
        }
        let field = if spec.private_address.is_some() { "privateAddress" } else { "address" };
        let warning = |message: String| Finding::warning("task-network", host.node.locate(at![field]), message);
        let cluster = quote(spec.cluster.as_str());
        let is_encrypted = self.is_encrypted(&spec.cluster);
        match spec.route_address() {
            None if is_alone || is_encrypted && spec.wireguard.endpoint.is_some() => None,
            None if is_encrypted => Some(
                warning(format!("no other host of cluster {cluster} can begin to send to this one"))
                    .label("not an IPv4 address, and no endpoint is said")
                    .help("`wireguard: { endpoint: ADDRESS:PORT }` is where the other hosts reach this one"),
            ),
            None => Some(
                warning(format!("tasks on other hosts of cluster {cluster} cannot reach those here"))
                    .label("not an IPv4 address, which routes need")
                    .help("`privateAddress: …` is where the other hosts reach this one"),
            ),
            Some(address) => {
                let network = self.desired.cluster(&spec.cluster).network.cidr;
                network.contains(&address).then(|| {
                    warning(format!("{address} is one of the addresses that tasks get"))
                        .label(format!("in {network}, the network of cluster {cluster}"))
                        .help("give the cluster a `network.cidr` that nothing else in reach of the hosts uses")
                })
            }
        }
    }
}

fn fallen(name: &HostName, host: &Declared<HostSpec>, finding: Finding) -> Fallen {
    (Kind::Host, name.to_string(), host.manifest.file.clone(), finding)
}
