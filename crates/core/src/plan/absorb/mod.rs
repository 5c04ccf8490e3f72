//! What was seen, answered and wished becomes changes of the state. Pure, like the planner.

mod adopt;
mod answer;
mod death;
mod desired;
mod observation;

pub use answer::answer;
pub use death::death;
pub use desired::{SyncVerdict, desired};
pub use observation::{Absorbed, observation};

#[cfg(test)]
mod tests;
