//! Names as people type them: `web`, `service/web`, `svc/web`, `task/3fa9…`, `3fa9…`.

use serde_json::Value;

use super::{
    client::{Client, path},
    failure::Failure,
};

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    /// `service`, `task` or `scheduledtask`.
    pub kind: &'static str,
    pub name: String,
}

/// A service, or else a task.
pub(super) async fn resolve(client: &Client, text: &str) -> Result<Subject, Failure> {
    if let Some((kind, name)) = text.split_once('/') {
        let kind = match kind {
            "svc" | "service" | "services" => "service",
            "task" | "tasks" => "task",
            "scheduledtask" | "scheduledtasks" => "scheduledtask",
            other => {
                return Err(Failure::not_tried(format!("`{other}` is neither `service` nor `task`"))
                    .hint("write service/NAME or task/ID"));
            }
        };
        return Ok(Subject { kind, name: name.to_owned() });
    }
    for (kind, plural) in [("service", "services"), ("task", "tasks")] {
        if client.find::<Value>(&path(&[plural, text], &[])).await?.is_some() {
            return Ok(Subject { kind, name: text.to_owned() });
        }
    }
    Err(Failure::failed(format!("there is neither a service nor a task {text:?}"))
        .hint("`roadstead get services` and `roadstead get tasks --all` list them"))
}
