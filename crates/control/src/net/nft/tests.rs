use std::sync::Arc;

use proptest::prelude::*;
use roadstead_core::model::{
    network::{Bridge, FleetNetwork, GroupRules, Lan, LocalTask, Names, Tunnel},
    wireguard::Peer as TunnelPeer,
};

use super::*;

/// What a text for `nft -f -` leaves behind: sets with their elements, by table; and all else, line by line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Loaded {
    sets: BTreeMap<String, BTreeSet<String>>,
    rest: Vec<String>,
}

fn elements(text: &str) -> BTreeSet<String> {
    let inside = text.split_once('{').unwrap().1.rsplit_once('}').unwrap().0;
    inside.split(',').map(|element| element.trim().to_owned()).collect()
}

impl Loaded {
    fn load(text: &str) -> Self {
        let (mut loaded, mut set) = (Self::default(), None);
        for line in text.lines().map(str::trim) {
            match line.split_once(' ') {
                Some(("set", name)) => {
                    let name = name.trim_end_matches(" {").to_owned();
                    assert!(loaded.sets.insert(name.clone(), BTreeSet::new()).is_none(), "{name} twice");
                    set = Some(name);
                }
                Some(("elements", _)) => {
                    let name = set.clone().unwrap();
                    loaded.sets.insert(name, elements(line));
                }
                _ => loaded.rest.push(line.to_owned()),
            }
        }
        loaded
    }

    /// As nft does: what is to go must be there.
    fn apply(mut self, update: &str) -> Self {
        for line in update.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [verb, "element", _, TABLE, name, ..] = words.as_slice() else { panic!("{line}") };
            let set = self.sets.get_mut(*name).unwrap();
            for element in elements(line) {
                match *verb {
                    "add" => assert!(set.insert(element), "{line}: it is there"),
                    "delete" => assert!(set.remove(&element), "{line}: it is not there"),
                    other => panic!("{other}"),
                }
            }
        }
        self
    }
}

fn group(number: u8) -> SecurityGroupName {
    ["web", "data base", "x; flush ruleset", "web}"][usize::from(number % 4)].into()
}

prop_compose! {
    fn permission()(
        protocol in prop::sample::select(vec![IpProtocol::Tcp, IpProtocol::Udp, IpProtocol::Icmp, IpProtocol::All]),
        ports in prop::option::of(1..9u16),
        peers in prop::collection::vec(0..12u8, 1..4),
    ) -> Permission {
        let peer = |number: &u8| match number {
            0 => Peer::Cidr("0.0.0.0/0".parse().unwrap()),
            1 => Peer::Cidr("192.168.1.0/24".parse().unwrap()),
            2 => Peer::Cidr("10.64.0.1/32".parse().unwrap()),
            number => Peer::SecurityGroup(group(*number)),
        };
        Permission { protocol, ports: ports.map(|first| (first, first + 2)), peers: peers.iter().map(peer).collect() }
    }
}

fn rules() -> impl Strategy<Value = BTreeMap<SecurityGroupName, GroupRules>> {
    let permissions = || prop::collection::vec(permission(), 0..3);
    let one = (permissions(), permissions()).prop_map(|(ingress, egress)| GroupRules { ingress, egress });
    prop::collection::btree_map((0..4u8).prop_map(group), one, 0..4)
}

/// Tasks by the last number of their address, with groups and a checked port; members elsewhere; how many bridges.
type Members = (BTreeMap<u8, (BTreeSet<u8>, Option<u16>)>, BTreeMap<u8, BTreeSet<u8>>);

fn members() -> impl Strategy<Value = Members> {
    let task = (prop::collection::btree_set(0..4u8, 1..3), prop::option::of(1..9u16));
    let tasks = prop::collection::btree_map(2..9u8, task, 0..5);
    (tasks, prop::collection::btree_map(0..4u8, prop::collection::btree_set(2..9u8, 0..4), 0..4))
}

fn host(
    groups: &BTreeMap<SecurityGroupName, GroupRules>,
    members: &Members,
    has_second: bool,
    is_encrypted: bool,
) -> HostNetwork {
    let slices = ["10.64.0.0/24", "10.65.0.0/24"];
    let bridges = slices.iter().take(if has_second { 2 } else { 1 });
    let bridge = |slice: &&str| Bridge { subnet: (*slice).into(), slice: slice.parse().unwrap(), lan: None };
    let tasks = members.0.iter().map(|(last, (groups, checked))| {
        let local = LocalTask {
            task: format!("{last:016}").as_str().into(),
            security_groups: groups.iter().copied().map(group).collect(),
            checked: checked.iter().map(|port| (Protocol::Tcp, *port)).collect(),
            namespace: None,
        };
        (Ipv4Addr::new(10, 64, 0, *last), local)
    });
    let elsewhere = members
        .1
        .iter()
        .map(|(number, lasts)| (group(*number), lasts.iter().map(|last| Ipv4Addr::new(10, 64, 1, *last)).collect()));
    let beyond = "10.64.1.0/24".parse().unwrap();
    let peer = TunnelPeer { public_key: None, endpoint: None, slices: [beyond].into() };
    HostNetwork {
        node_image: "node".into(),
        bridges: bridges.map(bridge).collect(),
        routes: if is_encrypted { BTreeMap::new() } else { [(beyond, Ipv4Addr::new(192, 168, 1, 2))].into() },
        tunnel: is_encrypted.then(|| Tunnel { listen_port: 51820, peers: [("other".into(), peer)].into() }),
        on_lan: Default::default(),
        tasks: tasks.collect(),
        fleet: Arc::new(FleetNetwork {
            balancers: Default::default(),
            cluster: "default".into(),
            cidr: "10.64.0.0/16".parse().unwrap(),
            hosts: BTreeSet::from([Ipv4Addr::new(192, 168, 1, 1)]),
            groups: groups.clone(),
            members: elsewhere.collect(),
            names: Names::default(),
        }),
    }
}

