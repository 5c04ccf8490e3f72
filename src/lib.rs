//! Roadstead: what Amazon ECS gives people who rent machines, for people who own a few.
pub mod host;
pub mod model;
