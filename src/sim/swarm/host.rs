//! One host in memory: an engine's containers, and what the field notes measured of them.

use std::collections::BTreeMap;

use crate::model::{
    container::{ContainerConfig, ContainerState, ContainerView, HealthStatus, PortBinding},
    name::RuntimeId,
    observed::EngineIdentity,
    ownership::{Claim, Owner},
    time::Timestamp,
};

/// A container with what only the engine knows.
#[derive(Clone, Debug)]
pub(super) struct SimContainer {
    pub(super) view: ContainerView,
    /// Docker's `unless-stopped` is on, and nobody stopped it by hand.
    pub(super) restarts: bool,
    /// When its check gives a verdict.
    pub(super) healthy_at: Option<Timestamp>,
    /// Its checks fail for ever.
    pub(super) sick: bool,
}

/// A host.
#[derive(Clone, Debug)]
pub(super) struct SimHost {
    pub(super) identity: EngineIdentity,
    pub(super) containers: BTreeMap<RuntimeId, SimContainer>,
    /// Packets pass.
    pub(super) linked: bool,
    /// The engine answers; hung, it keeps what it is asked and does it later.
    pub(super) engine_up: bool,
    next_id: u64,
}

/// Why the engine refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NameTaken(RuntimeId),
    PortTaken(u16),
    NoSuchContainer,
    IsRunning,
}

impl SimHost {
    pub(super) fn new(name: &str, cpus: u32, memory_mib: u32) -> Self {
        Self {
            identity: EngineIdentity {
                engine_id: format!("engine-of-{name}"),
                machine_id: None,
                engine_version: "20.10.24".into(),
                api_version: "1.41".into(),
                architecture: "X86_64".into(),
                operating_system: "linux".into(),
                cpus,
                memory_mib,
            },
            containers: BTreeMap::new(),
            linked: true,
            engine_up: true,
            next_id: 0,
        }
    }

    pub(super) fn answers(&self) -> bool {
        self.linked && self.engine_up
    }

    pub(super) fn create(&mut self, host: &str, config: &ContainerConfig) -> Result<RuntimeId, Refusal> {
        if let Some((id, _)) = self.containers.iter().find(|(_, container)| container.view.name == config.name) {
            return Err(Refusal::NameTaken(id.clone()));
        }
        self.next_id += 1;
        let id = RuntimeId::from(format!("{host}-{:06}", self.next_id));
        let owner = Claim::from_labels(&config.labels).map_or(Owner::Foreign, |claim| Owner::Ours(Box::new(claim)));
        let view = ContainerView {
            id: id.clone(),
            name: config.name.clone(),
            image: config.image.clone(),
            image_id: format!("sha256:{}", config.image),
            state: ContainerState::Created,
            health: HealthStatus::Unknown,
            has_health_check: config.health_check.is_some(),
            exit_code: None,
            oom_killed: false,
            started_at: None,
            finished_at: None,
            restart_count: 0,
            error: String::new(),
            ports: config.ports.clone(),
            owner,
        };
        let sick = config.environment.contains_key("SICK");
        self.containers.insert(id.clone(), SimContainer { view, restarts: config.restart, healthy_at: None, sick });
        Ok(id)
    }

    pub(super) fn start(&mut self, id: &RuntimeId, now: Timestamp, healthy_after_ms: u64) -> Result<(), Refusal> {
        let wanted: Vec<PortBinding> = self.containers.get(id).ok_or(Refusal::NoSuchContainer)?.view.ports.clone();
        let taken = self
            .containers
            .iter()
            .filter(|(other, container)| *other != id && container.view.state.is_live())
            .flat_map(|(_, container)| &container.view.ports)
            .find(|port| wanted.iter().any(|mine| (mine.host_port, mine.protocol) == (port.host_port, port.protocol)));
        if let Some(port) = taken {
            return Err(Refusal::PortTaken(port.host_port));
        }
        let container = self.containers.get_mut(id).ok_or(Refusal::NoSuchContainer)?;
        if container.view.state.is_live() {
            return Ok(());
        }
        container.view.state = ContainerState::Running;
        container.view.started_at = Some(now);
        container.view.health = HealthStatus::Unknown;
        container.healthy_at = container.view.has_health_check.then(|| now.plus_ms(healthy_after_ms));
        Ok(())
    }

    pub(super) fn stop(&mut self, id: &RuntimeId, now: Timestamp) {
        if let Some(container) = self.containers.get_mut(id) {
            container.restarts = false;
            end(container, now, 143);
        }
    }

    pub(super) fn remove(&mut self, id: &RuntimeId) -> Result<(), Refusal> {
        if self.containers.get(id).is_some_and(|container| container.view.state.is_live()) {
            return Err(Refusal::IsRunning);
        }
        self.containers.remove(id);
        Ok(())
    }

    /// `docker kill`: switches the restart policy off.
    pub(super) fn kill(&mut self, id: &RuntimeId, now: Timestamp) {
        if let Some(container) = self.containers.get_mut(id) {
            container.restarts = false;
            end(container, now, 137);
        }
    }

    /// Its process dies by itself: the engine restarts it if it may.
    pub(super) fn crash(&mut self, id: &RuntimeId, now: Timestamp, healthy_after_ms: u64) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if !container.view.state.is_live() {
            return;
        }
        let restarts = container.restarts;
        end(container, now, 1);
        if restarts {
            container.view.restart_count += 1;
            let _ = self.start(id, now, healthy_after_ms);
        }
    }

    /// The engine was killed and comes back, its containers with it.
    pub(super) fn restart_engine(&mut self, now: Timestamp, healthy_after_ms: u64) {
        let ids: Vec<RuntimeId> = self.containers.keys().cloned().collect();
        for id in ids {
            let Some(container) = self.containers.get_mut(&id) else { continue };
            if container.view.state.is_live() {
                let restarts = container.restarts;
                end(container, now, 137);
                if restarts {
                    let _ = self.start(&id, now, healthy_after_ms);
                }
            }
        }
    }

    /// Lets time pass: checks give their verdicts.
    pub(super) fn tick(&mut self, now: Timestamp) {
        for container in self.containers.values_mut() {
            if container.view.state == ContainerState::Running && container.healthy_at.is_some_and(|at| at <= now) {
                container.view.health = if container.sick { HealthStatus::Unhealthy } else { HealthStatus::Healthy };
            }
        }
    }
}

fn end(container: &mut SimContainer, now: Timestamp, code: i64) {
    if container.view.state.is_live() {
        container.view.state = ContainerState::Exited;
        container.view.exit_code = Some(code);
        container.view.finished_at = Some(now);
        container.view.health = HealthStatus::Unknown;
    }
}
