//! What listens in a container: HTTP on every port but one, which takes connections only.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::scenario::TCP_PORT;
use roadstead_control::host::{BoxIo, TransportError};
use roadstead_core::model::container::{ContainerState, HealthStatus};

/// Longer than a request for a container's health.
const BUFFER_BYTES: usize = 1024;

/// A connection to what was found at an address, if anything takes it.
pub(super) fn answering(
    found: Option<(ContainerState, HealthStatus)>,
    address: SocketAddr,
) -> Result<BoxIo, TransportError> {
    let Some((state, health)) = found else { return Err(TransportError::Refused { address }) };
    let is_well = health == HealthStatus::Healthy;
    if address.port() == TCP_PORT && !is_well {
        return Err(TransportError::Refused { address });
    }
    let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
    // The kernel takes connections for a frozen process, too.
    let answer = (state == ContainerState::Running).then_some(if is_well { "200 OK" } else { "503 Not Yet" });
    tokio::spawn(serve(theirs, answer));
    Ok(Box::new(ours))
}

async fn serve(mut stream: DuplexStream, answer: Option<&str>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut request).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
    }
    match answer {
        Some(status) => {
            let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(text.as_bytes()).await;
        }
        None => drop(stream.read_u8().await),
    }
}
