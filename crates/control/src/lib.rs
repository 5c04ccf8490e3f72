//! What Roadstead does: reaches [`host`]s, speaks to their [`engine`]s, keeps the [`store`], and joins all of it with the
//! planner in the loops of [`control`].

pub mod control;
pub mod crash_point;
pub mod engine;
pub mod host;
pub mod lb;
pub mod net;
pub mod store;
