//! A database of an earlier version.

use super::{applied, dir, open, sample};
use roadstead_core::model::{
    name::RevisionId,
    state::{Change, ServiceRecord},
};
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
                "rolloutState":"COMPLETED","rolloutStateReason":"3 healthy tasks","outcome":"SUCCEEDED","failedTasks":0,
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
}
