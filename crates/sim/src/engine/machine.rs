//! What a Docker Engine does, as a pure state machine: the behaviour measured on Docker 20.10.

mod edge;
mod images;
mod network;
mod volumes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;

use bytes::Bytes;
use roadstead_control::engine::{
    Created, EngineError, EngineEvent, EngineInfo, EventAction, Inspected, Verify, check_name,
};
use roadstead_control::net::Applied;
use roadstead_core::model::container::{ContainerConfig, ContainerState, ContainerView, HealthStatus, PortBinding};
use roadstead_core::model::name::RuntimeId;
use roadstead_core::model::observed::EngineIdentity;
use roadstead_core::model::ownership::{Owner, PREFIX};
use roadstead_core::model::spec::task_definition::Protocol;
use roadstead_core::model::time::Timestamp;

use edge::Balancers;
pub use edge::EdgeChange;
pub use images::Registry;
pub use network::NetworkChange;
use network::{Joined, Part};
pub(crate) use volumes::{FakeVolume, Pieces, archive, unpacked, writable, written};

/// Docker remembers so many events.
const EVENT_RING: usize = 256;
/// Docker's first pause before it restarts a crashed container; doubled each time.
const RESTART_PAUSE_MS: u64 = 100;
/// Docker's longest pause.
const RESTART_PAUSE_MAX_MS: u64 = 60_000;
/// A container that ran so long begins with the first pause again.
const RAN_WELL_MS: u64 = 10_000;
/// What a failed start leaves as exit code.
const START_FAILED: i64 = 128;
const SIGKILLED: i64 = 137;
/// Before the first that a container gets: 172.17.0.1, as on Docker's bridge.
const FIRST_ADDRESS: u32 = 0xac11_0001;
const LOST_IN_REBOOT: i64 = 255;

/// A change that was asked for; it can wait in a hung engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Make a container.
    Create(Box<ContainerConfig>),
    /// Start it.
    Start(RuntimeId),
    /// Stop it.
    Stop(RuntimeId),
    /// Remove it.
    Remove {
        /// Which.
        id: RuntimeId,
        /// Also a running one.
        force: bool,
    },
    /// Remove a volume.
    RemoveVolume(String),
    /// Write the nth piece of an archive to what a container has mounted.
    Unpack {
        /// Which container.
        id: RuntimeId,
        /// Which piece.
        index: usize,
        /// It.
        piece: Bytes,
    },
    /// Pull an image.
    Pull(String),
    /// Remove an image, by its id.
    RemoveImage(String),
    /// Make the host's part of the task network so; said in this session, of which the last one counts.
    Network(u64, NetworkChange),
    /// Its load balancers, as a session tells them.
    Edge(u64, EdgeChange),
}

/// What a request brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Created(Created),
    Done,
    /// What came of the task network.
    Network(Applied),
}

struct Container {
    config: ContainerConfig,
    image_id: String,
    /// Whose it is, once somebody asked: labels never change.
    owner: OnceLock<Owner>,
    name: String,
    state: ContainerState,
    /// Whether it does what it should; a view tells it of those with a check only.
    health: HealthStatus,
    /// Another one in each of its lives, but for what has one of its own.
    address: Option<IpAddr>,
    /// The number of its life.
    life: u32,
    /// Whose network it has, and of which life.
    joined: Option<Joined>,
    exit_code: i64,
    oom_killed: bool,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    restart_count: u32,
    error: String,
    /// Somebody stopped or killed it: the restart policy is off.
    stopped_by_hand: bool,
    /// When the engine starts a crashed one again.
    restart_at: Option<Timestamp>,
    /// The pause before its last restart; 0 before the first.
    pause_ms: u64,
}

pub(crate) struct Machine {
    seed: u64,
    made: u64,
    started: u32,
    pub(crate) identity: EngineIdentity,
    pub(crate) info: EngineInfo,
    containers: BTreeMap<RuntimeId, Container>,
    /// By name.
    pub(crate) volumes: BTreeMap<String, FakeVolume>,
    /// By reference, with the digest of what was pulled.
    pub(crate) images: BTreeMap<String, Option<String>>,
    /// How often other content was pushed under a reference.
    pushes: BTreeMap<String, u32>,
    pub(crate) registry: BTreeMap<String, Registry>,
    /// Host ports that processes outside of containers hold.
    pub(crate) foreign_ports: BTreeSet<(u16, Protocol)>,
    pub(crate) disk_full: bool,
    /// Its part of the task network.
    pub(crate) part: Part,
    /// Its load balancers.
    pub(crate) balancers: Balancers,
    ring: VecDeque<EngineEvent>,
    /// Events that followers were not told of yet.
    fresh: Vec<EngineEvent>,
}

