//! Subnets on a LAN together with the rest: what else has their addresses, and who may be put there.

use std::net::Ipv4Addr;

use super::{Declared, Judge, network::Wish};
use crate::{
    manifest::{
        node::{Step, at},
        report::{Finding, quote},
    },
    model::{
        name::{HostName, SubnetName},
        network::Lan,
        spec::{
            SubnetSpec,
            network::{AssignPublicIp, Encapsulation, default_subnet},
            subnet::SubnetDriver,
            task_definition::PowerOverNetwork,
        },
    },
};

impl Judge<'_> {
    /// What keeps a subnet off its LAN.
    pub(super) fn unfit_for_lan(&self, name: &SubnetName, subnet: &Declared<SubnetSpec>, lan: &Lan) -> Option<Finding> {
        let spec = &subnet.manifest.spec;
        let cluster = self.desired.cluster(&spec.cluster);
        let error = |path: &[Step<'_>], message: String| Finding::error("macvlan", subnet.node.locate(path), message);
        if cluster.network.encapsulation == Encapsulation::Wireguard {
            let of = quote(spec.cluster.as_str());
            let message =
                format!("`driver: macvlan` is for hosts that share a network, and cluster {of} encrypts between them");
            return Some(
                error(at!["driver"], message)
                    .help("leave it out, or take `encapsulation: wireguard` out of the cluster's `network`"),
            );
        }
        if *name == default_subnet(&spec.cluster) {
            let message = format!("{} is the subnet of tasks that name none", quote(name.as_str()));
            return Some(error(at!["driver"], message).help("give it another name: nothing gets on a LAN by itself"));
        }
        let network = cluster.network.cidr;
        if network.contains(&spec.cidr.network()) || spec.cidr.contains(&network.network()) {
            let message =
                format!("{} overlaps {network}, which are the addresses of the hosts' own networks", spec.cidr);
            return Some(
                error(at!["cidr"], message).help("change the cluster's `network.cidr` to what the LAN does not use"),
            );
        }
        if let Some((host, address)) = self.host_within(spec) {
            let message = format!("{address}, the address of host {}, is within {}", quote(host.as_str()), spec.cidr);
            return Some(
                error(at!["cidr"], message)
                    .help("choose a part of the LAN that nobody uses, and that its DHCP does not give out"),
            );
        }
        // An engine makes one such network on an interface; and clusters may share a LAN, but no address of it.
        let is_apart = |other: &SubnetSpec| matches!((&other.availability_zone, &spec.availability_zone), (Some(one), Some(two)) if one != two);
        let overlaps =
            |other: &SubnetSpec| other.cidr.contains(&spec.cidr.network()) || spec.cidr.contains(&other.cidr.network());
        let before =
            self.desired.subnets.iter().filter(|(other, _)| *other < name).map(|(other, it)| (other, &it.spec));
        let mut rivals = before.filter_map(|(other, it)| {
            let theirs = it.lan()?;
            let is_same_host = it.cluster == spec.cluster && theirs == *lan && !is_apart(it);
            (is_same_host || (it.cluster != spec.cluster && overlaps(it))).then_some((other, is_same_host))
        });
        rivals.next().map(|(other, is_same_host)| {
            let (path, words, help) = match is_same_host {
                true => (
                    at!["driver"],
                    "is on the same LAN already",
                    "a host has one subnet on a LAN: make one of them larger, or give each its own `availabilityZone`",
                ),
                false => (at!["cidr"], "of another cluster has these addresses", "an address belongs to one subnet"),
            };
            let message = format!("the subnet {} {words}", quote(other.as_str()));
            self.beside(error(path, message).help(help), self.tables.subnets.good.get(other), path, "the other")
        })
    }

    fn host_within(&self, spec: &SubnetSpec) -> Option<(&HostName, Ipv4Addr)> {
        let mut all = self
            .desired
            .hosts
            .iter()
            .flat_map(|(name, host)| host.spec.addresses().map(move |address| (name, address)));
        all.find(|(_, address)| spec.cidr.contains(address))
    }

    /// What keeps tasks off a LAN that they name.
    pub(super) fn not_on_lan(&self, wish: &Wish<'_>) -> Option<Finding> {
        let configuration = &wish.configuration?.awsvpc_configuration;
        let is_lan = |name: &SubnetName| {
            self.desired.subnets.get(name).is_some_and(|it| it.spec.driver == SubnetDriver::Macvlan)
        };
        let (index, name) = configuration.subnets.iter().enumerate().find(|(_, name)| is_lan(name))?;
        let base = ["networkConfiguration", "awsvpcConfiguration"].map(Step::Key);
        let at_subnet = [&base[..], &[Step::Key("subnets"), Step::Index(index)]].concat();
        let lan = quote(name.as_str());
        if configuration.assign_public_ip == AssignPublicIp::Enabled {
            let path = [&base[..], &[Step::Key("assignPublicIp")]].concat();
            let message =
                format!("tasks in the subnet {lan} are on the LAN already: no ports of theirs are published on hosts");
            return Some(Finding::error("macvlan", wish.node.locate(&path), message).help("leave it out"));
        }
        let definition = &self.desired.task_definitions.get(wish.task_definition)?.spec;
        let mut containers = definition.container_definitions.iter().enumerate();
        let (number, container, power) =
            containers.find_map(|(number, container)| Some((number, container, container.power_over_network()?)))?;
        let at_container = [Step::Key("containerDefinitions"), Step::Index(number)];
        let (path, what) = match power {
            PowerOverNetwork::Privileged => (vec![Step::Key("privileged")], "`privileged`".to_owned()),
            PowerOverNetwork::Capability(index) => {
                let added = container.linux_parameters.as_ref()?.capabilities.as_ref()?.add.get(index)?;
                let path = ["linuxParameters", "capabilities", "add"].map(Step::Key);
                ([&path[..], &[Step::Index(index)]].concat(), format!("the capability {}", quote(added)))
            }
        };
        let path = [&at_container[..], &path].concat();
        let whose = format!("container {} of {}", quote(&container.name), quote(wish.task_definition));
        let message = format!(
            "with {what} {whose} could lift the rules around it, which on the LAN of {lan} are inside its own network"
        );
        let finding = Finding::error("macvlan", wish.node.locate(&at_subnet), message)
            .help("take that from the container, or choose a subnet without `driver: macvlan`");
        let declared = self.tables.task_definitions.good.get(wish.task_definition);
        Some(self.beside(finding, declared, &path, "here"))
    }
}
