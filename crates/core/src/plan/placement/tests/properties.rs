//! What holds for every fleet and every sequence of requests.

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use query::parse;

fn any_host() -> impl Strategy<Value = OwnedHost> {
    let accepts = prop_oneof![9 => Just(Ok(())), 1 => Just(Err(Refusal::Draining)), 1 => Just(Err(Refusal::Lost))];
    let zone = option::of(select(vec!["1", "2", "3"]));
    let disk = option::of(select(vec!["ssd", "hdd"]));
    (0_u32..40, accepts, zone, disk, 0_u32..1024, 0_u32..1024, vec(80_u16..84, 0..3), any::<bool>()).prop_map(
        |(name, accepts, zone, disk, cpu, memory, ports, arm)| {
            let mut host = host(&format!("h{name:02} {cpu}/{memory}"));
            host.labels.extend(zone.map(|zone| ("availability-zone".to_owned(), zone.to_owned())));
            host.labels.extend(disk.map(|disk| ("disk".to_owned(), disk.to_owned())));
            host.accepts = accepts;
            host.ports = ports.into_iter().map(|port| HostPort { protocol: Protocol::Tcp, port }).collect();
            if arm {
                host.architecture = "ARM64".into();
            }
            host
        },
    )
}

/// Hosts of different names.
fn any_fleet() -> impl Strategy<Value = Vec<OwnedHost>> {
    vec(any_host(), 0..8).prop_map(|hosts| {
        let by_name: BTreeMap<HostName, OwnedHost> = hosts.into_iter().map(|host| (host.name.clone(), host)).collect();
        by_name.into_values().collect()
    })
}

fn any_ask() -> impl Strategy<Value = Ask> {
    let rest = ["", "distinct", "ARM64", ":any", ":80", ":81 :any", ":any :any/udp", "distinct :82"];
    let strategies = [
        "",
        "spread=zone",
        "spread=zone binpack=memory",
        "binpack=cpu",
        "random",
        "spread=attribute:disk random",
        "spread=host",
        "FARGATE",
    ];
    let constraint = [
        "",
        " | attribute:disk == ssd",
        " | attribute:disk !exists or attribute:disk == hdd",
        " | task:group != service:s1",
        " | nonsense",
    ];
    let parts = (select(&["s1", "s2", "s3"][..]), 0_u32..200, 0_u32..200, 0_u64..9, any::<bool>());
    (parts, select(rest.to_vec()), select(strategies.to_vec()), select(constraint.to_vec())).prop_map(
        |((service, cpu, memory, nth, fails), rest, strategies, constraint)| {
            let ask = ask(&format!("{service} {cpu}/{memory} nth={nth} {rest} {strategies}{constraint}"));
            if fails { ask.failed_on("h01", 5, 0) } else { ask }
        },
    )
}

fn run(hosts: &[OwnedHost], tasks: &[OwnedTask], asks: &[Ask]) -> Vec<Result<Placement, Unplaceable>> {
    let mut placer = placer(hosts, tasks);
    asks.iter().map(|ask| placer.place(&ask.request())).collect()
}

/// What was placed, as tasks.
fn as_tasks(asks: &[Ask], results: &[Result<Placement, Unplaceable>]) -> Vec<OwnedTask> {
    let placed = asks.iter().zip(results).filter_map(|(ask, result)| Some((ask, result.as_ref().ok()?)));
    placed
        .map(|(ask, placement)| OwnedTask {
            service: ask.service.clone(),
            host: placement.host.clone(),
            cpu: ask.cpu,
            memory: ask.memory,
            gpus: ask.gpus,
            ports: placement
                .ports
                .iter()
                .map(|port| HostPort { protocol: port.protocol, port: port.host_port })
                .collect(),
            address: placement.address.as_ref().map(|(_, address)| *address),
            counts: true,
        })
        .collect()
}

