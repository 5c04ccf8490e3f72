//! What was seen, answered and wished becomes changes of the state. Pure, like the planner.

mod adopt;
mod answer;
mod death;
mod desired;
mod images;
mod network;
mod observation;
mod probed;
mod run;
mod targets;
mod verbs;
mod volumes;

pub use answer::answer;
pub use death::death;
pub use desired::{SyncVerdict, desired};
pub use network::network;
pub use observation::{Absorbed, observation};
pub use probed::{Probed, probed};
pub use run::{run, started_by_token};
pub use targets::targets;
pub use verbs::{PROTECTION_MINUTES, Refusal, RolloutVerb, protect, rollout};
pub use volumes::{Copied, CopyDone, CopyFailed, VolumeVerb, may_restore, mounts, volume, volume_copied, volume_users};

#[cfg(test)]
mod tests;
