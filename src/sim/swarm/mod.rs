//! Swarm testing: the controller's core against a fleet in memory, everything drawn from one seed.
//!
//! Phase one draws faults and checks the safety predicates (INVARIANTS' names: S1, S2 …) after every step; phase two heals
//! everything and checks that the fleet comes to rest as wanted (L1), with no duplicates (L5) and an empty plan (S12).

mod check;
mod draw;
mod execute;
mod host;
mod rng;
mod run;
mod trace;

pub use check::Broken;
pub use run::{Outcome, Shape, run};
