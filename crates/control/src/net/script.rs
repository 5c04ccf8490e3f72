//! What the node is told, as shell scripts: all of it can be told again without harm.

use std::fmt::Write;

use roadstead_core::model::network::{HostNetwork, NAME_SERVER};

use super::{lan, names, nft, tunnel};

/// Where the node keeps what it was told.
pub const FOLDER: &str = "/var/lib/roadstead";
/// Our routes bear this number: `ip route show proto 73`.
pub(super) const ROUTE_PROTOCOL: u8 = 73;
/// What a line begins with that tells of a difference; programs say other things, too.
pub const DRIFTED: &str = "! ";
/// No line of any file can be this.
const END: &str = "--end-of-this-file-of-roadstead--";

/// What runs when the node starts: what it was last told comes into force again, then names are answered until it is stopped.
pub fn boot_of_node() -> String {
    format!("{BEGIN}{}{KEEP}", tunnel::KEEP)
}

const BEGIN: &str = "
trap 'exit 0' TERM INT
cd /var/lib/roadstead || exit 1
";

const KEEP: &str = r#"
[ ! -f boot.sh ] || /bin/sh boot.sh
keep() {
  while :; do
    if [ -f "$1" ]; then dnsmasq --keep-in-foreground --conf-file="$PWD/$1"; sleep 0.1; else sleep 1; fi
  done
}
keep names.srv.conf &
keep names.conf &
wait
"#;

/// Packets go on to where they are sent, and those that stay on a bridge are judged, too.
const KERNEL: &str = r#"
echo 1 >/proc/sys/net/ipv4/ip_forward
if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; then
  echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
else
  echo "the kernel has no br_netfilter: packets between tasks of one host could not be judged (modprobe br_netfilter)"
  exit 1
fi
"#;

/// The parts of a host's network that come into force one by one; its rules tell by themselves what differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Lets pass Docker's own rules what ours judge.
    accept: String,
    /// Interfaces beside those of tasks on a LAN.
    lan: String,
    tunnel: String,
    routes: String,
    names: Names,
}

/// What the name servers read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Names {
    configuration: String,
    hosts: String,
    servers: String,
    services: String,
}

impl Names {
    fn of(wanted: &HostNetwork) -> Self {
        Self {
            configuration: names::configuration(wanted),
            hosts: names::hosts(wanted),
            servers: names::servers(wanted),
            services: names::services(wanted),
        }
    }

    fn files(&self) -> String {
        [
            file("names.conf.new", &self.configuration),
            file("names.srv.conf.new", &self.services),
            file("names.hosts", &self.hosts),
            file("names.servers", &self.servers),
        ]
        .concat()
    }
}

impl Parts {
    /// Of a whole picture.
    pub fn of(wanted: &HostNetwork) -> Self {
        Self {
            accept: accept(wanted),
            lan: lan::script(wanted),
            tunnel: tunnel::script(wanted),
            routes: routes(wanted),
            names: Names::of(wanted),
        }
    }

    /// Everything: after it the host is so, whatever it was before.
    pub fn whole(&self, wanted: &HostNetwork) -> String {
        if wanted.bridges.is_empty() {
            let boot = boot_without_bridges();
            let files = [file("routes.sh", &self.routes), file("boot.sh", &boot), self.names.files()].concat();
            return clear_network() + &files + &boot + NAMES;
        }
        let mut script = format!("cd {FOLDER}\n{KERNEL}");
        script += &file("accept.sh", &self.accept);
        script += &file("lan.sh", &self.lan);
        script += &file("tunnel.sh", &self.tunnel);
        script += &file("routes.sh", &self.routes);
        script += &self.names.files();
        script += &file("boot.sh", &boot());
        // Rules before routes: nothing is reached that is not judged.
        script += &transaction(&nft::ruleset(wanted));
        script += &on_bridges(&nft::bridge_ruleset(wanted));
        script += KEEP_RULES;
        // Nothing is known of what peers were told before.
        script += "rm -f /run/wg.peers\n/bin/sh accept.sh\n/bin/sh lan.sh\n/bin/sh tunnel.sh\n/bin/sh routes.sh\n";
        script += &listen();
        script += NAMES;
        script
    }

