//! The controller's way to one fake host: [`Engine`] and [`Transport`] over simulated time.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::BroadcastStream;

use super::{FakeFleet, FakeHost, Reach, Sent};
use crate::engine::machine::{Answer, Request};
use crate::{fleet::server::answering, scenario::PROBED};
use roadstead_control::{
    engine::{
        Content, Created, Engine, EngineError, EngineEvent, EngineInfo, EngineStream, ExecId, ExecOptions, ExecSession,
        ImageFacts, Inspected, LogLine, LogOptions, Progress, Verify, VerifyVolume,
    },
    host::{BoxIo, ExecOutput, ExecRequest, ExitStatus, Lane, LinkState, Transport, TransportError},
};
use roadstead_core::model::{
    container::{ContainerConfig, ContainerView},
    name::{HostName, RuntimeId},
    observed::EngineIdentity,
    storage::StoredImage,
    time::Timestamp,
    volume::VolumeClaim,
};

/// As the real engine's.
const READ: Duration = Duration::from_secs(10);
const CREATE: Duration = Duration::from_secs(30);
const START: Duration = Duration::from_secs(60);
const REMOVE: Duration = Duration::from_secs(30);
/// Nothing of an archive moves for so long, and it is given up.
const STALL: Duration = Duration::from_secs(60);
/// Between two pieces of an archive that is read.
const PIECE: Duration = Duration::from_millis(100);
const STOP_MARGIN: Duration = Duration::from_secs(15);
/// What a refused connection takes.
const REFUSED: Duration = Duration::from_millis(50);

/// A way to one host.
pub struct Link {
    fleet: FakeFleet,
    host: HostName,
    state: watch::Sender<LinkState>,
}

impl Link {
    pub(crate) fn new(fleet: FakeFleet, host: HostName) -> Self {
        Self { fleet, host, state: watch::Sender::new(LinkState::Connected) }
    }

    /// A question: no harm in asking.
    pub(super) async fn read<T>(
        &self,
        what: &str,
        is_list: bool,
        answer: impl FnOnce(&mut FakeHost, Timestamp) -> T,
    ) -> Result<T, EngineError> {
        let sampled = self.fleet.ground(|ground| {
            let (now, back_ms) = (ground.now, ground.latency(is_list));
            let Some(host) = ground.hosts.get_mut(&self.host) else { return Err(Reach::Refused) };
            match host.reach(now) {
                Reach::Fine => {
                    let clock = host.clock(now);
                    host.machine.settle(clock);
                    Ok((answer(host, clock), back_ms))
                }
                other => Err(other),
            }
        });
        let value = match sampled {
            Ok((value, back_ms)) => {
                sleep(Duration::from_millis(back_ms)).await;
                let arrives = self.fleet.ground(|ground| ground.hosts.get(&self.host).is_some_and(|host| host.back));
                arrives.then_some(value)
            }
            Err(Reach::Refused) => {
                sleep(REFUSED).await;
                return Err(self.unreachable());
            }
            Err(Reach::Silent | Reach::Fine) => None,
        };
        match value {
            Some(value) => Ok(value),
            None => {
                sleep(READ).await;
                Err(no_answer(what))
            }
        }
    }

    /// A change: it may be done although no answer comes.
    pub(super) async fn change(&self, what: &str, request: Request, deadline: Duration) -> Result<Answer, EngineError> {
        let (reply, answered) = oneshot::channel();
        match self.fleet.ground(|ground| ground.send(&self.host, request, reply)) {
            Sent::OnItsWay => {}
            Sent::Refused => {
                sleep(REFUSED).await;
                return Err(self.unreachable());
            }
            Sent::Killed => std::future::pending().await,
        }
        match timeout(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(no_answer(what)),
        }
    }

    async fn piece(&self, id: &RuntimeId, path: &str, index: usize) -> Result<Option<Bytes>, EngineError> {
        let what = "read an archive";
        if self.fleet.ground(|ground| ground.archive_is_cut_off()) {
            return Err(no_answer(what));
        }
        self.read(what, false, |host, _| host.machine.archive_piece(id, path, index)).await?
    }

    fn unreachable(&self) -> EngineError {
        EngineError::Unreachable(self.lost())
    }