proptest! {
    #[test]
    fn never_overcommits_and_never_gives_a_port_twice(fleet in any_fleet(), asks in vec(any_ask(), 0..40)) {
        let results = run(&fleet, &[], &asks);
        let tasks = as_tasks(&asks, &results);
        for host in &fleet {
            let here: Vec<&OwnedTask> = tasks.iter().filter(|task| task.host == host.name).collect();
            prop_assert!(here.iter().map(|task| task.cpu).sum::<u32>() <= host.cpu);
            prop_assert!(here.iter().map(|task| task.memory).sum::<u32>() <= host.memory);
            let mut ports: Vec<HostPort> = here.iter().flat_map(|task| task.ports.clone()).collect();
            let given = ports.len();
            ports.sort_unstable();
            ports.dedup();
            prop_assert_eq!(ports.len(), given);
            prop_assert!(!ports.iter().any(|port| host.ports.contains(port)));
            prop_assert!(here.is_empty() || host.accepts.is_ok());
        }
    }

    #[test]
    fn a_placement_has_every_port_that_was_asked_for(fleet in any_fleet(), asks in vec(any_ask(), 0..20)) {
        for (ask, result) in asks.iter().zip(run(&fleet, &[], &asks)) {
            let Ok(placement) = result else { continue };
            prop_assert_eq!(placement.ports.len(), ask.ports.len());
            for (asked, given) in ask.ports.iter().zip(&placement.ports) {
                prop_assert_eq!(asked.protocol, given.protocol);
                match asked.host_port {
                    Some(port) if port != 0 => prop_assert_eq!(port, given.host_port),
                    _ => prop_assert!(DYNAMIC_PORTS.contains(&given.host_port)),
                }
            }
        }
    }

    #[test]
    fn explanations_account_for_every_host(fleet in any_fleet(), asks in vec(any_ask(), 0..40)) {
        for result in run(&fleet, &[], &asks) {
            if let Err(why) = result {
                prop_assert_eq!(why.total, fleet.len());
                prop_assert_eq!(why.reasons.iter().map(|(_, hosts)| hosts).sum::<usize>(), fleet.len());
            }
        }
    }

    #[test]
    fn the_order_of_the_input_means_nothing(
        (fleet, shuffled) in any_fleet().prop_flat_map(|fleet| (Just(fleet.clone()), Just(fleet).prop_shuffle())),
        first in vec(any_ask(), 0..20),
        asks in vec(any_ask(), 0..20),
    ) {
        let tasks = as_tasks(&first, &run(&fleet, &[], &first));
        let backwards: Vec<OwnedTask> = tasks.iter().rev().cloned().collect();
        prop_assert_eq!(run(&fleet, &tasks, &asks), run(&shuffled, &backwards, &asks));
    }

    /// What is counted as it goes is the same as what is counted anew.
    #[test]
    fn a_placer_that_placed_equals_one_that_was_told(fleet in any_fleet(), first in vec(any_ask(), 0..20), asks in vec(any_ask(), 0..20)) {
        let mut placed = placer(&fleet, &[]);
        let results: Vec<_> = first.iter().map(|ask| placed.place(&ask.request())).collect();
        let tasks = as_tasks(&first, &results);
        let mut gone = Vec::new();
        let mut kept = Vec::new();
        for (index, task) in tasks.into_iter().enumerate() {
            if index % 3 == 0 { gone.push(task) } else { kept.push(task) }
        }
        gone.iter().for_each(|task| placed.release(&task.placed()));
        let as_it_goes: Vec<_> = asks.iter().map(|ask| placed.place(&ask.request())).collect();
        prop_assert_eq!(as_it_goes, run(&fleet, &kept, &asks));
    }

    #[test]
    fn spread_keeps_equal_zones_within_one(hosts_per_zone in vec(1_usize..4, 1..5), n in 0_usize..40, default in any::<bool>()) {
        let mut fleet = Vec::new();
        for (zone, count) in hosts_per_zone.iter().enumerate() {
            fleet.extend((0..*count).map(|host| self::host(&format!("z{zone}h{host} zone={zone}"))));
        }
        let ask = ask(if default { "web 1/1" } else { "web 1/1 spread=zone binpack=memory" });
        let mut counts = vec![0; hosts_per_zone.len()];
        let mut placer = placer(&fleet, &[]);
        for _ in 0..n {
            let host = placer.place(&ask.request()).unwrap().host;
            let zone: usize = host.as_str()[1..host.as_str().find('h').unwrap()].parse().unwrap();
            counts[zone] += 1;
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }
    }

    #[test]
    fn any_text_gets_an_answer(text in "\\PC{0,60}", words in vec(select(WORDS.to_vec()), 0..12)) {
        for text in [text, words.concat(), words.join(" ")] {
            match parse(&text) {
                Ok(expr) => prop_assert_eq!(parse(&expr.to_string()), Ok(expr), "{}", text),
                Err(error) => prop_assert!(error.offset <= text.len()),
            }
        }
    }

    #[test]
    fn what_is_written_is_read_again(text in any_expression()) {
        let expr = parse(&text).unwrap();
        prop_assert_eq!(parse(&expr.to_string()).unwrap(), expr, "{}", text);
    }
}

const WORDS: [&str; 20] = [
    "attribute:a",
    "task:group",
    "==",
    "!=",
    "=~",
    "!",
    "in",
    "not_in",
    "exists",
    "[",
    "]",
    ",",
    "(",
    ")",
    "and",
    "or",
    "not",
    "x",
    "'",
    "5",
];

fn any_expression() -> impl Strategy<Value = String> {
    let value = select(vec!["a", "'x y'", "\"it's\"", "''", "7.5", "and", "ü", "a:b/c"]);
    let subject = select(vec!["attribute:a", "attribute:ü", "task:group", "host"]);
    let leaf = (subject, select(vec!["==", "!=", "in", "!in", "=~", "!~", "exists", "!exists"]), value).prop_map(
        |(subject, operator, value)| match operator {
            "in" | "!in" => format!("{subject} {operator} [{value}, b]"),
            "exists" | "!exists" => format!("{subject} {operator}"),
            "=~" | "!~" if value == "''" => format!("{subject} {operator} (a|[bc])*"),
            _ => format!("{subject} {operator} {value}"),
        },
    );
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} and {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} || {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} or {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) && not ({b})")),
            inner.prop_map(|a| format!("not {a}")),
        ]
    })
}
