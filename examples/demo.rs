//! The demo image's only program: a small HTTP server without any crate, so that one static binary
//! is the whole image. It can be told to fail, to burn CPU and to be slow, and it stops gracefully.
//!
//! `/` says which task answers; `/healthz` is its health, switched by `/healthz/fail` and
//! `/healthz/ok`; `/burn?ms=` keeps a core busy; `/slow?ms=` waits before it answers; `/stream?ms=` is a
//! download that takes so long. With `DEMO_FAILS_EVERY=20` each twentieth `/` is answered with 500, with
//! `DEMO_SLOW_MS=200` each comes that much later.

use std::env;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const USAGE: &str = "\
demo                     serve HTTP on $PORT (default 80)
demo healthcheck [PATH]  ask the server here for PATH (default /healthz); status 0 when it answers 200
demo beat                write a line every 10 seconds until SIGTERM
demo exit CODE           end at once with CODE
demo crash SECONDS       end with status 1 after SECONDS";

const MAX_CONNECTIONS: usize = 256;
const MAX_HEAD_BYTES: usize = 8 * 1024;
const MAX_BODY_BYTES: u64 = 64 * 1024;
const MAX_BURN_MS: u64 = 10_000;
const MAX_SLOW_MS: u64 = 60_000;
/// A client has this long for its whole request, however slowly it sends.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// In-flight requests have this long at a stop. Whoever wants less sends SIGKILL.
const STOP_TIMEOUT: Duration = Duration::from_secs(25);
/// A download, and in how many parts it comes.
const STREAM_BYTES: usize = 512 * 1024;
const STREAM_PARTS: usize = 64;
const BEAT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        [] => serve(),
        ["healthcheck"] => healthcheck("/healthz"),
        ["healthcheck", path] => healthcheck(path),
        ["beat"] => beat(),
        ["exit", code] => match code.parse::<u8>() {
            Ok(code) => return ExitCode::from(code),
            Err(_) => Err(io::Error::other("CODE is a number from 0 to 255")),
        },
        ["crash", seconds] => crash(seconds),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

// ---- the server -------------------------------------------------------------------------------

/// What one server knows; shared by the threads of its connections.
struct Server {
    identity: String,
    healthy: AtomicBool,
    stopping: AtomicBool,
    connections: AtomicUsize,
    /// Each so many-th `/` is answered with 500.
    fails_every: Option<usize>,
    /// Each `/` is answered so much later.
    slow: Duration,
    asked: AtomicUsize,
}

fn serve() -> io::Result<()> {
    let mut signal = stop_signal()?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port()?))?;
    let address = listener.local_addr()?;
    let server: &'static Server = Box::leak(Box::new(Server {
        identity: identity(|name| env::var(name).ok()),
        healthy: AtomicBool::new(true),
        stopping: AtomicBool::new(false),
        connections: AtomicUsize::new(0),
        fails_every: env::var("DEMO_FAILS_EVERY").ok().and_then(|every| every.parse().ok()),
        slow: Duration::from_millis(env::var("DEMO_SLOW_MS").ok().and_then(|ms| ms.parse().ok()).unwrap_or(0)),
        asked: AtomicUsize::new(0),
    }));
    log(&format!("listening on {address}"));
    let acceptor = thread::spawn(move || accept_until_stopped(&listener, server));

    signal.read_exact(&mut [0])?;
    server.stopping.store(true, Ordering::SeqCst);
    // A connection of our own wakes the acceptor, which sleeps in accept().
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
    drop(TcpStream::connect_timeout(&local, Duration::from_secs(1)));
    drop(acceptor.join());
    let deadline = Instant::now() + STOP_TIMEOUT;
    while server.connections.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    log("stopped");
    Ok(())
}

