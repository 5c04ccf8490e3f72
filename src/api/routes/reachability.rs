//! Whether a packet reaches a task.

use axum::{Json, extract::State};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api,
    extract::{Named, Params, find_task},
};
use crate::api::{
    error::{ApiError, ErrorBody, ErrorCode},
    view::{reachability, reachability::ReachabilityView},
};
use roadstead_core::{
    model::{spec::security_group::IpProtocol, state::State as Durable},
    plan::network::verdict::{Endpoint, Flow},
};

#[derive(Deserialize, IntoParams)]
pub(super) struct PacketQuery {
    /// Who sends it: a task's id or the beginning of it, or an IPv4 address.
    from: String,
    /// tcp, udp, icmp; tcp when absent.
    #[serde(default = "tcp")]
    #[param(value_type = Option<String>)]
    protocol: IpProtocol,
    /// To which port; none for icmp.
    port: Option<u16>,
}

fn tcp() -> IpProtocol {
    IpProtocol::Tcp
}

/// Whether a packet reaches a task, and by which rule.
#[utoipa::path(get, path = "/v1/tasks/{name}/reachability", params(("name" = String, Path), PacketQuery), responses((status = 200, body = ReachabilityView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn reachability(
    State(api): State<Api>,
    Named(id): Named<String>,
    Params(query): Params<PacketQuery>,
) -> Result<Json<ReachabilityView>, ApiError> {
    let snapshot = api.handle.snapshot();
    let state = &snapshot.world.state;
    let task = find_task(state, &id)?;
    let bad = |message: &str| ApiError::new(ErrorCode::BadRequest, message);
    let flow = match (query.protocol, query.port) {
        (IpProtocol::Tcp, Some(port)) if port > 0 => Flow::Tcp(port),
        (IpProtocol::Udp, Some(port)) if port > 0 => Flow::Udp(port),
        (IpProtocol::Icmp, None) => Flow::Echo,
        (IpProtocol::Icmp, Some(_)) => return Err(bad("icmp has no ports")),
        (IpProtocol::Tcp | IpProtocol::Udp, _) => return Err(bad("to which port?")),
        (IpProtocol::All, _) => return Err(bad("a packet is tcp, udp or icmp")),
    };
    let from = endpoint(state, &query.from)?;
    let view = reachability::view(&snapshot, task, from, flow);
    view.map(Json).map_err(|why| ApiError::new(ErrorCode::Refused, why.to_string()))
}

/// An address, alone or as a range of one, or a task.
fn endpoint(state: &Durable, text: &str) -> Result<Endpoint, ApiError> {
    if let Ok(address) = text.strip_suffix("/32").unwrap_or(text).parse() {
        return Ok(Endpoint::Address(address));
    }
    if text.contains('/') && !text.starts_with("task/") {
        let message = format!("{text:?} is not one address");
        return Err(ApiError::new(ErrorCode::BadRequest, message).hint("ask for one address of the range"));
    }
    let id = text.strip_prefix("task/").unwrap_or(text);
    find_task(state, id).map(|task| Endpoint::Task(task.id.clone()))
}
