//! A container's name, and the names that it knows.

use std::net::IpAddr;

use super::{join, volumes::other_container};
use crate::{
    manifest::{
        node::{Step, at},
        report::{Scope, quote},
    },
    model::spec::{
        TaskDefinitionSpec,
        task_definition::{ContainerDefinition, NetworkMode},
    },
};

/// As long as Linux takes a host's name.
const LONGEST_HOSTNAME: usize = 64;

/// Checks how container number `index` is found and whom it finds.
pub fn check(container: &ContainerDefinition, index: usize, task: &TaskDefinitionSpec, scope: &mut Scope<'_>) {
    let base = at!["containerDefinitions", index];
    let at = |field: &'static str| join(base, &[Step::Key(field)]);
    let item = |field: &'static str, number: usize| join(base, &[Step::Key(field), Step::Index(number)]);
    if let Some(name) = &container.hostname
        && !is_hostname(name)
    {
        scope
            .error(&at("hostname"), "bad-name", format!("{} is not a host's name", quote(name)))
            .label("up to 64 letters, digits, hyphens and dots");
    }
    for (number, entry) in container.extra_hosts.iter().enumerate() {
        let path = item("extraHosts", number);
        if !is_hostname(&entry.hostname) {
            let message = format!("{} is not a host's name", quote(&entry.hostname));
            scope.error(&join(&path, &[Step::Key("hostname")]), "bad-name", message);
        }
        // Docker's word for the host itself.
        if entry.ip_address != "host-gateway" {
            address(&entry.ip_address, &join(&path, &[Step::Key("ipAddress")]), scope);
        }
    }
    for (number, server) in container.dns_servers.iter().enumerate() {
        address(server, &item("dnsServers", number), scope);
    }
    for (number, domain) in container.dns_search_domains.iter().enumerate() {
        if domain != "." && !is_hostname(domain.trim_end_matches('.')) {
            let message = format!("{} is not a domain", quote(domain));
            scope.error(&item("dnsSearchDomains", number), "bad-name", message);
        }
    }
    for (number, (name, alias)) in container.linked().enumerate() {
        let path = item("links", number);
        other_container(name, container, task, &path, "be linked to", scope);
        if !is_hostname(alias) {
            scope.error(&path, "bad-name", format!("{} is not a host's name", quote(alias)));
        }
    }
    // What Docker says to the network itself, and to tasks that have one of their own (ECS refuses the same).
    let own = match task.network_mode {
        NetworkMode::Awsvpc => {
            [("hostname", container.hostname.is_some()), ("extraHosts", !container.extra_hosts.is_empty())]
        }
        NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None => [("", false); 2],
    };
    for (field, _) in own.into_iter().filter(|(_, given)| *given) {
        scope
            .error(&at(field), "network", format!("{} cannot be had with `networkMode: awsvpc`", quote(field)))
            .label("the containers of such a task have one network, and one name, together");
    }
    let unheard = [
        ("dnsServers", !container.dns_servers.is_empty()),
        ("dnsSearchDomains", !container.dns_search_domains.is_empty()),
    ];
    let has_own = task.network_mode == NetworkMode::Awsvpc && !container.disable_networking;
    for (field, _) in unheard.into_iter().filter(|(_, given)| has_own && *given) {
        let message = format!("{} has no effect with `networkMode: awsvpc`", quote(field));
        scope
            .warning(&at(field), "network", message)
            .label("names are asked of the task's host, which asks its own name servers for what it does not know");
    }
    let none = container.disable_networking || task.network_mode == NetworkMode::None;
    if !container.links.is_empty() && (task.network_mode != NetworkMode::Bridge || container.disable_networking) {
        scope
            .error(&at("links"), "network", "containers are linked on Docker's bridge only")
            .help("`networkMode: bridge`; in a network that is shared, `localhost` is the other container");
    }
    if none && !container.dns_servers.is_empty() {
        scope.warning(&at("dnsServers"), "network", "there is no network here to ask a name server over");
    }
    if container.disable_networking && !container.port_mappings.is_empty() {
        scope.error(&at("portMappings"), "network", "with `disableNetworking` there is no network to have a port in");
    }
}

fn address(text: &str, path: &[Step<'_>], scope: &mut Scope<'_>) {
    if text.parse::<IpAddr>().is_err() {
        scope
            .error(path, "bad-address", format!("{} is not an IP address", quote(text)))
            .label("such as 198.51.100.7 or 2001:db8::7");
    }
}

fn is_hostname(name: &str) -> bool {
    (1..=LONGEST_HOSTNAME).contains(&name.len())
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        })
}
