//! What the schema refuses, and that a refusal leaves nothing behind.

use std::sync::Arc;

use super::{applied, dir, open, sample};
use crate::store::StoreError;
use roadstead_core::model::{
    state::{Change, EventSubject, State},
    task::{LastStatus, Task},
};

fn task(task: Task) -> Change {
    Change::Task(Arc::new(task))
}

#[tokio::test]
async fn a_refused_change_takes_the_whole_commit_with_it() {
    let dir = dir();
    let store = open(&dir).await;
    let changes = [
        Change::Event(sample::event(EventSubject::Fleet, "first")),
        task(sample::task("t1", "box-a", &[8080])),
        Change::Revision(sample::revision("web", 1, "h", None)),
        task(sample::task("t2", "box-a", &[8080])),
    ];

    let refused = store.commit(&changes, Some(&sample::decision(1))).await;

    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    assert_eq!(store.load().await.unwrap(), State::default());
    assert_eq!(store.newest_events(None, 10).await.unwrap(), []);
    assert_eq!(store.decisions(10).await.unwrap(), []);
    store.commit(&changes[..3], None).await.unwrap();
    assert_eq!(store.load().await.unwrap(), applied(&changes[..3]), "the store works on after a refusal");
}

#[tokio::test]
async fn a_port_belongs_to_one_task_until_that_is_stopped() {
    let dir = dir();
    let store = open(&dir).await;
    let first = sample::task("t1", "box-a", &[8080]);
    let second = sample::task("t2", "box-a", &[8080]);
    store.commit(&[task(first.clone()), task(sample::task("t3", "box-b", &[8080]))], None).await.unwrap();

    for last_status in [LastStatus::Provisioning, LastStatus::Running, LastStatus::Deprovisioning] {
        store.commit(&[task(Task { last_status, ..first.clone() })], None).await.unwrap();
        let refused = store.commit(&[task(second.clone())], None).await.unwrap_err().to_string();
        assert_eq!(refused, "refused by the database: port 8080/tcp of host box-a for task t2: task t1 holds it");
    }

    let stopped = Task { last_status: LastStatus::Stopped, ..first };
    store.commit(&[task(stopped), task(second)], None).await.unwrap();
}

#[tokio::test]
async fn a_removed_task_gives_its_ports_back() {
    let dir = dir();
    let store = open(&dir).await;
    let changes = [
        task(sample::task("t1", "box-a", &[8080])),
        Change::TaskRemoved("t1".into()),
        task(sample::task("t2", "box-a", &[8080])),
    ];

    store.commit(&changes, None).await.unwrap();

    assert_eq!(store.load().await.unwrap(), applied(&changes));
}

#[tokio::test]
async fn a_revision_is_completed_and_never_altered() {
    let dir = dir();
    let store = open(&dir).await;
    let whole = sample::revision("web", 1, "h", Some("demo:1"));
    let commit = async |revision| store.commit(&[Change::Revision(revision)], None).await;

    commit(sample::revision("web", 1, "h", None)).await.unwrap();
    commit(whole.clone()).await.unwrap();
    commit(whole.clone()).await.unwrap();
    for altered in [
        sample::revision("web", 1, "h", Some("demo:2")),
        sample::revision("web", 1, "other", Some("demo:1")),
        sample::revision("web", 1, "h", None),
    ] {
        let refused = commit(altered).await.unwrap_err().to_string();
        assert_eq!(refused, "refused by the database: revision web:1: a revision is never altered");
    }

    assert_eq!(store.load().await.unwrap(), applied(&[Change::Revision(whole)]));
}

#[tokio::test]
async fn a_dropped_commit_blocks_nobody() {
    let dir = dir();
    let store = open(&dir).await;
    let changes: Vec<_> = (0..50).map(|n| task(sample::task(&format!("t{n}"), "box-a", &[]))).collect();

    {
        let mut commit = std::pin::pin!(store.commit(&changes, None));
        assert!(futures_util::poll!(&mut commit).is_pending(), "it was dropped under way");
    }

    let kept = store.load().await.unwrap();
    assert!(kept == State::default() || kept == applied(&changes), "all or nothing: {}", kept.tasks.len());
    store.commit(&changes, None).await.unwrap();
    assert_eq!(store.load().await.unwrap(), applied(&changes));
}

#[test]
fn its_futures_go_to_any_thread() {
    fn is_send<T: Send>(_: T) {}
    fn check(store: &crate::store::Store) {
        is_send(store.commit(&[], None));
        is_send(store.load());
        is_send(store.prune(crate::store::Keep::default()));
        is_send(store.newest_events(None, 1));
    }
    let _ = check;
}
