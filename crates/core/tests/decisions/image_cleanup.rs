//! The removal of images, from a look at a full disk to the next.

use std::collections::BTreeMap;

use roadstead_core::model::{
    action::{Action, ActionResult, Answer, Verb},
    spec::cluster::ImageCleanup,
    state::Change,
    storage::{DiskUse, StorageSeen, StoredImage},
};
use roadstead_core::turn::Input;

use crate::story::{Story, one_container, web};

const AN_HOUR_MS: u64 = 3_600_000;

/// A service whose image moved on six times under its tag.
fn story() -> Story {
    let mut story = Story::begin(web(1), one_container());
    for push in 1..=6 {
        story.pushed.insert(format!("demo:{push}"), push);
        let definition = story.desired.task_definitions.get_mut("web").unwrap();
        definition.spec.edit(|spec| spec.container_definitions[0].image = format!("demo:{push}"));
        story.tell();
        story.settle(&[]);
    }
    story
}

fn id(push: u32) -> String {
    format!("sha256:{push:0>64}")
}

/// What a full disk shows of host a, which has all of them, and one that is nobody's.
fn seen(story: &Story, gone: &[u32]) -> StorageSeen {
    let image = |push: u32| {
        let digests = vec![format!("demo@{}", id(push))];
        (id(push), StoredImage { digests, size_bytes: 1_000_000_000, ..StoredImage::default() })
    };
    let images: BTreeMap<String, StoredImage> = (1..=7).filter(|push| !gone.contains(push)).map(image).collect();
    StorageSeen {
        started_at: story.now,
        data_root: "/var/lib/docker".into(),
        disk: Some(DiskUse { used_bytes: 90_000_000_000, available_bytes: 10_000_000_000 }),
        images,
        ..StorageSeen::default()
    }
}

fn prunes(actions: &[Action]) -> Vec<(&Action, Vec<String>)> {
    let pruned = |action: &'_ Action| match &action.verb {
        Verb::Prune { images } => Some(images.iter().map(|image| image.id.clone()).collect()),
        Verb::Resolve { .. }
        | Verb::Launch { .. }
        | Verb::Stop { .. }
        | Verb::Remove { .. }
        | Verb::Tidy { .. }
        | Verb::Sweep { .. } => None,
    };
    actions.iter().filter_map(|action| Some((action, pruned(action)?))).collect()
}

#[test]
fn old_images_go_once_they_are_old_and_each_answer_is_looked_at_before_the_next_order() {
    let mut story = story();
    let look = |story: &mut Story, gone: &[u32]| {
        let seen = seen(story, gone);
        story.core.take(story.now, Input::Storage("a".into(), seen));
    };
    look(&mut story, &[]);
    let plan = story.decide(1_000, &[]);
    assert!(prunes(&plan.actions).is_empty(), "seen for the first time, nobody knows when they were used");
    // The rows of what ended are forgotten meanwhile.
    story.now = story.now.plus_ms(2 * AN_HOUR_MS);
    story.settle(&[]);
    look(&mut story, &[]);
    let plan = story.decide(1_000, &[]);
    let ordered = prunes(&plan.actions);
    let [(order, images)] = ordered.as_slice() else { panic!("{ordered:?}") };
    assert_eq!(*images, [id(1), id(2), id(3)], "three revisions stay, and what is nobody's");

    let Verb::Prune { images } = &order.verb else { panic!("{order:?}") };
    let (images, in_use) = (images[..2].to_vec(), vec![id(3)]);
    let result = ActionResult::Pruned { images, in_use, why: order.reason.clone() };
    let answer = Answer { key: order.key(), host: order.host.clone(), at: story.now, result };
    let changes = story.core.take(story.now, Input::Answer(answer));
    let [Change::Event(event)] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(event.message, "removed 2 images, 2.0 GB: the disk of /var/lib/docker was 90 % full");

    // Only a look that did not begin before the answer, at the images of that host, tells what is left.
    for (host, ms, settles) in [("b", 1, false), ("a", -1, false), ("a", 0, true)] {
        let mut core = story.core.clone();
        let seen = StorageSeen { started_at: story.now.moved_ms(ms), ..seen(&story, &[1, 2]) };
        core.take(story.now, Input::Storage(host.into(), seen));
        assert_eq!(!core.world().in_flight.contains(&order.key()), settles, "{host} {ms}");
    }
    let plan = story.decide(1_000, &[]);
    assert!(prunes(&plan.actions).is_empty(), "nobody has looked at what is left");
    look(&mut story, &[1, 2]);
    let plan = story.decide(1_000, &[]);
    assert!(prunes(&plan.actions).is_empty(), "what somebody uses is left alone for a while");
    story.now = story.now.plus_ms(u64::from(ImageCleanup::default().minimum_age.0) * 1_000);
    story.settle(&[]);
    look(&mut story, &[1, 2]);
    let plan = story.decide(1_000, &[]);
    assert_eq!(prunes(&plan.actions).into_iter().flat_map(|(_, images)| images).collect::<Vec<_>>(), [id(3)]);
}

#[test]
fn an_old_look_at_a_disk_is_no_ground_to_remove_anything() {
    for (ms, ordered) in [(299_999, 1), (300_000, 0)] {
        let mut story = story();
        let first = seen(&story, &[]);
        story.core.take(story.now, Input::Storage("a".into(), first));
        story.now = story.now.plus_ms(2 * AN_HOUR_MS);
        story.settle(&[]);
        let second = seen(&story, &[]);
        let looked_at = story.now;
        story.core.take(story.now, Input::Storage("a".into(), second));
        let plan = story.decide(looked_at.plus_ms(ms).since_ms(story.now), &[]);
        assert_eq!(prunes(&plan.actions).len(), ordered, "{ms} ms");
    }
}

/// What is too full becomes old enough to remove as time goes on: nobody sleeps then.
#[test]
fn a_controller_is_quiet_unless_a_disk_is_fuller_than_it_may_be() {
    let mut story = Story::begin(web(0), one_container());
    story.settle(&[]);
    let high = u64::from(ImageCleanup::default().high_threshold_percent);
    for (used, quiet) in [(high - 1, true), (high, true), (high + 1, false)] {
        let disk = Some(DiskUse { used_bytes: used * 1_000_000, available_bytes: (100 - used) * 1_000_000 });
        let seen = StorageSeen { started_at: story.now, disk, ..StorageSeen::default() };
        story.core.take(story.now, Input::Storage("a".into(), seen));
        // What is told of it first.
        (0..3).for_each(|_| drop(story.decide(1, &[])));
        let later = story.now.plus_ms(1);
        assert_eq!(story.core.quiet_until(later).is_some(), quiet, "{used} %");
    }
}
