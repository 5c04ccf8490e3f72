//! Health checks that are made from the hosts: of which containers, and the verdict over their outcomes.
//!
//! The rules are those of Docker's own checks, but that a container that starts is asked more often: until its failures count
//! every second, so that it is HEALTHY as soon as it is.

use std::net::Ipv4Addr;

use crate::model::{
    container::{ContainerState, HealthStatus},
    name::{ContainerName, HostName, RuntimeId, TaskId},
    spec::task_definition::{HealthCheck, NetworkMode},
    task::{DesiredStatus, Task},
    time::Timestamp,
    world::{HostStatus, World},
};

use super::{host_status, launch};

/// While failures do not count yet.
const STARTING_INTERVAL_MS: u64 = 1_000;

/// A container in one of its lives; no verdict outlives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its host.
    pub host: HostName,
    /// Its task.
    pub task: TaskId,
    /// Its name in the task.
    pub container: ContainerName,
    /// The engine's id.
    pub id: RuntimeId,
    /// Its last start, by the host's clock.
    pub started_at: Option<Timestamp>,
}

/// A container that is to be checked from its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Which.
    pub life: Life,
    /// Where its host reaches it, when that is known: with `host` the host itself, with `awsvpc` the task's address.
    pub address: Option<Ipv4Addr>,
    /// How.
    pub check: &'a HealthCheck,
    /// The verdict so far.
    pub health: HealthStatus,
}

/// Every container that is to be checked from its host now. Hosts that are lost or not trusted are asked nothing.
pub fn targets(world: &World) -> Vec<Target<'_>> {
    let wanted = world.state.tasks.values().filter(|task| task.desired_status == DesiredStatus::Running);
    let mut targets: Vec<Target<'_>> = wanted.flat_map(|task| targets_of(world, task)).collect();
    targets.retain(|target| match host_status(world, &target.life.host) {
        HostStatus::Active | HostStatus::Cordoned | HostStatus::Draining | HostStatus::Suspect => true,
        HostStatus::Lost | HostStatus::Untrusted => false,
    });
    targets
}

fn targets_of<'a>(world: &'a World, task: &'a Task) -> impl Iterator<Item = Target<'a>> {
    let spec = world.state.revision(&task.revision).and_then(|revision| revision.spec.as_deref());
    spec.into_iter().flat_map(move |spec| {
        task.containers.iter().filter(|(_, row)| row.state == Some(ContainerState::Running)).filter_map(
            move |(name, row)| {
                let check = launch::probed(spec, name.as_str())?;
                let life = Life {
                    host: task.host.clone(),
                    task: task.id.clone(),
                    container: name.clone(),
                    id: row.runtime_id.clone()?,
                    started_at: row.started_at,
                };
                let address = match spec.network_mode {
                    NetworkMode::Host => Some(Ipv4Addr::LOCALHOST),
                    NetworkMode::Awsvpc => task.network.as_ref().map(|network| network.address),
                    NetworkMode::Bridge | NetworkMode::None => None,
                };
                Some(Target { life, address, check, health: row.health })
            },
        )
    })
}

/// The verdict over a container's checks, and how many failed in a row.
///
/// Docker's rules: one that passes makes it HEALTHY; `retries` failures in a row make it UNHEALTHY. Before the first that
/// passes, failures within `startPeriod` do not count, nor those before Docker would have made its first check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    health: HealthStatus,
    failures: u32,
}

impl Verdict {
    /// Goes on from what is known; no earlier failure counts.
    pub fn from(health: HealthStatus) -> Self {
        Self { health, failures: 0 }
    }

    /// The verdict.
    pub fn health(self) -> HealthStatus {
        self.health
    }

    /// Failures in a row that counted.
    pub fn failures(self) -> u32 {
        self.failures
    }

    /// Takes in a check that passed.
    pub fn passed(&mut self) {
        *self = Self::from(HealthStatus::Healthy);
    }

