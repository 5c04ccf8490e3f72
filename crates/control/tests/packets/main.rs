//! Every packet passes or not as is said of it: hosts' rules, loaded into a kernel, against the verdicts on the same state.

mod encrypted;
mod far_end;
mod fleet;
mod lab;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    process::Command,
    sync::Arc,
};

use rand::{SeedableRng, rngs::StdRng};
use roadstead_control::net::nft;
use roadstead_core::{
    model::{
        network::{HostNetwork, mac_address},
        state::State,
    },
    plan::network::{
        pictures,
        verdict::{Endpoint, Flow, Packet, verdict},
    },
};

use far_end::{Ask, Probe, Seen};
use fleet::LISTENED;
use lab::Lab;

/// Said aloud; an error where everything that is needed was installed.
fn can_run() -> bool {
    let has = |program: &str| Command::new(program).arg("-V").output().is_ok_and(|output| output.status.success());
    let can = rustix::process::geteuid().is_root() && has("nft") && has("ip");
    if !can {
        assert!(std::env::var_os("ROADSTEAD_TESTS_MUST_RUN").is_none(), "needs root, nft and ip");
        eprintln!("skipped: needs root, nft and ip");
    }
    can
}

fn of_host(state: &State, host: &str) -> Arc<HostNetwork> {
    Arc::clone(&pictures(state)[host])
}

/// Puts all rules into force.
fn load(lab: &Lab, state: &State) {
    for (host, picture) in pictures(state) {
        lab.load(host.as_str(), &nft::ruleset(&picture));
        lab.load(host.as_str(), &nft::bridge_ruleset(&picture));
    }
}

/// Every packet between two of these ends, and who sends it: the namespace, and the source when it is to be another than the
/// first that comes to mind.
fn packets(lab: &Lab) -> Vec<(&'static str, Probe, Packet)> {
    let mut packets = Vec::new();
    let destinations: Vec<Ipv4Addr> = lab.places.iter().flat_map(|place| place.addresses.clone()).collect();
    for place in &lab.places {
        for (from, to) in place.addresses.iter().flat_map(|from| destinations.iter().map(move |to| (*from, *to))) {
            // Among themselves host and outside are none of ours.
            let is_tasks = |address: Ipv4Addr| fleet::TASKS.iter().any(|task| task.address == address);
            if place.addresses.contains(&to) || !(is_tasks(from) || is_tasks(to)) {
                continue;
            }
            let flows = LISTENED.iter().flat_map(|port| [Flow::Tcp(*port), Flow::Udp(*port)]).chain([Flow::Echo]);
            packets.extend(flows.map(|flow| {
                let packet = Packet { from: Endpoint::Address(from), to: Endpoint::Address(to), flow };
                (place.name, Probe::new(from, to, flow), packet)
            }));
        }
    }
    packets
}