proptest! {
    /// A small transaction and the whole leave the same behind; where only members differ over the same groups, it is enough.
    #[test]
    fn an_update_is_as_good_as_the_whole(
        rules in rules(), other_rules in rules(), before in members(), after in members(), same in 0..4u8, second: bool,
        encrypted: bool,
    ) {
        let before = host(&rules, &before, false, encrypted);
        let is_same = same > 0;
        let after = host(if is_same { &rules } else { &other_rules }, &after, second && same == 1, encrypted != (same == 2));
        for (update, whole) in [
            (update(&before, &after), ruleset as fn(&HostNetwork) -> String),
            (bridge_update(&before, &after), bridge_ruleset),
        ] {
            if let Some(update) = update {
                prop_assert_eq!(Loaded::load(&whole(&before)).apply(&update), Loaded::load(&whole(&after)));
            } else {
                let [before, after] = [&before, &after].map(|host| Loaded::load(&whole(host)));
                prop_assert!(before.rest != after.rest || !before.sets.keys().eq(after.sets.keys()));
            }
        }
        prop_assert_eq!(update(&after, &after), Some(String::new()));
        let all = (0..4).map(group).all(|name| rules.contains_key(&name));
        if is_same && all && before.bridges == after.bridges && before.tunnel == after.tunnel {
            prop_assert!(update(&before, &after).is_some());
        }
    }

    /// Whatever groups are called, nothing but words and our own signs gets into the text.
    #[test]
    fn a_groups_name_says_nothing_to_nft(name in ".{0,60}", other in ".{0,60}") {
        let (id, other_id) = (of_group("in", &name.as_str().into()), of_group("in", &other.as_str().into()));
        prop_assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && id.len() < 80);
        prop_assert_eq!(id == other_id, name == other);
    }
}

/// The chains of a text, by name.
fn chains(text: &str) -> BTreeMap<String, Vec<String>> {
    let (mut chains, mut name) = (BTreeMap::<String, Vec<String>>::new(), None);
    for line in text.lines().map(str::trim) {
        match (line.strip_prefix("chain "), &name) {
            (Some(chain), _) => name = Some(chain.trim_end_matches(" {").to_owned()),
            (None, Some(_)) if line == "}" => name = None,
            (None, Some(name)) => chains.entry(name.clone()).or_default().push(line.to_owned()),
            (None, None) => {}
        }
    }
    chains
}

proptest! {
    /// Inside a task's namespace its groups say what they say on a host, and nobody else's are there.
    #[test]
    fn inside_a_task_its_groups_say_what_they_say_on_its_host(rules in rules(), members in members()) {
        let mut wanted = host(&rules, &members, false, false);
        let lan = Lan { parent: None, router: "10.64.0.254/16".parse().unwrap() };
        for (address, task) in &wanted.tasks {
            prop_assert_eq!(task_ruleset(&wanted, *address), None, "of no LAN");
            prop_assert!(!task.security_groups.is_empty());
        }
        wanted.bridges[0].lan = Some(lan);
        let on_host = chains(&ruleset(&wanted));
        for (address, task) in &wanted.tasks {
            let inside = chains(&task_ruleset(&wanted, *address).unwrap());
            let is_ours = |name: &str| {
                task.security_groups.iter().any(|group| ["in", "out", "hosts"].iter().any(|what| of_group(what, group) == name))
            };
            let of_groups = |chains: &BTreeMap<String, Vec<String>>| -> BTreeMap<String, Vec<String>> {
                chains.iter().filter(|(name, _)| is_ours(name)).map(|(name, rules)| (name.clone(), rules.clone())).collect()
            };
            prop_assert_eq!(of_groups(&inside), of_groups(&on_host));
            let others = ["in_", "out_", "hosts_"];
            prop_assert!(inside.keys().all(|name| is_ours(name) || !others.iter().any(|what| name.starts_with(what))));
            for hook in ["input", "output", "forward"] {
                prop_assert!(inside[hook][0].ends_with("policy drop;"), "{hook}: {:?}", inside[hook]);
            }
            let accepts = |hook: &str| inside[hook].iter().filter(|rule| rule.ends_with("accept")).count();
            // Itself, what goes on, and checks; names and pings of its host.
            prop_assert_eq!((accepts("input"), accepts("output"), accepts("forward")), (3, 4, 0));
        }
        prop_assert_eq!(task_ruleset(&wanted, Ipv4Addr::new(10, 64, 0, 99)), None, "nobody's");
    }
}

#[test]
fn a_host_among_its_tasks_on_a_lan_is_there_for_them_alone() {
    let mut wanted = host(&BTreeMap::new(), &Default::default(), true, false);
    let forged = |wanted: &HostNetwork| chains(&ruleset(wanted)).remove("forged").unwrap();
    let rule = "iifname != @bridges ip daddr 10.64.0.1 counter drop".to_owned();
    assert!(!forged(&wanted).contains(&rule));
    wanted.bridges[0].lan = Some(Lan { parent: None, router: "10.64.0.254/16".parse().unwrap() });
    assert!(forged(&wanted).contains(&rule));
    // What goes to the others' machines on the LAN bears its own address.
    wanted.on_lan.insert("192.168.7.64/28".parse().unwrap());
    let leaving = chains(&ruleset(&wanted)).remove("leaving").unwrap();
    assert!(leaving[1].contains("192.168.7.64/28"), "{leaving:?}");
}
