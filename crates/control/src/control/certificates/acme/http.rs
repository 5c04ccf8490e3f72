//! Requests to an authority: each within a time.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use jiff::{Timestamp, fmt::rfc2822};
use tokio::time::timeout;

use crate::control::http::Carrier;

/// No request takes longer.
const REQUEST_WITHIN: Duration = Duration::from_secs(30);

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
