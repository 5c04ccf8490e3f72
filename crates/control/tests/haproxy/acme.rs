//! What authorities ask for: answered before any rule, told without a reload, and read back.

use serde_json::json;

use crate::lab::{Balancer, Upstream, edge, get, group, inside, run};
use crate::tls::workers;

#[test]
fn what_an_authority_asks_for_is_answered_before_any_rule_and_without_a_reload() {
    inside("acme::what_an_authority_asks_for_is_answered_before_any_rule_and_without_a_reload", || {
        let app = Upstream::up("app");
        let away = json!({"redirect": {"protocol": "HTTPS"}});
        let tls = json!({"certificates": [{"domains": ["a.example"], "issuer": "ACME"}]});
        let listeners = json!([
            {"name": "http", "port": 80, "defaultAction": away},
            {"name": "other", "port": 8080, "defaultAction": {"forward": "app"}},
            {"name": "https", "port": 443, "protocol": "HTTPS", "tls": tls, "defaultAction": {"forward": "app"}},
        ]);
        let plain = edge(listeners, &[("app", group(), &[&app])]);
        let mut balancer = Balancer::up();
        balancer.shows(&plain);
        let before = workers();
        let path = "/.well-known/acme-challenge/to-ken_1";
        assert_eq!(get(80, path).status, 302, "what nobody asked for goes the way of the rest");

        let mut asked = plain.clone();
        asked.challenges.insert("to-ken_1".to_owned(), "to-ken_1.pri_nt-1".to_owned());
        // An authority's word that is none.
        for hostile in ["a b", "a\nshutdown", "../x", "", "a;b", "%[x]"] {
            asked.challenges.insert(hostile.to_owned(), "x.y".to_owned());
            asked.challenges.insert(format!("good{}", hostile.len()), hostile.to_owned());
        }
        balancer.apply(&asked).unwrap();
        assert_eq!(balancer.look(&asked).drift, None);
        let answer = get(80, path);
        assert_eq!((answer.status, answer.body.as_str()), (200, "to-ken_1.pri_nt-1"));
        assert!(answer.head.to_lowercase().contains("content-type: text/plain"), "{}", answer.head);
        assert_eq!(get(80, "/.well-known/acme-challenge/other").status, 302);
        assert_eq!(get(80, "/.well-known/acme-challenge/to-ken_1/x").status, 302);
        assert_eq!(get(8080, path).body, "app", "only where authorities ask");
        assert_eq!(workers(), before, "no reload");
        let map = run("cat /var/lib/roadstead-lb/challenges.map");
        assert_eq!(map.lines().count(), 1, "{map}");

        // Somebody takes it away: seen, and mended.
        run("echo 'clear map /var/lib/roadstead-lb/challenges.map' | socat - unix:/run/roadstead-lb/admin.sock");
        assert_eq!(get(80, path).status, 302);
        assert!(balancer.look(&asked).drift.unwrap().contains("authorities"));
        balancer.apply(&asked).unwrap();
        assert_eq!(get(80, path).status, 200);

        let before = workers();
        balancer.apply(&plain).unwrap();
        assert_eq!(get(80, path).status, 302);
        assert_eq!(balancer.look(&plain).drift, None);
        assert_eq!(workers(), before, "no reload");

        // It outlives a reload, too.
        let mut logged = asked.clone();
        logged.balancers.values_mut().for_each(|balancer| balancer.access_logs = true);
        balancer.shows(&logged);
        assert_ne!(workers(), before);
        assert_eq!(get(80, path).status, 200);
    });
}
