//! HAProxy as a host runs it, in namespaces of its own that end with the test, and what it forwards to.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use roadstead_control::{
    lb::{
        EdgeState,
        haproxy::{
            apply::{Applied, Shell},
            certificates::Pems,
            script::BOOT,
        },
    },
    net::NetError,
};
use roadstead_core::model::traffic::{Edge, Target, TargetHealth};
use serde_json::{Value, json};

pub const DEADLINE: Duration = Duration::from_secs(40);
const PROGRAMS: &str = "/run/programs";
const INSIDE: &str = "ROADSTEAD_TEST_INSIDE";

/// Said aloud; an error where everything that is needed was installed.
fn can_run() -> bool {
    let has = |program: &str, ask: &str| Command::new(program).arg(ask).output().is_ok_and(|it| it.status.success());
    let can =
        rustix::process::geteuid().is_root() && has("haproxy", "-v") && has("socat", "-V") && has("unshare", "-V");
    if !can {
        assert!(std::env::var_os("ROADSTEAD_TESTS_MUST_RUN").is_none(), "needs root, haproxy, socat and unshare");
        eprintln!("skipped: needs root, haproxy, socat and unshare");
    }
    can
}

/// Runs a test in namespaces of its own: all its processes end with it.
pub fn inside(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        run("ip link set lo up && mount -t tmpfs none /run && mount -t tmpfs none /var/lib");
        run("mkdir -p /run/roadstead-lb /var/lib/roadstead-lb /run/programs");
        // What the node image has, and nothing else.
        run("for it in sh cat mv rm mkdir sleep socat haproxy; do ln -s $(command -v $it) /run/programs; done");
        body();
    } else if can_run() {
        let status = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .arg(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(INSIDE, "1")
            .status()
            .unwrap();
        assert!(status.success(), "see above");
    }
}

