//! What sends and answers in a namespace: this program again, since a process is in one namespace only.

use std::{
    io::{BufRead, Write},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use roadstead_core::plan::network::verdict::Flow;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    time::timeout,
};

use crate::fleet::LISTENED;

/// Addresses to answer at; only a far end has it.
pub const ADDRESSES: &str = "ROADSTEAD_FAR_END";
/// So long an answer is waited for: what is dropped never comes.
const PATIENCE: Duration = Duration::from_millis(2500);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Probe {
    from: IpAddr,
    to: IpAddr,
    protocol: String,
    port: u16,
}

impl Probe {
    pub fn new(from: impl Into<IpAddr>, to: impl Into<IpAddr>, flow: Flow) -> Self {
        let (protocol, port) = match flow {
            Flow::Tcp(port) => ("tcp", port),
            Flow::Udp(port) => ("udp", port),
            Flow::Echo => ("icmp", 0),
        };
        Self { from: from.into(), to: to.into(), protocol: protocol.into(), port }
    }

    fn socket(&self) -> TcpSocket {
        let socket = if self.from.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
        socket.bind((self.from, 0).into()).unwrap();
        socket
    }

    /// The connection, and who is seen at its other end.
    async fn connect(&self) -> Option<(TcpStream, Seen)> {
        let greeting = async {
            let mut stream = self.socket().connect((self.to, self.port).into()).await.ok()?;
            let mut seen = [0; SEEN];
            stream.read_exact(&mut seen).await.ok()?;
            Some((stream, seen_in(&seen)))
        };
        timeout(PATIENCE, greeting).await.ok()?
    }

    async fn is_reset(&self) -> bool {
        timeout(PATIENCE, self.socket().connect((self.to, self.port).into())).await.is_ok_and(|answer| answer.is_err())
    }

    async fn passes(&self) -> Option<Seen> {
        if self.protocol == "tcp" {
            return self.connect().await.map(|(_, seen)| seen);
        }
        let socket = match self.protocol.as_str() {
            "udp" => UdpSocket::bind((self.from, 0)).await.unwrap(),
            _ => {
                let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4)).unwrap();
                socket.bind(&SocketAddr::from((self.from, 0)).into()).unwrap();
                socket.set_nonblocking(true).unwrap();
                UdpSocket::from_std(socket.into()).unwrap()
            }
        };
        // An echo request, or as good as any other bytes.
        let packet = [8, 0, 0, 0, 0, 0, 0, 1];
        let answer = async {
            let mut buffer = [0; 64];
            // An error is the word of somebody on the way.
            loop {
                let _ = socket.send_to(&packet, (self.to, self.port)).await;
                if let Ok(Ok((length, from))) = timeout(PATIENCE / 3, socket.recv_from(&mut buffer)).await
                    && from.ip() == self.to
                {
                    return if self.protocol == "udp" { seen_in(&buffer[..length]) } else { Seen::Untold };
                }
            }
        };
        timeout(PATIENCE, answer).await.ok()
    }
}

/// Whom a listener saw; who answers a ping does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen {
    As(IpAddr),
    Untold,
}

/// It says so in as many bytes.
const SEEN: usize = 40;

fn seen_in(bytes: &[u8]) -> Seen {
    Seen::As(std::str::from_utf8(bytes).unwrap().trim().parse().unwrap())
}

/// What a far end is asked: a line each, answered by a line.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Whether each of these passes; all at once.
    Probe(Vec<Probe>),
    /// To open a connection and keep it.
    Hold(Probe),
    /// Whether the one that it keeps still carries something.
    Talk,
    /// Whether it is refused in words: by silence it is not.
    Reset(Probe),
    /// To answer at this address, too.
    Listen(IpAddr),
}

async fn talk(stream: &mut TcpStream) -> bool {
    let exchange = async {
        stream.write_all(b"x").await?;
        stream.read_u8().await
    };
    timeout(PATIENCE, exchange).await.is_ok_and(|answer| answer.is_ok())
}

async fn listen(address: IpAddr, port: u16) {
    let listener = TcpListener::bind((address, port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, peer)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(format!("{:SEEN$}", peer.ip().to_string()).as_bytes()).await;
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let socket = UdpSocket::bind((address, port)).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 64];
        loop {
            // Errors are those of earlier answers.
            if let Ok((_, from)) = socket.recv_from(&mut buffer).await {
                let _ = socket.send_to(from.ip().to_string().as_bytes(), from).await;
            }
        }
    });
}

async fn listen_at(address: IpAddr) {
    for port in LISTENED {
        listen(address, *port).await;
    }
}

#[test]
#[ignore = "live: the other tests start it, in a namespace; by itself it does nothing"]
fn answers_in_a_namespace() {
    let Ok(addresses) = std::env::var(ADDRESSES) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let say = |passed: Vec<Option<Seen>>| {
        println!("@{}", serde_json::to_string(&passed).unwrap());
        std::io::stdout().flush().unwrap();
    };
    // Answering goes on while the next question is waited for.
    let (questions, mut asked) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if questions.blocking_send(serde_json::from_str::<Ask>(&line.unwrap()).unwrap()).is_err() {
                return;
            }
        }
    });
    runtime.block_on(async {
        for address in addresses.split(',') {
            listen_at(address.parse().unwrap()).await;
        }
        say(Vec::new());
        let mut held = None;
        while let Some(ask) = asked.recv().await {
            say(match ask {
                Ask::Probe(probes) => {
                    let all = probes.into_iter().map(|probe| tokio::spawn(async move { probe.passes().await }));
                    let mut passed = Vec::new();
                    for probe in all.collect::<Vec<_>>() {
                        passed.push(probe.await.unwrap());
                    }
                    passed
                }
                Ask::Hold(probe) => {
                    held = probe.connect().await;
                    vec![held.as_ref().map(|(_, seen)| *seen)]
                }
                Ask::Talk => match &mut held {
                    Some((stream, seen)) => vec![talk(stream).await.then_some(*seen)],
                    None => vec![None],
                },
                Ask::Reset(probe) => vec![probe.is_reset().await.then_some(Seen::Untold)],
                Ask::Listen(address) => {
                    listen_at(address).await;
                    Vec::new()
                }
            });
        }
    });
}
