//! One check of a container from its host: a request or a connection, through the host's transport.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::host::{BoxIo, Transport, TransportError};
use roadstead_core::model::spec::task_definition::{HttpCheck, Probe};

/// An answer's head may be this long; its body is not read.
const HEAD_MAX_BYTES: usize = 16 * 1024;

/// What became of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// As it should be.
    Passed,
    /// The container does not do what it should; in words.
    Failed(String),
    /// No answer in time: of the container's, or of the host's.
    Silent(String),
    /// The host could not be asked: that says nothing of the container.
    NotMade(String),
}

/// Checks what listens at `address`, as its host sees it.
pub(super) async fn probe(
    transport: &dyn Transport,
    address: SocketAddr,
    how: Probe<'_>,
    deadline: Duration,
) -> Outcome {
    let what = match how {
        Probe::Http(http) => format!("GET :{}{}", http.port, http.path),
        Probe::Tcp(tcp) => format!("port {}", tcp.port),
    };
    let check = async {
        let stream = match transport.dial_tcp(address).await {
            Ok(stream) => stream,
            Err(error) => return not_dialled(&what, how, error),
        };
        match how {
            Probe::Http(http) => match ask(stream, address, http).await {
                Ok(status) if http.matcher.clone().unwrap_or_default().matches(status) => Outcome::Passed,
                Ok(status) => Outcome::Failed(format!("{what} answered {status}")),
                Err(error) => match lost(&error) {
                    Some(lost) => Outcome::NotMade(lost.to_string()),
                    None => Outcome::Failed(format!("{what} did not answer in HTTP: {error}")),
                },
            },
            Probe::Tcp(_) => Outcome::Passed,
        }
    };
    let silent = || Outcome::Silent(format!("{what} did not answer within {} s", deadline.as_secs()));
    timeout(deadline, check).await.unwrap_or_else(|_| silent())
}

fn not_dialled(what: &str, how: Probe<'_>, error: TransportError) -> Outcome {
    match error {
        TransportError::Refused { .. } => Outcome::Failed(format!("nothing listens on port {}", how.port())),
        TransportError::TimedOut { .. } => Outcome::Silent(format!("{what} did not answer")),
        TransportError::Untrusted { .. }
        | TransportError::Unauthorised { .. }
        | TransportError::Unreachable { .. }
        | TransportError::SocketMissing { .. }
        | TransportError::Forbidden { .. }
        | TransportError::Lost { .. }
        | TransportError::Misconfigured { .. }
        | TransportError::OutputTooLarge { .. }
        | TransportError::CommandFailed { .. }
        | TransportError::ReaderTooSlow { .. }
        | TransportError::Closed => Outcome::NotMade(error.to_string()),
    }
}

/// What ended below the request, when it was the way to the host and not the container.
fn lost(error: &hyper::Error) -> Option<&TransportError> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(lost) = error.downcast_ref::<std::io::Error>().and_then(TransportError::of_io) {
            return Some(lost);
        }
        cause = error.source();
    }
    None
}

/// Asks for the path; the answer's status.
async fn ask(stream: BoxIo, address: SocketAddr, http: &HttpCheck) -> Result<u16, hyper::Error> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_MAX_BYTES);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let answer = sender.send_request(request(address, http));
    tokio::pin!(answer, connection);
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // What it brought before it ended is here.
        _ = &mut connection => answer.await,
    };
    answer.map(|answer| answer.status().as_u16())
}

