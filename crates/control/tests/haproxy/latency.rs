//! How long answers take.

use std::{sync::atomic::Ordering::SeqCst, time::Instant};

use roadstead_core::model::traffic::Answers;
use serde_json::json;

use crate::lab::{Balancer, Client, Upstream, edge, group, inside, until};

/// It is told from answers at once.
const LONG_MS: u128 = 30;

#[test]
fn each_answer_is_counted_once_by_how_long_it_took() {
    inside("latency::each_answer_is_counted_once_by_how_long_it_took", || {
        let (web, other) = (Upstream::up("web"), Upstream::up("other"));
        let listeners = json!([
            {"name": "http", "port": 8000, "defaultAction": {"forward": "web"}},
            {"name": "bytes", "port": 8001, "protocol": "TCP", "defaultAction": {"forward": "bytes"}},
        ]);
        let bytes = json!({"port": 80, "protocol": "TCP", "healthCheck": {"interval": 1}});
        let edge = edge(listeners, &[("web", group(), &[&web]), ("bytes", bytes, &[&other])]);
        let mut balancer = Balancer::up();
        balancer.shows(&edge);
        let mut client = Client::new(8000);
        for _ in 0..10 {
            assert_eq!(client.get("/").status, 200);
        }
        client.send("GET /held HTTP/1.1\r\nHost: a.example\r\n\r\n");
        until("a request that is held", || (web.does.waiting.load(SeqCst) == 1).then_some(()));
        let begun = Instant::now();
        until("it is held for long", || (begun.elapsed().as_millis() > LONG_MS).then_some(()));
        web.release();
        assert_eq!(client.answer().status, 200);
        assert_eq!(Client::new(8001).get("/").status, 200);

        let answers = |balancer: &mut Balancer, group: &str| {
            let targets = &balancer.look(&edge).targets[group];
            targets.values().filter_map(|target| target.answers).fold(Answers::default(), Answers::plus)
        };
        let of_web = until("all are counted", || {
            let counted = answers(&mut balancer, "web");
            (counted.latency.total() == 11).then_some(counted)
        });
        assert_eq!((of_web.requests, of_web.errors), (11, 0));
        let longest_ms = of_web.latency.percentile_ms(100).unwrap();
        assert!(u128::from(longest_ms) >= LONG_MS, "{of_web:?}");
        assert!(answers(&mut balancer, "bytes").latency.is_empty(), "bytes have no answers");
    });
}
