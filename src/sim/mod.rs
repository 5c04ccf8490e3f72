//! A fleet that exists in memory only. Nothing here reads a clock or sleeps: everything is decided by a seed.

pub mod swarm;