/// Sends all of them, and compares.
fn compare(lab: &mut Lab, state: &State, round: &str) {
    let all = packets(lab);
    let (mut passed, mut refused, mut wrong) = (0, 0, Vec::new());
    let mut answers = lab.seen(all.iter().map(|(place, probe, _)| (*place, probe.clone())).collect());
    for ((place, probe, packet), seen) in all.iter().zip(&mut answers) {
        let verdict = verdict(state, packet).unwrap();
        if verdict.passes() && seen.is_none() {
            // A machine that has much to do may have been late.
            *seen = lab.seen(vec![(*place, probe.clone())])[0];
        }
        *(if seen.is_some() { &mut passed } else { &mut refused }) += 1;
        let is_as_said = match seen {
            Some(Seen::As(from)) => verdict.passes() && *from == verdict.from,
            Some(Seen::Untold) => verdict.passes(),
            None => !verdict.passes(),
        };
        if !is_as_said {
            let said = format!("from {}, egress: {}; ingress: {}", verdict.from, verdict.egress, verdict.ingress);
            wrong.push(format!("{place} {probe:?}: {seen:?}, but {said}"));
        }
    }
    eprintln!("{round}: {passed} packets passed, {refused} did not");
    assert!(wrong.is_empty(), "{round}: {} of {} are wrong:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    assert!(passed > 100 && refused > 100, "{round} shows little");
}

#[test]
#[ignore = "live: makes network namespaces"]
fn every_packet_passes_as_is_said_of_it() {
    if !can_run() {
        return;
    }
    let mut lab = Lab::up("matrix");
    let state = fleet::state(&fleet::groups());
    load(&lab, &state);
    compare(&mut lab, &state, "as written");
    for seed in 1..=4 {
        let state = fleet::state(&fleet::drawn(&mut StdRng::seed_from_u64(seed)));
        load(&lab, &state);
        compare(&mut lab, &state, &format!("drawn from seed {seed}"));
    }
}

#[test]
#[ignore = "live: makes network namespaces"]
fn members_come_and_go_in_small_transactions_and_what_runs_goes_on() {
    if !can_run() {
        return;
    }
    let mut lab = Lab::up("members");
    let with = fleet::state(&fleet::groups());
    let without = fleet::without_member(&with, "web1");
    load(&lab, &with);
    let (with, without) = (of_host(&with, "h1"), of_host(&without, "h1"));
    let whole = lab.table("h1");
    let probe = || ("web1", Probe::new(fleet::address("web1"), fleet::address("db1"), Flow::Tcp(5432)));
    assert_eq!(lab.probe(vec![probe()]), [true]);
    assert!(lab.ask("web1", &Ask::Hold(probe().1)));

    let update = nft::update(&with, &without).unwrap();
    assert!(update.lines().count() <= 4, "{update}");
    lab.load("h1", &update);
    assert_eq!(lab.probe(vec![probe()]), [false], "it is no member any more");
    assert!(lab.ask("web1", &Ask::Talk), "what was allowed goes on");
    let updated = lab.table("h1");
    lab.load("h1", &nft::ruleset(&without));
    assert_eq!(updated, lab.table("h1"), "the update is as good as the whole");

    lab.load("h1", &nft::update(&without, &with).unwrap());
    assert_eq!(lab.probe(vec![probe()]), [true]);
    assert_eq!(lab.table("h1"), whole);
    lab.load("h1", &nft::ruleset(&with));
    assert!(lab.ask("web1", &Ask::Talk), "also when all rules are replaced");
    // A transaction that cannot be done changes nothing.
    assert!(!lab.try_load("h1", &nft::update(&without, &with).unwrap().replace("add", "delete").repeat(2)));
    assert_eq!(lab.table("h1"), whole);
}

#[test]
#[ignore = "live: makes network namespaces"]
fn nobody_bears_an_address_that_is_not_his() {
    if !can_run() {
        return;
    }
    let mut lab = Lab::up("forged");
    let state = fleet::state(&fleet::groups());
    let (of_web, of_db, nobodys): (Ipv4Addr, Ipv4Addr, Ipv4Addr) =
        (fleet::address("web1"), fleet::address("db1"), Ipv4Addr::new(10, 77, 0, 99));
    let (gateway, elsewhere) = (Ipv4Addr::new(10, 77, 0, 1), fleet::address("web3"));
    for address in [of_db, nobodys, elsewhere] {
        lab.ip("web1", &format!("address add {address}/32 dev eth0"));
        lab.ip("web1", "neighbour flush all");
    }
    let names = |from| ("web1", Probe::new(from, gateway, Flow::Udp(53)));
    assert_eq!(lab.probe(vec![names(of_web), names(nobodys)]), [true, true], "without rules both pass");
    lab.load("h1", &nft::ruleset(&of_host(&state, "h1")));
    assert_eq!(lab.dropped("h1", "inet", "forged"), 0);
    assert_eq!(lab.probe(vec![names(of_web), names(nobodys), names(elsewhere)]), [true, false, false]);
    assert!(lab.dropped("h1", "inet", "forged") >= 2);
    // A neighbour's address is told apart by the hardware's.
    lab.load("h1", &nft::bridge_ruleset(&of_host(&state, "h1")));
    assert_eq!(lab.dropped("h1", "bridge", "forged"), 0);
    assert_eq!(lab.probe(vec![names(of_web), names(of_db)]), [true, false]);
    assert!(lab.dropped("h1", "bridge", "forged") > 0);
    // From elsewhere, too, a task of this host cannot be played.
    lab.ip("outside", &format!("address add {of_web}/32 dev lan"));
    let before = lab.dropped("h1", "inet", "forged");
    assert_eq!(lab.probe(vec![("outside", Probe::new(of_web, of_db, Flow::Tcp(5432)))]), [false]);
    assert!(lab.dropped("h1", "inet", "forged") > before);
}

#[test]
#[ignore = "live: makes network namespaces"]
fn nobody_answers_in_a_neighbours_place() {
    if !can_run() {
        return;
    }
    let mut lab = Lab::up("neighbour");
    let state = fleet::state(&fleet::groups());
    lab.load("h1", &nft::ruleset(&of_host(&state, "h1")));
    let (thief, robbed) = (mac_address(fleet::address("web1")), fleet::address("db1"));
    // Who has it is silent, and another claims it.
    lab.ip("db1", "link set eth0 down");
    lab.ip("web1", &format!("address add {robbed}/32 dev eth0"));
    let found = |lab: &mut Lab| {
        lab.ip("h1", "neighbour flush all");
        lab.probe(vec![("outside", Probe::new(fleet::STRANGER, robbed, Flow::Udp(53)))]);
        lab.neighbour("h1", robbed).contains(&thief)
    };
    assert!(found(&mut lab), "where frames are not asked about it is believed");
    lab.load("h1", &nft::bridge_ruleset(&of_host(&state, "h1")));
    assert!(!found(&mut lab));
}

#[test]
#[ignore = "live: makes network namespaces"]
fn a_published_port_is_a_tasks_own() {
    if !can_run() {
        return;
    }
    let mut lab = Lab::up("published");
    let state = fleet::state(&fleet::groups());
    lab.load("h1", &nft::ruleset(&of_host(&state, "h1")));
    // As Docker does it.
    let (web, published) = (fleet::address("web1"), fleet::HOSTS[0].1);
    let rewrite = format!("ip daddr {published} tcp dport {{ 53, 8080 }} dnat to {web}");
    let lines = ["prerouting", "output"].map(|hook| {
        format!(
            "add chain ip published {hook} {{ type nat hook {hook} priority -100; }}\n\
             add rule ip published {hook} {rewrite}\n"
        )
    });
    lab.load("h1", &format!("add table ip published\n{}", lines.concat()));
    let probe = |place, from, port| (place, Probe::new(from, published, Flow::Tcp(port)));
    let all = [
        probe("outside", fleet::STRANGER, 8080),
        probe("outside", fleet::STRANGER, 53),
        probe("h1", published, 8080),
        probe("h1", published, 53),
    ];
    assert_eq!(lab.probe(all.to_vec()), [true, false, true, false]);
}

#[test]
#[ignore = "live: makes network namespaces"]
fn who_asks_from_a_host_learns_at_once_that_it_may_not() {
    if !can_run() {
        return;
    }
    let mut lab = Lab::up("reset");
    load(&lab, &fleet::state(&fleet::groups()));
    let (web, db) = (fleet::address("web1"), fleet::address("db1"));
    let rows = [
        ("db1", Probe::new(db, fleet::STRANGER, Flow::Tcp(8080)), true),
        ("db1", Probe::new(db, fleet::HOSTS[0].1, Flow::Tcp(8080)), true),
        ("h1", Probe::new(fleet::HOSTS[0].1, web, Flow::Tcp(53)), true),
        // Who is let out and not in hears nothing, wherever it is.
        ("web1", Probe::new(web, db, Flow::Tcp(8080)), false),
        ("outside", Probe::new(fleet::STRANGER, web, Flow::Tcp(53)), false),
    ];
    for (place, probe, is_told) in rows {
        assert_eq!(lab.ask(place, &Ask::Reset(probe.clone())), is_told, "{place} {probe:?}");
    }
}

#[test]
#[ignore = "live: makes network namespaces"]
fn tasks_speak_no_ipv6() {
    if !can_run() {
        return;
    }
    let mut lab = Lab::up("ipv6");
    let bridge = fleet::bridge_of(&fleet::TASKS[0]).interface();
    let ends: [(&'static str, &str, Ipv6Addr); 3] = [
        ("web1", "eth0", "fd77::2".parse().unwrap()),
        ("web2", "eth0", "fd77::3".parse().unwrap()),
        ("h1", &bridge, "fd77::1".parse().unwrap()),
    ];
    for (place, interface, address) in &ends {
        lab.set(place, "net/ipv6/conf/all/disable_ipv6", "0");
        lab.ip(place, &format!("address add {address}/64 dev {interface} nodad"));
        assert!(lab.ask(place, &Ask::Listen((*address).into())));
    }
    // The group of both lets everything out, and the port in from everywhere.
    let probe = |from: usize, to: usize| (ends[from].0, Probe::new(ends[from].2, ends[to].2, Flow::Tcp(8080)));
    let all = || vec![probe(0, 1), probe(0, 2), probe(2, 0)];
    assert_eq!(lab.probe(all()), [true; 3], "without rules");
    let state = fleet::state(&fleet::groups());
    lab.load("h1", &nft::ruleset(&of_host(&state, "h1")));
    assert_eq!(lab.probe(all()), [false; 3]);
    // From task to task also where the kernel asks only about frames.
    lab.set("h1", "net/bridge/bridge-nf-call-ip6tables", "0");
    assert_eq!(lab.probe(all()), [true, false, false]);
    lab.load("h1", &nft::bridge_ruleset(&of_host(&state, "h1")));
    assert_eq!(lab.probe(all()), [false; 3]);
}
