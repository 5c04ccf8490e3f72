//! One suite for everything that calls itself an [`Engine`]: the fake one, and (`--ignored`, as root) a real
//! dockerd in a lab of its own. What the simulator proves holds only as far as the two agree.

#[path = "engine/fake.rs"]
mod fake;
#[path = "engine/live.rs"]
mod live;
#[path = "engine/suite.rs"]
mod suite;
