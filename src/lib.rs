//! Roadstead: what Amazon ECS gives people who rent machines, for people who own a few.
//!
//! The map, its layers and where to begin reading: `ARCHITECTURE.md`.

pub mod api;
pub mod cli;
pub mod control;
pub mod engine;
pub mod host;
pub mod manifest;
pub mod model;
pub mod plan;
pub mod sim;
pub mod store;
