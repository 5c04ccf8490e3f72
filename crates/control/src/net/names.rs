//! Names as dnsmasq takes them. Rules: dnsmasq(8).
//!
//! Addresses are read again without a restart; SRV records and where it listens are not.

use std::fmt::Write;

use roadstead_core::model::network::HostNetwork;

use super::script::FOLDER;

/// For how long an answer may be kept, in seconds: a task that stops is asked for no longer than this.
const TTL_S: u32 = 5;

/// dnsmasq's configuration: where it listens, what it answers for, and the services' ports.
pub fn configuration(wanted: &HostNetwork) -> String {
    let names = &wanted.fleet.names;
    let mut text = String::from(
        "user=root\npid-file=/run/dnsmasq.pid\nno-hosts\nbind-dynamic\ndomain-needed\nbogus-priv\ncache-size=1000\n",
    );
    let _ = writeln!(text, "local-ttl={TTL_S}\nmax-cache-ttl=60\naddn-hosts={FOLDER}/names.hosts");
    for bridge in &wanted.bridges {
        let _ = writeln!(text, "listen-address={}", bridge.gateway());
    }
    if is_name(&names.namespace) {
        // What is not known there does not exist: nobody else is asked.
        let _ = writeln!(text, "local=/{}/", names.namespace);
    }
    for (service, targets) in names.services.iter().filter(|(service, _)| is_name(service)) {
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
