//! HAProxy (2.6 or later): what it is told and what it says are pure functions of an
//! [`Edge`](roadstead_core::model::traffic::Edge), and [`apply`] joins them through a shell.
//!
//! * Each target group is a backend, and a second one without checks that takes its place while no target is healthy.
//! * Each target is a server that is called as its task is; it can be added and removed at runtime.
//! * Each certificate is a file with its key; another one in its place is told at runtime, and written for the next start.
//! * What an authority asks for on port 80 is in a map, told at runtime.
//! * Each forwarding rule looks up in one map which groups share its requests: shifting them changes only the map.
//! * How long answers take is counted in a table, by server.

pub mod apply;
pub mod certificates;
pub mod config;
pub mod latency;
pub mod quote;
pub mod rules;
pub mod runtime;
pub mod script;
pub mod stats;

/// Where HAProxy's files are kept, on a volume.
pub const FOLDER: &str = "/var/lib/roadstead-lb";
/// Where its sockets are, and what is forgotten with the container.
pub const RUN: &str = "/run/roadstead-lb";
/// Where requests go that have no group.
pub const NOWHERE: &str = "nowhere";