/// Accepts until told to stop, and then still those whom the kernel had already let in.
fn accept_until_stopped(listener: &TcpListener, server: &'static Server) {
    loop {
        let stopping = server.stopping.load(Ordering::SeqCst);
        if stopping && listener.set_nonblocking(true).is_err() {
            return;
        }
        match listener.accept() {
            Ok((stream, peer)) => admit(stream, peer.ip(), server),
            Err(_) if stopping => return,
            // For example no file descriptor left: give the others time to end.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn admit(stream: TcpStream, peer: IpAddr, server: &'static Server) {
    // What is accepted while stopping inherits nothing from the listener on Linux; say so all the same.
    let ready = stream.set_nonblocking(false).and(stream.set_write_timeout(Some(WRITE_TIMEOUT)));
    if ready.is_err() {
        return;
    }
    if server.connections.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
        drop(write_response(&stream, 503, "too many connections\n"));
        server.connections.fetch_sub(1, Ordering::SeqCst);
        return;
    }
    let spawned = thread::Builder::new().stack_size(128 * 1024).spawn(move || {
        answer(&stream, peer, server);
        server.connections.fetch_sub(1, Ordering::SeqCst);
    });
    if spawned.is_err() {
        server.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

fn answer(stream: &TcpStream, peer: IpAddr, server: &Server) {
    let start = Instant::now();
    let request = match read_request(stream, start + REQUEST_TIMEOUT) {
        Ok(Some(request)) => request,
        Ok(None) => {
            drop(write_response(stream, 400, "that is not HTTP\n"));
            return;
        }
        Err(_) => return,
    };
    let streamed = request.target.strip_prefix("/stream?").filter(|_| request.method == "GET");
    let status = match streamed.and_then(|query| milliseconds(query, MAX_SLOW_MS)) {
        Some(time) => {
            drop(stream_for(stream, time));
            200
        }
        None => {
            let (status, body) = route(&request, server);
            drop(write_response(stream, status, &body));
            status
        }
    };
    log(&format!(
        "{} {} {status} {} ms {peer}",
        request.method.escape_default(),
        request.target.escape_default(),
        start.elapsed().as_millis()
    ));
}

fn route(request: &Request, server: &Server) -> (u16, String) {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    match (request.method.as_str(), path) {
        ("GET" | "HEAD", "/") => {
            let nth = server.asked.fetch_add(1, Ordering::Relaxed) + 1;
            thread::sleep(server.slow);
            match server.fails_every {
                Some(every) if nth.is_multiple_of(every) => (500, "told to fail\n".into()),
                _ => (200, server.identity.clone()),
            }
        }
        ("GET" | "HEAD", "/healthz") if server.healthy.load(Ordering::SeqCst) => (200, "ok\n".into()),
        ("GET" | "HEAD", "/healthz") => (500, "told to fail\n".into()),
        ("GET" | "POST", "/healthz/fail") => {
            server.healthy.store(false, Ordering::SeqCst);
            (200, "/healthz fails from now on\n".into())
        }
        ("GET" | "POST", "/healthz/ok") => {
            server.healthy.store(true, Ordering::SeqCst);
            (200, "/healthz is ok from now on\n".into())
        }
        ("GET", "/burn") => match milliseconds(query, MAX_BURN_MS) {
            Some(time) => {
                let end = Instant::now() + time;
                while Instant::now() < end {
                    std::hint::spin_loop();
                }
                (200, format!("burned {} ms\n", time.as_millis()))
            }
            None => (400, format!("/burn?ms=0 to {MAX_BURN_MS}\n")),
        },
        ("GET", "/slow") => match milliseconds(query, MAX_SLOW_MS) {
            Some(time) => {
                thread::sleep(time);
                (200, format!("waited {} ms\n", time.as_millis()))
            }
            None => (400, format!("/slow?ms=0 to {MAX_SLOW_MS}\n")),
        },
        ("GET", "/stream") => (400, format!("/stream?ms=0 to {MAX_SLOW_MS}\n")),
        (_, "/" | "/healthz" | "/healthz/fail" | "/healthz/ok" | "/burn" | "/slow" | "/stream") => {
            (405, "not with this method\n".into())
        }
        (_, _) => (404, "try / /healthz /healthz/fail /healthz/ok /burn?ms= /slow?ms= /stream?ms=\n".into()),
    }
}

/// The text of `/`: a line per fact, from the environment that the task was given.
fn identity(variable: impl Fn(&str) -> Option<String>) -> String {
    let facts = [
        ("version", "DEMO_VERSION"),
        ("task", "ROADSTEAD_TASK_ID"),
        ("host", "ROADSTEAD_HOST"),
        ("zone", "ROADSTEAD_AVAILABILITY_ZONE"),
    ];
    let mut text = String::from("Roadstead demo\n");
    for (fact, name) in facts {
        let value = variable(name).unwrap_or_else(|| "unknown".into());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{fact:<8} {value}");
    }
    text
}

/// The `ms` of a query such as `ms=250`; nothing when it is missing, no number or above `max_ms`.
fn milliseconds(query: &str, max_ms: u64) -> Option<Duration> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("ms="))?;
    let ms = value.parse().ok().filter(|ms| *ms <= max_ms)?;
    Some(Duration::from_millis(ms))
}

// ---- HTTP -------------------------------------------------------------------------------------

struct Request {
    method: String,
    target: String,
    body_bytes: u64,
}

/// Reads head and body; nothing when it is not HTTP or too big, an error when the client is gone or slow.
fn read_request(mut stream: &TcpStream, deadline: Instant) -> io::Result<Option<Request>> {
    let mut bytes = Vec::with_capacity(1024);
    let mut chunk = [0; 1024];
    let head_bytes = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if bytes.len() > MAX_HEAD_BYTES {
            return Ok(None);
        }
        let read = read_before(stream, &mut chunk, deadline)?;
        bytes.extend_from_slice(chunk.get(..read).unwrap_or_default());
    };
    let head = bytes.get(..head_bytes).unwrap_or_default();
    let Some(request) = std::str::from_utf8(head).ok().and_then(parse_head) else {
        return Ok(None);
    };
    // An unread body would reset the connection under our answer.
    let mut left = request.body_bytes.saturating_sub((bytes.len() - head_bytes) as u64);
    if left > 0 && head.windows(12).any(|part| part.eq_ignore_ascii_case(b"100-continue")) {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    while left > 0 {
        left = left.saturating_sub(read_before(stream, &mut chunk, deadline)? as u64);
    }
    Ok(Some(request))
}

fn read_before(mut stream: &TcpStream, chunk: &mut [u8], deadline: Instant) -> io::Result<usize> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))?;
    match stream.read(chunk)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => Ok(read),
    }
}

