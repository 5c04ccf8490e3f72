//! Services as they live: images that fare well or badly, and a person's words.

use std::collections::BTreeMap;

use roadstead_core::turn::{Command, CommandError};
use roadstead_core::{
    model::{
        action::{ActionResult, VerbName},
        container::{ContainerState, HealthStatus},
        state::{Change, Deployment, Outcome},
        task::Task,
    },
    plan::absorb::RolloutVerb,
};
use serde_json::{Value, json};

use super::story::{Story, web};

/// `nowhere:N` cannot be pulled, `crash:N` ends at once, `sick:N` fails its check; all others are well.
pub fn image(image: &str) -> Value {
    let container = json!({
        "name": "main", "image": image, "memory": 64, "restartPolicy": { "enabled": false },
        "healthCheck": { "command": ["CMD", "check"] },
    });
    json!({ "containerDefinitions": [container] })
}

pub fn with(count: u32, more: Value) -> Value {
    let mut service = web(count);
    service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service
}

pub fn breaker(breaker: Value) -> Value {
    with(3, json!({ "deploymentConfiguration": { "deploymentCircuitBreaker": breaker } }))
}

impl Story {
    pub fn deploy(&mut self, image: &str) {
        let definition = self.desired.task_definitions.get_mut("web").unwrap();
        definition.spec.edit(|spec| spec.container_definitions[0].image = image.into());
        self.tell();
    }

    pub fn scale(&mut self, count: u32) {
        self.desired.services.get_mut("web").unwrap().spec.desired_count = count;
        self.tell();
    }

    /// One decision a second, carried out as the images fare; gives what was said.
    pub fn live(&mut self, seconds: u32) -> Vec<String> {
        self.live_without(seconds, &[])
    }

    pub fn live_without(&mut self, seconds: u32, silent: &[&str]) -> Vec<String> {
        let mut said = Vec::new();
        for _ in 0..seconds {
            for view in self.containers.values_mut().flat_map(BTreeMap::values_mut) {
                if view.image.starts_with("crash") {
                    (view.state, view.exit_code) = (ContainerState::Exited, Some(1));
                }
                let sick = view.image.starts_with("sick");
                view.health = if sick { HealthStatus::Unhealthy } else { HealthStatus::Healthy };
            }
            let plan = self.decide(1_000, silent);
            said.extend(plan.changes.iter().filter_map(|change| match change {
                Change::Event(event) if event.reason.starts_with("Deployment") => Some(event.message.clone()),
                _ => None,
            }));
            for action in &plan.actions {
                let task = self.core.world().state.tasks[&action.task].clone();
                let pulled = task.containers.values().all(|row| !row.image.starts_with("nowhere"));
                if action.verb.name() == VerbName::Launch && !pulled {
                    let reason = "no such image".to_owned();
                    self.answer(action, ActionResult::Failed { reason, containers: Vec::new() });
                } else {
                    self.obey(action);
                }
            }
        }
        said
    }

    pub fn order(&mut self, verb: RolloutVerb) -> Result<String, CommandError> {
        let order = Command::Rollout { service: "web".into(), verb };
        let now = self.now;
        self.core.command(now, order).map(|(words, _)| words)
    }

    pub fn protect(&mut self, task: &Task, minutes: Option<u32>) -> Result<String, CommandError> {
        let now = self.now;
        self.core.command(now, Command::ProtectTask { task: task.id.clone(), minutes }).map(|(words, _)| words)
    }

    /// Another controller goes on with what is durable.
    pub fn restart_controller(&mut self) {
        self.go_on_with(|_| {});
    }

    pub fn deployments(&self) -> Vec<Deployment> {
        self.core.world().state.services["web"].deployments.clone()
    }

    /// Revision number and outcome, newest first.
    pub fn outcomes(&self) -> Vec<(u32, Option<Outcome>)> {
        self.deployments().iter().map(|it| (it.revision.number, it.outcome)).collect()
    }

    pub fn wanted(&self) -> Vec<Task> {
        let tasks = self.core.world().state.tasks.values();
        tasks.filter(|task| task.is_wanted()).map(|task| Task::clone(task)).collect()
    }

    /// Revision numbers of what is wanted, ascending.
    pub fn revisions(&self) -> Vec<u32> {
        let mut numbers: Vec<u32> = self.wanted().iter().map(|task| task.revision.number).collect();
        numbers.sort_unstable();
        numbers
    }

    pub fn waiting(&self) -> String {
        self.core.report().waiting.iter().map(|waiting| format!("{}\n", waiting.reason)).collect()
    }

    /// Somebody removes a task's container.
    pub fn lose(&mut self, task: &Task) {
        let id = task.containers.values().find_map(|row| row.runtime_id.clone()).unwrap();
        self.containers.get_mut(&task.host).unwrap().remove(&id);
    }
}
