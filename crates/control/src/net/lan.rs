//! Tasks that are machines on a LAN: what their host has beside them, and what is put inside their namespaces.
//!
//! A host does not reach its own machines on a LAN by its interface there (macvlan(4) does not hand frames to it). So it has a
//! second interface among them, with the first address of its slice and a route to the slice: by it come health checks, requests
//! of load balancers, and questions for names. The kernel answers on it for the host's other addresses, too.

use std::{fmt::Write, net::Ipv4Addr};

use roadstead_core::model::network::{Bridge, HostNetwork, Lan, mac_address};

use super::{
    nft,
    script::{DRIFTED, ROUTE_PROTOCOL, no_other_routes, transaction},
};

/// Prints the host's interface on a LAN: `$1` is what a person said, `$2` the LAN.
const PARENT: &str = r#"parent() {
  if [ -n "$1" ]; then echo "$1"; return; fi
  ip -4 -o addr show to "$2" scope global | while read -r _ name _; do
    case $name in rs-*|docker*|br-*) ;; *) echo "$name"; break ;; esac
  done
}
"#;

/// Names the interface in which a task's network is to be, for its engine: nothing when the host has none on the LAN.
pub fn parent(lan: &Lan) -> String {
    format!("{PARENT}{}\n", call(lan))
}

fn call(lan: &Lan) -> String {
    format!("parent '{}' {}", said(lan), lan.router.trunc())
}

/// What a person said of the interface: admission sees to it that it is a name, and nothing is left to that alone.
fn said(lan: &Lan) -> &str {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    lan.parent.as_deref().filter(|name| name.bytes().all(is_good)).unwrap_or_default()
}

fn on_lan(wanted: &HostNetwork) -> impl Iterator<Item = (&Bridge, &Lan)> {
    wanted.bridges.iter().filter_map(|bridge| Some((bridge, bridge.lan.as_ref()?)))
}

/// The host's interfaces among its tasks, and none of before. `check` says whether they are there, `clear` leaves none.
pub fn script(wanted: &HostNetwork) -> String {
    let names: Vec<String> = on_lan(wanted).map(|(bridge, _)| bridge.interface()).collect();
    let mut script = format!(
        r#"set -e
{PARENT}ip -o link show type macvlan | while read -r _ name _; do
  name=${{name%%[@:]*}}
  case $name in rs-*) ;; *) continue ;; esac
  case " {} " in *" $name "*) [ "$1" = clear ] || continue ;; esac
  [ "$1" = check ] || ip link del "$name"
done
[ "$1" != clear ] || exit 0
among() {{
  if [ "$1" = check ]; then
    [ -n "$(ip -4 -o addr show dev "$2" up to "$3/32")" ]
    return
  fi
  parent=$(parent "$5" "$6")
  if [ -z "$parent" ]; then
    echo "no interface of the host has an address of $6: say which one is on it in the subnet's parent, or leave the host out by availabilityZone"
    exit 1
  fi
  ip link show "$2" >/dev/null 2>&1 || ip link add "$2" link "$parent" address "$4" type macvlan mode bridge
  [ ! -e "/proc/sys/net/ipv6/conf/$2/disable_ipv6" ] || echo 1 >"/proc/sys/net/ipv6/conf/$2/disable_ipv6"
  ip -4 addr replace "$3/32" dev "$2"
  ip link set "$2" up
}}
"#,
        names.join(" ")
    );
    for (bridge, lan) in on_lan(wanted) {
        let (name, address) = (bridge.interface(), bridge.gateway());
        let parent = said(lan);
        let hardware = mac_address(address);
        let _ = writeln!(script, "among \"$1\" {name} {address} {hardware} '{parent}' {}", lan.router.trunc());
    }
    script
}

/// The way to a host's own tasks on a LAN, as `ip route` takes it.
pub(super) fn routes(wanted: &HostNetwork) -> impl Iterator<Item = (String, String)> {
    on_lan(wanted).map(|(bridge, _)| {
        (bridge.slice.to_string(), format!("dev {} scope link src {}", bridge.interface(), bridge.gateway()))
    })
}

/// What a task's namespace is to have in it: rules, and ways to tasks that are not on the LAN. None for an address of no LAN.
pub fn inside(wanted: &HostNetwork, address: Ipv4Addr) -> Option<String> {
    let (bridge, _) = on_lan(wanted).find(|(bridge, _)| bridge.slice.contains(&address))?;
    let rules = nft::task_ruleset(wanted, address)?;
    let mut script = transaction(&rules);
    script += "nft -s list table inet roadstead >/run/rules.nft\n";
    let gateway = bridge.gateway();
    let own = wanted.bridges.iter().filter(|other| other.lan.is_none()).map(|other| (other.slice, gateway));
    let mut slices = Vec::new();
    for (slice, via) in own.chain(wanted.routes.iter().map(|(slice, via)| (*slice, *via))) {
        // By its own host, where the other one is not on the LAN.
        let by = |via| format!("ip -4 route replace {slice} via {via} proto {ROUTE_PROTOCOL}");
        let _ = writeln!(script, "{} 2>/dev/null || {}", by(via), by(gateway));
        slices.push(slice.to_string());
    }
    Some(script + &no_other_routes(&slices))
}

