//! Roadstead: what Amazon ECS gives people who rent machines, for people who own a few. This crate is what a person meets:
//! the API and the command line.
//!
//! The map, its layers and where to begin reading: `ARCHITECTURE.md`.

pub mod api;
pub mod cli;