    fn lost(&self) -> TransportError {
        TransportError::Unreachable { host: self.host.to_string(), detail: "no connection".into() }
    }

    fn unsupported(&self) -> EngineError {
        EngineError::Refused { status: 501, message: "not simulated".into() }
    }
}

fn no_answer(what: &str) -> EngineError {
    EngineError::OutcomeUnknown { what: what.to_owned(), reason: "no answer".into() }
}

#[async_trait]
impl Engine for Link {
    async fn identify(&self) -> Result<EngineIdentity, EngineError> {
        self.read("identify", false, |host, _| EngineIdentity { machine_id: None, ..host.machine.identity.clone() })
            .await
    }

    async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.read("info", false, |host, _| host.machine.info.clone()).await
    }

    async fn ping(&self) -> Result<(), EngineError> {
        self.read("ping", false, |_, _| ()).await
    }

    async fn list(&self, verify: Verify<'_>) -> Result<BTreeMap<RuntimeId, ContainerView>, EngineError> {
        self.read("list", true, |host, _| host.machine.list(verify)).await
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageFacts>, EngineError> {
        self.read("inspect image", false, |host, _| host.machine.image(reference)).await
    }

    async fn images(&self) -> Result<BTreeMap<String, StoredImage>, EngineError> {
        self.read("list images", false, |host, _| host.machine.stored_images()).await
    }

    async fn remove_image(&self, id: &str) -> Result<(), EngineError> {
        self.change("remove an image", Request::RemoveImage(id.to_owned()), REMOVE).await.map(drop)
    }

    async fn registry_digest(&self, reference: &str) -> Result<String, EngineError> {
        self.read("ask the registry", false, |host, _| host.machine.registry_digest(reference)).await?
    }

    async fn pull(&self, reference: &str, _progress: Progress<'_>) -> Result<(), EngineError> {
        self.change("pull", Request::Pull(reference.to_owned()), CREATE).await.map(drop)
    }

    async fn create(&self, config: &ContainerConfig) -> Result<Created, EngineError> {
        match self.change("create", Request::Create(Box::new(config.clone())), CREATE).await? {
            Answer::Created(created) => Ok(created),
            Answer::Done | Answer::Network(_) => Err(no_answer("create")),
        }
    }

    async fn start(&self, id: &RuntimeId) -> Result<(), EngineError> {
        self.change("start", Request::Start(id.clone()), START).await.map(drop)
    }

    async fn stop(&self, id: &RuntimeId, timeout_s: u32) -> Result<(), EngineError> {
        let deadline = Duration::from_secs(timeout_s.into()) + STOP_MARGIN;
        self.change("stop", Request::Stop(id.clone()), deadline).await.map(drop)
    }

    async fn remove(&self, id: &RuntimeId, force: bool) -> Result<(), EngineError> {
        self.change("remove", Request::Remove { id: id.clone(), force }, REMOVE).await.map(drop)
    }

    async fn volumes(&self, verify: VerifyVolume<'_>) -> Result<BTreeMap<String, VolumeClaim>, EngineError> {
        self.read("list volumes", true, |host, _| host.machine.our_volumes(verify)).await
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        self.change("remove a volume", Request::RemoveVolume(name.to_owned()), REMOVE).await.map(drop)
    }

    async fn has_volume(&self, name: &str) -> Result<bool, EngineError> {
        self.read("inspect volume", false, |host, _| host.machine.volumes.contains_key(name)).await
    }

    async fn download(&self, id: &RuntimeId, path: &str) -> Result<EngineStream<Bytes>, EngineError> {
        let link = Self::new(self.fleet.clone(), self.host.clone());
        let (id, path) = (id.clone(), path.to_owned());
        link.piece(&id, &path, 0).await?;
        // Each piece is what is there when its time comes: whoever writes meanwhile tears it.
        let pieces = stream::unfold(Some(0), move |index| {
            let (link, id, path) = (Self::new(link.fleet.clone(), link.host.clone()), id.clone(), path.clone());
            async move {
                let index = index?;
                sleep(PIECE).await;
                match link.piece(&id, &path, index).await {
                    Ok(piece) => Some((Ok(piece?), Some(index + 1))),
                    Err(error) => Some((Err(error), None)),
                }
            }
        });
        Ok(Box::pin(pieces))
    }

    async fn upload(&self, id: &RuntimeId, _path: &str, mut content: Content) -> Result<(), EngineError> {
        let what = "write an archive";
        let mut index = 0;
        while let Some(piece) = content.next().await {
            let piece = piece
                .map_err(|error| EngineError::OutcomeUnknown { what: what.to_owned(), reason: error.to_string() })?;
            self.change(what, Request::Unpack { id: id.clone(), index, piece }, STALL).await?;
            index += 1;
        }
        Ok(())
    }

    async fn inspect(&self, id_or_name: &str, verify: Verify<'_>) -> Result<Option<Inspected>, EngineError> {
        self.read("inspect", false, |host, _| {
            let id = host.machine.find(id_or_name)?;
            host.machine.inspect(&id, verify)
        })
        .await
    }

    async fn events(&self, since: Option<Timestamp>) -> Result<EngineStream<EngineEvent>, EngineError> {
        let (past, live) = self
            .read("follow events", false, |host, _| {
                let past = since.map(|since| host.machine.remembered(since)).unwrap_or_default();
                (past, host.followers.subscribe())
            })
            .await?;
        let live = BroadcastStream::new(live).map(|event| event.map_err(|_| no_answer("follow events")));
        Ok(Box::pin(stream::iter(past.into_iter().map(Ok)).chain(live)))
    }

    async fn logs(&self, _id: &RuntimeId, _options: LogOptions) -> Result<EngineStream<LogLine>, EngineError> {
        Err(self.unsupported())
    }

    async fn exec(&self, _id: &RuntimeId, _options: ExecOptions) -> Result<ExecSession, EngineError> {
        Err(self.unsupported())
    }

    async fn exec_resize(&self, _exec: &ExecId, _rows: u16, _columns: u16) -> Result<(), EngineError> {
        Err(self.unsupported())
    }

    async fn exec_exit_code(&self, _exec: &ExecId) -> Result<Option<i64>, EngineError> {
        Err(self.unsupported())
    }
}