impl Machine {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            made: 0,
            started: 0,
            identity: EngineIdentity {
                engine_id: format!("FAKE:{seed:016X}"),
                machine_id: None,
                engine_version: "20.10.24".into(),
                api_version: "1.41".into(),
                architecture: "X86_64".into(),
                operating_system: "Debian GNU/Linux 12 (bookworm)".into(),
                cpus: 2,
                memory_mib: 4096,
            },
            info: EngineInfo {
                data_root: "/var/lib/docker".into(),
                storage_driver: "overlay2".into(),
                live_restore: false,
                warnings: Vec::new(),
            },
            containers: BTreeMap::new(),
            volumes: BTreeMap::new(),
            images: BTreeMap::new(),
            pushes: BTreeMap::new(),
            registry: BTreeMap::new(),
            foreign_ports: BTreeSet::new(),
            disk_full: false,
            part: Part::default(),
            balancers: Balancers::default(),
            ring: VecDeque::new(),
            fresh: Vec::new(),
        }
    }

    pub(crate) fn apply(&mut self, request: &Request, now: Timestamp) -> Result<Answer, EngineError> {
        self.settle(now);
        match request {
            Request::Create(config) => self.create(config, now).map(Answer::Created),
            Request::Start(id) => self.start(id, now).map(|()| Answer::Done),
            Request::Stop(id) => {
                self.stop(id, now);
                Ok(Answer::Done)
            }
            Request::Remove { id, force } => self.remove(id, *force, now).map(|()| Answer::Done),
            Request::RemoveVolume(name) => self.remove_volume(name).map(|()| Answer::Done),
            Request::Unpack { id, index, piece } => self.unpack(id, *index, piece).map(|()| Answer::Done),
            Request::Pull(image) => self.pull(image).map(|()| Answer::Done),
            Request::RemoveImage(id) => self.remove_image(id).map(|()| Answer::Done),
            Request::Edge(session, change) => self.change_edge(*session, change).map(|()| Answer::Done),
            Request::Network(session, change) => self.change_network(*session, change).map(Answer::Network),
        }
    }

    /// Does what is due: starts crashed containers again.
    pub(crate) fn settle(&mut self, now: Timestamp) {
        let due = |container: &Container| container.restart_at.filter(|at| *at <= now);
        while let Some((at, id)) = self.containers.iter().filter_map(|(id, c)| Some((due(c)?, id.clone()))).min() {
            let result = self.launch(&id, at);
            if let (Err(_), Some(container)) = (result, self.containers.get_mut(&id)) {
                // Docker gives up on a container that it cannot start.
                container.state = ContainerState::Exited;
                container.restart_at = None;
            }
        }
    }

    fn create(&mut self, config: &ContainerConfig, now: Timestamp) -> Result<Created, EngineError> {
        let Some(image_id) = self.image_id(&config.image) else {
            return Err(EngineError::ImageMissing { image: config.image.clone(), message: "not on this host".into() });
        };
        check_name(&config.name)?;
        if let Some((id, holder)) = self.containers.iter().find(|(_, c)| c.name == config.name) {
            return Err(EngineError::NameTaken {
                name: config.name.clone(),
                existing: Some(id.clone()),
                labels: our_labels(&holder.config.labels),
            });
        }
        if self.disk_full {
            return Err(out_of_space());
        }
        self.make_volumes(config)?;
        self.made += 1;
        let id = RuntimeId::from(format!("{:08x}{:08x}{:048x}", self.seed, self.made, 0));
        let container = Container {
            config: self.by_id(config.clone()),
            image_id,
            owner: OnceLock::new(),
            name: config.name.clone(),
            state: ContainerState::Created,
            health: HealthStatus::Unknown,
            address: None,
            life: 0,
            joined: None,
            exit_code: 0,
            oom_killed: false,
            started_at: None,
            finished_at: None,
            restart_count: 0,
            error: String::new(),
            stopped_by_hand: false,
            restart_at: None,
            pause_ms: 0,
        };
        self.containers.insert(id.clone(), container);
        self.emit(&id, EventAction::Create, now);
        Ok(Created { id, warnings: Vec::new() })
    }

    fn start(&mut self, id: &RuntimeId, now: Timestamp) -> Result<(), EngineError> {
        let container = self.containers.get_mut(id).ok_or_else(|| missing(id))?;
        if container.state.is_live() {
            return Ok(());
        }
        container.stopped_by_hand = false;
        container.restart_count = 0;
        container.pause_ms = 0;
        self.launch(id, now)
    }

    /// Runs its process, whoever wants it.
    fn launch(&mut self, id: &RuntimeId, now: Timestamp) -> Result<(), EngineError> {
        let taken = self.taken_port(id);
        let container = self.containers.get_mut(id).ok_or_else(|| missing(id))?;
        if let Some(port) = taken {
            let message = format!("driver failed: Bind for 0.0.0.0:{port} failed: port is already allocated");
            container.error.clone_from(&message);
            container.exit_code = START_FAILED;
            return Err(EngineError::PortTaken { port: Some(port), message });
        }
        let (joined, address) = self.attach(id).inspect_err(|error| {
            if let Some(container) = self.containers.get_mut(id) {
                (container.error, container.exit_code) = (error.to_string(), START_FAILED);
            }
        })?;
        let container = self.containers.get_mut(id).ok_or_else(|| missing(id))?;
        container.restart_count += u32::from(container.restart_at.is_some());
        container.restart_at = None;
        container.state = ContainerState::Running;
        container.health = HealthStatus::Unknown;
        self.started += 1;
        (container.life, container.joined) = (self.started, joined);
        let on_bridge = container.config.attachment.is_none();
        let next = || Ipv4Addr::from_bits(FIRST_ADDRESS.saturating_add(self.started)).into();
        container.address = address.or_else(|| on_bridge.then(next));
        container.started_at = Some(now);
        container.oom_killed = false;
        container.error.clear();
        self.emit(id, EventAction::Start, now);
        Ok(())
    }

    /// The first of its host ports that somebody else holds.
    fn taken_port(&self, id: &RuntimeId) -> Option<u16> {
        let wanted = &self.containers.get(id)?.config.ports;
        let mut held = self.foreign_ports.clone();
        for (other, container) in &self.containers {
            if other != id && holds_ports(container.state) {
                held.extend(container.config.ports.iter().map(|port| (port.host_port, port.protocol)));
            }
        }
        wanted.iter().find(|port| held.contains(&(port.host_port, port.protocol))).map(|port| port.host_port)
    }

    fn stop(&mut self, id: &RuntimeId, now: Timestamp) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if !container.state.is_live() {
            return;
        }
        container.stopped_by_hand = true;
        if container.state == ContainerState::Restarting {
            container.state = ContainerState::Exited;
            container.restart_at = None;
            return;
        }
        self.emit(id, EventAction::Kill, now);
        self.end(id, 0, false, now);
        self.emit(id, EventAction::Stop, now);
    }

    fn remove(&mut self, id: &RuntimeId, force: bool, now: Timestamp) -> Result<(), EngineError> {
        let Some(container) = self.containers.get(id) else { return Ok(()) };
        if container.state.is_live() {
            if !force {
                return Err(EngineError::Conflict {
                    message: format!("You cannot remove a running container {id}. Stop it first or force it"),
                });
            }
            self.kill(id, now);
        }
        self.emit(id, EventAction::Destroy, now);
        self.containers.remove(id);
        Ok(())
    }

    /// `docker kill`: the restart policy is off afterwards.
    pub(crate) fn kill(&mut self, id: &RuntimeId, now: Timestamp) {
        let Some(container) = self.containers.get_mut(id).filter(|c| c.state.is_live()) else { return };
        container.stopped_by_hand = true;
        self.emit(id, EventAction::Kill, now);
        self.end(id, SIGKILLED, false, now);
    }

    /// Its main process ends by itself, or the kernel ends it for memory.
    pub(crate) fn end(&mut self, id: &RuntimeId, exit_code: i64, oom: bool, now: Timestamp) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if !holds_ports(container.state) && container.state != ContainerState::Restarting {
            return;
        }
        container.exit_code = exit_code;
        container.oom_killed = oom;
        container.finished_at = Some(now);
        container.health = HealthStatus::Unknown;
        container.restart_at = None;
        let restarts = container.config.restart && (exit_code != 0 || !container.config.restart_failed_only);
        if restarts && !container.stopped_by_hand {
            let ran_ms = container.started_at.map_or(0, |started| now.since_ms(started));
            container.pause_ms = match container.pause_ms {
                1.. if ran_ms < RAN_WELL_MS => (container.pause_ms * 2).min(RESTART_PAUSE_MAX_MS),
                0.. => RESTART_PAUSE_MS,
            };
            container.state = ContainerState::Restarting;
            container.restart_at = Some(now.plus_ms(container.pause_ms));
        } else {
            container.state = ContainerState::Exited;
        }
        if oom {
            self.emit(id, EventAction::Oom, now);
        }
        let exit_code = Some(exit_code);
        self.emit(id, EventAction::Die { exit_code }, now);
    }

    pub(crate) fn set_health(&mut self, id: &RuntimeId, health: HealthStatus, now: Timestamp) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.state == ContainerState::Running {
            container.health = health;
            if container.config.health_check.is_some() {
                self.emit(id, EventAction::Health, now);
            }
        }
    }

    /// The container that has this address now: its state, and whether it does what it should.
    /// In a network that several share: of the one among them with this label.
    pub(crate) fn at_address(&self, address: IpAddr, label: &str) -> Option<(ContainerState, HealthStatus)> {
        let has_it = |(_, container): &(&RuntimeId, &Container)| {
            container.address == Some(address) && holds_ports(container.state)
        };
        let (id, container) = self.containers.iter().find(has_it)?;
        match container.config.attachment {
            Some(_) => self.in_network_of(id, label),
            None => Some((container.state, container.health)),
        }
    }

    pub(crate) fn set_paused(&mut self, id: &RuntimeId, paused: bool, now: Timestamp) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let (from, to, word) = match paused {
            true => (ContainerState::Running, ContainerState::Paused, "pause"),
            false => (ContainerState::Paused, ContainerState::Running, "unpause"),
        };
        if container.state == from {
            container.state = to;
            self.emit(id, EventAction::Other(word.into()), now);
        }
    }

    pub(crate) fn rename(&mut self, id: &RuntimeId, name: &str, now: Timestamp) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.name = name.to_owned();
        self.emit(id, EventAction::Other("rename".into()), now);
    }

    /// The engine is killed and started again. Without live-restore it then stops its containers as if by
    /// hand, so that none is started again.
    pub(crate) fn restart(&mut self, now: Timestamp) {
        self.ring.clear();
        if self.info.live_restore {
            return;
        }
        self.stop_node();
        for id in self.live() {
            self.stop(&id, now);
        }
    }

    /// The machine loses power and starts again; nobody saw its containers end.
    pub(crate) fn reboot(&mut self, now: Timestamp) {
        self.reboot_network();
        for id in self.live() {
            self.end(&id, LOST_IN_REBOOT, false, now);
        }
        self.ring.clear();
        self.fresh.clear();
        for container in self.containers.values_mut() {
            container.restart_at = container.restart_at.map(|_| now);
            container.pause_ms = 0;
        }
        self.settle(now);
        for container in self.containers.values_mut() {
            container.restart_count = 0;
        }
    }

    /// All containers, by id.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &RuntimeId> {
        self.containers.keys()
    }

    /// What a container was made from.
    pub(crate) fn config(&self, id: &RuntimeId) -> Option<&ContainerConfig> {
        self.containers.get(id).map(|container| &container.config)
    }

    /// Its check's last verdict.
    pub(crate) fn health(&self, id: &RuntimeId) -> Option<HealthStatus> {
        self.containers.get(id).map(|container| container.health)
    }

    /// When it last started, and ended.
    pub(crate) fn times(&self, id: &RuntimeId) -> (Option<Timestamp>, Option<Timestamp>) {
        self.containers.get(id).map_or((None, None), |container| (container.started_at, container.finished_at))
    }

    /// When a crashed container is started again next.
    pub(crate) fn next_restart(&self) -> Option<Timestamp> {
        self.containers.values().filter_map(|container| container.restart_at).min()
    }

    fn live(&self) -> Vec<RuntimeId> {
        let live = self.containers.iter().filter(|(_, container)| container.state.is_live());
        live.map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn list(&self, verify: Verify<'_>) -> BTreeMap<RuntimeId, ContainerView> {
        self.containers
            .iter()
            .map(|(id, container)| {
                let mut view = Self::view(id, container, verify);
                if view.owner.ours().is_none() {
                    // All that a list entry tells.
                    view.started_at = None;
                    view.finished_at = None;
                    view.restart_count = 0;
                    view.oom_killed = false;
                    view.error.clear();
                    view.has_health_check &= container.state == ContainerState::Running;
                    if !holds_ports(container.state) {
                        view.ports.clear();
                    }
                }
                (id.clone(), view)
            })
            .collect()
    }

    pub(crate) fn find(&self, id_or_name: &str) -> Option<RuntimeId> {
        let found = self.containers.iter().find(|(id, c)| id.as_str() == id_or_name || c.name == id_or_name);
        found.map(|(id, _)| id.clone())
    }

    pub(crate) fn inspect(&self, id: &RuntimeId, verify: Verify<'_>) -> Option<Inspected> {
        let container = self.containers.get(id)?;
        let address = container.address.filter(|_| holds_ports(container.state));
        Some(Inspected {
            view: Self::view(id, container, verify),
            labels: our_labels(&container.config.labels),
            address,
        })
    }

    pub(crate) fn state(&self, id: &RuntimeId) -> Option<ContainerState> {
        self.containers.get(id).map(|container| container.state)
    }

    fn view(id: &RuntimeId, container: &Container, verify: Verify<'_>) -> ContainerView {
        let mut ports: Vec<PortBinding> = container.config.ports.clone();
        ports.sort();
        ports.dedup();
        ContainerView {
            id: id.clone(),
            name: container.name.clone(),
            image: container.config.image.clone(),
            image_id: container.image_id.clone(),
            state: container.state,
            health: container.config.health_check.as_ref().map_or(HealthStatus::Unknown, |_| container.health),
            has_health_check: container.config.health_check.is_some() && container.started_at.is_some(),
            exit_code: match container.state {
                ContainerState::Exited | ContainerState::Dead | ContainerState::Restarting => Some(container.exit_code),
                ContainerState::Created
                | ContainerState::Running
                | ContainerState::Paused
                | ContainerState::Removing => None,
            },
            oom_killed: container.oom_killed,
            started_at: container.started_at,
            finished_at: container.finished_at,
            restart_count: container.restart_count,
            error: container.error.clone(),
            ports,
            owner: container.owner.get_or_init(|| verify(&our_labels(&container.config.labels))).clone(),
        }
    }

    fn emit(&mut self, id: &RuntimeId, action: EventAction, at: Timestamp) {
        let Some(container) = self.containers.get(id) else { return };
        let event = EngineEvent { id: id.clone(), name: container.name.clone(), action, at };
        if self.ring.len() == EVENT_RING {
            self.ring.pop_front();
        }
        self.ring.push_back(event.clone());
        self.fresh.push(event);
    }

    /// What the engine still remembers from `since` on.
    pub(crate) fn remembered(&self, since: Timestamp) -> Vec<EngineEvent> {
        self.ring.iter().filter(|event| event.at >= since).cloned().collect()
    }

    pub(crate) fn take_fresh(&mut self) -> Vec<EngineEvent> {
        std::mem::take(&mut self.fresh)
    }
}

fn holds_ports(state: ContainerState) -> bool {
    match state {
        ContainerState::Running | ContainerState::Paused => true,
        ContainerState::Created
        | ContainerState::Restarting
        | ContainerState::Removing
        | ContainerState::Exited
        | ContainerState::Dead => false,
    }
}

fn our_labels(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let ours = labels.iter().filter(|(label, _)| label.starts_with(PREFIX));
    ours.map(|(label, value)| (label.clone(), value.clone())).collect()
}

fn missing(id: &RuntimeId) -> EngineError {
    EngineError::NotFound { what: format!("start {id:.12}") }
}

fn out_of_space() -> EngineError {
    EngineError::OutOfSpace { message: "write /var/lib/docker: no space left on device".into() }
}
