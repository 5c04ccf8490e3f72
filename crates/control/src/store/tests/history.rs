//! Events and decisions: read in parts, kept in bounds.

use super::{dir, open, sample};
use crate::store::Keep;
use roadstead_core::model::{
    decision::Decision,
    state::{Change, Event, EventSubject},
};

fn messages(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.message.as_str()).collect()
}

#[tokio::test]
async fn events_come_back_as_they_were_by_subject_and_in_order() {
    let dir = dir();
    let store = open(&dir).await;
    let subjects = [
        EventSubject::Fleet,
        EventSubject::Host("web".into()),
        EventSubject::Service("web".into()),
        EventSubject::Task("web".into()),
        EventSubject::File("web".to_owned()),
    ];
    let sent: Vec<_> = subjects.iter().map(|subject| sample::event(subject.clone(), &format!("{subject:?}"))).collect();
    let changes: Vec<_> = sent.iter().cloned().map(Change::Event).collect();

    let ids = store.commit(&changes, None).await.unwrap();

    let kept: Vec<_> = sent.into_iter().zip(&ids).map(|(event, &id)| Event { id, ..event }).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    assert_eq!(store.events_after(0, None, 100).await.unwrap(), kept);
    assert_eq!(store.events_after(ids[2], None, 1).await.unwrap(), kept[3..4]);
    assert_eq!(store.newest_events(None, 2).await.unwrap(), kept[3..]);
    for (subject, event) in subjects.iter().zip(&kept) {
        assert_eq!(store.events_after(0, Some(subject), 100).await.unwrap(), std::slice::from_ref(event));
        assert_eq!(store.newest_events(Some(subject), 100).await.unwrap(), std::slice::from_ref(event));
    }
}

#[tokio::test]
async fn decisions_come_back_as_they_were() {
    let dir = dir();
    let store = open(&dir).await;

    for seed in [1, u64::MAX] {
        store.commit(&[], Some(&sample::decision(seed))).await.unwrap();
    }

    let expected = [Decision { id: 2, ..sample::decision(u64::MAX) }, Decision { id: 1, ..sample::decision(1) }];
    assert_eq!(store.decisions(10).await.unwrap(), expected);
    assert_eq!(store.decisions(1).await.unwrap(), expected[..1]);
}

#[tokio::test]
async fn pruning_keeps_the_newest_and_no_number_comes_back() {
    let dir = dir();
    let store = open(&dir).await;
    let event = |n: u32| Change::Event(sample::event(EventSubject::Fleet, &n.to_string()));
    let changes: Vec<_> = (1..=9).map(event).collect();
    for seed in 1..=4 {
        let decision = sample::decision(seed);
        store.commit(if seed == 1 { &changes } else { &[] }, Some(&decision)).await.unwrap();
    }

    store.prune(Keep { events: 10, decisions: 10 }).await.unwrap();
    assert_eq!(store.events_after(0, None, 100).await.unwrap().len(), 9);
    assert_eq!(store.decisions(100).await.unwrap().len(), 4);

    store.prune(Keep { events: 3, decisions: 1 }).await.unwrap();
    assert_eq!(messages(&store.events_after(0, None, 100).await.unwrap()), ["7", "8", "9"]);
    assert_eq!(store.decisions(100).await.unwrap(), [Decision { id: 4, ..sample::decision(4) }]);

    store.prune(Keep { events: 0, decisions: 0 }).await.unwrap();
    assert_eq!(store.events_after(0, None, 100).await.unwrap(), []);
    assert_eq!(store.commit(&[event(10)], None).await.unwrap(), [10]);
}
