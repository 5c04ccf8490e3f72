//! A fleet that exists in memory only, behind the same traits as the real one. Nothing here reads a
//! clock or sleeps: tests and the simulator's seed decide everything.

pub mod engine;
pub mod swarm;
