//! What was seen, answered and wished becomes changes of the state. Pure, like the planner.

mod adopt;
mod answer;
mod death;
mod desired;
mod observation;
mod run;
mod verbs;

pub use answer::answer;
pub use death::death;
pub use desired::{SyncVerdict, desired};
pub use observation::{Absorbed, observation};
pub use run::{run, started_by_token};
pub use verbs::{PROTECTION_MINUTES, Refusal, RolloutVerb, protect, rollout};

#[cfg(test)]
mod tests;
