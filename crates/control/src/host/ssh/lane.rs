//! A connection that is opened when it is first needed, and again when it has ended.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, end_of};
use super::target::SshTarget;
use crate::host::{Backoff, LinkState, TransportError};

/// A pause up to this long is waited for; during a longer one calls fail at once.
const SHORT_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct LaneConnection {
    target: Arc<SshTarget>,
    current: Mutex<Option<Arc<Connection>>>,
    /// Held while connecting, so that one attempt serves all who wait.
    attempts: tokio::sync::Mutex<Attempts>,
    link: watch::Sender<LinkState>,
    closed: CancellationToken,
}

struct Attempts {
    backoff: Backoff,
    /// The last failure, and when the next attempt may begin.
    pause: Option<(TransportError, Instant)>,
}

impl LaneConnection {
    pub(super) fn new(target: Arc<SshTarget>, seed: u64, closed: CancellationToken) -> Arc<Self> {
        let backoff = Backoff::new(target.backoff_base, target.backoff_cap, seed);
        Arc::new(Self {
            target,
            current: Mutex::new(None),
            attempts: tokio::sync::Mutex::new(Attempts { backoff, pause: None }),
            link: watch::Sender::new(LinkState::Idle),
            closed,
        })
    }

    pub(super) fn link(&self) -> watch::Receiver<LinkState> {
        self.link.subscribe()
    }

    /// The open connection, or a new one. An attempt goes on when its caller stops waiting, for
    /// callers less patient than a slow link would never get one otherwise.
    pub(super) async fn get(self: &Arc<Self>) -> Result<Arc<Connection>, TransportError> {
        if self.closed.is_cancelled() {
            return Err(TransportError::Closed);
        }
        if let Some(connection) = self.open_one() {
            return Ok(connection);
        }
        let lane = Arc::clone(self);
        let attempt = tokio::spawn(async move { lane.connect().await });
        attempt.await.unwrap_or_else(|error| Err(TransportError::lost(error.to_string())))
    }

    fn open_one(&self) -> Option<Arc<Connection>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone().filter(|connection| connection.is_open())
    }

    fn replace(&self, connection: Option<Arc<Connection>>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    async fn connect(self: &Arc<Self>) -> Result<Arc<Connection>, TransportError> {
        let mut attempts = self.attempts.lock().await;
        if let Some(connection) = self.open_one() {
            return Ok(connection);
        }
        if let Some((error, not_before)) = &attempts.pause {
            let pause = not_before.saturating_duration_since(Instant::now());
            if pause > SHORT_PAUSE {
                return Err(error.clone());
            }
            sleep(pause).await;
        }
        self.link.send_replace(LinkState::Connecting { attempt: attempts.backoff.failures().saturating_add(1) });
        let connected = tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(TransportError::Closed),
            connected = Connection::connect(Arc::clone(&self.target)) => connected,
        };
        match connected {
            Ok(connection) => {
                let connection = Arc::new(connection);
                connection.close_with(self.closed.clone());
                self.replace(Some(Arc::clone(&connection)));
                self.link.send_replace(LinkState::Connected);
                attempts.pause = None;
                self.watch(&connection);
                Ok(connection)
            }
            Err(error) => {
                let pause = attempts.backoff.failed();
                attempts.pause = Some((error.clone(), Instant::now() + pause));
                self.down(error.clone(), pause);
                Err(error)
            }
        }
    }

    /// Notes the end of a connection at once, whether anybody uses it or not.
    fn watch(self: &Arc<Self>, connection: &Arc<Connection>) {
        let lane = Arc::clone(self);
        let mut ended = connection.ended.clone();
        let connection = Arc::downgrade(connection);
        let opened_at = Instant::now();
        tokio::spawn(async move {
            let error = end_of(&mut ended).await;
            let mut attempts = lane.attempts.lock().await;
            let is_current = {
                let current = lane.current.lock().unwrap_or_else(PoisonError::into_inner);
                let current = current.as_ref().map(Arc::downgrade);
                current.is_some_and(|current| current.ptr_eq(&connection))
            };
            // A successor may have been opened before this task ran.
            if !is_current {
                return;
            }
            lane.replace(None);
            let pause = attempts.backoff.ended(opened_at.elapsed());
            attempts.pause = Some((error.clone(), Instant::now() + pause));
            lane.down(error, pause);
        });
    }

    fn down(&self, error: TransportError, retry_in: Duration) {
        self.link.send_replace(LinkState::Down { error, retry_in });
    }
}
