//! World to Plan.

pub mod placement;
