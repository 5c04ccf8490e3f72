//! Names as dnsmasq takes them. Rules: dnsmasq(8).
//!
//! Two of them: the one that is asked reads addresses again without a restart, so no question is ever lost; SRV records it
//! cannot read again, and has them from a second one on the loopback, which is started anew with each change.

use std::fmt::Write;

use roadstead_core::model::network::{Bridge, HostNetwork, NAME_SERVER};

use super::script::FOLDER;

/// For how long an answer may be kept, in seconds: a task that stops is asked for no longer than this.
const TTL_S: u32 = 5;
/// Where the one for SRV records listens.
const SRV_ADDRESS: &str = "127.0.53.73";
const SRV_PORT: u16 = 5373;

/// The configuration of the one that is asked: where it listens, and what it answers for.
pub fn configuration(wanted: &HostNetwork) -> String {
    let names = &wanted.fleet.names;
    let mut text = String::from(
        "user=root\npid-file=/run/dnsmasq.pid\nno-hosts\nbind-dynamic\ndomain-needed\nbogus-priv\ncache-size=1000\n",
    );
    let _ = writeln!(text, "local-ttl={TTL_S}\nmax-cache-ttl={TTL_S}");
    let _ = writeln!(text, "addn-hosts={FOLDER}/names.hosts\nservers-file={FOLDER}/names.servers");
    let gateways = wanted.bridges.iter().map(Bridge::gateway);
    for address in gateways.chain([NAME_SERVER]) {
        let _ = writeln!(text, "listen-address={address}");
    }
    if is_name(&names.namespace) {
        // What is not known there does not exist: nobody else is asked.
        let _ = writeln!(text, "local=/{}/", names.namespace);
    }
    text
}

/// What the first one asks the second for.
pub fn servers(wanted: &HostNetwork) -> String {
    let mut text = String::new();
    for name in wanted.fleet.names.addresses.keys().filter(|name| is_name(name)) {
        let _ = writeln!(text, "server=/_tcp.{name}/_udp.{name}/{SRV_ADDRESS}#{SRV_PORT}");
    }
    text
}

/// The configuration of the second one: the services' ports.
pub fn services(wanted: &HostNetwork) -> String {
    let mut text = format!(
        "user=root\npid-file=/run/dnsmasq-srv.pid\nno-hosts\nno-resolv\nbind-interfaces\nlisten-address={SRV_ADDRESS}\n\
         port={SRV_PORT}\nlocal-ttl={TTL_S}\n"
    );
    for (service, targets) in wanted.fleet.names.services.iter().filter(|(service, _)| is_name(service)) {
        for (target, port) in targets.iter().filter(|(target, _)| is_name(target)) {
            let _ = writeln!(text, "srv-host={service},{target},{port}");
        }
    }
    text
}

/// The addresses, as in hosts(5).
pub fn hosts(wanted: &HostNetwork) -> String {
    let mut text = String::new();
    for (name, addresses) in wanted.fleet.names.addresses.iter().filter(|(name, _)| is_name(name)) {
        for address in addresses {
            let _ = writeln!(text, "{address} {name}");
        }
    }
    text
}

/// Whether it can stand in a file of dnsmasq's: admission sees to it, and nothing is left to that alone.
fn is_name(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= 253 && name.bytes().all(is_good)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

    use roadstead_core::model::network::{FleetNetwork, Names};

    use super::*;

    fn network(names: Names) -> HostNetwork {
        HostNetwork {
            node_image: "node".into(),
            bridges: vec![Bridge { subnet: "a".into(), slice: "10.64.1.0/24".parse().unwrap(), lan: None }],
            routes: BTreeMap::new(),
            tunnel: None,
            on_lan: Default::default(),
            tasks: BTreeMap::new(),
            fleet: Arc::new(FleetNetwork {
                balancers: Default::default(),
                cluster: "default".into(),
                cidr: "10.64.0.0/16".parse().unwrap(),
                hosts: Default::default(),
                groups: BTreeMap::new(),
                members: BTreeMap::new(),
                names,
            }),
        }
    }

    #[test]
    fn names_are_written_where_they_can_change_without_a_restart() {
        let address = Ipv4Addr::new(10, 64, 1, 2);
        let names = Names {
            namespace: "klp.local".into(),
            addresses: [("web.klp.local".to_owned(), [address].into()), ("none.klp.local".to_owned(), [].into())]
                .into(),
            services: [("_80._tcp.web.klp.local".to_owned(), [("1.web.klp.local".to_owned(), 80)].into())].into(),
        };
        let network = network(names);
        assert_eq!(hosts(&network), "10.64.1.2 web.klp.local\n");
        assert!(servers(&network).contains("server=/_tcp.web.klp.local/_udp.web.klp.local/127.0.53.73#5373\n"));
        assert!(services(&network).contains("srv-host=_80._tcp.web.klp.local,1.web.klp.local,80\n"));
        let configuration = configuration(&network);
        assert!(configuration.contains("listen-address=10.64.1.1\n") && configuration.contains("local=/klp.local/\n"));
        assert!(!configuration.contains("web"), "it stays as it is when services and tasks come and go");
    }

    #[test]
    fn what_is_no_name_is_written_nowhere() {
        for bad in ["a\naddress=/#/10.0.0.1", "a b", "a/b", "a,b", "", "ü"] {
            let names = Names {
                namespace: bad.into(),
                addresses: [(bad.to_owned(), [Ipv4Addr::new(10, 64, 1, 2)].into())].into(),
                services: [(bad.to_owned(), [(bad.to_owned(), 80)].into())].into(),
            };
            let (network, without) = (network(names), network(Names::default()));
            for write in [configuration, hosts, servers, services] {
                assert_eq!(write(&network), write(&without), "{bad:?}");
            }
        }
    }
}
