//! The program as people call it: words, tables and exit statuses.

mod offline;
mod online;
mod rollouts;
mod runs;
mod streams;

// The hand-made fleet is written for use inside the library.
use roadstead_control::{control, engine};
use roadstead_core::model;
#[path = "../../src/api/tests/fleet.rs"]
mod fleet;
#[path = "../../src/api/tests/task_network.rs"]
mod task_network;
#[path = "../../src/api/tests/traffic.rs"]
mod traffic;
