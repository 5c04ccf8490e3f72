//! The API over a controller's picture that is made by hand.

mod certificates;
mod engine;
pub mod fleet;
mod http;
mod streams;
pub mod task_network;
pub mod traffic;
mod views;

use roadstead_core::model::time::Timestamp;

/// 2026-01-31T08:00:00Z
pub const NOW: Timestamp = Timestamp(1_769_846_400_000);
