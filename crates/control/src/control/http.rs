//! Requests over HTTP to servers of others: authorities, hooks, alarms. Answers are of bounded size; deadlines are the caller's.

use std::{error::Error as StdError, fmt::Write, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

/// No answer is larger.
const MAX_BYTES: usize = 1 << 20;

/// Brings a request to a server, and its answer back.
#[async_trait]
pub trait Carrier: Send + Sync {
    /// # Errors
    /// In words.
    async fn carry(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String>;
}

/// The network.
pub struct Network(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Network {
    /// Over TLS alone. `ca`: what alone vouches for the other side; without it the machine's own authorities do.
    ///
    /// # Errors
    /// In words.
    pub fn encrypted(ca: Option<&str>) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let connector = match ca {
            None => HttpsConnectorBuilder::new()
                .with_provider_and_native_roots(provider)
                .map_err(|error| format!("this machine's own authorities cannot be read: {error}"))?,
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for found in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    let found = found.map_err(|error| format!("its caFile cannot be read: {error}"))?;
                    roots.add(found).map_err(|error| format!("its caFile cannot be used: {error}"))?;
                }
                HttpsConnectorBuilder::new().with_tls_config(trusting(roots, provider)?)
            }
        };
        let connector = connector.https_only().enable_http1().build();
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// Over TLS or not, as each address says.
    ///
    /// # Errors
    /// In words.
    pub fn plain() -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = HttpsConnectorBuilder::new();
        let connector = match builder.with_provider_and_native_roots(Arc::clone(&provider)) {
            Ok(connector) => connector,
            // Without authorities nobody is trusted over TLS; others can be asked all the same.
            Err(_) => HttpsConnectorBuilder::new().with_tls_config(trusting(RootCertStore::empty(), provider)?),
        };
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector.https_or_http().enable_http1().build())))
    }
}

#[async_trait]
impl Carrier for Network {
    async fn carry(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let answer = self.0.request(request.map(Full::new)).await.map_err(|error| words(&error))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, MAX_BYTES).collect().await.map_err(|error| words(&*error))?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}

fn trusting(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Result<ClientConfig, String> {
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// An error with those that it came from: the first alone says "client error".
fn words(error: &dyn StdError) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(words, ": {cause}");
        next = cause.source();
    }
    words
}
