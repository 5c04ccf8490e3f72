//! Watching one host: heartbeats and complete looks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    crash_point::{Point, reach},
    engine::EngineError,
    host::{ExecRequest, TransportError},
};
use roadstead_core::model::{
    name::HostName,
    observed::{EngineIdentity, HostContact, HostObservation},
    ownership::FleetKey,
    spec::cluster::HostLoss,
    volume::VolumesSeen,
};

use super::{connect::Connection, listen::Listener, seams::Clock, storage::StorageWatch};
use roadstead_core::turn::Input;

/// A look is taken at least this often, hints or not.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Two looks in a row keep at least this distance, so that a burst of hints costs little.
const LOOK_GAP: Duration = Duration::from_millis(100);
/// A complete look takes no longer.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);
/// A host that had no volumes of ours is asked for them this often.
const VOLUMES_EVERY: Duration = Duration::from_secs(60);
/// Pause after a look that failed.
const LOOK_RETRY: Duration = Duration::from_secs(1);

/// How hosts can be reached just now: written by their observers, read before each decision.
#[derive(Clone, Default)]
pub struct Contacts {
    inner: Arc<Mutex<BTreeMap<HostName, HostContact>>>,
    changed: Arc<Notify>,
}

impl Contacts {
    /// All of them.
    pub fn all(&self) -> BTreeMap<HostName, HostContact> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Resolves when a host became reachable, unreachable or untrusted.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Silence counts anew from `now`: for when we ourselves were stopped for a while.
    pub fn forgive(&self, now: roadstead_core::model::time::Timestamp) {
        for contact in self.inner.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            contact.watched_since = now;
        }
    }

    /// A host that cannot even be connected.
    pub(super) fn fail(&self, host: &HostName, since: roadstead_core::model::time::Timestamp, error: String) {
        self.update(host, |contact| {
            contact.watched_since = since;
            contact.error = Some(error);
        });
    }

    fn update(&self, host: &HostName, update: impl FnOnce(&mut HostContact)) {
        let mut contacts = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let contact = contacts.entry(host.clone()).or_default();
        let before = (contact.error.is_some(), contact.untrusted.clone(), contact.engine_answered_at.is_some());
        update(contact);
        if before != (contact.error.is_some(), contact.untrusted.clone(), contact.engine_answered_at.is_some()) {
            self.changed.notify_one();
        }
    }

    /// Forgets a host.
    pub(super) fn remove(&self, host: &HostName) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
    }
}

/// What is known of a host's volumes.
#[derive(Default)]
struct Volumes {
    listed_at: Option<Instant>,
    is_empty: bool,
}

/// One host's observer.
pub(super) struct Observer {
    pub(super) host: HostName,
    pub(super) connection: Connection,
    pub(super) loss: HostLoss,
    pub(super) key: FleetKey,
    pub(super) clock: Clock,
    pub(super) contacts: Contacts,
    pub(super) inputs: mpsc::Sender<Input>,
    /// Asks for a look now.
    pub(super) hint: Arc<Notify>,
    /// Asks for a look at the disk and the images now.
    pub(super) storage_hint: Arc<Notify>,
    pub(super) stop: CancellationToken,
}