/// Admission has seen to it that path and headers can be sent.
fn request(address: SocketAddr, http: &HttpCheck) -> Request<Empty<Bytes>> {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static("roadstead-health-check"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    if let Ok(host) = HeaderValue::from_str(&address.to_string()) {
        headers.insert(header::HOST, host);
    }
    for (name, value) in &http.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = http.path.parse().unwrap_or_else(|_| Uri::from_static("/"));
    *request.headers_mut() = headers;
    request
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::host::LocalTransport;
    use roadstead_core::model::spec::task_definition::HealthCheck;

    /// Checks a server that says this to whoever connects; the outcome, and what it was asked.
    async fn checked(check: &str, says: &str) -> (Outcome, String) {
        let check: HealthCheck = serde_json::from_str(check).unwrap();
        let how = check.probe().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while let (Probe::Http(_), false) = (how, asked.ends_with(b"\r\n\r\n")) {
                stream.read_buf(&mut asked).await.unwrap();
            }
            // It may have heard enough before the end.
            let _ = stream.write_all(says.as_bytes()).await;
            String::from_utf8(asked).unwrap()
        };
        let transport = LocalTransport::new();
        let ask = probe(&transport, address, how, Duration::from_secs(60));
        tokio::join!(ask, serve)
    }

    #[tokio::test]
    async fn an_answer_is_good_when_its_status_is() {
        let plain = r#"{ "http": { "path": "/healthz?deep=1", "port": 80 } }"#;
        let strict = r#"{ "http": { "port": 80, "matcher": "200,204-205" } }"#;
        let failed = |words: &str| Outcome::Failed(words.to_owned());
        let cases = [
            (plain, "HTTP/1.1 200 OK\r\n\r\n", Outcome::Passed),
            (plain, "HTTP/1.0 302 Found\r\nLocation: /login\r\n\r\n", Outcome::Passed),
            (
                plain,
                "HTTP/1.1 503 No\r\nContent-Length: 9999999\r\n\r\n",
                failed("GET :80/healthz?deep=1 answered 503"),
            ),
            (strict, "HTTP/1.1 204 No Content\r\n\r\n", Outcome::Passed),
            (strict, "HTTP/1.1 302 Found\r\n\r\n", failed("GET :80/ answered 302")),
        ];
        for (check, says, expected) in cases {
            assert_eq!(checked(check, says).await.0, expected, "{says}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(100_000));
        for says in ["", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 2000 OK\r\n\r\n", &endless] {
            let (outcome, _) = checked(plain, says).await;
            assert!(matches!(&outcome, Outcome::Failed(why) if why.contains("did not answer in HTTP")), "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn what_is_asked_is_what_is_written() {
        let check =
            r#"{ "http": { "path": "/a?b=c", "port": 80, "headers": { "host": "example.com", "X-Probe": "1" } } }"#;
        let (_, asked) = checked(check, "HTTP/1.1 200 OK\r\n\r\n").await;
        assert!(asked.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{asked}");
        let lines: Vec<String> = asked.to_ascii_lowercase().lines().map(str::to_owned).collect();
        for line in ["host: example.com", "x-probe: 1", "connection: close"] {
            assert!(lines.iter().any(|it| it == line), "{line}: {asked}");
        }
        assert_eq!(lines.iter().filter(|line| line.starts_with("host:")).count(), 1, "{asked}");
    }

    #[tokio::test]
    async fn a_connection_is_enough_for_tcp_and_none_is_a_failure() {
        let check = r#"{ "tcp": { "port": 80 } }"#;
        assert_eq!(checked(check, "").await.0, Outcome::Passed);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let check: HealthCheck = serde_json::from_str(check).unwrap();
        let outcome = probe(&LocalTransport::new(), address, check.probe().unwrap(), Duration::from_secs(60)).await;
        assert_eq!(outcome, Outcome::Failed("nothing listens on port 80".to_owned()));
    }

    /// Silence may be the host's: whoever asks finds that out.
    #[tokio::test]
    async fn silence_is_no_failure_yet() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let check: HealthCheck = serde_json::from_str(r#"{ "http": { "port": 80 } }"#).unwrap();
        let outcome = probe(&LocalTransport::new(), address, check.probe().unwrap(), Duration::from_millis(100)).await;
        assert!(matches!(outcome, Outcome::Silent(_)), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_way_that_ends_is_not_the_container_s_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let transport = LocalTransport::new();
        let check: HealthCheck = serde_json::from_str(r#"{ "http": { "port": 80 } }"#).unwrap();
        let close = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
            transport.close().await;
            // Its end of the connection goes on until ours has ended.
            let end = stream.read_to_end(&mut Vec::new()).await;
            assert!(end.is_ok() || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
        };
        let ask = probe(&transport, address, check.probe().unwrap(), Duration::from_secs(60));
        let (outcome, ()) = tokio::join!(ask, close);
        assert!(matches!(outcome, Outcome::NotMade(_)), "{outcome:?}");
        let outcome = probe(&transport, address, check.probe().unwrap(), Duration::from_secs(60)).await;
        assert!(matches!(outcome, Outcome::NotMade(_)), "{outcome:?}");
    }
}
