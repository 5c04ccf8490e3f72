//! The encrypted way to other hosts, as shell scripts. Rules: wg(8), wg-quick(8).
//!
//! The node makes the interface (see [`KEEP`]): the kernel's own, or one of wireguard-go, which ends with the node. Its key is
//! made here and stays in the node's folder. One peer is told after the other, and only what is new of it: where a peer
//! really is the kernel learns from its packets, and to tell it again would undo that.

use std::fmt::Write;

use roadstead_core::model::{
    network::{HostNetwork, Tunnel},
    wireguard::{INTERFACE, Peer, PublicKey},
};

/// What a line begins with that tells the host's public key.
const KEY: &str = "wireguard-key ";
/// Bytes that fit into one packet: those of a LAN (1500), less what WireGuard adds over IPv4 or IPv6.
pub const MTU: u32 = 1_420;
/// A peer behind a router that hides it is reached only while it sends: this often, in seconds.
const KEEPALIVE_S: u8 = 25;
/// Files of the node's folder: there is to be an interface while the first is there.
pub const FILES: &str = "wg.peers wg.key tunnel.sh";

/// Makes the interface when it is wanted and is not there, and what belongs to it.
pub const KEEP: &str = r#"
tunnel() {
  while :; do
    if [ -f wg.peers ] && [ ! -e /sys/class/net/rs-wg ]; then
      ip link add rs-wg type wireguard 2>/dev/null || wireguard-go rs-wg >/run/wireguard-go.log 2>&1 </dev/null || true
      ( /bin/sh tunnel.sh && /bin/sh routes.sh ) >/dev/null 2>&1 || true
    fi
    sleep 0.5
  done
}
tunnel &
"#;

/// Peers that can be told of: those whose key is known.
fn peers(tunnel: &Tunnel) -> impl Iterator<Item = (&PublicKey, &Peer)> {
    tunnel.peers.values().filter_map(|peer| Some((peer.public_key.as_ref()?, peer)))
}

/// Whether there is such a way, as a script that is run again and again; with `check` it only asks whether all is so, with
/// `clear` it takes it away.
pub fn script(wanted: &HostNetwork) -> String {
    let clear = format!("rm -f wg.peers /run/wg.peers\nip link del {INTERFACE} 2>/dev/null || true\n");
    let Some(tunnel) = &wanted.tunnel else {
        return format!("[ \"$1\" != check ] || {{ [ ! -e /sys/class/net/{INTERFACE} ]; exit; }}\n{clear}");
    };
    let (mut lines, mut behind) = (String::new(), String::new());
    for (key, peer) in peers(tunnel) {
        let endpoint = peer.endpoint.map_or_else(|| "-".to_owned(), |endpoint| endpoint.to_string());
        let slices: Vec<String> = peer.slices.iter().map(ToString::to_string).collect();
        let _ = writeln!(lines, "{key} {endpoint} {}", slices.join(","));
        slices.iter().for_each(|slice| {
            let _ = write!(behind, " {key}={slice}");
        });
    }
    let (count, port) = (behind.split_whitespace().count(), tunnel.listen_port);
    format!(
        r#"[ "$1" != clear ] || {{ {clear_line} exit 0; }}
if [ "$1" = check ]; then
  [ "$(cat /sys/class/net/{INTERFACE}/mtu 2>/dev/null)" = {MTU} ] || exit 1
  [ -n "$(ip -o link show up dev {INTERFACE})" ] || exit 1
  [ "$(wg show {INTERFACE} listen-port)" = {port} ] || exit 1
  [ "$(wg show {INTERFACE} public-key)" = "$(wg pubkey <wg.key)" ] || exit 1
  wg show {INTERFACE} allowed-ips | {{
    left={count}
    while read -r key slices; do
      for slice in $slices; do
        case '{behind} ' in *" $key=$slice "*) left=$((left - 1)) ;; *) exit 1 ;; esac
      done
    done
    [ "$left" = 0 ]
  }}
  exit
fi
set -e
umask 077
if [ ! -s wg.key ]; then
  wg genkey >wg.key.part
  mv wg.key.part wg.key
fi
cat >wg.peers.part <<'END'
{lines}END
mv wg.peers.part wg.peers
waited=0
until [ -e /sys/class/net/{INTERFACE} ] && wg show {INTERFACE} listen-port >/dev/null 2>&1; do
  waited=$((waited + 1))
  if [ "$waited" -gt 100 ]; then
    echo "no interface for WireGuard could be made: $(cat /run/wireguard-go.log 2>/dev/null)"
    exit 1
  fi
  sleep 0.1
