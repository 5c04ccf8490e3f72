//! One order on one host in memory: what the executor and the engine do together.

use super::host::{Refusal, SimContainer, SimHost};
use crate::model::{
    action::{Action, ActionResult, LaunchStep, Verb},
    container::{ContainerState, HealthStatus},
    name::{ContainerName, HostName, RuntimeId},
    ownership::Owner,
    time::Timestamp,
};

/// What the executor and the engine do together.
pub(super) fn carry_out(host: &mut SimHost, action: &Action, now: Timestamp, healthy_after: u64) -> ActionResult {
    match &action.verb {
        Verb::Launch { containers } => launch(host, &action.host, containers, now, healthy_after),
        Verb::Stop { containers } => {
            for step in containers {
                host.stop(&step.runtime_id, now);
                if step.remove {
                    let _ = host.remove(&step.runtime_id);
                }
            }
            ActionResult::Done { containers: Vec::new() }
        }
        Verb::Remove { containers } => {
            for id in containers {
                if host.remove(id) == Err(Refusal::IsRunning) {
                    return ActionResult::Failed { reason: "it runs".into(), containers: Vec::new() };
                }
            }
            ActionResult::Done { containers: Vec::new() }
        }
    }
}

fn launch(
    host: &mut SimHost,
    name: &HostName,
    steps: &[LaunchStep],
    now: Timestamp,
    healthy_after: u64,
) -> ActionResult {
    let mut containers: Vec<(ContainerName, RuntimeId)> = Vec::new();
    for step in steps {
        let id = match &step.runtime_id {
            Some(id) => id.clone(),
            None => match host.create(name.as_str(), &step.config) {
                Ok(id) => id,
                Err(Refusal::NameTaken(id)) if is_ours(host.containers.get(&id), step) => id,
                Err(refusal) => return ActionResult::Failed { reason: format!("{refusal:?}"), containers },
            },
        };
        containers.push((step.container.clone(), id.clone()));
        if step.start {
            match host.start(&id, now, healthy_after) {
                Ok(()) => {}
                Err(Refusal::NoSuchContainer) => return ActionResult::Unknown { reason: "it is gone".into() },
                Err(refusal) => return ActionResult::Failed { reason: format!("{refusal:?}"), containers },
            }
        }
    }
    ActionResult::Done { containers }
}

fn is_ours(found: Option<&SimContainer>, step: &LaunchStep) -> bool {
    found.is_some_and(|container| {
        let wanted = crate::model::ownership::Claim::from_labels(&step.config.labels);
        match &container.view.owner {
            Owner::Ours(claim) => wanted.as_ref() == Some(claim) && container.view.state != ContainerState::Removing,
            Owner::Forged | Owner::OtherFleet { .. } | Owner::Foreign => false,
        }
    }) && found
        .is_none_or(|container| container.view.health != HealthStatus::Unhealthy || container.view.state.is_live())
}
