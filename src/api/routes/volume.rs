//! What is in a volume.

use std::{io, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use utoipa::IntoParams;

use super::{
    Api,
    extract::{Named, Params},
};
use crate::api::error::{ApiError, ErrorBody, ErrorCode};
use roadstead_control::control::{Reading, image_for, read_volume};
use roadstead_core::model::{spec::cluster::DEFAULT_CLUSTER, volume::VolumeId};

/// Pieces that wait for a slow reader.
const PIECES: usize = 16;

#[derive(Deserialize, IntoParams)]
pub(super) struct OfCluster {
    /// Its cluster; `default` when absent.
    cluster: Option<String>,
}

/// A tar archive of the folder `volume/`. Cut off when reading fails half-way.
#[utoipa::path(get, path = "/v1/volumes/{name}/content", params(("name" = String, Path), OfCluster), responses((status = 200, description = "A tar archive", content_type = "application/x-tar"), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(super) async fn content(
    State(api): State<Api>,
    Named(name): Named<String>,
    Params(query): Params<OfCluster>,
) -> Result<Response, ApiError> {
    let cluster = query.cluster.as_deref().unwrap_or(DEFAULT_CLUSTER);
    let id = VolumeId { cluster: cluster.into(), name };
    let snapshot = api.handle.snapshot();
    let Some(record) = snapshot.world.state.volumes.get(&id) else {
        return Err(ApiError::not_found("volume", &id.name));
    };
    if record.moving.is_some() {
        return Err(ApiError::new(ErrorCode::Refused, format!("volume {} moves just now", id.name)));
    }
    let engine = api.handle.engines.borrow().get(&record.host).map(Arc::clone);
    let (Some(engine), Some(image)) = (engine, image_for(&snapshot.world, record)) else {
        return Err(ApiError::new(ErrorCode::Unavailable, format!("host {} is not connected", record.host)));
    };
    let Ok(permit) = Arc::clone(&api.streams).try_acquire_owned() else {
        return Err(ApiError::new(ErrorCode::Unavailable, "too much is read just now"));
    };
    let reading = read_volume(&api.handle.copies, engine, &id, &image).await?;
    let (pieces, body) = mpsc::channel(PIECES);
    let shutdown = api.shutdown.clone();
    tokio::spawn(async move {
        let mut reading = reading;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = forward(&mut reading, pieces) => {}
        }
        reading.end().await;
        drop(permit);
    });
    let body = Body::from_stream(ReceiverStream::new(body));
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], body).into_response())
}

/// Until the end, an error, or a reader that went away.
async fn forward(reading: &mut Reading, pieces: mpsc::Sender<io::Result<bytes::Bytes>>) {
    while let Some(piece) = reading.pieces.next().await {
        let piece = piece.map_err(|error| io::Error::other(error.to_string()));
        let is_last = piece.is_err();
        if pieces.send(piece).await.is_err() || is_last {
            return;
        }
    }
}