    /// What differs from `before`, which is in force; empty when nothing does. `wanted` and `was` are what these are of.
    pub fn since(&self, before: &Self, wanted: &HostNetwork, was: &HostNetwork) -> String {
        let mut script = String::new();
        let rules = rules_since(was, wanted);
        if !rules.is_empty() {
            script += &rules;
            script += KEEP_RULES;
        }
        if self.accept != before.accept {
            script += &file("accept.sh", &self.accept);
            script += "/bin/sh accept.sh\n";
        }
        if self.lan != before.lan {
            script += &file("lan.sh", &self.lan);
            script += "/bin/sh lan.sh\n";
        }
        if self.tunnel != before.tunnel {
            script += &file("tunnel.sh", &self.tunnel);
            script += "/bin/sh tunnel.sh\n";
        }
        if self.routes != before.routes || self.lan != before.lan || self.tunnel != before.tunnel {
            script += &file("routes.sh", &self.routes);
            script += "/bin/sh routes.sh\n";
        }
        if self.names != before.names {
            script += &self.names.files();
            script += NAMES;
        }
        if script.is_empty() { script } else { format!("cd {FOLDER}\n{script}") }
    }

    /// Prints what is not as it was when it was last told, each on a line that begins with [`DRIFTED`].
    pub fn check(wanted: &HostNetwork) -> String {
        let names = format!(
            "cd {FOLDER}\n\
             [ -n \"$(ip -4 addr show dev lo to {NAME_SERVER})\" ] || echo '! its address for names is gone'\n\
             kill -0 \"$(cat /run/dnsmasq.pid)\" 2>/dev/null || echo '! its name server is down'\n\
             kill -0 \"$(cat /run/dnsmasq-srv.pid)\" 2>/dev/null || echo '! its name server for ports is down'\n\
             [ \"$(ip -4 route show proto {ROUTE_PROTOCOL})\" = \"$(cat /run/routes)\" ] || echo '! its routes were changed'\n"
        );
        if wanted.bridges.is_empty() {
            return names;
        }
        let mut script = names
            + "[ \"$(nft -s list table inet roadstead 2>&1)\" = \"$(cat rules.nft)\" ] || echo '! its rules were changed'\n\
             [ \"$(cat /proc/sys/net/ipv4/ip_forward)\" = 1 ] || echo '! it forwards nothing'\n\
             [ \"$(cat /proc/sys/net/bridge/bridge-nf-call-iptables)\" = 1 ] || echo '! its bridges are not judged'\n\
             /bin/sh accept.sh check || echo \"! its engine's rules were made anew\"\n\
             /bin/sh lan.sh check || echo '! its interface among its tasks on a LAN was changed'\n\
             /bin/sh tunnel.sh check || echo '! its encrypted way to other hosts was changed'\n";
        for bridge in &wanted.bridges {
            let _ =
                writeln!(script, "[ -e /sys/class/net/{0} ] || echo '! its network {0} is gone'", bridge.interface());
        }
        script
    }
}

/// What differs in its rules. Both have the same networks; with none there are no rules.
fn rules_since(was: &HostNetwork, wanted: &HostNetwork) -> String {
    if wanted.bridges.is_empty() {
        return String::new();
    }
    let mut rules = match nft::update(was, wanted) {
        Some(update) if update.is_empty() => update,
        Some(update) => transaction(&update),
        None => transaction(&nft::ruleset(wanted)),
    };
    rules += &match nft::bridge_update(was, wanted) {
        Some(update) if update.is_empty() => update,
        Some(update) => on_bridges(&update),
        None => on_bridges(&nft::bridge_ruleset(wanted)),
    };
    rules
}

/// Takes everything of ours from the host but the node itself.
pub fn clear() -> String {
    clear_network()
        + &format!(
            "rm -f boot.sh names.conf names.srv.conf names.hosts names.servers\n\
             ip -4 addr del {NAME_SERVER}/32 dev lo 2>/dev/null || true\n"
        )
}

/// Takes all from the host that tasks with addresses need.
fn clear_network() -> String {
    format!(
        "nft delete table inet roadstead 2>/dev/null || true\n\
         nft delete table bridge roadstead 2>/dev/null || true\n\
         ip -4 route flush proto {ROUTE_PROTOCOL} || true\n\
         cd {FOLDER}\n\
         [ ! -f accept.sh ] || /bin/sh accept.sh clear\n\
         [ ! -f lan.sh ] || /bin/sh lan.sh clear\n\
         [ ! -f tunnel.sh ] || /bin/sh tunnel.sh clear\n\
         rm -f accept.sh lan.sh routes.sh rules.nft bridge.nft {}\n",
        tunnel::FILES
    )
}

/// Rules are read back from the kernel: what they are compared with later, and loaded from at the next boot.
const KEEP_RULES: &str = "nft -s list table inet roadstead >rules.nft.new\nmv rules.nft.new rules.nft\n\
    nft -s list table bridge roadstead >bridge.nft 2>/dev/null || rm -f bridge.nft\n";

