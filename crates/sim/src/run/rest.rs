//! Phase two: is the fleet what the manifests ask for, and does it stay so?

use std::collections::BTreeMap;

use super::End;
use crate::{
    check::{Broken, Predicate, at_rest},
    fleet::{Due, Ending, Ground},
};
use roadstead_core::turn::Command;
use roadstead_core::{
    model::{
        state::{Deployment, RolloutState, Schedulability, ServiceRecord},
        time::Timestamp,
    },
    plan::absorb::RolloutVerb,
};

/// Between two looks.
const LOOK_EVERY_MS: u64 = 1_000;
/// So many good looks in a row, without anything done meanwhile, are rest.
const QUIET_LOOKS: u32 = 12;
/// Rest comes within this after the last fault: twice the longest that was seen without faults, and the start throttle.
const REST_WITHIN_MS: u64 = 1_200_000;

impl Ground {
    /// Looks whether the fleet is at rest, and does what a person would do meanwhile.
    pub(crate) fn look_for_rest(&mut self) {
        self.confirm();
        if self.fenced {
            // A person starts it again with --take-over.
            self.ending = Some(Ending::Killed { back_after_ms: 0, clock_back_ms: 0 });
        }
        if self.durable.fleet.brake.as_ref().is_some_and(|brake| !brake.released) {
            self.orders.push(Command::ReleaseBrake);
        }
        // A word may have been lost with the controller that it was said to: people say it again.
        let unsaid = self.durable.hosts.values().filter(|host| host.schedulability != Schedulability::Active);
        let again = unsaid.map(|host| Command::SetSchedulability {
            host: host.name.clone(),
            to: Schedulability::Active,
            timeout_s: None,
        });
        self.orders.extend(again);
        // A person has what failed or was taken back tried again, now that all is well.
        let names: Vec<_> = self.durable.services.iter().filter(|(_, record)| waits_for_a_word(record)).collect();
        let orders: Vec<_> = names
            .into_iter()
            .map(|(name, _)| Command::Rollout { service: name.clone(), verb: RolloutVerb::Continue })
            .collect();
        self.orders.extend(orders);
        self.pin_volumes();
        let reachable = |ground: &Self, host: &_| ground.hosts.get(host).is_some_and(|host| host.there && host.back);
        for host in self.checks.untrusted().into_iter().filter(|host| reachable(self, host)).collect::<Vec<_>>() {
            // A person looks into it, and says that all is well.
            self.un_clone(&host);
            self.checks.repinned(&host);
            self.orders.push(Command::Repin { host });
        }
        let found = if self.away { Err(Broken::new(Predicate::L1, "no controller runs")) } else { at_rest(self) };
        let acted = self.checks.acted_since(Timestamp(self.now.0.saturating_sub(LOOK_EVERY_MS)));
        match &found {
            Ok(()) if !acted => self.quiet_looks += 1,
            Ok(()) | Err(_) => self.quiet_looks = 0,
        }
        if self.quiet_looks >= QUIET_LOOKS {
            self.trace.line(self.now, &["rest"], || "at rest".to_owned());
            let checked = self.checks.rested(&self.durable, &self.hosts);
            self.breaks(checked);
            self.ending = Some(Ending::Over);
            return;
        }
        let healed_ms = self.now.since_ms(super::START).saturating_sub(self.scenario.faults_ms);
        if healed_ms > REST_WITHIN_MS {
            let broken = match found {
                Err(broken) => broken,
                Ok(()) => {
                    Broken::new(Predicate::L1, "it is what it should be, and yet there is always something to do")
                }
            };
            let waiting = self.checks.waiting();
            self.breaks(Err(Broken {
                detail: format!("not at rest: {}; waiting: {waiting}", broken.detail),
                ..broken
            }));
            return;
        }
        self.push(self.now.plus_ms(LOOK_EVERY_MS), Due::Look);
    }
}

/// Whether a service runs something else than its manifest asks for until a person says so.
fn waits_for_a_word(record: &ServiceRecord) -> bool {
    let is_over = record.primary().is_some_and(|primary| primary.rollout_state != RolloutState::InProgress);
    (record.pin.is_some() && is_over) || record.primary().is_some_and(Deployment::stands_still)
}

/// What the fleet came to.
pub(super) fn end(ground: &Ground) -> End {
    let mut live: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for host in ground.hosts.values() {
        for (id, claim, state, _) in host.containers() {
            if state.is_live()
                && claim.essential
                && claim.service.family().is_none()
                && let Some(config) = host.machine.config(id)
            {
                let images = live.entry(claim.service.to_string()).or_default();
                *images.entry(config.image.clone()).or_default() += 1;
            }
        }
    }
    End { live, creates: ground.checks.creates() }
}
