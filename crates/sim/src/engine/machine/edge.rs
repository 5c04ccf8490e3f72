//! A fake host's load balancers.

use std::sync::Arc;

use roadstead_control::engine::EngineError;
use roadstead_core::model::traffic::Edge;

use super::Machine;

/// What a host is told about its load balancers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdgeChange {
    /// Show this.
    Apply(Arc<Edge>),
    /// Leave the host as it was found.
    Clear,
}

/// A host's load balancers.
#[derive(Default)]
pub(crate) struct Balancers {
    /// What they show.
    pub(crate) shown: Option<Arc<Edge>>,
    /// The last session that told them anything: one before it is not listened to any more.
    session: u64,
}

impl Machine {
    pub(super) fn change_edge(&mut self, session: u64, change: &EdgeChange) -> Result<(), EngineError> {
        if session < self.balancers.session {
            let message = "another session has begun".to_owned();
            return Err(EngineError::ServerError { status: 500, message });
        }
        self.balancers.session = session;
        self.balancers.shown = match change {
            EdgeChange::Apply(edge) => Some(Arc::clone(edge)),
            EdgeChange::Clear => None,
        };
        Ok(())
    }

    /// `docker rm -f` of what they run in.
    pub(crate) fn remove_balancers(&mut self) {
        self.balancers.shown = None;
    }
}
