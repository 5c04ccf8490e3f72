//! A hint that something changed: clients then read again what they show.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, stream};

use super::Api;

/// A sign of life this often, so that a dead connection is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Changes closer together than this are told once.
const QUIET: Duration = Duration::from_millis(100);

/// Server-sent events: `data` counts from 1, once at the start and once after each change.
#[utoipa::path(get, path = "/v1/watch", responses((status = 200, description = "Server-sent events: a growing number at each change", content_type = "text/event-stream", body = String)))]
pub(super) async fn watch(State(api): State<Api>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let snapshots = api.handle.snapshots.clone();
    let changes = stream::unfold((snapshots, api.shutdown, 1_u64), |(mut snapshots, shutdown, version)| async move {
        if version > 1 {
            tokio::select! {
                () = shutdown.cancelled() => return None,
                changed = snapshots.changed() => changed.ok()?,
            }
            tokio::time::sleep(QUIET).await;
        }
        snapshots.borrow_and_update();
        Some((Ok(Event::default().data(version.to_string())), (snapshots, shutdown, version + 1)))
    });
    Sse::new(changes).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}
