//! One request to an engine: its deadline, its size limit, and what its failure means.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use futures_util::{Stream, StreamExt};
use http::uri::{PathAndQuery, Uri};
use http::{Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::error::clip;
use super::version::ApiVersion;
use super::wire::{Connection, Meter, Request, Wire, WireError};
use super::{EngineError, EngineStream};
use crate::host::{Lane, TransportError};

/// What a request may cost, and what it does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) lane: Lane,
    /// From the call to the whole answer; of a stream to its first byte.
    pub(super) deadline: Duration,
    /// Of the whole answer; of a stream per item.
    pub(super) limit_bytes: u64,
    /// Whether it changes anything: then an unusable answer leaves the outcome unknown.
    pub(super) changes: bool,
}

/// One request.
pub(super) struct Call {
    what: String,
    /// Set when it is a pull, whose errors are the registry's.
    image: Option<String>,
    terms: Terms,
    exchange: Arc<Exchange>,
}

/// The part of a call that bollard's client holds too.
struct Exchange {
    wire: Arc<Wire>,
    version: Option<ApiVersion>,
    terms: Terms,
    sent: AtomicBool,
    /// The connection that brought the answer's head.
    connection: Mutex<Option<Connection>>,
    /// Why nothing was sent.
    unreachable: Mutex<Option<TransportError>>,
    /// The answer's head has come, and it was a success.
    agreed: AtomicBool,
    answered: Notify,
}

impl Exchange {
    async fn run(&self, mut request: Request) -> Result<Response<Incoming>, Error> {
        *request.uri_mut() = self.versioned(request.uri())?;
        let terms = self.terms;
        let answer = self.wire.exchange(request, terms.lane, terms.limit_bytes, &self.sent).await;
        match answer {
            Ok((response, connection)) => {
                *lock(&self.connection) = Some(connection);
                if response.status().is_success() {
                    self.agreed.store(true, Ordering::SeqCst);
                    self.answered.notify_one();
                }
                Ok(response)
            }
            Err(WireError::NotSent(error)) => {
                *lock(&self.unreachable) = Some(error);
                Err(io::Error::other("not sent").into())
            }
            Err(WireError::Sent(error)) => Err(error.into()),
        }
    }

    /// bollard writes `http://docker/path`; the engine gets `/v1.NN/path`.
    fn versioned(&self, uri: &Uri) -> Result<Uri, Error> {
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let versioned = match self.version {
            Some(version) => format!("/v{version}{path}"),
            None => path.to_owned(),
        };
        Ok(versioned.parse()?)
    }