pub fn run(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// As the node's shell is told.
struct LocalShell;

#[async_trait]
impl Shell for LocalShell {
    async fn run(&mut self, what: &str, script: &str) -> Result<String, NetError> {
        let mut shell = Command::new("/run/programs/sh");
        shell.env("PATH", PROGRAMS).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let mut input = shell.stdin.take().unwrap();
        let text = format!("( set -e\n{script}\n) </dev/null 2>&1\nexit $?\n");
        let writer = thread::spawn(move || input.write_all(text.as_bytes()));
        let mut said = String::new();
        shell.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        writer.join().unwrap().unwrap();
        match shell.wait().unwrap().success() {
            true => Ok(said),
            false => Err(NetError::Refused { what: what.to_owned(), said }),
        }
    }
}

/// A HAProxy, and who tells it.
pub struct Balancer {
    boot: Child,
    pub applied: Applied,
    pub pems: Pems,
}

impl Balancer {
    pub fn up() -> Self {
        let mut boot = Command::new("/run/programs/sh");
        let log = std::fs::File::create("/run/log").unwrap();
        boot.args(["-c", BOOT]).env("PATH", PROGRAMS).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self { boot: boot.spawn().unwrap(), applied: Applied::default(), pems: Pems::new() }
    }

    pub fn apply(&mut self, wanted: &Edge) -> Result<(), NetError> {
        block_on(self.applied.apply(&mut LocalShell, wanted, &self.pems))
    }

    pub fn look(&mut self, applied: &Edge) -> EdgeState {
        block_on(self.applied.look(&mut LocalShell, applied, true)).unwrap()
    }

    /// Applies it and waits until all its targets are healthy.
    pub fn shows(&mut self, wanted: &Edge) {
        self.apply(wanted).unwrap_or_else(|error| panic!("{error}\n{}", log()));
        until("healthy targets", || {
            let state = self.look(wanted);
            assert_eq!(state.drift, None);
            state.targets.values().flat_map(BTreeMap::values).all(|it| it.health == TargetHealth::Healthy).then_some(())
        });
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.boot.kill();
        if thread::panicking() {
            eprintln!("{}", log());
        }
    }
}

pub fn log() -> String {
    std::fs::read_to_string("/run/log").unwrap_or_default()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// What a target does just now.
#[derive(Default)]
pub struct Behaviour {
    pub is_healthy: AtomicBool,
    pub requests: AtomicUsize,
    held: Mutex<bool>,
    released: Condvar,
    pub waiting: AtomicU32,
}

/// A server whose answers are its name.
pub struct Upstream {
    pub name: &'static str,
    pub port: u16,
    pub does: Arc<Behaviour>,
}

impl Upstream {
    pub fn up(name: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let does = Arc::new(Behaviour::default());
        does.is_healthy.store(true, Ordering::SeqCst);
        *does.held.lock().unwrap() = true;
        let behaviour = Arc::clone(&does);
        thread::spawn(move || {
            for connection in listener.incoming() {
                let behaviour = Arc::clone(&behaviour);
                thread::spawn(move || serve(name, connection.unwrap(), &behaviour));
            }
        });
        Self { name, port, does }
    }

    pub fn target(&self) -> Target {
        Target { address: Ipv4Addr::LOCALHOST, port: self.port, leaves: false }
    }

    pub fn set_healthy(&self, is: bool) {
        self.does.is_healthy.store(is, Ordering::SeqCst);
    }

    pub fn requests(&self) -> usize {
        self.does.requests.load(Ordering::SeqCst)
    }

    /// Lets requests for `/held` be answered.
    pub fn release(&self) {
        *self.does.held.lock().unwrap() = false;
        self.does.released.notify_all();
    }
}

fn serve(name: &str, connection: TcpStream, does: &Behaviour) {
    connection.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut writer = connection;
    while let Some(head) = head(&mut reader) {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let good = does.is_healthy.load(Ordering::SeqCst);
        let (status, body) = match path.as_str() {
            "/health" => (if good { 200 } else { 500 }, String::new()),
            "/headers" => (200, head.clone()),
            _ => {
                does.requests.fetch_add(1, Ordering::SeqCst);
                if path == "/held" {
                    let held = does.held.lock().unwrap();
                    does.waiting.fetch_add(1, Ordering::SeqCst);
                    drop(does.released.wait_while(held, |held| *held).unwrap());
                }
                (200, name.to_owned())
            }
        };
        let answer = format!("HTTP/1.1 {status} said\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
        if head.len() - before <= 2 {
            return Some(head);
        }
    }
}

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// A connection of a client.
pub struct Client {
    reader: BufReader<TcpStream>,
    pub closes: bool,
}

impl Client {
    pub fn new(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream), closes: false }
    }

    pub fn send(&mut self, request: &str) {
        self.reader.get_mut().write_all(request.as_bytes()).unwrap();
    }

    pub fn answer(&mut self) -> Answer {
        let head = head(&mut self.reader).expect("an answer");
        let field = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let length = field("content-length").map_or(0, |it| it.parse().unwrap());
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).unwrap();
        self.closes = field("connection").is_some_and(|it| it == "close");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, body: String::from_utf8(body).unwrap(), head }
    }

    pub fn ask(&mut self, request: &str) -> Answer {
        self.send(request);
        self.answer()
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n"))
    }
}

pub fn get(port: u16, path: &str) -> Answer {
    Client::new(port).get(path)
}

/// An edge of one balancer `lb` with these listeners and groups.
pub fn edge(listeners: Value, groups: &[(&str, Value, &[&Upstream])]) -> Edge {
    let groups: BTreeMap<&str, Value> = groups
        .iter()
        .map(|(name, spec, targets)| {
            let targets: BTreeMap<&str, Target> = targets.iter().map(|it| (it.name, it.target())).collect();
            (*name, json!({"spec": spec, "targets": targets}))
        })
        .collect();
    serde_json::from_value(json!({
        "nodeImage": "node",
        "balancers": {"lb": {"listeners": listeners}},
        "forwards": {},
        "groups": groups,
    }))
    .unwrap()
}

/// A group that is checked every second.
pub fn group() -> Value {
    json!({"port": 80, "healthCheck": {"path": "/health", "interval": 1, "timeout": 1}})
}
