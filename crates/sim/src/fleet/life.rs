//! What follows from what the engine does: health verdicts, crashes, restarts, and events for followers.

use super::{Due, Ground};
use crate::{
    check::network,
    scenario::{ENDS_WELL, Mishap, PROBED, Point, SICKNESS},
};
use roadstead_control::engine::EventAction;
use roadstead_core::model::{
    container::{ContainerConfig, HealthStatus},
    name::{HostName, RuntimeId},
    time::Timestamp,
};

/// What a container's life brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Healthy,
    Unhealthy,
    /// It ends, with this exit code.
    Ends(i64),
}

/// Whether anybody asks for its health: its engine, or the controller.
pub(super) fn is_checked(config: &ContainerConfig) -> bool {
    config.health_check.is_some() || config.labels.contains_key(PROBED)
}

impl Ground {
    /// Takes up what the engine just did.
    pub(super) fn follow(&mut self, name: &HostName) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        let fresh = host.machine.take_fresh();
        for event in fresh {
            let Some(host) = self.hosts.get_mut(name) else { return };
            match &event.action {
                EventAction::Start => {
                    self.writes(name, &event.id, event.at);
                    let checked = network::started(&self.checks, &self.durable, &self.hosts, name, &event.id);
                    self.breaks(checked);
                    let Some(host) = self.hosts.get_mut(name) else { return };
                    let config = host.machine.config(&event.id);
                    let sickness = config.and_then(|config| config.environment.get(SICKNESS)).map(String::as_str);
                    let checked = config.is_some_and(is_checked);
                    let claim = host.ours.get(&event.id);
                    let until = claim.and_then(|claim| self.outages.get(&claim.service));
                    let sickness =
                        if until.is_some_and(|until| self.now < *until) { Some("crashes") } else { sickness };
                    let turn = match (sickness, checked) {
                        (Some("crashes"), _) => Some((Turn::Ends(1), host.rng.within(50, 4_000))),
                        (Some(ENDS_WELL), _) => Some((Turn::Ends(0), host.rng.within(50, 4_000))),
                        (Some(_), true) => Some((Turn::Unhealthy, host.rng.within(3_000, 20_000))),
                        (None, true) => Some((Turn::Healthy, host.rng.within(300, 8_000))),
                        (Some(_) | None, false) => None,
                    };
                    if let Some((turn, after_ms)) = turn {
                        self.push(
                            self.now.plus_ms(after_ms),
                            Due::Life(name.clone(), event.id.clone(), event.at, turn),
                        );
                    }
                }
                EventAction::Die { .. } => self.await_restart(name),
                EventAction::Destroy => {
                    host.ours.remove(&event.id);
                }
                EventAction::Health => {
                    if host.machine.health(&event.id) == Some(HealthStatus::Healthy) {
                        self.checks.healthy(&event.id);
                    }
                }
                EventAction::Create
                | EventAction::Oom
                | EventAction::Kill
                | EventAction::Stop
                | EventAction::Other(_) => {}
            }
            self.tell(name, event);
        }
    }

    /// The engine starts the next of its crashed containers in its time; then those after it.
    pub(super) fn await_restart(&mut self, name: &HostName) {
        let Some(host) = self.hosts.get(name) else { return };
        if let Some(at) = host.machine.next_restart() {
            let at = Timestamp(at.0.saturating_sub(host.clock_ahead_ms)).max(self.now);
            self.push(at, Due::Restarts(name.clone()));
        }
    }

    fn tell(&mut self, name: &HostName, event: roadstead_control::engine::EngineEvent) {
        let number = self.counters.events;
        self.counters.events += 1;
        let lost =
            self.mishap(Point::Event(number)) == Some(Mishap::Lost) || self.strikes(self.scenario.rates.lose_event);
        self.trace.line(self.now, &["event", name.as_str(), event.id.as_str()], || {
            format!("    {name}: {:?} {}{}", event.action, event.name, if lost { " (nobody is told)" } else { "" })
        });
        let Some(host) = self.hosts.get(name) else { return };
        if lost {
            self.count("event lost");
        } else if host.is_well() {
            let _ = host.followers.send(event);
        }
    }

    /// A container's life takes its turn, if it is still the same life.
    pub(super) fn live(&mut self, name: &HostName, id: &RuntimeId, began: Timestamp, turn: Turn) {
        self.on(name, |host, clock| {
            if host.machine.times(id).0 != Some(began) {
                return;
            }
            match turn {
                Turn::Healthy => host.machine.set_health(id, HealthStatus::Healthy, clock),
                Turn::Unhealthy => host.machine.set_health(id, HealthStatus::Unhealthy, clock),
                Turn::Ends(exit_code) => host.machine.end(id, exit_code, false, clock),
            }
        });
        if turn == Turn::Healthy {
            self.checks.healthy(id);
        }
    }
}
