//! Orders.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use super::{
    Api,
    extract::{Body, find_task},
};
use crate::api::error::{ApiError, ErrorBody};
use roadstead_core::turn::Command;

/// An order, as it is sent.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Order(Command);

/// Every field that any order has; `order` says which, and so which others there are.
const FIELDS: &[(&str, &str)] = &[
    (
        "order",
        "setSchedulability {host, to}, stopTask {task, reason}, rollout {service, verb, to}, protectTask {task, minutes}, volume {cluster, name, verb, to, host}, confirm {token}, releaseBrake, repin {host}, rescan",
    ),
    ("host", "A host's name"),
    (
        "to",
        "Of a host: ACTIVE, CORDONED, DRAINING; of an undo: family:revision, may be absent; of a volume's move: a host's name",
    ),
    ("cluster", "A volume's cluster"),
    ("name", "A volume's name"),
    ("service", "A service's name"),
    ("verb", "Of a rollout: pause, continue, abort, undo, restart; of a volume: move, cancelMove, pin, forget"),
    ("minutes", "A number from 1 to 2880; absent: it is protected no longer"),
    ("task", "A task's id, or the beginning of it"),
    ("reason", "Why, in words; may be absent"),
    ("token", "What `status` shows as held"),
];

impl PartialSchema for Order {
    fn schema() -> RefOr<Schema> {
        let field = |name: &str, description: &str| {
            let kind = if name == "minutes" { Type::Integer } else { Type::String };
            ObjectBuilder::new().schema_type(kind).description(Some(description)).build()
        };
        let object = FIELDS
            .iter()
            .fold(ObjectBuilder::new(), |object, (name, description)| object.property(*name, field(name, description)));
        object.required("order").build().into()
    }
}

impl ToSchema for Order {}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderAnswer {
    /// For people.
    pub message: String,
}

/// Takes an order: done or refused when this answers.
#[utoipa::path(post, path = "/v1/commands", request_body = Order, responses((status = 200, body = OrderAnswer), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(super) async fn command(
    State(api): State<Api>,
    Body(Order(command)): Body<Order>,
) -> Result<Json<OrderAnswer>, ApiError> {
    let command = match command {
        Command::StopTask { task, reason } => {
            let snapshot = api.handle.snapshot();
            let task = find_task(&snapshot.world.state, task.as_str())?.id.clone();
            Command::StopTask { task, reason }
        }
        Command::ProtectTask { task, minutes } => {
            let snapshot = api.handle.snapshot();
            let task = find_task(&snapshot.world.state, task.as_str())?.id.clone();
            Command::ProtectTask { task, minutes }
        }
        Command::SetSchedulability { .. }
        | Command::RunTask(_)
        | Command::Confirm { .. }
        | Command::ReleaseBrake
        | Command::Rollout { .. }
        | Command::Volume { .. }
        | Command::Repin { .. }
        | Command::Rescan => command,
    };
    tracing::info!(?command, "an order");
    let message = api.handle.command(command).await?;
    Ok(Json(OrderAnswer { message }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use roadstead_core::{
        model::{state::Schedulability, volume::VolumeId},
        plan::absorb::{RolloutVerb, VolumeVerb},
    };

    #[test]
    fn every_order_is_described() {
        let volume = VolumeId { cluster: "default".into(), name: "data".into() };
        let orders = [
            Command::SetSchedulability { host: "a".into(), to: Schedulability::Cordoned, timeout_s: None },
            Command::StopTask { task: "1".into(), reason: Some(String::new()) },
            Command::Rollout { service: "web".into(), verb: RolloutVerb::Undo { to: "web:1".parse().ok() } },
            Command::Rollout { service: "web".into(), verb: RolloutVerb::Pause },
            Command::ProtectTask { task: "1".into(), minutes: Some(1) },
            Command::Volume { volume: volume.clone(), verb: VolumeVerb::Move { to: "b".into() } },
            Command::Volume { volume, verb: VolumeVerb::Pin { host: "b".into() } },
            Command::Confirm { token: String::new() },
            Command::ReleaseBrake,
            Command::Repin { host: "a".into() },
            Command::Rescan,
        ];
        for order in orders {
            let json = serde_json::to_value(&order).unwrap();
            for field in json.as_object().unwrap().keys() {
                assert!(FIELDS.iter().any(|(name, _)| name == field), "{field}");
            }
            assert!(FIELDS[0].1.contains(json["order"].as_str().unwrap()), "{json}");
        }
    }
}
