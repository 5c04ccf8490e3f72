//! What goes wrong beside it.

use std::net::{Ipv4Addr, TcpListener};

use roadstead_core::model::{
    spec::load_balancer::Listener,
    traffic::{RuleRef, Target, TargetHealth},
};
use serde_json::json;

use crate::lab::{Balancer, Upstream, edge, get, group, inside, run, until};

#[test]
fn a_killed_worker_is_back_with_the_last_picture() {
    inside("faults::a_killed_worker_is_back_with_the_last_picture", || {
        let (blue, green) = (Upstream::up("blue"), Upstream::up("green"));
        let listeners = json!([{"name": "http", "port": 8000, "defaultAction": {"forward": "blue"}}]);
        let mut edge = edge(listeners, &[("blue", group(), &[&blue]), ("green", group(), &[])]);
        let mut balancer = Balancer::up();
        balancer.shows(&edge);
        // What is told at runtime is on disk, too.
        edge.groups.get_mut("green").unwrap().targets.insert("green".into(), green.target());
        balancer.shows(&edge);
        let to_green = serde_json::from_value(json!([{"targetGroup": "blue", "weight": 0}, {"targetGroup": "green"}]));
        edge.forwards.insert(RuleRef::named("lb/http"), to_green.unwrap());
        balancer.apply(&edge).unwrap();
        // The worker has the greater number.
        for victim in ["tail", "head"] {
            run(&format!("kill -9 $(pidof haproxy | tr ' ' '\\n' | sort -n | {victim} -n1)"));
            until("back", || {
                let state = balancer.look(&edge);
                let healthy = state.targets.get("green").and_then(|it| it.get("green"));
                (state.drift.is_none() && healthy.is_some_and(|it| it.health == TargetHealth::Healthy)).then_some(())
            });
            assert_eq!(get(8000, "/").body, "green");
        }
        // What was told is not known for sure any more: all of it is looked through.
        balancer.apply(&edge).unwrap();

        // Somebody plays with it.
        run("echo 'set server g.green/green state maint' | socat - unix:/run/roadstead-lb/admin.sock");
        let drift = balancer.look(&edge).drift;
        assert_eq!(drift.as_deref(), Some("target green of green is not as it was told"));
        balancer.apply(&edge).unwrap();
        run(
            "echo 'set map /var/lib/roadstead-lb/forwards.map lb/http g.blue' | socat - unix:/run/roadstead-lb/admin.sock",
        );
        assert!(balancer.look(&edge).drift.is_some());
        balancer.apply(&edge).unwrap();
        assert_eq!(get(8000, "/").body, "green");
    });
}

#[test]
fn what_cannot_be_leaves_what_runs_alone() {
    inside("faults::what_cannot_be_leaves_what_runs_alone", || {
        let app = Upstream::up("app");
        let listeners = json!([{"name": "http", "port": 8000, "defaultAction": {"forward": "app"}}]);
        let good = edge(listeners, &[("app", group(), &[&app])]);
        let mut balancer = Balancer::up();
        balancer.shows(&good);
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8005)).unwrap();
        let mut bad = good.clone();
        let more: Listener = serde_json::from_value(json!({"name": "more", "port": 8005})).unwrap();
        bad.balancers.values_mut().for_each(|it| it.listeners.push(more.clone()));
        let error = balancer.apply(&bad).unwrap_err().to_string();
        assert!(error.contains("port 8005 of the host is taken by another program"), "{error}");
        assert_eq!(balancer.look(&good).drift, None);
        assert_eq!(get(8000, "/").body, "app");

        // A controller that is new cannot tell whose ports they are: HAProxy says it.
        for _ in 0..2 {
            balancer.applied.forget();
            let error = balancer.apply(&bad).unwrap_err().to_string();
            assert!(error.contains("goes on"), "{error}");
            assert_eq!(balancer.look(&good).drift, None);
            assert_eq!(get(8000, "/").body, "app");
        }

        drop(taken);
        balancer.apply(&bad).unwrap();
        assert_eq!(get(8005, "/").status, 404);

        // A target that is not there.
        let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let nobody = Target { address: Ipv4Addr::LOCALHOST, port: closed, leaves: false };
        bad.groups.get_mut("app").unwrap().targets.insert("nobody".into(), nobody);
        balancer.apply(&bad).unwrap();
        let reason = until("unhealthy", || {
            assert_eq!(get(8000, "/").body, "app");
            let seen = balancer.look(&bad).targets["app"]["nobody"].clone();
            (seen.health == TargetHealth::Unhealthy).then_some(seen.reason)
        });
        assert_eq!(reason.as_deref(), Some("connection refused"));
    });
}