/// Prints what is not as [`inside`] left it.
pub fn check() -> String {
    format!(
        "[ \"$(nft -s list table inet roadstead 2>&1)\" = \"$(cat /run/rules.nft)\" ] || echo '{DRIFTED}the rules inside a task were changed'\n\
         [ \"$(ip -4 route show proto {ROUTE_PROTOCOL})\" = \"$(cat /run/routes)\" ] || echo '{DRIFTED}the routes inside a task were changed'\n"
    )
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, process::Command, sync::Arc};

    use roadstead_core::model::network::{FleetNetwork, LocalTask, Names};

    use super::*;

    fn host(parent: Option<&str>) -> HostNetwork {
        let lan = Lan { parent: parent.map(str::to_owned), router: "192.168.7.1/24".parse().unwrap() };
        let bridge =
            |subnet: &str, slice: &str, lan| Bridge { subnet: subnet.into(), slice: slice.parse().unwrap(), lan };
        let task = LocalTask {
            task: "1".into(),
            security_groups: ["web".into()].into(),
            checked: Default::default(),
            namespace: None,
        };
        HostNetwork {
            node_image: "node".into(),
            bridges: vec![bridge("default", "10.64.0.0/24", None), bridge("lan", "192.168.7.64/28", Some(lan))],
            routes: [("10.64.1.0/24".parse().unwrap(), Ipv4Addr::new(192, 168, 7, 12))].into(),
            tunnel: None,
            on_lan: ["192.168.7.80/28".parse().unwrap()].into(),
            tasks: [(Ipv4Addr::new(192, 168, 7, 66), task)].into(),
            fleet: Arc::new(FleetNetwork {
                balancers: Default::default(),
                cluster: "default".into(),
                cidr: "10.64.0.0/16".parse().unwrap(),
                hosts: Default::default(),
                groups: BTreeMap::new(),
                members: BTreeMap::new(),
                names: Names::default(),
            }),
        }
    }

    #[test]
    fn a_host_is_among_its_own_tasks_with_the_first_address_of_its_slice() {
        let host = host(None);
        let name = host.bridges[1].interface();
        let line = format!("among \"$1\" {name} 192.168.7.65 02:42:c0:a8:07:41 '' 192.168.7.0/24\n");
        let text = script(&host);
        assert_eq!(text.matches("among \"$1\"").count(), 1, "{text}");
        assert!(text.ends_with(&line), "{text}");
        let route = ("192.168.7.64/28".to_owned(), format!("dev {name} scope link src 192.168.7.65"));
        assert_eq!(routes(&host).collect::<Vec<_>>(), [route]);
    }

    #[test]
    fn a_task_goes_by_the_lan_to_machines_on_it_and_by_hosts_to_the_rest() {
        let host = host(None);
        let text = inside(&host, Ipv4Addr::new(192, 168, 7, 66)).unwrap();
        assert!(text.contains("ip -4 route replace 10.64.0.0/24 via 192.168.7.65 proto 73"), "its own host's");
        assert!(text.contains("ip -4 route replace 10.64.1.0/24 via 192.168.7.12 proto 73"), "another's");
        assert!(!text.contains("route replace 192.168.7."), "{text}");
        let rules = text.find("nft -f -").unwrap();
        assert!(rules < text.find("ip -4 route").unwrap(), "rules before routes");
        assert_eq!(inside(&host, Ipv4Addr::new(10, 64, 0, 2)), None, "of no LAN");
        assert_eq!(inside(&host, Ipv4Addr::new(192, 168, 7, 67)), None, "nobody's");
    }

    #[test]
    fn only_a_name_is_said_of_the_interface() {
        for (said, want) in [("eth0.7", "eth0.7"), ("a b", ""), ("x';reboot;'", ""), ("$(reboot)", ""), ("", "")] {
            let text = script(&host(Some(said)));
            assert!(text.contains(&format!(" '{want}' 192.168.7.0/24\n")), "{said}: {text}");
            let lan = host(Some(said)).bridges[1].lan.clone().unwrap();
            assert!(parent(&lan).ends_with(&format!("parent '{want}' 192.168.7.0/24\n")), "{said}");
        }
    }

    #[test]
    fn a_shell_reads_what_it_is_told() {
        let host = host(Some("eth0"));
        let inside = inside(&host, Ipv4Addr::new(192, 168, 7, 66)).unwrap();
        for text in [script(&host), inside, check(), parent(host.bridges[1].lan.as_ref().unwrap())] {
            let output = Command::new("sh").args(["-n", "-c", &text]).output().unwrap();
            assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
