//! Tasks that are moved because zones or hosts have become uneven.

use roadstead_core::{
    model::{container::HealthStatus, state::Schedulability},
    turn::Command,
};
use serde_json::{Value, json};

use super::{
    life::{image, with},
    story::Story,
};

#[test]
fn zones_that_became_uneven_are_evened_out_one_task_at_a_time() {
    for (rebalancing, counts) in [("ENABLED", [2, 2, 2]), ("DISABLED", [0, 3, 3])] {
        let more = json!({ "availabilityZoneRebalancing": rebalancing });
        let mut story = Story::begin(with(6, more), image("demo:1"));
        // Each host is a zone of its own.
        story.live_without(60, &["a"]);
        let on = |story: &Story, host: &str| story.wanted().iter().filter(|task| task.host.as_str() == host).count();
        assert_eq!(["a", "b", "c"].map(|host| on(&story, host)), [0, 3, 3]);
        for _ in 0..60 {
            story.live(1);
            let healthy = story.wanted().iter().filter(|task| task.healthy_at.is_some()).count();
            assert!(healthy >= 6 && story.wanted().len() <= 7, "{healthy} of {}", story.wanted().len());
        }
        assert_eq!(["a", "b", "c"].map(|host| on(&story, host)), counts, "{rebalancing}");
        let made = story.made;
        story.live(60);
        assert_eq!(story.made, made, "then there is rest");
    }
}

/// Counts by host once one of three hosts of one zone was away, and after it came back.
fn back_from_loss(more: Value, definition: Value) -> ([usize; 3], [usize; 3]) {
    let mut story = Story::begin(with(6, more), definition);
    story.desired.hosts.values_mut().for_each(|host| host.labels.clear());
    story.tell();
    story.live_without(60, &["a"]);
    let on = |story: &Story, host: &str| story.wanted().iter().filter(|task| task.host.as_str() == host).count();
    let before = ["a", "b", "c"].map(|host| on(&story, host));
    for _ in 0..60 {
        story.live(1);
        let healthy = story.wanted().iter().filter(|task| task.healthy_at.is_some()).count();
        assert!(healthy >= 6 && story.wanted().len() <= 7, "{healthy} of {}", story.wanted().len());
    }
    let (after, made) = (["a", "b", "c"].map(|host| on(&story, host)), story.made);
    story.live(60);
    assert_eq!(story.made, made, "then there is rest");
    (before, after)
}

#[test]
fn hosts_of_a_zone_that_became_uneven_are_evened_out_too() {
    let spread = |field: &str| json!([{ "type": "spread", "field": field }]);
    let zone = spread("attribute:availability-zone");
    let mut packed = zone.clone();
    packed.as_array_mut().unwrap().push(json!({ "type": "binpack", "field": "memory" }));
    let on = |strategy: &Value| json!({ "availabilityZoneRebalancing": "ENABLED", "placementStrategy": strategy });
    assert_eq!(back_from_loss(on(&json!([])), image("demo:1")), ([0, 3, 3], [2, 2, 2]));
    assert_eq!(back_from_loss(on(&zone), image("demo:1")), ([0, 3, 3], [2, 2, 2]));
    assert_eq!(back_from_loss(json!({}), image("demo:1")), ([0, 3, 3], [0, 3, 3]), "off by default");
    let mut by_disk = zone.clone();
    by_disk.as_array_mut().unwrap().push(json!({ "type": "spread", "field": "attribute:disk" }));
    for strategy in [packed, by_disk, spread("attribute:disk"), json!([{ "type": "binpack", "field": "memory" }])] {
        let (before, after) = back_from_loss(on(&strategy), image("demo:1"));
        assert_eq!(before, after, "where zones do not come first, or more than hosts decides: {strategy}");
    }
    let mut full = on(&json!([]));
    full["deploymentConfiguration"] = json!({ "maximumPercent": 100, "minimumHealthyPercent": 50 });
    assert_eq!(back_from_loss(full, image("demo:1")), ([0, 3, 3], [0, 3, 3]), "there is no room for one more");
    let mut owner = image("demo:1");
    owner["volumes"] = json!([{ "name": "data", "dockerVolumeConfiguration": { "scope": "shared" } }]);
    let (before, after) = back_from_loss(on(&json!([])), owner);
    assert_eq!(before, after, "a volume's owner stays");
}

#[test]
fn what_is_protected_or_not_healthy_is_not_rebalanced_yet() {
    for protected in [true, false] {
        let mut story = Story::begin(with(6, json!({ "availabilityZoneRebalancing": "ENABLED" })), image("demo:1"));
        story.live_without(60, &["a"]);
        let tasks = story.wanted();
        if protected {
            story.protect(&tasks[0], Some(60)).unwrap();
        } else {
            let view = story.containers.get_mut(&tasks[0].host).unwrap().values_mut().next().unwrap();
            view.health = HealthStatus::Unknown;
        }
        let plan = story.decide(1_000, &[]);
        assert!(!story.said(&plan).any(|reason| reason == "TaskPlaced"), "protected: {protected}");
    }
}

#[test]
fn one_more_or_less_is_even() {
    let rebalanced = |hosts_of_a_zone: bool| {
        let mut story = Story::begin(with(2, json!({ "availabilityZoneRebalancing": "ENABLED" })), image("demo:1"));
        if hosts_of_a_zone {
            story.desired.hosts.values_mut().for_each(|host| host.labels.clear());
            story.tell();
        }
        story.live(60);
        story.made
    };
    assert_eq!((rebalanced(false), rebalanced(true)), (2, 2));
}

#[test]
fn zones_are_evened_out_only_where_they_come_first() {
    let strategy = json!([{ "type": "spread", "field": "attribute:disk" }]);
    let more = json!({ "availabilityZoneRebalancing": "ENABLED", "placementStrategy": strategy });
    let mut story = Story::begin(with(6, more), image("demo:1"));
    story.live_without(60, &["a"]);
    let made = story.made;
    story.live(60);
    assert_eq!(story.made, made);
}

#[test]
fn what_is_on_a_cordoned_host_is_not_moved_for_evenness() {
    let mut story = Story::begin(with(2, json!({ "availabilityZoneRebalancing": "ENABLED" })), image("demo:1"));
    story.desired.hosts.values_mut().for_each(|host| host.labels.clear());
    story.tell();
    story.live_without(60, &["a", "b"]);
    assert!(story.wanted().iter().all(|task| task.host.as_str() == "c"));
    let cordon = Command::SetSchedulability { host: "c".into(), to: Schedulability::Cordoned, timeout_s: None };
    story.core.command(story.now, cordon).unwrap();
    let made = story.made;
    story.live(60);
    assert_eq!(story.made, made);
}
