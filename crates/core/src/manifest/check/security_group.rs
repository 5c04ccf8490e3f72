//! SecurityGroup by itself.

use crate::{
    manifest::{
        node::{Step, at},
        report::Scope,
    },
    model::spec::{
        SecurityGroupSpec,
        security_group::{IpProtocol, MAX_RULES, Peer},
    },
};

/// Checks a security group.
pub fn security_group(spec: &SecurityGroupSpec, scope: &mut Scope<'_>) {
    let ingress: Vec<Rule<'_>> = spec
        .ingress
        .iter()
        .map(|rule| (rule.protocol, rule.from_port, rule.to_port, rule.sources.as_slice()))
        .collect();
    let egress = spec.egress.iter().flatten();
    let egress: Vec<Rule<'_>> =
        egress.map(|rule| (rule.protocol, rule.from_port, rule.to_port, rule.destinations.as_slice())).collect();
    for (way, peers, rules) in [("ingress", "sources", ingress), ("egress", "destinations", egress)] {
        if rules.len() > MAX_RULES {
            let message = format!("{} rules, {MAX_RULES} are the most", rules.len());
            scope.error(at![way, MAX_RULES], "security-group", message);
            return;
        }
        for (index, rule) in rules.into_iter().enumerate() {
            check(rule, &[Step::Key(way), Step::Index(index)], peers, scope);
        }
    }
}

type Rule<'a> = (IpProtocol, Option<u16>, Option<u16>, &'a [Peer]);

fn check((protocol, from, to, peers): Rule<'_>, base: &[Step<'_>], peers_field: &str, scope: &mut Scope<'_>) {
    let path = |field| super::join(base, &[Step::Key(field)]);
    match protocol {
        IpProtocol::Tcp | IpProtocol::Udp => {}
        IpProtocol::Icmp | IpProtocol::All if from.or(to).is_some_and(|port| port != 0) => {
            let field = if from.is_some() { "fromPort" } else { "toPort" };
            let message = "only `tcp` and `udp` have ports";
            scope.error(&path(field), "security-group", message).help("say `protocol: tcp`, or leave the ports out");
        }
        IpProtocol::Icmp | IpProtocol::All => {}
    }
    match (from, to) {
        (None, Some(_)) => {
            scope
                .error(&path("toPort"), "security-group", "`toPort` without `fromPort`")
                .help("`fromPort` is the first port; alone it means that one port");
        }
        (Some(from), Some(to)) if to < from => {
            let message = format!("the ports from {from} to {to} are none");
            scope.error(&path("toPort"), "security-group", message).label(format!("less than fromPort, {from}"));
        }
        (Some(_) | None, _) => {}
    }
    if peers.is_empty() {
        let message = format!("a rule without `{peers_field}` lets nothing pass");
        scope
            .error(&path(peers_field), "security-group", message)
            .help(format!("such as `{peers_field}: [{{ cidr: 0.0.0.0/0 }}]` or `[{{ securityGroup: web }}]`"));
    }
    for (index, peer) in peers.iter().enumerate() {
        match peer {
            Peer::Cidr(cidr) if cidr.addr() != cidr.network() => {
                let path = super::join(base, &[Step::Key(peers_field), Step::Index(index)]);
                let message = format!("{cidr} is an address in a network, not the network");
                let help = format!("the network is `{}`, the address alone `{}/32`", cidr.trunc(), cidr.addr());
                scope.error(&path, "cidr", message).help(help);
            }
            Peer::Cidr(_) | Peer::SecurityGroup(_) => {}
        }
    }
}