done
wg set {INTERFACE} listen-port {port} private-key wg.key
ip link set {INTERFACE} mtu {MTU} up
said=$(cat /run/wg.peers 2>/dev/null || true)
there=$(wg show {INTERFACE} peers)
while read -r key endpoint slices; do
  case "$there" in *"$key"*) case "$said" in *"$key $endpoint $slices"*) continue ;; esac ;; esac
  set --
  [ "$endpoint" = - ] || set -- endpoint "$endpoint"
  wg set {INTERFACE} peer "$key" "$@" persistent-keepalive {KEEPALIVE_S} allowed-ips "$slices"
done <wg.peers
wanted=$(cat wg.peers)
for key in $there; do
  case "$wanted" in *"$key "*) ;; *) wg set {INTERFACE} peer "$key" remove ;; esac
done
cat wg.peers >/run/wg.peers
echo "{KEY}$(wg pubkey <wg.key)"
"#,
        clear_line = clear.replace('\n', "; "),
    )
}

/// The key in what the script printed.
pub fn public_key(said: &str) -> Option<PublicKey> {
    said.lines().find_map(|line| PublicKey::parse(line.strip_prefix(KEY)?.trim()))
}

/// Every other host's slices by this way. The host's own packets bear an address that the others let in.
pub fn routes(wanted: &HostNetwork) -> Vec<(String, String)> {
    let (Some(tunnel), Some(own)) = (&wanted.tunnel, wanted.bridges.first()) else { return Vec::new() };
    let by = format!("dev {INTERFACE} src {}", own.gateway());
    let slices = peers(tunnel).flat_map(|(_, peer)| &peer.slices);
    slices.map(|slice| (slice.to_string(), by.clone())).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use roadstead_core::model::network::{Bridge, FleetNetwork, Names};

    use super::*;

    const KEYS: [&str; 2] =
        ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="];

    fn host(peers: &[(Option<&str>, Option<&str>, &str)]) -> HostNetwork {
        let peer = |(number, (key, endpoint, slice)): (usize, &(Option<&str>, Option<&str>, &str))| {
            let peer = Peer {
                public_key: key.map(|key| PublicKey::parse(key).unwrap()),
                endpoint: endpoint.map(|endpoint| endpoint.parse().unwrap()),
                slices: [slice.parse().unwrap()].into(),
            };
            (format!("host-{number}").as_str().into(), peer)
        };
        HostNetwork {
            node_image: "node".into(),
            bridges: vec![Bridge { subnet: "a".into(), slice: "10.64.0.0/24".parse().unwrap(), lan: None }],
            routes: BTreeMap::new(),
            tunnel: Some(Tunnel { listen_port: 51_821, peers: peers.iter().enumerate().map(peer).collect() }),
            on_lan: Default::default(),
            tasks: BTreeMap::new(),
            fleet: Arc::new(FleetNetwork {
                cluster: "default".into(),
                cidr: "10.64.0.0/16".parse().unwrap(),
                hosts: Default::default(),
                balancers: Default::default(),
                groups: BTreeMap::new(),
                members: BTreeMap::new(),
                names: Names::default(),
            }),
        }
    }

    #[test]
    fn a_peer_is_told_of_when_its_key_is_known_and_found_where_it_is_said_to_be() {
        let [known, hidden] = KEYS;
        let host = host(&[
            (Some(known), Some("203.0.113.7:51820"), "10.64.1.0/24"),
            (Some(hidden), None, "10.64.2.0/24"),
            (None, Some("203.0.113.9:51820"), "10.64.3.0/24"),
        ]);
        let script = script(&host);
        assert!(script.contains(&format!("\n{known} 203.0.113.7:51820 10.64.1.0/24\n{hidden} - 10.64.2.0/24\nEND\n")));
        assert!(script.contains("listen-port 51821") && !script.contains("10.64.3.0"));
        let by = "dev rs-wg src 10.64.0.1".to_owned();
        assert_eq!(routes(&host), [("10.64.1.0/24".to_owned(), by.clone()), ("10.64.2.0/24".to_owned(), by)]);
    }

    #[test]
    fn without_a_tunnel_there_is_nothing_to_make() {
        let host = HostNetwork { tunnel: None, ..host(&[]) };
        assert!(routes(&host).is_empty() && !script(&host).contains("wg set"));
    }

    #[test]
    fn the_key_is_read_among_what_else_was_said() {
        let [key, _] = KEYS;
        assert_eq!(public_key(&format!("a warning\nwireguard-key {key}\n")), PublicKey::parse(key));
        assert_eq!(public_key("wireguard-key nothing\n"), None);
    }
}
