//! Requests to an authority: over TLS only, each within a time, each answer of bounded size.

use std::{
    error::Error as StdError,
    fmt::Write,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use jiff::{Timestamp, fmt::rfc2822};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::time::timeout;

/// No request takes longer.
const REQUEST_WITHIN: Duration = Duration::from_secs(30);
/// No answer is larger.
const MAX_BYTES: usize = 1 << 20;

/// Brings a request to an authority, and its answer back.
#[async_trait]
pub trait Carrier: Send + Sync {
    /// # Errors
    /// In words.
    async fn carry(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String>;
}

/// Requests of one order.
#[derive(Clone)]
pub struct Http {
    carrier: Arc<dyn Carrier>,
    /// The last word of the authority when to come again.
    retry_after_ms: Arc<Mutex<Option<u64>>>,
}

impl Http {
    /// By this carrier.
    pub fn new(carrier: impl Carrier + 'static) -> Self {
        Self { carrier: Arc::new(carrier), retry_after_ms: Arc::default() }
    }

    /// When the authority said to come again, with what it refused last.
    pub fn retry_after_ms(&self) -> Option<u64> {
        *self.retry_after_ms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let Self { carrier, retry_after_ms } = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let host = parts.uri.host().unwrap_or_default().to_owned();
            let Ok(body) = body.collect().await;
            let request = Request::from_parts(parts, body.to_bytes());
            let answer = timeout(REQUEST_WITHIN, carrier.carry(request)).await;
            let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {REQUEST_WITHIN:?}")));
            let answer = answer.map_err(|why| Error::Other(format!("{host}: {why}").into()))?;
            let status = answer.status();
            if status.is_client_error() || status.is_server_error() {
                *retry_after_ms.lock().unwrap_or_else(PoisonError::into_inner) = retry_after(&answer);
                // What is no problem document would be told as bad JSON.
                if !answer.body().trim_ascii_start().starts_with(b"{") {
                    return Err(Error::Other(format!("{host} answers with HTTP {status}").into()));
                }
            }
            Ok(BytesResponse::from(answer.map(Full::new)))
        })
    }
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(answer: &Response<Bytes>) -> Option<u64> {
    let said = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = said.parse::<u64>() {
        return Some(seconds.saturating_mul(1_000));
    }
    let at = rfc2822::DateTimeParser::new().parse_timestamp(said).ok()?;
    u64::try_from(at.duration_since(Timestamp::now()).as_millis()).ok()
}

/// The network.
pub struct Network(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Network {
    /// `ca`: what alone vouches for the authority; without it the machine's own authorities do.
    ///
    /// # Errors
    /// In words.
    pub fn new(ca: Option<&str>) -> Result<Self, String> {
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
                let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
                let config = versions.map_err(|error| error.to_string())?;
                HttpsConnectorBuilder::new().with_tls_config(config.with_root_certificates(roots).with_no_client_auth())
            }
        };
        let connector = connector.https_only().enable_http1().build();
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector)))
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
