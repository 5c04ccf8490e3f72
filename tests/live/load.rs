//! Clients of load balancers, who note everything that they are answered.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// A client waits no longer for anything.
const PATIENCE: Duration = Duration::from_secs(8);
/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(8);

/// So many answers are noted one by one between two looks.
const LOG_MAX: usize = 200_000;

/// How a client behaves.
#[derive(Clone, Copy)]
enum Client {
    /// One connection for everything, until the other side ends it between two requests.
    KeepsAlive,
    /// A connection for each request.
    Fresh,
    /// Each request takes three seconds.
    Slow,
    /// Each answer takes four seconds to come in whole.
    Downloads,
}

const CLIENTS: [Client; 4] = [Client::KeepsAlive, Client::Fresh, Client::Slow, Client::Downloads];

/// What clients were answered.
#[derive(Clone, Default)]
pub struct Seen {
    /// By version.
    pub answers: BTreeMap<String, u64>,
    pub failures: Vec<String>,
    /// When each of these began.
    pub failed: Vec<Instant>,
    /// Who asked when, and the version that answered.
    pub log: Vec<(Instant, SocketAddr, String)>,
}

/// Clients of all edges, all the time.
pub struct Load {
    stop: Arc<AtomicBool>,
    pub seen: Arc<Mutex<Seen>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(edges: &[SocketAddr]) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let mut threads = Vec::new();
        for (edge, client) in edges.iter().flat_map(|edge| CLIENTS.map(|client| (*edge, client))) {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            threads.push(thread::spawn(move || {
                let mut open = None;
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let answer = request(edge, client, &mut open);
                    let mut seen = seen.lock().unwrap();
                    match answer {
                        Ok(version) => {
                            *seen.answers.entry(version.clone()).or_default() += 1;
                            if seen.log.len() < LOG_MAX {
                                seen.log.push((began, edge, version));
                            }
                        }
                        Err(error) if seen.failures.len() < 100 => {
                            seen.failures.push(format!("{edge}: {error}, after {:?}", began.elapsed()));
                            seen.failed.push(began);
                        }
                        Err(_) => {}
                    }
                    drop(seen);
                    thread::sleep(PACE);
                }
            }));
        }
        Self { stop, seen, threads }
    }

    /// No more requests than this are ever under way.
    pub fn clients(&self) -> usize {
        self.threads.len()
    }

    /// What came since the last time.
    pub fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

pub type Open = Option<BufReader<TcpStream>>;

/// Gives the version that answered.
fn request(edge: SocketAddr, client: Client, open: &mut Open) -> Result<String, String> {
    let (path, keeps) = match client {
        Client::KeepsAlive => ("/", true),
        Client::Fresh => ("/", false),
        Client::Slow => ("/slow?ms=3000", false),
        Client::Downloads => ("/stream?ms=4000", false),
    };
    let was_open = open.is_some();
    match exchange(edge, path, keeps, open) {
        // The other side ended it while nothing was under way: every client asks again then.
        Err((_, true)) if was_open => exchange(edge, path, keeps, open).map_err(|(error, _)| error),
        other => other.map_err(|(error, _)| error),
    }
}

/// An error, and whether nothing had been answered at all.
pub fn exchange(edge: SocketAddr, path: &str, keeps: bool, open: &mut Open) -> Result<String, (String, bool)> {
    let said = |what: &'static str, nothing: bool| {
        move |error: std::io::Error| (format!("{what}: {error}"), nothing_of(&error, nothing))
    };
    let mut stream = match open.take() {
        Some(stream) => stream,
        None => {
            let stream =
                TcpStream::connect_timeout(&edge, PATIENCE).map_err(|error| (format!("connect: {error}"), false))?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(said("set", false))?;
            BufReader::new(stream)
        }
    };
    let connection = if keeps { "keep-alive" } else { "close" };
    let text = format!("GET {path} HTTP/1.1\r\nHost: web\r\nConnection: {connection}\r\n\r\n");
    stream.get_mut().write_all(text.as_bytes()).map_err(said("write", true))?;
    let mut status = String::new();
    stream.read_line(&mut status).map_err(said("read", true))?;
    if status.is_empty() {
        return Err(("closed without an answer".to_owned(), true));
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).map_err(said("read", false))?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(bytes) = line.strip_prefix("content-length:") {
            length = bytes.trim().parse().map_err(|_| (line.clone(), false))?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).map_err(said("body", false))?;
    if !status.contains(" 200 ") {
        return Err((status.trim().to_owned(), false));
    }
    if keeps {
        *open = Some(stream);
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(body
        .lines()
        .find_map(|line| line.strip_prefix("version"))
        .unwrap_or("")
        .trim_matches([' ', ':', '='])
        .to_owned())
}

fn nothing_of(error: &std::io::Error, nothing: bool) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    nothing && matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

pub fn status(edge: SocketAddr, path: &str) -> String {
    match exchange(edge, path, false, &mut None) {
        Ok(_) => "HTTP/1.1 200 OK".to_owned(),
        Err((error, _)) => error,
    }
}
