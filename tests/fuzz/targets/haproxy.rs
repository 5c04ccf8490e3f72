//! What an edge's HAProxy says. Input: what a look prints, then what `show servers state` does.

use roadstead_control::lb::haproxy::{
    runtime::states,
    stats::{Seen, listening},
};
use roadstead_core::model::traffic::{Edge, TargetHealth};

use super::{Reached, assert_readable, parts};

fn edge() -> Option<Edge> {
    serde_json::from_str(
        r#"{"nodeImage": "n", "forwards": {},
            "balancers": {"lb": {"listeners": [{"name": "http", "port": 80, "defaultAction": {"forward": "a"}}]}},
            "groups": {"a": {"spec": {"port": 80}, "targets": {
                "t1": {"address": "127.0.0.1", "port": 1, "leaves": false},
                "t2": {"address": "127.0.0.1", "port": 2, "leaves": true}}}}}"#,
    )
    .ok()
}

/// Whatever it says, each target is spoken of once, in words that can be shown, and a reload begins with one state for each.
pub fn answers(input: &[u8]) -> Reached {
    let mut reached = Reached::new();
    let edge = edge().expect("an edge");
    let (look, before) = parts(input);
    let (look, before) = (String::from_utf8_lossy(look), String::from_utf8_lossy(before));
    let seen = Seen::parse(&look);
    let targets = seen.targets(&edge);
    assert_eq!(targets.values().map(|of| of.len()).sum::<usize>(), 2);
    for target in targets.values().flat_map(|of| of.values()) {
        if let Some(reason) = &target.reason {
            assert_readable(reason, 1_024);
            reached.insert("a reason");
        }
        reached.insert(match target.health {
            TargetHealth::Initial => "initial",
            TargetHealth::Healthy => "healthy",
            TargetHealth::Unhealthy => "unhealthy",
        });
        assert!(!target.idle || !seen.workers.is_empty(), "idle, and nobody said so");
    }
    match seen.differs(&edge) {
        None => reached.insert("as it was told"),
        Some(differs) => {
            assert_readable(&differs, 1_024);
            reached.insert("otherwise")
        }
    };
    for remains in seen.remains(&edge) {
        // It becomes a part of a command.
        assert!(!remains.contains(char::is_whitespace) && !remains.contains(';'), "{remains:?}");
        reached.insert("remains");
    }
    let states = states(&before, &edge);
    assert_eq!(states.lines().count(), 2 + 2, "{states}");
    if states.contains(" 2 0 100 100 ") {
        reached.insert("a state that stays");
    }
    let _ = listening(&look);
    reached
}
