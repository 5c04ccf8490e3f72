//! The controller's HTTP API: `/v1/…`, JSON as the contract prints it, on a Unix socket or TCP.
//!
//! `view` turns the controller's picture into JSON (pure), `routes` answers requests, `listen` and `server` carry them.

pub mod error;
pub mod frame;
mod listen;
mod openapi;
pub mod routes;
mod server;
#[cfg(test)]
mod tests;
pub mod view;

use std::{io, sync::Arc};

use tokio_util::sync::CancellationToken;

pub use listen::ListenTarget;
pub use openapi::document as openapi;
pub use routes::router;

use listen::Listener;
use roadstead_control::control::handle::Handle;

/// A secret that every request over TCP carries: `Authorization: Bearer …`. Never printed.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// At least 16 characters, none of them a control character or a blank.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        if text.len() < 16 || text.chars().any(|c| !c.is_ascii_graphic()) {
            return Err("a token is 16 or more printable ASCII characters without blanks");
        }
        Ok(Self(text.into()))
    }

    fn accepts(&self, header: &str) -> bool {
        let Some(presented) = header.strip_prefix("Bearer ") else { return false };
        aws_lc_rs::constant_time::verify_slices_are_equal(presented.as_bytes(), self.0.as_bytes()).is_ok()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// An API that listens already and does not answer yet.
pub struct Bound {
    listener: Listener,
    token: Option<Token>,
    target: ListenTarget,
}

/// Opens the listener, so that a taken address is known before anything else begins.
///
/// # Errors
/// Another controller answers there; no right to listen there; TCP without a token.
pub async fn bind(target: ListenTarget, token: Option<Token>) -> io::Result<Bound> {
    if matches!(target, ListenTarget::Tcp(_)) && token.is_none() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "refusing to listen on {target} without a token: set ROADSTEAD_TOKEN, here and for the command line"
            ),
        ));
    }
    let listener = Listener::open(&target).await?;
    Ok(Bound { listener, token, target })
}

impl Bound {
    /// Answers until `shutdown`.
    pub async fn serve(self, handle: Handle, shutdown: CancellationToken) {
        tracing::info!(listen = %self.target, "the API answers");
        let router = router(handle, self.token, shutdown.clone());
        server::run(self.listener, router, shutdown).await;
    }
}

/// [`bind`], then [`Bound::serve`].
///
/// # Errors
/// Those of [`bind`].
pub async fn serve(
    handle: Handle,
    target: ListenTarget,
    token: Option<Token>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    bind(target, token).await?.serve(handle, shutdown).await;
    Ok(())
}
