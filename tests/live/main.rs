//! The real thing: a lab of Docker hosts, the real controller, and the faults of the invariants done for real.
//!
//! Ignored by default, since they need root and `deploy/lab`: `deploy/test`, or
//! `cargo nextest run --profile live --run-ignored only --test live`.
//! Every check of what runs asks the hosts' Docker, never the controller. Deadlines here are generous: how fast things are
//! is measured by `deploy/bench`.

mod acme;
mod addresses;
mod balancers;
mod containers;
mod controllers;
// A release build has none.
#[cfg(debug_assertions)]
mod crash_points;
mod engines;
mod fields;
mod fixtures;
mod hosts;
mod jobs;
mod links;
mod load;
mod logins;
mod macvlan;
mod manifests;
mod matrix;
mod names;
mod network;
mod probes;
mod pulls;
mod questions;
mod quickstart;
mod rollouts;
mod shells;
#[cfg(debug_assertions)]
mod socket;
mod support;
mod tls;
mod traffic;
mod turns;
mod volumes;
mod wireguard;
