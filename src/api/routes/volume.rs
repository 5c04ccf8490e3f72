//! What is in a volume: read, or replaced.

use std::{io, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    extract::{Named, Params},
};
use crate::api::error::{ApiError, ErrorBody, ErrorCode};
use roadstead_control::{
    control::{Reading, RestoreError, handle::Snapshot, image_for, read_volume, restore_archive},
    engine::Engine,
};
use roadstead_core::{
    model::{
        spec::cluster::DEFAULT_CLUSTER,
        volume::{VolumeId, VolumeRecord},
    },
    plan::absorb,
    turn::CommandError,
};

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
    if let Some(moving) = &record.moving {
        let words = format!("volume {} {} just now", id.name, moving.words());
        return Err(ApiError::new(ErrorCode::Refused, words));
    }
    let (engine, image) = reach(&api, &snapshot, record)?;
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

/// What became of an archive.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Restoring {
    /// What happens now.
    pub message: String,
    /// Bytes of the archive.
    pub bytes: u64,
    /// Of the archive, hex.
    pub sha256: String,
}

/// Takes a tar archive of the folder `volume/`, puts it beside the volume and compares it there. Then what mounts the volume stops,
/// the archive's content takes the place of its data, and it starts again. The answer comes before that.
#[utoipa::path(post, path = "/v1/volumes/{name}/content", params(("name" = String, Path), OfCluster), request_body(content_type = "application/x-tar", content = Vec<u8>), responses((status = 200, body = Restoring), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(super) async fn restore(
    State(api): State<Api>,
    Named(name): Named<String>,
    Params(query): Params<OfCluster>,
    body: Body,
) -> Result<Json<Restoring>, ApiError> {
    let cluster = query.cluster.as_deref().unwrap_or(DEFAULT_CLUSTER);
    let id = VolumeId { cluster: cluster.into(), name };
    let snapshot = api.handle.snapshot();
    let state = &snapshot.world.state;
    let record = state.volumes.get(&id).ok_or_else(|| ApiError::not_found("volume", &id.name))?;
    absorb::may_restore(state, record).map_err(CommandError::from)?;
    let (engine, image) = reach(&api, &snapshot, record)?;
    let Ok(permit) = Arc::clone(&api.streams).try_acquire_owned() else {
        return Err(ApiError::new(ErrorCode::Unavailable, "too much is read just now"));
    };
    // A client that goes away must not leave anything half-way: the archive ends with it, and what was put there is removed.
    let work = tokio::spawn(async move {
        let _permit = permit;
        let archive = body.into_data_stream().map(|piece| piece.map_err(io::Error::other));
        let handle = &api.handle;
        let desk = (&handle.snapshots, &handle.commands, &handle.copies);
        match restore_archive(desk, &*engine, &id, &image, archive).await {
            Ok((message, done)) => Ok(Restoring { message, bytes: done.bytes, sha256: done.sha256 }),
            Err(RestoreError::Engine(error)) => Err(ApiError::from(error)),
            Err(RestoreError::Order(error)) => Err(ApiError::from(error)),
        }
    });
    let done = work.await.map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    done.map(Json)
}

/// The engine that has a volume, and an image to lend it by.
fn reach(api: &Api, snapshot: &Snapshot, record: &VolumeRecord) -> Result<(Arc<dyn Engine>, String), ApiError> {
    let engine = api.handle.engines.borrow().get(&record.host).map(Arc::clone);
    engine
        .zip(image_for(&snapshot.world, record))
        .ok_or_else(|| ApiError::new(ErrorCode::Unavailable, format!("host {} is not connected", record.host)))
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
