//! Fleet and request → host, or the exact explanation.

use super::*;

/// (what it shows, hosts, tasks, requests one after the other, their outcomes)
type Row =
    (&'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str], &'static [&'static str]);

const FILTERS: &[Row] = &[
    ("nothing speaks against a", &["a"], &[], &["web 256/512 :any"], &["a"]),
    ("the fleet is empty", &[], &[], &["web"], &["cluster default has no hosts"]),
    (
        "hosts of other clusters are not asked",
        &["a", "b cluster=klp"],
        &[],
        &["web 0/9999"],
        &["0/1 hosts fit: 1 lacks 9999 MiB memory (has 8192)"],
    ),
    (
        "each host is counted once, room only where it could be used",
        &["a 4096/300", "b 4096/200", "c draining disk=ssd", "d", "e disk=hdd"],
        &[],
        &["web 0/512 | host == a or host == b or attribute:disk == ssd"],
        &[
            "0/5 hosts fit: 2 lack 512 MiB memory (best has 300), 1 draining, 2 fail memberOf host == a or host == b or attribute:disk == ssd",
        ],
    ),
    (
        "every state has its word",
        &["a cordoned", "b draining", "c suspect", "d lost", "e untrusted", "f unseen"],
        &[],
        &["web"],
        &["0/6 hosts fit: 1 cordoned, 1 draining, 1 suspect, 1 lost, 1 untrusted, 1 not seen yet"],
    ),
    (
        "GPUs are counted as the hosts' manifests state them",
        &["a gpus=2", "b"],
        &[],
        &["ai gpus=1", "ai gpus=2", "ai gpus=1", "ai gpus=1", "web"],
        &[
            "a",
            "0/2 hosts fit: 2 lack 2 GPUs (best has 1; a Host says them in `gpus`)",
            "a",
            "0/2 hosts fit: 2 lack 1 GPUs (best has 0; a Host says them in `gpus`)",
            "b",
        ],
    ),
    (
        "who takes no GPU fits where more are used than there are",
        &["a gpus=1"],
        &["ai@a gpus=2"],
        &["web", "ai gpus=1"],
        &["a", "0/1 hosts fit: 1 lacks 1 GPUs (has 0; a Host says them in `gpus`)"],
    ),
    (
        "each request asks the hosts of its own cluster",
        &["a", "b cluster=klp"],
        &[],
        &["web", "web cluster=klp", "web"],
        &["a", "b", "a"],
    ),
    (
        "hosts without the attribute are a group, and the last of equals only",
        &["a rack=1", "b", "c rack=1"],
        &["web@c", "web@c", "web@b"],
        &["web spread=attribute:rack"],
        &["b"],
    ),
    ("the architecture must agree", &["a", "b ARM64"], &[], &["web ARM64", "web X86_64"], &["b", "a"]),
    ("no host has the architecture", &["a", "b"], &[], &["web ARM64"], &["0/2 hosts fit: 2 are not ARM64"]),
    ("exactly enough is enough", &["a 256/512"], &[], &["web 256/512"], &["a"]),
    (
        "what was placed is reserved: cpu",
        &["a 256/512"],
        &[],
        &["web 200/1", "web 57/1"],
        &["a", "0/1 hosts fit: 1 lacks 57 CPU units (has 56)"],
    ),
    (
        "tasks that run hold room",
        &["a 256/512"],
        &["db@a 0/500"],
        &["web 0/13"],
        &["0/1 hosts fit: 1 lacks 13 MiB memory (has 12)"],
    ),
    (
        "tasks that stop hold room",
        &["a 256/512"],
        &["db@a 0/500 stopping"],
        &["web 0/13"],
        &["0/1 hosts fit: 1 lacks 13 MiB memory (has 12)"],
    ),
    (
        "an overcommitted host has nothing left",
        &["a 256/512"],
        &["db@a 999/600"],
        &["web 1/1", "web"],
        &["0/1 hosts fit: 1 lacks 1 CPU units (has 0)", "a"],
    ),
    (
        "a fixed port is held by a foreign container",
        &["a :80", "b"],
        &[],
        &["web :80", "web :80"],
        &["b", "0/2 hosts fit: 2 have port 80/tcp in use"],
    ),
    (
        "a fixed port is held by a task",
        &["a"],
        &["db@a :80"],
        &["web :80"],
        &["0/1 hosts fit: 1 has port 80/tcp in use"],
    ),
    ("tcp and udp are different ports", &["a :80"], &[], &["web :80/udp"], &["a"]),
    (
        "a task cannot have one port twice",
        &["a"],
        &[],
        &["web :80 :80"],
        &["0/1 hosts fit: 1 cannot give port 80/tcp twice to one task"],
    ),
    (
        "distinctInstance: one on a host",
        &["a", "b"],
        &["web@a"],
        &["web distinct", "web distinct"],
        &["b", "0/2 hosts fit: 2 already run web (distinctInstance)"],
    ),
    (
        "distinctInstance overlooks tasks that stop and those of others",
        &["a"],
        &["web@a stopping", "db@a"],
        &["web distinct"],
        &["a"],
    ),
    (
        "a constraint that cannot be read lets nothing pass",
        &["a"],
        &[],
        &["web | attribute:disk = ssd"],
        &[
            "0/1 hosts fit: 1 cannot be judged by memberOf `attribute:disk = ssd`: a single `=`: write `==` (at byte 15)",
        ],
    ),
    ("task:group attracts", &["a", "b"], &["db@b"], &["web | task:group == service:db"], &["b"]),
    (
        "task:group repels, also from what was just placed",
        &["a", "b"],
        &["db@b"],
        &["db", "web | task:group != service:db"],
        &["a", "0/2 hosts fit: 2 fail memberOf task:group != service:db"],
    ),
];

const STRATEGIES: &[Row] = &[
    (
        "default: even over zones",
        &["a zone=1", "b zone=1", "c zone=2"],
        &[],
        &["web", "web", "web", "web"],
        &["a", "c", "b", "c"],
    ),
    (
        "default: then fewest of the service, then fewest tasks",
        &["a", "b", "c"],
        &["web@a", "db@b"],
        &["web", "web", "web"],
        &["c", "b", "a"],
    ),
    (
        "spread counts this service only",
        &["a zone=1", "b zone=2"],
        &["db@a", "db@a", "web@b"],
        &["web spread=zone"],
        &["a"],
    ),
    (
        "spread overlooks tasks that stop",
        &["a zone=1", "b zone=2"],
        &["web@a stopping", "web@b"],
        &["web spread=zone"],
        &["a"],
    ),
    (
        "the zone's full name is the same",
        &["a zone=1", "b zone=2"],
        &["web@a"],
        &["web spread=attribute:ecs.availability-zone"],
        &["b"],
    ),
    (
        "a full zone is passed over",
        &["a 10/10 zone=1", "b zone=2"],
        &[],
        &["web 8/8 spread=zone", "web 8/8 spread=zone", "web 8/8 spread=zone"],
        &["a", "b", "b"],
    ),
    (
        "hosts without the label are one group, last of equals",
        &["a", "b rack=1", "c rack=2", "d"],
        &[],
        &[
            "web spread=attribute:rack",
            "web spread=attribute:rack",
            "web spread=attribute:rack",
            "web spread=attribute:rack",
        ],
        &["b", "c", "a", "b"],
    ),
    (
        "spread over hosts",
        &["a", "b"],
        &["web@a", "db@b", "db@b"],
        &["web spread=instanceId", "web spread=host"],
        &["b", "a"],
    ),
    (
        "binpack memory: least left that still fits",
        &["a 99/300", "b 1/200", "c 99/100"],
        &[],
        &["web 1/150 binpack=memory", "web 1/150 binpack=memory", "web 0/100 binpack=memory"],
        &["b", "a", "c"],
    ),
    (
        "binpack cpu: least left that still fits",
        &["a 300/1", "b 200/99", "c 100/1"],
        &[],
        &["web 150/1 binpack=cpu"],
        &["b"],
    ),
    (
        "strategies in order: zone, then memory",
        &["a 9/500 zone=1", "b 9/400 zone=1", "c 9/900 zone=2"],
        &[],
        &[
            "web 1/100 spread=zone binpack=memory",
            "web 1/100 spread=zone binpack=memory",
            "web 1/100 spread=zone binpack=memory",
        ],
        &["b", "c", "b"],
    ),
    (
        "strategies in order: memory, then zone",
        &["a 9/500 zone=1", "b 9/400 zone=1", "c 9/400 zone=2"],
        &["web@b"],
        &["web 1/100 binpack=memory spread=zone"],
        &["c"],
    ),
    (
        "FARGATE spreads whatever the strategies say",
        &["a 9/100 zone=1", "b 9/200 zone=2"],
        &["web@a"],
        &["web 1/1 FARGATE binpack=memory"],
        &["b"],
    ),
    ("the name settles it", &["c", "b", "a"], &[], &["web binpack=memory"], &["a"]),
];

#[test]
fn every_row_holds() {
    for (what, fleet, running, requests, expected) in FILTERS.iter().chain(STRATEGIES) {
        let (fleet, running) = (hosts(fleet), tasks(running));
        let mut placer = placer(&fleet, &running);
        let outcomes: Vec<String> = requests.iter().map(|text| outcome(placer.place(&ask(text).request()))).collect();
        assert_eq!(outcomes, *expected, "{what}");
    }
}

#[test]
fn a_host_with_five_failures_in_five_minutes_comes_last_among_equals() {
    let fleet = hosts(&["a zone=1", "b zone=1", "c zone=2"]);
    let minutes = 60 * 1000;
    for (what, ask, expected) in [
        ("five, just now", ask("web").failed_on("a", 5, 0), "b"),
        ("five, on the minute", ask("web").failed_on("a", 5, 5 * minutes), "b"),
        ("five, a little too long ago", ask("web").failed_on("a", 5, 5 * minutes + 1), "a"),
        ("four", ask("web").failed_on("a", 4, 0), "a"),
        ("four and an old one", ask("web").failed_on("a", 4, 0).failed_on("a", 1, 6 * minutes), "a"),
        ("a host that nobody knows", ask("web").failed_on("x", 5, 0), "a"),
        ("all of them", ask("web").failed_on("a", 5, 0).failed_on("b", 5, 0).failed_on("c", 5, 0), "a"),
    ] {
        assert_eq!(outcome(placer(&fleet, &[]).place(&ask.request())), expected, "{what}");
    }
    // A strategy decides first.
    let alone = ask("web spread=zone").failed_on("c", 5, 0);
    assert_eq!(outcome(placer(&fleet, &tasks(&["web@a"])).place(&alone.request())), "c");
}

#[test]
fn a_daemon_goes_to_this_very_host_or_says_why_not() {
    let fleet = hosts(&["a disk=ssd 10/10", "b", "c disk=ssd draining", "d cluster=klp disk=ssd", "e disk=ssd ARM64"]);
    let mut placer = placer(&fleet, &[]);
    let daemon = ask("agent 6/6 X86_64 | attribute:disk == ssd");
    let names = |names: Vec<HostName>| names.into_iter().map(|name| name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(placer.eligible(&daemon.request())), ["a"]);
    for (host, expected) in [
        ("a", "a"),
        ("a", "0/1 hosts fit: 1 lacks 6 CPU units (has 4)"),
        ("b", "0/1 hosts fit: 1 fails memberOf attribute:disk == ssd"),
        ("c", "0/1 hosts fit: 1 draining"),
        ("d", "0/1 hosts fit: 1 is not in cluster default"),
        ("e", "0/1 hosts fit: 1 is not X86_64"),
        ("x", "0/1 hosts fit: 1 is not in cluster default"),
    ] {
        assert_eq!(outcome(placer.place_on(&host.into(), &daemon.request())), expected, "{host}");
    }
    // A host stays eligible when it has no room left.
    assert_eq!(names(placer.eligible(&daemon.request())), ["a"]);
    // Groups are asked, too, as they are now.
    let beside = ask("helper | task:group == service:agent");
    assert_eq!(names(placer.eligible(&beside.request())), ["a"]);
}

#[test]
fn dynamic_ports_are_free_different_and_not_those_just_given_back() {
    let fleet = hosts(&["a :40000"]);
    let mut placer = placer(&fleet, &[]);
    let pair = ask("web :any :any :any/udp :81");
    let ports = placer.place(&pair.request()).unwrap().ports;
    assert_eq!(
        ports.iter().map(|port| port.protocol).collect::<Vec<_>>(),
        [Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Tcp]
    );
    let [first, second, udp, fixed] = ports[..].iter().map(|port| port.host_port).collect::<Vec<_>>()[..] else {
        panic!()
    };
    assert_eq!(fixed, 81);
    assert_ne!(first, second);
    assert!([first, second, udp].iter().all(|port| DYNAMIC_PORTS.contains(port)));

    let held = |port| HostPort { protocol: Protocol::Tcp, port };
    let gone = Placed {
        service: &pair.service,
        host: &"a".into(),
        cpu: 0,
        memory: 0,
        gpus: 0,
        ports: vec![held(first), held(second), HostPort { protocol: Protocol::Udp, port: udp }, held(81)],
        address: None,
        counts: true,
    };
    placer.release(&gone);
    let again = placer.place(&Request { nth: 1, ..pair.request() }).unwrap().ports;
    assert!(again.iter().all(|port| [81].contains(&port.host_port) || ![first, second, udp].contains(&port.host_port)));
}

#[test]
fn the_last_dynamic_port_is_found_and_the_next_is_refused() {
    let mut host = host("a");
    host.ports =
        DYNAMIC_PORTS.filter(|port| *port != 45_678).map(|port| HostPort { protocol: Protocol::Tcp, port }).collect();
    host.ports.extend([port("80"), port("45678/udp")]);
    let fleet = [host];
    for nth in 0..20 {
        let mut placer = placer(&fleet, &[]);
        let one = Ask { nth, ..ask("web :any") };
        assert_eq!(placer.place(&one.request()).unwrap().ports[0].host_port, 45_678);
        assert_eq!(outcome(placer.place(&one.request())), "0/1 hosts fit: 1 has no dynamic port left");
        assert_eq!(outcome(placer.place(&ask("web :any/udp").request())), "a");
    }
    assert_eq!(outcome(placer(&fleet, &[]).place(&ask("web :81 :45679/udp :any").request())), "a");
    let taken = ask("web :45678 :any");
    assert_eq!(outcome(placer(&fleet, &[]).place(&taken.request())), "0/1 hosts fit: 1 has no dynamic port left");
}

#[test]
fn what_is_released_can_be_had_again_and_what_another_holds_cannot() {
    let (fleet, running) = (hosts(&["a 10/10 :81"]), tasks(&["web@a 10/10 :80 :81"]));
    let mut placer = placer(&fleet, &running);
    assert_eq!(placer.remaining(&"a".into()), Some((0, 0)));
    let again = ask("web 10/10 :80 distinct");
    assert_eq!(outcome(placer.place(&again.request())), "0/1 hosts fit: 1 already runs web (distinctInstance)");
    placer.uncount(&"web".into(), &"a".into());
    assert_eq!(outcome(placer.place(&again.request())), "0/1 hosts fit: 1 lacks 10 CPU units (has 0)");
    placer.release(&Placed { counts: false, ..running[0].placed() });
    assert_eq!(outcome(placer.place(&ask("web :81").request())), "0/1 hosts fit: 1 has port 81/tcp in use");
    assert_eq!(outcome(placer.place(&again.request())), "a");
    assert_eq!(placer.remaining(&"x".into()), None);
}

#[test]
fn released_gpus_can_be_had_again() {
    let (fleet, running) = (hosts(&["a gpus=4"]), tasks(&["ai@a gpus=3"]));
    let mut placer = placer(&fleet, &running);
    let all = ask("ai gpus=4");
    assert!(placer.place(&all.request()).is_err());
    placer.release(&running[0].placed());
    assert_eq!(outcome(placer.place(&all.request())), "a");
    assert!(placer.place(&all.request()).is_err());
}

#[test]
fn a_release_is_seen_by_spread_and_by_groups() {
    let (fleet, running) = (hosts(&["a zone=1", "b zone=2"]), tasks(&["web@a", "web@a", "web@b"]));
    let mut placer = placer(&fleet, &running);
    let beside = ask("side | task:group == service:web");
    let spread = ask("web spread=zone");
    assert_eq!(outcome(placer.place(&spread.request())), "b");
    running.iter().take(2).for_each(|task| placer.release(&task.placed()));
    assert_eq!(placer.eligible(&beside.request()), [HostName::from("b")]);
    assert_eq!(outcome(placer.place(&spread.request())), "a");
    assert_eq!(placer.eligible(&beside.request()).len(), 2);
}

#[test]
fn random_reaches_every_host_about_equally_and_again_the_same() {
    let fleet = hosts(&["a", "b", "c", "d"]);
    let draw = || {
        let mut placer = placer(&fleet, &[]);
        let host = |nth| outcome(placer.place(&Ask { nth, ..ask("web random") }.request()));
        (0..400).map(host).collect::<Vec<_>>()
    };
    let drawn = draw();
    assert_eq!(drawn, draw());
    for host in ["a", "b", "c", "d"] {
        let times = drawn.iter().filter(|name| *name == host).count();
        assert!((70..=130).contains(&times), "{host}: {times} of 400");
    }
}
