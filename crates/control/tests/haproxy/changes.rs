//! What clients notice of changes: nothing.

use std::sync::atomic::Ordering::SeqCst;

use roadstead_core::model::{
    spec::load_balancer::WeightedGroup,
    traffic::{Edge, RuleRef, TargetHealth},
};
use serde_json::json;

use crate::{
    lab::{Balancer, Client, Upstream, edge, get, group, inside, log, run, until},
    load::Load,
};

fn shares(edge: &mut Edge, weights: &[(&str, u32)]) {
    let weighted = |(group, weight): &(&str, u32)| WeightedGroup { target_group: (*group).into(), weight: *weight };
    edge.forwards.insert(RuleRef::named("lb/http"), weights.iter().map(weighted).collect());
}

fn starts() -> usize {
    log().matches("Loading success").count()
}

#[test]
fn a_swap_fails_no_request_and_leaves_no_answer_of_the_old_side() {
    inside("changes::a_swap_fails_no_request_and_leaves_no_answer_of_the_old_side", || {
        let (b1, b2) = (Upstream::up("blue-1"), Upstream::up("blue-2"));
        let (g1, g2) = (Upstream::up("green-1"), Upstream::up("green-2"));
        let listeners = json!([{"name": "http", "port": 8000, "defaultAction": {"forward": "blue"}}]);
        let mut edge = edge(listeners, &[("blue", group(), &[&b1, &b2]), ("green", group(), &[&g1, &g2])]);
        let mut balancer = Balancer::up();
        balancer.shows(&edge);
        let load = Load::on(8000, &["blue", "green"]);
        for turn in 0..20 {
            let to = if turn % 2 == 0 { [("blue", 0), ("green", 1)] } else { [("blue", 1), ("green", 0)] };
            shares(&mut edge, &to);
            load.while_changing(|| balancer.apply(&edge).unwrap());
            load.goes_on();
        }
        load.ends();
        assert_eq!(starts(), 1, "it was never reloaded");

        shares(&mut edge, &[("blue", 9), ("green", 1)]);
        balancer.apply(&edge).unwrap();
        let mut client = Client::new(8000);
        let green = (0..1_000).filter(|_| client.get("/").body.starts_with("green")).count();
        // Five times the deviation to either side.
        assert!((52..=148).contains(&green), "{green} of 1000, 100 expected");

        // A controller that is new finds all as it should be.
        balancer.applied.forget();
        balancer.apply(&edge).unwrap();
        assert_eq!(starts(), 1, "it was never reloaded");
    });
}

#[test]
fn a_reload_fails_no_request() {
    inside("changes::a_reload_fails_no_request", || {
        let (b1, b2) = (Upstream::up("blue-1"), Upstream::up("blue-2"));
        let g1 = Upstream::up("green-1");
        let listeners = |ports: u16| {
            let listener = |port| json!({"name": format!("more-{port}"), "port": port});
            let mut all = vec![json!({"name": "http", "port": 8000, "defaultAction": {"forward": "blue"}})];
            all.extend((0..ports).map(|more| listener(8001 + more)));
            json!(all)
        };
        let made = |ports| edge(listeners(ports), &[("blue", group(), &[&b1, &b2]), ("green", group(), &[&g1])]);
        let mut balancer = Balancer::up();
        balancer.shows(&made(0));
        // A connection that nothing is asked on until all has changed.
        let mut idle = Client::new(8000);
        idle.get("/");
        let load = Load::on(8000, &["blue", "green"]);
        for ports in 1..5 {
            balancer.apply(&made(ports)).unwrap();
            assert_eq!(get(8000 + ports, "/").status, 404);
            // Health was not forgotten.
            let state = balancer.look(&made(ports));
            assert!(state.targets.values().flatten().all(|(_, it)| it.health == TargetHealth::Healthy), "{state:?}");
            load.goes_on();
        }
        let mut swapped = made(4);
        shares(&mut swapped, &[("green", 1)]);
        load.while_changing(|| balancer.apply(&swapped).unwrap());
        assert_eq!(idle.get("/").body, "green-1", "also by a worker of before");
        load.goes_on();
        load.ends();
        assert_eq!(starts(), 5);
    });
}