#[async_trait]
impl Transport for Link {
    async fn dial(&self, _socket: &Path, _lane: Lane) -> Result<BoxIo, TransportError> {
        Err(self.lost())
    }

    async fn dial_tcp(&self, address: SocketAddr) -> Result<BoxIo, TransportError> {
        // A request and its answer go over the same cable.
        let look = || {
            self.fleet.ground(|ground| {
                let now = ground.now;
                let host = ground.hosts.get_mut(&self.host).filter(|host| host.there && host.back)?;
                let clock = host.clock(now);
                host.machine.settle(clock);
                Some(host.machine.at_address(address.ip(), PROBED))
            })
        };
        if look().is_some() {
            sleep(Duration::from_millis(1)).await;
        }
        let Some(found) = look() else {
            sleep(REFUSED).await;
            return Err(self.lost());
        };
        answering(found, address)
    }

    /// Knows three commands: `true`, `df`, and `cat /etc/machine-id`. The machine answers although its engine hangs.
    async fn exec(&self, request: ExecRequest) -> Result<ExecOutput, TransportError> {
        let found = self.fleet.ground(|ground| {
            let host = ground.hosts.get(&self.host)?;
            (host.there && host.back).then(|| (host.machine.identity.machine_id.clone(), host.machine.disk()))
        });
        let Some((machine_id, disk)) = found else {
            sleep(REFUSED).await;
            return Err(self.lost());
        };
        sleep(Duration::from_millis(1)).await;
        let text = match request.argv.first().map(String::as_str) {
            Some("cat") => machine_id.unwrap_or_default(),
            Some("df") => disk,
            Some(_) | None => String::new(),
        };
        Ok(ExecOutput { status: ExitStatus::Exited(0), stdout: Bytes::from(text), stderr: Bytes::new() })
    }

    async fn upload(
        &self,
        _path: &str,
        _mode: u32,
        _content: Bytes,
        _deadline: Duration,
    ) -> Result<(), TransportError> {
        Err(self.lost())
    }

    fn link(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    async fn close(&self) {}
}
