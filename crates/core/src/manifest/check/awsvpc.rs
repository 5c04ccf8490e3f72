//! The task network, as clusters, services and scheduled tasks say it: each by itself.

use ipnet::Ipv4Net;

use super::{image, one_network};
use crate::{
    manifest::{
        document::is_label,
        node::at,
        report::{Scope, quote},
    },
    model::spec::{
        ClusterSpec,
        network::{MAX_SECURITY_GROUPS, MAX_SUBNETS, NetworkConfiguration, ServiceRegistry},
    },
};

/// The largest and the smallest network of a cluster.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=28;
/// Nobody has these on the Internet (RFC 1918, 6598, 2544).
const PRIVATE: [(u32, u8); 5] =
    [(0x0a00_0000, 8), (0xac10_0000, 12), (0xc0a8_0000, 16), (0x6440_0000, 10), (0xc612_0000, 15)];
/// As long as a domain name may be.
const LONGEST_DOMAIN: usize = 253;

/// Checks a cluster's network and its namespace.
pub fn cluster(spec: &ClusterSpec, scope: &mut Scope<'_>) {
    let network = &spec.network;
    let (path, cidr) = (at!["network", "cidr"], network.cidr);
    one_network(cidr, path, scope);
    if !PREFIXES.contains(&cidr.prefix_len()) {
        let message = format!("{cidr} is no network for tasks");
        scope.error(path, "cidr", message).label(format!("from /{} to /{}", PREFIXES.start(), PREFIXES.end()));
    } else if !PRIVATE.iter().any(|(first, length)| is_within(cidr, *first, *length)) {
        scope
            .warning(path, "cidr", format!("{cidr} has addresses of other people"))
            .label("tasks could not reach these")
            .help("private networks are 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 and 100.64.0.0/10");
    }
    if let Some(image) = &network.node_image {
        image::check(image, at!["network", "nodeImage"], scope);
    }
    if let Some(namespace) = &spec.service_discovery.namespace
        && !is_domain(namespace)
    {
        scope
            .error(
                at!["serviceDiscovery", "namespace"],
                "bad-name",
                format!("{} is not a domain name", quote(namespace)),
            )
            .label("such as `klp.local`: labels of up to 63 letters, digits and hyphens");
    }
}

fn is_within(cidr: Ipv4Net, first: u32, length: u8) -> bool {
    cidr.prefix_len() >= length && u32::from(cidr.network()) >> (32 - length) == first >> (32 - length)
}

fn is_domain(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.len() <= LONGEST_DOMAIN && name.split('.').all(is_label)
}

/// Checks a `networkConfiguration`.
pub fn configuration(configuration: Option<&NetworkConfiguration>, scope: &mut Scope<'_>) {
    let Some(configuration) = configuration.map(|it| &it.awsvpc_configuration) else { return };
    for (field, what, given, most) in [
        ("subnets", "subnets", configuration.subnets.len(), MAX_SUBNETS),
        ("securityGroups", "security groups", configuration.security_groups.len(), MAX_SECURITY_GROUPS),
    ] {
        if given > most {
            let path = at!["networkConfiguration", "awsvpcConfiguration", field, most];
            scope.error(path, "network", format!("{given} {what}, {most} are the most")).label("one too many");
        }
    }
}

/// Checks under which names a service is found.
pub fn registries(registries: &[ServiceRegistry], scope: &mut Scope<'_>) {
    for (index, registry) in registries.iter().enumerate() {
        match (registry.name.as_deref(), registry.name()) {
            (Some(name), _) if !is_label(&name.to_ascii_lowercase()) => {
                scope
                    .error(
                        at!["serviceRegistries", index, "name"],
                        "bad-name",
                        format!("{} is not a name", quote(name)),
                    )
                    .label("1 to 63 letters, digits and hyphens")
                    .help("the cluster's `serviceDiscovery.namespace` comes behind it by itself");
            }
            (Some(_), _) | (None, None) => {}
            (None, Some(name)) => {
                let path = at!["serviceRegistries", index, "registryArn"];
                if is_label(&name.to_ascii_lowercase()) {
                    scope
                        .notice(path, "registry", format!("the service is found as {}", quote(name)))
                        .help("`name` says a better one");
                } else {
                    scope
                        .error(path, "bad-name", format!("{} is not a name", quote(name)))
                        .help("say the `name` under which the service is found");
                }
            }
        }
        if registry.port.is_some() && (registry.container_name.is_some() || registry.container_port.is_some()) {
            scope
                .error(at!["serviceRegistries", index, "port"], "registry", "the port is said twice")
                .help("either `port`, or `containerName` and `containerPort`");
        }
    }
}
