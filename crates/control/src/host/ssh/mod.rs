//! Hosts over SSH: two shared connections each (calls, streams), and one for each bulk stream.

mod auth;
mod channel_io;
mod connection;
mod lane;
mod resolve;
mod scan;
mod session;
mod target;
mod trust;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::exec::upload_request;
use super::{BoxIo, ExecOutput, ExecRequest, Lane, LinkState, Transport, TransportError, socket_path};
use channel_io::{Keep, Lag};
use connection::Connection;
use lane::LaneConnection;

pub use resolve::{Destination, expand_home, resolve, resolve_with};
pub use scan::{ScannedHostKey, scan_host_keys};
pub use target::{Agent, SshTarget};

/// Reaches a host over SSH. Connects when first used, and again after a connection has ended.
pub struct SshTransport {
    target: Arc<SshTarget>,
    calls: Arc<LaneConnection>,
    streams: Arc<LaneConnection>,
    bulk: Arc<Semaphore>,
    closed: CancellationToken,
}

impl SshTransport {
    /// A transport to `target`. Opens nothing yet. `seed` decides the jitter of the pauses.
    pub fn new(target: SshTarget, seed: u64) -> Self {
        let target = Arc::new(target);
        let closed = CancellationToken::new();
        let lane = |seed| LaneConnection::new(Arc::clone(&target), seed, closed.clone());
        Self {
            calls: lane(seed),
            streams: lane(seed.wrapping_add(1)),
            bulk: Arc::new(Semaphore::new(target.max_bulk.max(1))),
            closed: closed.clone(),
            target: Arc::clone(&target),
        }
    }

    async fn dial_shared(&self, lane: &Arc<LaneConnection>, path: &str) -> Result<BoxIo, TransportError> {
        let connection = lane.get().await?;
        let dialled = connection.dial(path, Lag::Cut, Keep::default()).await;
        let stream = match dialled {
            // It ended before we asked anything of the host: no harm in asking on a new one.
            Err(TransportError::Lost { .. }) => {
                let connection = lane.get().await?;
                connection.dial(path, Lag::Cut, Keep::default()).await?
            }
            other => other?,
        };
        Ok(Box::new(stream))
    }

    async fn run(&self, what: &str, request: ExecRequest) -> Result<ExecOutput, TransportError> {
        let run = async {
            let mut connection = self.calls.get().await?;
            let session = match connection.open_session().await {
                // As for dialling: nothing was asked of the host yet.
                Err(TransportError::Lost { .. }) => {
                    connection = self.calls.get().await?;
                    connection.open_session().await?
                }
                other => other?,
            };
            connection.run(session, &request).await
        };
        timeout(request.deadline, run).await.unwrap_or_else(|_| {
            let what = format!("{} {what}", self.target.name());
            Err(TransportError::timed_out(what, request.deadline))
        })
    }

    async fn dial_bulk(&self, path: &str) -> Result<BoxIo, TransportError> {
        let limit = self.target.open_timeout;
        let place = timeout(limit, Arc::clone(&self.bulk).acquire_owned()).await;
        let place = place.map_err(|_| TransportError::timed_out("a free bulk stream", limit))?;
        let place = place.map_err(|_| TransportError::Closed)?;
        let connection = tokio::select! {
            biased;
            () = self.closed.cancelled() => return Err(TransportError::Closed),
            connected = Connection::connect(Arc::clone(&self.target)) => Arc::new(connected?),
        };
        connection.close_with(self.closed.clone());
        let keep = Keep { _connection: Some(Arc::clone(&connection)), _bulk_place: Some(place), ..Keep::default() };
        let stream = connection.dial(path, Lag::Wait, keep).await?;
        Ok(Box::new(stream))
    }
}

#[async_trait]
impl Transport for SshTransport {
    async fn dial(&self, socket: &Path, lane: Lane) -> Result<BoxIo, TransportError> {
        let path = socket_path(socket)?;
        match lane {
            Lane::Calls => self.dial_shared(&self.calls, path).await,
            Lane::Streams => self.dial_shared(&self.streams, path).await,
            Lane::Bulk => self.dial_bulk(path).await,
        }
    }

    async fn dial_tcp(&self, address: SocketAddr) -> Result<BoxIo, TransportError> {
        let connection = self.calls.get().await?;
        let stream = match connection.dial_tcp(address).await {
            // As for dialling a socket.
            Err(TransportError::Lost { .. }) => self.calls.get().await?.dial_tcp(address).await?,
            other => other?,
        };
        Ok(Box::new(stream))
    }

    async fn exec(&self, request: ExecRequest) -> Result<ExecOutput, TransportError> {
        request.check()?;
        // Not the arguments: they may hold what no log should.
        let what = format!("running {}", request.program());
        self.run(&what, request).await
    }

    async fn upload(&self, path: &str, mode: u32, content: Bytes, deadline: Duration) -> Result<(), TransportError> {
        let what = format!("upload to {path}");
        let request = upload_request(path, mode, content, deadline)?;
        let output = self.run(&what, request).await?;
        if output.status.success() {
            return Ok(());
        }
        Err(TransportError::CommandFailed {
            what,
            detail: connection::printable(&String::from_utf8_lossy(&output.stderr)),
        })
    }

    fn link(&self) -> watch::Receiver<LinkState> {
        self.calls.link()
    }

    async fn close(&self) {
        self.closed.cancel();
    }
}

impl Drop for SshTransport {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}
