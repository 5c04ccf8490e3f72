//! Plain types. No I/O, no async, no clock, no randomness; ordered maps only.

pub mod action;
pub mod container;
pub mod decision;
pub mod definition;
pub mod desired;
pub mod diagnostic;
pub mod fargate;
pub mod hex;
pub mod image;
pub mod name;
pub mod observed;
pub mod ownership;
pub mod quantity;
pub mod report;
pub mod schedule;
pub mod shared;
pub mod small_map;
pub mod spec;
pub mod standalone;
pub mod state;
pub mod storage;
pub mod task;
pub mod time;
pub mod timing;
pub mod volume;
pub mod world;