    /// Takes in a check that failed, and that began `age_ms` after the container was first seen running.
    pub fn failed(&mut self, age_ms: u64, check: &HealthCheck) {
        if self.is_overlooked(age_ms, check) {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= check.retries {
            self.health = HealthStatus::Unhealthy;
        }
    }

    /// The pause after a check that began at this age.
    pub fn pause_ms(self, age_ms: u64, check: &HealthCheck) -> u64 {
        let interval_ms = check.interval.as_ms();
        if self.is_overlooked(age_ms, check) { STARTING_INTERVAL_MS.min(interval_ms) } else { interval_ms }
    }

    fn is_overlooked(self, age_ms: u64, check: &HealthCheck) -> bool {
        self.health == HealthStatus::Unknown && age_ms < check.start_period.as_ms().max(check.interval.as_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::quantity::Seconds;

    fn check(interval: u32, retries: u32, start_period: u32) -> HealthCheck {
        HealthCheck {
            interval: Seconds(interval),
            retries,
            start_period: Seconds(start_period),
            ..serde_json::from_str(r#"{ "tcp": { "port": 80 } }"#).unwrap()
        }
    }

    /// Checks at these ages in seconds, and whether each passed.
    fn verdicts(check: &HealthCheck, begin: HealthStatus, story: &[(u64, bool)]) -> Vec<HealthStatus> {
        let mut verdict = Verdict::from(begin);
        let told = story.iter().map(|(age_s, passed)| {
            match passed {
                true => verdict.passed(),
                false => verdict.failed(age_s * 1_000, check),
            }
            verdict.health()
        });
        told.collect()
    }

    #[test]
    fn verdicts_are_docker_s() {
        use HealthStatus::{Healthy as H, Unhealthy as N, Unknown as U};
        let (f, p) = (false, true);
        let plain = check(5, 3, 0);
        assert_eq!(verdicts(&plain, U, &[(0, p)]), [H], "one that passes is enough");
        assert_eq!(verdicts(&plain, U, &[(5, f), (10, f), (15, f)]), [U, U, N]);
        assert_eq!(verdicts(&plain, U, &[(1, f), (2, f), (3, f), (4, f), (5, f)]), [U; 5], "Docker had not asked yet");
        assert_eq!(verdicts(&plain, U, &[(5, f), (10, f), (15, p), (20, f), (25, f)]), [U, U, H, H, H]);
        assert_eq!(verdicts(&plain, N, &[(0, f), (5, p)]), [N, H]);
        let slow = check(5, 2, 20);
        assert_eq!(verdicts(&slow, U, &[(15, f), (19, f), (20, f), (25, f)]), [U, U, U, N]);
        assert_eq!(verdicts(&slow, U, &[(5, p), (10, f), (15, f)]), [H, H, N], "started is started");
        assert_eq!(verdicts(&check(5, 1, 0), H, &[(0, f)]), [N]);
    }

    #[test]
    fn failures_in_a_row_are_told() {
        let mut verdict = Verdict::from(HealthStatus::Unknown);
        let told = |verdict: Verdict| verdict.failures();
        assert_eq!(told(verdict), 0);
        for failures in 1..=2 {
            verdict.failed(u64::from(failures) * 5_000, &check(5, 3, 0));
            assert_eq!(told(verdict), failures);
        }
        verdict.passed();
        assert_eq!(told(verdict), 0);
    }

    /// A controller that comes back has its own failures to count.
    #[test]
    fn what_was_healthy_takes_as_many_failures_as_ever() {
        use HealthStatus::{Healthy as H, Unhealthy as N};
        assert_eq!(verdicts(&check(5, 3, 0), H, &[(0, false), (5, false), (10, false)]), [H, H, N]);
    }

    #[test]
    fn what_starts_is_asked_more_often() {
        let check = check(30, 3, 60);
        let pauses = |verdict: Verdict| [0, 59_999, 60_000].map(|age_ms| verdict.pause_ms(age_ms, &check));
        assert_eq!(pauses(Verdict::from(HealthStatus::Unknown)), [1_000, 1_000, 30_000]);
        assert_eq!(pauses(Verdict::from(HealthStatus::Healthy)), [30_000; 3]);
    }
}