impl Observer {
    /// Runs until told to stop.
    pub(super) async fn run(self) {
        let since = self.clock.now();
        self.contacts.update(&self.host, |contact| contact.watched_since = since);
        let strange = Arc::new(AtomicBool::new(true));
        let listener = Listener {
            host: self.host.clone(),
            engine: Arc::clone(&self.connection.engine),
            clock: self.clock.clone(),
            inputs: self.inputs.clone(),
            hint: Arc::clone(&self.hint),
            strange: Arc::clone(&strange),
        };
        let follow = tokio::spawn(listener.run());
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.watch(&strange) => {}
        }
        follow.abort();
        // A host that hangs must not hold up the rest.
        let _ = timeout(Duration::from_secs(2), self.connection.transport.close()).await;
    }

    /// Beats and looks beside each other: a look that hangs must not hide that the host answers.
    ///
    /// `strange` is set when the engine may be another one by now.
    async fn watch(&self, strange: &AtomicBool) {
        let storage = StorageWatch {
            host: &self.host,
            connection: &self.connection,
            clock: &self.clock,
            inputs: &self.inputs,
            hint: &self.storage_hint,
        };
        tokio::join!(self.beats(strange), self.looks(strange), storage.run());
    }

    async fn beats(&self, strange: &AtomicBool) {
        let deadline = Duration::from_millis((self.loss.lost_after.as_ms() / 3).clamp(1_000, 4_000));
        let every = Duration::from_millis((self.loss.suspect_after.as_ms() / 5).clamp(250, 1_000));
        loop {
            if self.beat(deadline).await {
                if strange.load(Ordering::Relaxed) {
                    self.hint.notify_one();
                }
            } else {
                strange.store(true, Ordering::Relaxed);
            }
            sleep(every).await;
        }
    }

    async fn looks(&self, strange: &AtomicBool) {
        let mut identity: Option<EngineIdentity> = None;
        let mut volumes = Volumes::default();
        loop {
            let began = Instant::now();
            if strange.swap(false, Ordering::Relaxed) {
                identity = None;
                volumes = Volumes::default();
            }
            match timeout(LOOK_DEADLINE, self.look(&mut identity)).await {
                Ok(Ok(look)) => {
                    let answered = look.finished_at;
                    self.contacts.update(&self.host, |contact| {
                        contact.engine_answered_at = Some(answered);
                        contact.link_answered_at = Some(answered);
                        contact.error = None;
                        contact.untrusted = None;
                    });
                    self.look_at_volumes(&mut volumes).await;
                    if self.inputs.send(Input::Look(Arc::new(look))).await.is_err() {
                        return;
                    }
                    sleep_until(began + LOOK_GAP).await;
                    let _ = timeout(LOOK_EVERY, self.hint.notified()).await;
                }
                Ok(Err(error)) => {
                    strange.store(true, Ordering::Relaxed);
                    self.note_error(&error);
                    sleep(LOOK_RETRY).await;
                }
                Err(_) => {
                    strange.store(true, Ordering::Relaxed);
                    tracing::warn!(host = %self.host, "no complete list of containers within {LOOK_DEADLINE:?}");
                    sleep(LOOK_RETRY).await;
                }
            }
        }
    }

    /// Lists the host's volumes, if it may have some of ours: a host without any is asked now and then only. A look is
    /// worth as much without them.
    async fn look_at_volumes(&self, known: &mut Volumes) {
        if known.is_empty && known.listed_at.is_some_and(|at| at.elapsed() < VOLUMES_EVERY) {
            return;
        }
        let started_at = self.clock.now();
        let verify = |name: &str, labels: &BTreeMap<String, String>| self.key.volume_of(&self.host, name, labels);
        let listed = timeout(LOOK_DEADLINE, self.connection.engine.volumes(&verify)).await;
        match listed {
            Ok(Ok(volumes)) => {
                *known = Volumes { listed_at: Some(Instant::now()), is_empty: volumes.is_empty() };
                let seen = VolumesSeen { started_at, volumes };
                let _ = self.inputs.send(Input::Volumes(self.host.clone(), seen)).await;
            }
            Ok(Err(error)) => tracing::debug!(host = %self.host, %error, "no list of volumes"),
            Err(_) => tracing::debug!(host = %self.host, "no list of volumes within {LOOK_DEADLINE:?}"),
        }
    }

    /// Whether the engine answered; if not, whether at least the machine does.
    async fn beat(&self, deadline: Duration) -> bool {
        let error = match timeout(deadline, self.connection.engine.ping()).await {
            Ok(Ok(())) => {
                let now = self.clock.now();
                self.contacts.update(&self.host, |contact| {
                    contact.engine_answered_at = Some(now);
                    contact.link_answered_at = Some(now);
                    contact.error = None;
                });
                return true;
            }
            Ok(Err(error)) => error,
            Err(_) => EngineError::OutcomeUnknown {
                what: "ping".to_owned(),
                reason: format!("the engine did not answer within {deadline:?}"),
            },
        };
        self.note_error(&error);
        let probe = ExecRequest { deadline, ..ExecRequest::new(["true"]) };
        if let Ok(Ok(_)) = timeout(deadline, self.connection.transport.exec(probe)).await {
            let now = self.clock.now();
            self.contacts.update(&self.host, |contact| contact.link_answered_at = Some(now));
        }
        false
    }

    async fn look(&self, identity: &mut Option<EngineIdentity>) -> Result<HostObservation, EngineError> {
        let started_at = self.clock.now();
        let known = match identity {
            Some(known) => known.clone(),
            None => {
                let mut seen = self.connection.engine.identify().await?;
                seen.machine_id = self.machine_id().await;
                identity.insert(seen).clone()
            }
        };
        reach(Point::Identified);
        let verify = |labels: &BTreeMap<String, String>| self.key.owner_of(&self.host, labels);
        let containers = self.connection.engine.list(&verify).await?;
        reach(Point::Listed);
        Ok(HostObservation {
            host: self.host.clone(),
            started_at,
            finished_at: self.clock.now(),
            identity: known,
            containers,
        })
    }

    /// `/etc/machine-id`; nothing when the SSH user may not run commands.
    async fn machine_id(&self) -> Option<String> {
        let request = ExecRequest {
            deadline: Duration::from_secs(5),
            output_limit_bytes: 256,
            ..ExecRequest::new(["cat", "/etc/machine-id"])
        };
        let output = self.connection.transport.exec(request).await.ok()?;
        let id = std::str::from_utf8(&output.stdout).ok()?.trim().to_owned();
        (output.status.success() && id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
    }

    fn note_error(&self, error: &EngineError) {
        let untrusted = if let EngineError::Unreachable(transport @ TransportError::Untrusted { .. }) = error {
            Some(transport.to_string())
        } else {
            None
        };
        tracing::debug!(host = %self.host, %error, "no answer");
        self.contacts.update(&self.host, |contact| {
            contact.error = Some(error.to_string());
            if untrusted.is_some() {
                contact.untrusted = untrusted;
            }
        });
    }
}