fn parse_head(head: &str) -> Option<Request> {
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let well_formed =
        words.next().is_none() && version.starts_with("HTTP/1.") && target.starts_with('/') && !method.is_empty();
    if !well_formed {
        return None;
    }
    let mut body_bytes = 0;
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") {
            body_bytes = value.trim().parse().ok().filter(|bytes| *bytes <= MAX_BODY_BYTES)?;
        }
    }
    Some(Request { method: method.into(), target: target.into(), body_bytes })
}

fn write_response(mut stream: &TcpStream, status: u16, body: &str) -> io::Result<()> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// A download whose parts come evenly.
fn stream_for(mut stream: &TcpStream, time: Duration) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {STREAM_BYTES}\r\nConnection: close\r\n\r\n"
    )?;
    let part = vec![b'.'; STREAM_BYTES / STREAM_PARTS];
    for _ in 0..STREAM_PARTS {
        stream.write_all(&part)?;
        thread::sleep(time / STREAM_PARTS as u32);
    }
    Ok(())
}

// ---- the other commands -----------------------------------------------------------------------

fn healthcheck(path: &str) -> io::Result<()> {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, port()?));
    let timeout = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&local, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_BODY_BYTES).read_to_string(&mut answer)?;
    let status = answer.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    Err(io::Error::other(format!("{path}: {status}")))
}

fn beat() -> io::Result<()> {
    let mut signal = stop_signal()?;
    signal.set_read_timeout(Some(BEAT))?;
    for beat in 1_u64.. {
        log(&format!("beat {beat}"));
        match signal.read_exact(&mut [0]) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            stopped => {
                log("stopped");
                return stopped;
            }
        }
    }
    Ok(())
}

