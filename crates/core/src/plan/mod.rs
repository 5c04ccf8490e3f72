//! World → Plan. Everything clever lives here, and nothing that does I/O.
//!
//! *Architecture invariant:* synchronous, no clock, no randomness, ordered maps only: the same World gives the same Plan,
//! byte for byte. What was seen and answered becomes changes in [`absorb`]; what follows from them is decided in [`plan`].

pub mod absorb;
pub mod acme;
pub mod breaker;
pub mod calls;
pub mod certificates;
mod daemon;
mod deployment;
mod draft;
pub mod forecast;
mod gc;
pub mod health;
mod hosts;
mod image_cleanup;
pub(crate) mod images;
mod launch;
pub mod network;
mod orders;
mod place;
pub mod placement;
pub mod probe;
mod quiet;
mod rebalance;
mod replica;
pub mod revision;
mod rollout;
mod schedule;
mod service;
mod sweep;
mod throttle;
pub mod traffic;
mod volumes;

pub use hosts::{host_status, is_lost_early, takes_orders};
pub use quiet::Quiet;

use crate::model::world::{Plan, Subject, World};
use draft::Draft;

/// Decides everything that can be decided now.
pub fn plan(world: &World) -> Plan {
    decide(Draft::new(world))
}

fn decide(mut draft: Draft<'_>) -> Plan {
    hosts::judge(&mut draft);
    if draft.world.settling {
        draft.waiting(
            Subject::Fleet,
            "the controller has just started and first looks at every host, so that it adopts what runs",
            "every host has answered or is counted as lost",
            None,
        );
        return draft.finish();
    }
    network::cut(&mut draft);
    certificates::review(&mut draft);
    revision::number(&mut draft);
    draft.read_tasks(service::is_kept);
    volumes::learn(&mut draft);
    volumes::judge_moves(&mut draft);
    hosts::give_up_lost_tasks(&mut draft);
    hosts::end_standalone_tasks(&mut draft);
    orders::give_up(&mut draft);
    service::reconcile(&mut draft);
    schedule::fire(&mut draft);
    orders::issue(&mut draft);
    volumes::remove_old_copies(&mut draft);
    sweep::issue(&mut draft);
    gc::forget(&mut draft);
    schedule::conclude(&mut draft);
    deployment::announce_outcomes(&mut draft);
    // Last: what is needed is known by now.
    image_cleanup::issue(&mut draft);
    network::cut_again(&mut draft);
    draft.finish()
}

#[cfg(test)]
mod tests;
