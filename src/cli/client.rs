//! The controller's API, as the commands use it.

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::{
    body::{Body, Frame, Incoming},
    client::conn::http1,
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_util::{
    codec::{FramedRead, LinesCodec},
    io::StreamReader,
};

use super::{endpoint::Endpoint, failure::Failure};
use crate::api::{
    error::{ApiError, ErrorBody},
    frame,
    view::Items,
};
use roadstead_core::turn::Command;

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Longer than the controller's own deadlines.
const ANSWER_DEADLINE: Duration = Duration::from_secs(40);
/// No archive takes longer; the controller gives up one that stands still.
const UPLOAD_DEADLINE: Duration = Duration::from_secs(12 * 60 * 60);
/// Longer than the pause between two signs of life of a watch.
const WATCH_SILENCE: Duration = Duration::from_secs(30);
const ANSWER_LIMIT_BYTES: usize = 256 << 20;
const LINE_LIMIT_BYTES: usize = 1 << 20;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One endpoint; a connection for each request.
pub(super) struct Client {
    endpoint: Endpoint,
    token: Option<String>,
}

impl Client {
    pub fn new(endpoint: Endpoint, token: Option<String>) -> Self {
        Self { endpoint, token }
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The answer to a GET.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.answer(self.send(Method::GET, path, Bytes::new(), None).await?).await
    }

    /// A GET whose subject may be missing.
    pub async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Failure> {
        let response = self.send(Method::GET, path, Bytes::new(), None).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            _ => self.answer(response).await.map(Some),
        }
    }

    /// A list.
    pub async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Failure> {
        self.get(path).await.map(|list: Items<T>| list.items)
    }

    /// The answer to a POST, or the API's refusal of it.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Result<T, ApiError>, Failure> {
        let response = self.send(Method::POST, path, json(body)?, None).await?;
        match response.status().is_success() {
            true => self.answer(response).await.map(Ok),
            false => self.refusal(response).await.map(Err),
        }
    }

    /// Sends an order; the controller's sentence about it.
    pub async fn command(&self, command: &Command) -> Result<String, Failure> {
        #[derive(serde::Deserialize)]
        struct Done {
            message: String,
        }
        let done: Done = self.post("/v1/commands", command).await??;
        Ok(done.message)
    }

    /// The answer to a POST of bytes that come bit by bit, however long that takes.
    pub async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<T, Failure> {
        let body = StreamBody::new(pieces.map_ok(Frame::data));
        let request = self.request(Method::POST, path).header(header::CONTENT_TYPE, "application/x-tar");
        self.answer(self.exchange(request.body(body).map_err(Failure::not_tried)?, UPLOAD_DEADLINE).await?).await
    }

    /// The bytes of an answer that comes bit by bit, however long it is.
    pub async fn bytes(&self, path: &str) -> Result<impl Stream<Item = Result<Bytes, Failure>> + use<>, Failure> {
        let response = self.send(Method::GET, path, Bytes::new(), None).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await?.into());
        }
        let lost = format!("the controller at {} gave up half-way", self.endpoint);
        let pieces = response.into_body().into_data_stream();
        Ok(pieces.map(move |piece| piece.map_err(|error| Failure::failed(format!("{lost}: {error}")))))
    }

    /// The lines of an answer that comes bit by bit.
    pub async fn lines(&self, path: &str) -> Result<impl Stream<Item = Result<String, Failure>> + use<>, Failure> {
        let response = self.send(Method::GET, path, Bytes::new(), None).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await?.into());
        }
        let lost = format!("the connection to the controller at {} was lost", self.endpoint);
        let bytes = response.into_body().into_data_stream().map_err(io::Error::other);
        let lines = FramedRead::new(StreamReader::new(bytes), LinesCodec::new_with_max_length(LINE_LIMIT_BYTES));
        Ok(lines.map(move |line| line.map_err(|error| Failure::not_tried(format!("{lost}: {error}")))))
    }

    /// Yields once at the start and once after each change, until the controller stops.
    pub async fn changes(&self) -> Result<impl Stream<Item = Result<(), Failure>> + use<>, Failure> {
        let lines = Box::pin(self.lines("/v1/watch").await?);
        let silent = format!("the controller at {} fell silent", self.endpoint);
        Ok(futures_util::stream::unfold(Some(lines), move |lines| {
            let silent = silent.clone();
            async move {
                let mut lines = lines?;
                loop {
                    match timeout(WATCH_SILENCE, lines.next()).await {
                        Ok(Some(Ok(line))) if line.starts_with("data:") => return Some((Ok(()), Some(lines))),
                        Ok(Some(Ok(_))) => {}
                        Ok(Some(Err(failure))) => return Some((Err(failure), None)),
                        Ok(None) => return None,
                        Err(_) => return Some((Err(Failure::not_tried(silent)), None)),
                    }
                }
            }
        }))
    }

    /// A connection that speaks frames.
    pub async fn upgrade(&self, path: &str, body: &impl Serialize) -> Result<Upgraded, Failure> {
        let response = self.send(Method::POST, path, json(body)?, Some(frame::PROTOCOL)).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.refusal(response).await?.into());
        }
        hyper::upgrade::on(response).await.map_err(|error| self.strange(&error))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        upgrade: Option<&str>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = self.request(method, path);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(protocol) = upgrade {
            request = request.header(header::CONNECTION, "upgrade").header(header::UPGRADE, protocol);
        }
        self.exchange(request.body(Full::new(body)).map_err(Failure::not_tried)?, ANSWER_DEADLINE).await
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let request = Request::builder().method(method).uri(path).header(header::HOST, "roadstead");
        match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    async fn exchange<B>(&self, request: Request<B>, deadline: Duration) -> Result<Response<Incoming>, Failure>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(self.connect().await?)).await.map_err(|error| self.strange(&error))?;
        // Ends with the connection, which ends with the answer.
        tokio::spawn(connection.with_upgrades());
        match timeout(deadline, sender.send_request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.strange(&error)),
            Err(_) => Err(Failure::not_tried(format!(
                "the controller at {} did not answer within {} s",
                self.endpoint,
                deadline.as_secs()
            ))),
        }
    }

    async fn connect(&self) -> Result<Box<dyn Io>, Failure> {
        let connected = timeout(CONNECT_DEADLINE, async {
            Ok::<Box<dyn Io>, io::Error>(match &self.endpoint {
                Endpoint::Unix(path) => Box::new(UnixStream::connect(path).await?),
                Endpoint::Tcp(address) => Box::new(TcpStream::connect(address).await?),
            })
        });
        let error = match connected.await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_) => io::Error::new(io::ErrorKind::TimedOut, "no answer"),
        };
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "the socket belongs to another user: use sudo, or join the group that owns it"
            }
            _ => {
                "is the controller running? `roadstead controller --manifests DIR --data DIR` starts it; --endpoint or ROADSTEAD_ENDPOINT names another place"
            }
        };
        Err(Failure::not_tried(format!("cannot connect to the controller at {}: {error}", self.endpoint)).hint(hint))
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Bytes, Failure> {
        let body = Limited::new(response.into_body(), ANSWER_LIMIT_BYTES).collect();
        match timeout(ANSWER_DEADLINE, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(self.strange(&error)),
            Err(_) => Err(Failure::not_tried(format!("the answer of the controller at {} did not end", self.endpoint))),
        }
    }

    async fn answer<T: DeserializeOwned>(&self, response: Response<Incoming>) -> Result<T, Failure> {
        if !response.status().is_success() {
            return Err(self.refusal(response).await?.into());
        }
        serde_json::from_slice(&self.body(response).await?).map_err(|error| self.strange(&error))
    }

    async fn refusal(&self, response: Response<Incoming>) -> Result<ApiError, Failure> {
        let status = response.status();
        let body: Result<ErrorBody, _> = serde_json::from_slice(&self.body(response).await?);
        body.map(|body| body.error).map_err(|_| self.strange(&format!("status {status}")))
    }

    fn strange(&self, what: &impl std::fmt::Display) -> Failure {
        Failure::not_tried(format!("{} does not answer like a Roadstead controller: {what}", self.endpoint))
            .hint("`roadstead version` compares the versions of both sides")
    }
}

fn json(body: &impl Serialize) -> Result<Bytes, Failure> {
    serde_json::to_vec(body).map(Bytes::from).map_err(Failure::not_tried)
}

/// A path of the API from its parts, and its query.
pub(super) fn path(parts: &[&str], query: &[(&str, Option<&str>)]) -> String {
    let mut path = "/v1".to_owned();
    for part in parts {
        path.push('/');
        path.push_str(&encoded(part));
    }
    let mut separator = '?';
    for (key, value) in query {
        if let Some(value) = value {
            path.push(separator);
            path.push_str(&format!("{key}={}", encoded(value)));
            separator = '&';
        }
    }
    path
}

/// RFC 3986, everything but the unreserved characters.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_people_stay_inside_their_part_of_the_path() {
        assert_eq!(path(&["tasks", "../a?b#c d"], &[]), "/v1/tasks/..%2Fa%3Fb%23c%20d");
        assert_eq!(
            path(&["tasks"], &[("service", Some("a&b")), ("host", None), ("stopped", Some("true"))]),
            "/v1/tasks?service=a%26b&stopped=true"
        );
    }
}
