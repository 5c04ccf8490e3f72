//! A fleet that exists in memory only, behind the same traits as the real one, and the whole controller driven over it in
//! simulated time: one seed decides everything.
//!
//! ```text
//! scenario (drawn from a seed, or written) ─▶ run: controllers live and die ─▶ outcome
//!                                              │  fleet: hosts, links, a queue of what will happen
//!                                              └─ check: the predicates, at each step and at rest
//! ```

mod check;
pub mod engine;
mod fleet;
mod rng;
mod run;
pub mod scenario;
pub mod search;
mod trace;

pub use check::{Broken, Predicate};
pub use run::{End, Outcome, Points, run};
pub use trace::Tell;