#[test]
fn a_target_that_leaves_finishes_what_it_does() {
    inside("changes::a_target_that_leaves_finishes_what_it_does", || {
        let (a, b) = (Upstream::up("a"), Upstream::up("b"));
        let listeners = json!([{"name": "http", "port": 8000, "defaultAction": {"forward": "app"}}]);
        let mut spec = group();
        spec["stickiness"] = json!({"enabled": true, "duration": 60});
        let mut edge = edge(listeners, &[("app", spec, &[&a, &b])]);
        let mut balancer = Balancer::up();
        balancer.shows(&edge);

        let with_cookie = |path: &str| {
            let mut client = Client::new(8000);
            client.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nCookie: other=1; RSALB=a\r\n\r\n"));
            client
        };
        for _ in 0..6 {
            let answer = with_cookie("/").answer();
            assert_eq!(answer.body, "a");
            assert!(answer.head.contains("set-cookie: RSALB=a; Max-Age=60"), "{}", answer.head);
        }
        let mut held = with_cookie("/held");
        until("the request has come", || (a.does.waiting.load(SeqCst) == 1).then_some(()));

        edge.groups.get_mut("app").unwrap().targets.get_mut("a").unwrap().leaves = true;
        balancer.apply(&edge).unwrap();
        for _ in 0..10 {
            assert_eq!(with_cookie("/").answer().body, "b");
            assert_eq!(get(8000, "/").body, "b");
        }
        let is_idle = |balancer: &mut Balancer| {
            let state = balancer.look(&edge);
            assert_eq!(state.drift, None);
            state.targets["app"]["a"].idle
        };
        assert!(!is_idle(&mut balancer));
        // It leaves also where it is read from disk.
        let mut more = edge.clone();
        more.balancers.values_mut().for_each(|it| it.access_logs = true);
        balancer.apply(&more).unwrap();
        for _ in 0..4 {
            assert_eq!(with_cookie("/").answer().body, "b");
        }
        balancer.apply(&edge).unwrap();
        assert!(!is_idle(&mut balancer), "also what a worker of before still does counts");
        a.release();
        assert_eq!(held.answer().body, "a");
        until("idle", || is_idle(&mut balancer).then_some(()));

        edge.groups.get_mut("app").unwrap().targets.remove("a");
        let before = starts();
        balancer.apply(&edge).unwrap();
        assert_eq!(starts(), before, "no reload for a target");
        assert_eq!(balancer.look(&edge).drift, None);
        assert_eq!(get(8000, "/").body, "b");
    });
}

#[test]
fn a_new_target_waits_for_its_first_good_check() {
    inside("changes::a_new_target_waits_for_its_first_good_check", || {
        let (a, b, c) = (Upstream::up("a"), Upstream::up("b"), Upstream::up("c"));
        let listeners = json!([{"name": "http", "port": 8000, "defaultAction": {"forward": "app"}}]);
        let edge = |targets: &[&Upstream]| edge(listeners.clone(), &[("app", group(), targets)]);
        let mut balancer = Balancer::up();
        balancer.shows(&edge(&[&a]));
        b.set_healthy(false);
        let mut both = edge(&[&a, &b]);
        balancer.apply(&both).unwrap();
        let of = |balancer: &mut Balancer, wanted: &Edge, task: &str| {
            let state = balancer.look(wanted);
            assert_eq!(state.drift, None);
            state.targets["app"][task].clone()
        };
        let unhealthy = |balancer: &mut Balancer, wanted: &Edge, task: &str| {
            until("unhealthy", || {
                assert_eq!(get(8000, "/").body, "a");
                let seen = of(balancer, wanted, task);
                (seen.health == TargetHealth::Unhealthy).then_some(seen.reason)
            })
        };
        assert_eq!(unhealthy(&mut balancer, &both, "b"), Some("HTTP 500".to_owned()));
        // By a reload, too, nothing comes to one that was never checked.
        c.set_healthy(false);
        both = edge(&[&a, &b, &c]);
        both.balancers.values_mut().for_each(|it| it.idle_timeout.0 = 50);
        balancer.apply(&both).unwrap();
        assert_eq!(of(&mut balancer, &both, "b").health, TargetHealth::Unhealthy);
        assert_eq!(unhealthy(&mut balancer, &both, "c"), Some("HTTP 500".to_owned()));
        assert_eq!((b.requests(), c.requests()), (0, 0));
        b.set_healthy(true);
        until("healthy", || (of(&mut balancer, &both, "b").health == TargetHealth::Healthy).then_some(()));
        until("its share", || (get(8000, "/").body == "b").then_some(()));
        assert_eq!(c.requests(), 0);

        // None is healthy: all get requests.
        a.set_healthy(false);
        b.set_healthy(false);
        until("no healthy one", || {
            assert_eq!(get(8000, "/").status, 200);
            let seen = balancer.look(&both);
            seen.targets.values().flatten().all(|(_, it)| it.health == TargetHealth::Unhealthy).then_some(())
        });
        let before = c.requests();
        for _ in 0..9 {
            assert_eq!(get(8000, "/").status, 200);
        }
        assert_eq!(c.requests(), before + 3);
    });
}

#[test]
fn a_target_that_came_at_runtime_is_asked_on_connections_that_stay_open() {
    inside("changes::a_target_that_came_at_runtime_is_asked_on_connections_that_stay_open", || {
        let (first, second) = (Upstream::up("first"), Upstream::up("second"));
        let listeners = json!([{"name": "http", "port": 8000, "defaultAction": {"forward": "app"}}]);
        let mut balancer = Balancer::up();
        balancer.shows(&edge(listeners.clone(), &[("app", group(), &[&first])]));
        balancer.shows(&edge(listeners, &[("app", group(), &[&second])]));
        assert_eq!(starts(), 1, "it was never reloaded");
        let mut client = Client::new(8000);
        assert!((0..50).all(|_| client.get("/").body == "second"));
        let table = run("echo 'show stat' | socat - unix:/run/roadstead-lb/admin.sock");
        let mut rows = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let header = rows.next().unwrap();
        let reused = header.iter().position(|name| *name == "reuse").unwrap();
        let of_target = rows.find(|row| row[0] == "g.app" && row[1] != "BACKEND").unwrap();
        assert!(of_target[reused].parse::<u32>().unwrap() > 40, "{of_target:?}");
    });
}
