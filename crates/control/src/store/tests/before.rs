//! A database of an earlier version.

use super::{applied, dir, open, sample};
use crate::store::Store;
use roadstead_core::model::{
    image::ResolvedImage,
    name::RevisionId,
    state::{Change, Revision, ServiceRecord},
};
use serde_json::{Value, json};
use std::sync::Arc;

#[tokio::test]
async fn documents_that_lack_later_fields_load() {
    let dir = dir();
    let store = open(&dir).await;
    let changes = [
        Change::Task(Arc::new(sample::task("t1", "box-a", &[]))),
        Change::Service(ServiceRecord { name: "web".into(), ..ServiceRecord::default() }),
    ];
    store.commit(&changes, None).await.unwrap();
    {
        let mut writer = store.writer.lock().await;
        for sql in [
            "UPDATE tasks SET doc = json_remove(doc, '$.deployment', '$.protectedUntil')",
            r#"UPDATE services SET doc = '{"name":"web","deployments":[{"id":7,"revision":"web:3","status":"PRIMARY",
                "rolloutState":"COMPLETED","rolloutStateReason":"3 healthy tasks","outcome":"SUCCEEDED","failedTasks":12,
                "createdAt":"2026-01-01T00:00:00Z","updatedAt":"2026-01-01T00:00:00Z"}],
                "consecutiveFailures":0,"notBefore":null,"failures":[]}'"#,
        ] {
            sqlx::query(sql).execute(writer.as_mut().unwrap()).await.unwrap();
        }
    }
    let state = store.load().await.unwrap();
    let task = &state.tasks["t1"];
    assert_eq!((task.deployment, task.protected_until), (0, None));
    assert_eq!(task.restarts, applied(&changes).tasks["t1"].restarts);
    let record = &state.services["web"];
    let three = RevisionId { family: "web".into(), number: 3 };
    assert_eq!(record.completed().collect::<Vec<_>>(), [&three], "what it can go back to is told by its deployments");
    assert_eq!(record.deployments[0].failed_tasks, 0, "failures that were counted by another rule do not count");
}

/// Puts a revision `web:1` and the manifest of its family there as an earlier version wrote them.
async fn write_definition(store: &Store, spec: &Value) {
    let mut writer = store.writer.lock().await;
    let connection = writer.as_mut().unwrap();
    for sql in [
        "INSERT INTO revisions (family, number, hash, spec, created_at) VALUES ('web', 1, 'h', ?1, 5)",
        "INSERT INTO desired VALUES ('TaskDefinition', 'web', 'web.yaml', 1, '{}', '{}', ?1)",
    ] {
        sqlx::query(sql).bind(spec.to_string()).execute(&mut *connection).await.unwrap();
    }
}

#[tokio::test]
async fn fields_that_were_kept_unread_are_left_out() {
    let container = |more: Value| {
        let mut container = json!({ "name": "main", "image": "demo:1", "command": ["run"] });
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "family": "web", "cpu": 256, "containerDefinitions": [container] })
    };
    let mut more = container(json!({}));
    more["volumes"] = json!(7);
    more["later"] = json!({ "unknown": true });
    let nested = json!({ "restartPolicy": { "enabled": false, "later": 3 } });
    let kept_policy = json!({ "restartPolicy": { "enabled": false } });
    for (stored, read) in [
        (container(json!({ "ulimits": [{ "name": 5 }], "hostname": 8, "later": 1 })), container(json!({}))),
        (more, container(json!({}))),
        (container(nested), container(kept_policy)),
    ] {
        let dir = dir();
        let store = open(&dir).await;
        write_definition(&store, &stored).await;
        store.close().await.unwrap();
        let store = open(&dir).await;
        let state = store.load().await.unwrap();
        let expected = serde_json::from_value(read).unwrap();
        let revision = &state.revisions["web"][&1];
        assert_eq!((revision.spec.as_deref(), &*revision.hash), (Some(&expected), "h"), "{stored}");
        assert_eq!(**state.desired.task_definitions["web"].spec.spec(), expected, "{stored}");
        // It is never altered, and what its images stand for is noted beside it.
        let mut known = revision.clone();
        known.images.insert("demo:1".to_owned(), ResolvedImage::Digest("sha256:00".to_owned()));
        store.commit(&[Change::Revision(known.clone())], None).await.unwrap();
        assert_eq!(store.load().await.unwrap().revisions["web"][&1], known, "{stored}");
    }
}

#[tokio::test]
async fn a_revision_that_cannot_be_read_at_all_is_kept_without_its_content() {
    let dir = dir();
    let store = open(&dir).await;
    {
        let mut writer = store.writer.lock().await;
        let sql = r#"INSERT INTO revisions (family, number, hash, spec, created_at) VALUES ('web', 1, 'h', '{"containerDefinitions":[{"name":"main"}]}', 5)"#;
        sqlx::query(sql).execute(writer.as_mut().unwrap()).await.unwrap();
    }
    store.close().await.unwrap();
    let store = open(&dir).await;
    let revision = store.load().await.unwrap().revisions["web"][&1].clone();
    assert_eq!((revision.spec.as_ref(), &*revision.hash), (None, "h"));
    let said: Vec<(String, String)> =
        sqlx::query_as("SELECT level, message FROM events").fetch_all(&store.readers).await.unwrap();
    assert!(said.len() == 1 && said[0].0 == "WARNING" && said[0].1.contains("web:1 cannot be read"), "{said:?}");
    // The manifests give it again.
    let whole = Revision { spec: Some(Arc::default()), ..revision };
    store.commit(&[Change::Revision(whole.clone())], None).await.unwrap();
    assert_eq!(store.load().await.unwrap().revisions["web"][&1], whole);
    store.close().await.unwrap();
    let state = open(&dir).await.load().await.unwrap();
    assert_eq!(state.revisions["web"][&1], whole, "once");
}