fn crash(seconds: &str) -> io::Result<()> {
    let seconds = seconds.parse().map_err(|_| io::Error::other("SECONDS is a number"))?;
    log(&format!("crashing in {seconds} s"));
    thread::sleep(Duration::from_secs(seconds));
    Err(io::Error::other("crashed as told"))
}

fn port() -> io::Result<u16> {
    match env::var("PORT") {
        Ok(port) => port.parse().map_err(|_| io::Error::other(format!("PORT is {port:?}, not a port"))),
        Err(_) => Ok(80),
    }
}

/// A line on standard output. Nobody listening there is no reason to stop serving.
fn log(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

// ---- signals ----------------------------------------------------------------------------------

/// The end of a socket pair that the signal handler writes to, -1 while there is none.
static SIGNAL_FD: AtomicI32 = AtomicI32::new(-1);

unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn write(fd: i32, bytes: *const u8, count: usize) -> isize;
}

extern "C" fn on_signal(_number: i32) {
    // SAFETY: write(2) is async-signal-safe, and the byte is static.
    unsafe { write(SIGNAL_FD.load(Ordering::SeqCst), b"s".as_ptr(), 1) };
}

/// A stream that gets a byte on SIGTERM and SIGINT. Without a handler the first process of a
/// container would ignore both.
fn stop_signal() -> io::Result<UnixStream> {
    const SIGINT: i32 = 2;
    const SIGTERM: i32 = 15;
    let (reader, writer) = UnixStream::pair()?;
    writer.set_nonblocking(true)?;
    SIGNAL_FD.store(writer.as_raw_fd(), Ordering::SeqCst);
    // The handler needs it for as long as the process lives.
    std::mem::forget(writer);
    for number in [SIGINT, SIGTERM] {
        // SAFETY: the handler only calls write(2), and the descriptor stays open.
        unsafe { signal(number, on_signal) };
    }
    Ok(reader)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_request_line_and_the_length_of_the_body() {
        let request = parse_head("POST /healthz/fail?x=1 HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 12\r\n\r\n")
            .expect("a good head");
        assert_eq!(
            (request.method.as_str(), request.target.as_str(), request.body_bytes),
            ("POST", "/healthz/fail?x=1", 12)
        );
    }

    #[test]
    fn refuses_what_is_not_http_or_too_big() {
        for head in [
            "",
            "GET / SPDY/3\r\n\r\n",
            "GET http://elsewhere/ HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1 more\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n",
        ] {
            assert!(parse_head(head).is_none(), "{head:?}");
        }
    }

    #[test]
    fn milliseconds_are_bounded() {
        assert_eq!(milliseconds("ms=250", 300), Some(Duration::from_millis(250)));
        assert_eq!(milliseconds("a=b&ms=300", 300), Some(Duration::from_millis(300)));
        for query in ["", "ms=", "ms=301", "ms=-1", "ms=x", "s=1"] {
            assert_eq!(milliseconds(query, 300), None, "{query:?}");
        }
    }

    #[test]
    fn identity_names_the_task_and_what_is_unknown() {
        let text = identity(|name| (name == "ROADSTEAD_TASK_ID").then(|| "t-1".to_owned()));
        assert!(text.contains("task     t-1\n") && text.contains("zone     unknown\n"), "{text}");
    }

    #[test]
    fn health_is_switched_by_requests() {
        let server = Server {
            identity: String::new(),
            healthy: AtomicBool::new(true),
            stopping: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            fails_every: None,
            slow: Duration::ZERO,
            asked: AtomicUsize::new(0),
        };
        let status = |method: &str, target: &str| {
            let request = Request { method: method.into(), target: target.into(), body_bytes: 0 };
            route(&request, &server).0
        };
        assert_eq!(status("GET", "/healthz"), 200);
        assert_eq!(status("POST", "/healthz/fail"), 200);
        assert_eq!(status("GET", "/healthz"), 500);
        assert_eq!(status("GET", "/healthz/ok"), 200);
        assert_eq!(status("GET", "/healthz"), 200);
        assert_eq!(status("DELETE", "/healthz"), 405);
        assert_eq!(status("GET", "/nowhere"), 404);
    }
}