    fn meter(&self) -> Option<Arc<Meter>> {
        lock(&self.connection).as_ref().map(Connection::meter)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Call {
    /// A call named `what` for people; `version` is left out only where it is not known yet.
    pub(super) fn new(wire: &Arc<Wire>, version: Option<ApiVersion>, what: impl Into<String>, terms: Terms) -> Self {
        Self {
            what: what.into(),
            image: None,
            terms,
            exchange: Arc::new(Exchange {
                wire: Arc::clone(wire),
                version,
                terms,
                sent: AtomicBool::new(false),
                connection: Mutex::default(),
                unreachable: Mutex::default(),
                agreed: AtomicBool::new(false),
                answered: Notify::new(),
            }),
        }
    }

    /// The same as a pull of `image`.
    pub(super) fn for_image(self, image: &str) -> Self {
        Self { image: Some(image.to_owned()), ..self }
    }

    pub(super) fn deadline(&self) -> Duration {
        self.terms.deadline
    }

    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// A bollard client for this call alone. Our deadline governs, not bollard's.
    pub(super) fn docker(&self) -> Result<Docker, EngineError> {
        const BOLLARD_TIMEOUT_S: u64 = 24 * 60 * 60;
        let exchange = Arc::clone(&self.exchange);
        let transport = move |request: Request| {
            let exchange = Arc::clone(&exchange);
            async move { exchange.run(request).await }
        };
        Docker::connect_with_custom_transport(
            transport,
            Some("http://docker"),
            BOLLARD_TIMEOUT_S,
            bollard::API_DEFAULT_VERSION,
        )
        .map_err(|error| self.failure(error))
    }

    /// Does the whole call within its deadline.
    pub(super) async fn run<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, EngineError> {
        match timeout(self.terms.deadline, work).await {
            Ok(Ok(answer)) => {
                self.finish();
                Ok(answer)
            }
            Ok(Err(error)) => {
                if let Error::DockerResponseServerError { .. } = error {
                    self.finish();
                }
                Err(self.failure(error))
            }
            Err(_) => Err(self.too_late()),
        }
    }

    /// Opens a stream: returns once the engine has agreed, and then bounds each item.
    pub(super) async fn stream<T: Send + 'static>(
        self,
        mut items: impl Stream<Item = Result<T, Error>> + Send + Unpin + 'static,
    ) -> Result<EngineStream<T>, EngineError> {
        let opened = {
            let answered = pin!(self.exchange.answered.notified());
            let first = async {
                tokio::select! {
                    biased;
                    first = items.next() => Some(first),
                    () = answered => None,
                }
            };
            timeout(self.terms.deadline, first).await
        };
        let first = match opened {
            Err(_) => return Err(self.too_late()),
            Ok(Some(Some(Err(error)))) if !self.exchange.agreed.load(Ordering::SeqCst) => {
                return Err(self.failure(error));
            }
            Ok(first) => first,
        };
        let rest = futures_util::stream::unfold(Some((self, items, first)), |state| async {
            let (call, mut items, first) = state?;
            if let Some(meter) = call.exchange.meter() {
                meter.allow(call.terms.limit_bytes);
            }
            let item = match first {
                Some(first) => first,
                None => items.next().await,
            };
            let item = item?.map_err(|error| call.failure(error));
            let next = item.is_ok().then_some((call, items, None));
            Some((item, next))
        });
        Ok(Box::pin(rest))
    }

    /// Sends a request of our own making and hands out the answer with the connection under it.
    pub(super) async fn upgrade(
        &self,
        request: Request,
    ) -> Result<(hyper::upgrade::Upgraded, Connection), EngineError> {
        let work = async {
            let response = self.exchange.run(request).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS && response.status() != StatusCode::OK {
                let status_code = response.status().as_u16();
                let body = http_body_util::BodyExt::collect(response.into_body()).await?.to_bytes();
                let message = String::from_utf8_lossy(&body).into_owned();
                return Err(Error::DockerResponseServerError { status_code, message });
            }
            Ok(hyper::upgrade::on(response).await?)
        };
        let upgraded = match timeout(self.terms.deadline, work).await {
            Ok(Ok(upgraded)) => upgraded,
            Ok(Err(error)) => return Err(self.failure(error)),
            Err(_) => return Err(self.too_late()),
        };
        let Some(connection) = lock(&self.exchange.connection).take() else {
            return Err(self.unknown("the connection vanished"));
        };
        connection.meter().allow(u64::MAX);
        Ok((upgraded, connection))
    }

    fn finish(&self) {
        if let (Lane::Calls, Some(connection)) = (self.terms.lane, lock(&self.exchange.connection).take()) {
            self.exchange.wire.give_back(connection);
        }
    }

    /// The deadline has passed.
    pub(super) fn too_late(&self) -> EngineError {
        let after = self.terms.deadline;
        if self.exchange.sent.load(Ordering::SeqCst) {
            return self.unknown(&format!("no answer in {after:?}"));
        }
        EngineError::Unreachable(TransportError::TimedOut { what: format!("no connection for {}", self.what), after })
    }

    fn unknown(&self, reason: &str) -> EngineError {
        EngineError::OutcomeUnknown { what: self.what.clone(), reason: clip(reason, 512) }
    }

    /// An answer came and is of no use.
    pub(super) fn malformed(&self, reason: &str) -> EngineError {
        if self.terms.changes {
            return self.unknown(&format!("unusable answer: {reason}"));
        }
        EngineError::Malformed { what: self.what.clone(), reason: clip(reason, 512) }
    }

    /// What a failure means.
    pub(super) fn failure(&self, error: Error) -> EngineError {
        if let Some(error) = lock(&self.exchange.unreachable).take() {
            return EngineError::Unreachable(error);
        }
        if self.exchange.meter().is_some_and(|meter| meter.exceeded()) {
            return self.malformed(&format!("longer than {} bytes, or of too many objects", self.terms.limit_bytes));
        }
        match error {
            Error::DockerResponseServerError { status_code, message } => match &self.image {
                Some(image) => EngineError::from_pull(image, status_code, &message),
                None => EngineError::from_status(&self.what, status_code, &message),
            },
            Error::DockerStreamError { error } => match &self.image {
                Some(image) => EngineError::from_pull(image, 0, &error),
                None => self.unknown(&error),
            },
            error @ (Error::JsonDataError { .. } | Error::JsonSerdeError { .. } | Error::StrParseError { .. }) => {
                self.malformed(&error.to_string())
            }
            Error::HyperResponseError { err } if err.is_parse() => self.malformed(&err.to_string()),
            error if self.exchange.sent.load(Ordering::SeqCst) => self.unknown(&error.to_string()),
            // Our own request could not be put together: an address or a number out of range.
            error => EngineError::Refused { status: 400, message: clip(&error.to_string(), 512) },
        }
    }
}