/// The name server reads addresses again; where another configuration is needed the node starts another one by itself.
const NAMES: &str = "\
take() {\n  \
  if [ -f \"$1\" ] && [ \"$(cat \"$1\")\" = \"$(cat \"$1.new\")\" ]; then rm \"$1.new\"; return 1; fi\n  \
  mv \"$1.new\" \"$1\"\n\
}\n\
if take names.srv.conf; then kill \"$(cat /run/dnsmasq-srv.pid)\" 2>/dev/null || true; fi\n\
if take names.conf; then kill \"$(cat /run/dnsmasq.pid)\" 2>/dev/null || true\n\
else kill -HUP \"$(cat /run/dnsmasq.pid)\" 2>/dev/null || true; fi\n";

/// Names are asked for at an address that no other host is sent to.
fn listen() -> String {
    format!("ip -4 addr replace {NAME_SERVER}/32 dev lo scope host\n")
}

/// What a host without networks of its own puts back: the ways to tasks of other hosts, and names.
fn boot_without_bridges() -> String {
    format!("cd {FOLDER}\n/bin/sh routes.sh\n{}", listen())
}

fn boot() -> String {
    format!(
        "cd {FOLDER}\n{KERNEL}\
         if [ -f rules.nft ]; then {{ printf 'table inet roadstead\\ndelete table inet roadstead\\n'; cat rules.nft; }} | nft -f -; fi\n\
         if [ -f bridge.nft ]; then {{ printf 'table bridge roadstead\\ndelete table bridge roadstead\\n'; cat bridge.nft; }} | nft -f - || true; fi\n\
         /bin/sh accept.sh\n/bin/sh lan.sh\n/bin/sh tunnel.sh\n/bin/sh routes.sh\n{}",
        listen()
    )
}

/// A file of the node's folder, whole or not at all.
fn file(name: &str, content: &str) -> String {
    format!("cat >{name}.part <<'{END}'\n{content}{END}\nmv {name}.part {name}\n")
}

pub(super) fn transaction(rules: &str) -> String {
    format!("nft -f - <<'{END}'\n{rules}{END}\n")
}

/// A kernel that cannot tell hardware addresses on bridges loses only that.
fn on_bridges(rules: &str) -> String {
    format!("nft -f - <<'{END}' || echo 'no rules on bridges'\n{rules}{END}\n")
}

/// Docker drops what it did not ask for; what comes from our networks or goes there our own rules have judged before.
/// Said in the chain that Docker leaves to others, in the back-end that this host's Docker uses.
fn accept(wanted: &HostNetwork) -> String {
    let interfaces: Vec<String> = wanted.bridges.iter().map(|bridge| bridge.interface()).collect();
    format!(
        r#"interfaces='{}'
status=0
for tables in iptables iptables-legacy; do
  $tables -w 5 -S DOCKER-USER >/dev/null 2>&1 || continue
  for interface in $interfaces; do
    for way in -i -o; do
      rule="$way $interface -m comment --comment roadstead -j ACCEPT"
      $tables -w 5 -C DOCKER-USER $rule 2>/dev/null && continue
      case $1 in
        check) status=1 ;;
        clear) ;;
        *) $tables -w 5 -I DOCKER-USER $rule ;;
      esac
    done
  done
  $tables -w 5 -S DOCKER-USER 2>/dev/null | while read -r _ chain rule; do
    case $rule in *'--comment roadstead '*) ;; *) continue ;; esac
    interface=${{rule#-? }}
    interface=${{interface%% *}}
    case " $interfaces " in *" $interface "*) [ "$1" = clear ] || continue ;; esac
    $tables -w 5 -D "$chain" $rule
  done
  # To ask the other one would make its tables.
  break
done
exit $status
"#,
        interfaces.join(" ")
    )
}

/// Every other host's slices by that host, and nothing of before.
fn routes(wanted: &HostNetwork) -> String {
    let mut script = String::from("set -e\n");
    let plain = wanted.routes.iter().map(|(slice, via)| (slice.to_string(), format!("via {via}")));
    let routes: Vec<(String, String)> = plain.chain(tunnel::routes(wanted)).chain(lan::routes(wanted)).collect();
    for (slice, by) in &routes {
        let _ = writeln!(script, "ip -4 route replace {slice} {by} proto {ROUTE_PROTOCOL}");
    }
    script + &no_other_routes(&routes.iter().map(|(slice, _)| slice.clone()).collect::<Vec<_>>())
}

/// Takes away what is routed by us and is not to be, and keeps what is there then.
pub(super) fn no_other_routes(slices: &[String]) -> String {
    format!(
        "ip -4 route show proto {ROUTE_PROTOCOL} | while read -r slice _; do\n  \
           case \" {} \" in *\" $slice \"*) ;; *) ip -4 route del \"$slice\" proto {ROUTE_PROTOCOL} ;; esac\n\
         done\n\
         ip -4 route show proto {ROUTE_PROTOCOL} >/run/routes\n",
        slices.join(" ")
    )
}
