//! Whatever people write, HAProxy takes the configuration, and it has no line of theirs.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use roadstead_control::lb::haproxy::config::{file, forwards, render};
use serde_json::json;

use crate::lab::{Upstream, edge, group, inside, run};

#[test]
fn no_text_breaks_out() {
    inside("text::no_text_breaks_out", || {
        let app = Upstream::up("app");
        let hostile = prop_oneof![
            any::<String>(),
            "[ -~]{0,40}",
            "[\\\\'\"#%\\[\\]{}()$*?,: \n\r\t\0ab-]{0,24}",
            Just("x\nbackend evil\n  server evil 127.0.0.1:1".to_owned()),
        ];
        let texts = proptest::collection::vec(hostile, 14);
        let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
        let checked = runner.run(&texts, |texts| {
            let text = |at: usize| texts[at].as_str();
            let listeners = json!([{
                "name": text(0), "port": 8000, "rules": [
                    {"name": text(1), "action": {"forward": text(2)}, "conditions": {
                        "hostHeader": [text(3), text(4)], "pathPattern": [text(5)], "httpRequestMethod": [text(6)],
                        "httpHeader": [{"name": text(7), "values": [text(8)]}, {"name": "x", "values": [text(7)]}],
                        "queryString": [{"key": text(9), "value": text(10)}, {"value": text(9)}]}},
                    {"name": text(3), "action": {"redirect": {"host": text(11), "path": text(12), "query": text(13)}}},
                    {"name": text(4), "action": {"fixedResponse": {"statusCode": 200, "contentType": text(11), "messageBody": text(12)}}},
                ], "defaultAction": {"forward": text(2)},
            }]);
            let mut spec = group();
            spec["healthCheck"]["path"] = json!(text(5));
            spec["healthCheck"]["matcher"] = json!(text(6));
            spec["stickiness"] = json!({"enabled": true, "cookieName": text(7)});
            let edge = edge(listeners, &[(text(2), spec, &[&app])]);
            let folder = "/var/lib/roadstead-lb";
            let config = render(&edge);
            std::fs::write(format!("{folder}/haproxy.cfg"), &config).unwrap();
            let map = file(&forwards(&edge));
            prop_assert!(map.lines().all(|line| line.split(' ').count() == 2), "{}", map);
            std::fs::write(format!("{folder}/forwards.map"), map).unwrap();
            std::fs::write(format!("{folder}/leaving.map"), "").unwrap();
            let sections = config.lines().filter(|line| !line.starts_with(' ')).count();
            // The table of latencies, of the group the two, and of what has no group the two.
            prop_assert_eq!(sections, ["global", "defaults", "frontend"].len() + 5, "{}", config);
            run(&format!("echo 1 >{folder}/state; haproxy -c -q -f {folder}/haproxy.cfg"));
            Ok(())
        });
        checked.unwrap();
    });
}
