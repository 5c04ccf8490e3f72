//! A fleet that exists in memory only, behind the same traits as the real one. Nothing here reads a
//! clock, draws a random number or sleeps: tests and the simulator decide everything.

pub mod engine;
