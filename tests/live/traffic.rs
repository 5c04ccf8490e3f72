//! Load balancers on real hosts: what clients notice of rollouts, scaling, drains and losses.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::support::{Controller, Lab, MINUTE, until};

/// A client waits no longer for anything.
const PATIENCE: Duration = Duration::from_secs(8);
/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(8);

fn service(image: &str, count: u32) -> String {
    format!(
        "
apiVersion: roadstead/v1
kind: Service
metadata: {{ name: web }}
spec:
  desiredCount: {count}
  loadBalancers: [{{ targetGroup: web }}]
  taskDefinition:
    containerDefinitions:
      - {{ name: web, image: '{image}', memory: 16, stopTimeout: 10, portMappings: [{{ containerPort: 80 }}] }}
"
    )
}

const TRAFFIC: &str = "
apiVersion: roadstead/v1
kind: TargetGroup
metadata: { name: web }
spec: { port: 80, healthCheck: { path: /healthz, interval: 1s, timeout: 1s }, deregistrationDelay: 10s }
---
apiVersion: roadstead/v1
kind: LoadBalancer
metadata: { name: front }
spec:
  listeners:
    - name: http
      port: 8088
      rules: [{ name: gone, priority: 1, conditions: { pathPattern: [/gone*] }, action: { fixedResponse: { statusCode: 410 } } }]
      defaultAction: { forward: web }
";

/// How a client behaves.
#[derive(Clone, Copy)]
enum Client {
    /// One connection for everything, until the other side ends it between two requests.
    KeepsAlive,
    /// A connection for each request.
    Fresh,
    /// Each request takes three seconds.
    Slow,
}

/// What clients were answered.
#[derive(Clone, Default)]
struct Seen {
    /// By version.
    answers: BTreeMap<String, u64>,
    failures: Vec<String>,
}

/// Clients of all edges, all the time.
struct Load {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(edges: &[SocketAddr]) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let clients = [Client::KeepsAlive, Client::Fresh, Client::Slow];
        let mut threads = Vec::new();
        for (edge, client) in edges.iter().flat_map(|edge| clients.map(|client| (*edge, client))) {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            threads.push(thread::spawn(move || {
                let mut open = None;
                while !stop.load(Ordering::Relaxed) {
                    let answer = request(edge, client, &mut open);
                    let mut seen = seen.lock().unwrap();
                    match answer {
                        Ok(version) => *seen.answers.entry(version).or_default() += 1,
                        Err(error) if seen.failures.len() < 100 => seen.failures.push(format!("{edge}: {error}")),
                        Err(_) => {}
                    }
                    drop(seen);
                    thread::sleep(PACE);
                }
            }));
        }
        Self { stop, seen, threads }
    }

    /// What came since the last time.
    fn take(&self) -> Seen {
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

type Open = Option<BufReader<TcpStream>>;

/// Gives the version that answered.
fn request(edge: SocketAddr, client: Client, open: &mut Open) -> Result<String, String> {
    let (path, keeps) = match client {
        Client::KeepsAlive => ("/", true),
        Client::Fresh => ("/", false),
        Client::Slow => ("/slow?ms=3000", false),
    };
    let was_open = open.is_some();
    match exchange(edge, path, keeps, open) {
        // The other side ended it while nothing was under way: every client asks again then.
        Err((_, true)) if was_open => exchange(edge, path, keeps, open).map_err(|(error, _)| error),
        other => other.map_err(|(error, _)| error),
    }
}

/// An error, and whether nothing had been answered at all.
fn exchange(edge: SocketAddr, path: &str, keeps: bool, open: &mut Open) -> Result<String, (String, bool)> {
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

fn status(edge: SocketAddr, path: &str) -> String {
    match exchange(edge, path, false, &mut None) {
        Ok(_) => "HTTP/1.1 200 OK".to_owned(),
        Err((error, _)) => error,
    }
}

fn edges(lab: &Lab) -> Vec<SocketAddr> {
    lab.hosts().iter().map(|host| format!("{}:8088", lab.address(host)).parse().unwrap()).collect()
}

/// The newest rollout's outcome, once it has ended.
fn outcome(controller: &Controller) -> String {
    let output = controller.try_cli(&["rollout", "status", "web", "--wait", "--timeout", "240", "-o", "json"]);
    let said = String::from_utf8_lossy(&output.stdout);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    said["outcome"].as_str().unwrap_or_default().to_owned()
}

#[test]
#[ignore = "needs a lab"]
fn nobody_notices_a_rollout_a_scaling_or_a_drain() {
    let lab = Lab::up("traffic");
    lab.lab(&["image", "--version", "2"]);
    let controller =
        Controller::start(&lab, &[("web.yaml", &service("roadstead/demo:1", 6)), ("traffic.yaml", TRAFFIC)]);
    controller.wait_steady();
    let edges = edges(&lab);
    for edge in &edges {
        until("every edge answers", MINUTE, || status(*edge, "/").contains(" 200 "));
        assert!(status(*edge, "/gone/away").contains(" 410 "));
    }
    let load = Load::start(&edges);
    until("they are asked", MINUTE, || load.seen.lock().unwrap().answers.values().sum::<u64>() > 200);
    let unnoticed = |what: &str| {
        let seen = load.take();
        eprintln!("{what}: {:?}", seen.answers);
        assert_eq!(seen.failures, Vec::<String>::new(), "{what}, of {:?}", seen.answers);
        seen
    };
    unnoticed("at rest");

    controller.write("web.yaml", &service("roadstead/demo:2", 6));
    until("the rollout has begun", MINUTE, || controller.items("deployments").len() > 1);
    assert_eq!(outcome(&controller), "SUCCEEDED");
    controller.wait_steady();
    unnoticed("a rolling update");
    until("they are asked", MINUTE, || load.seen.lock().unwrap().answers.values().sum::<u64>() > 100);
    // What was asked before that may still be under way.
    thread::sleep(Duration::from_secs(4));
    load.take();
    until("they are asked", MINUTE, || load.seen.lock().unwrap().answers.values().sum::<u64>() > 100);
    assert!(!unnoticed("after it").answers.contains_key("1"));

    for count in [12, 7, 4] {
        controller.write("web.yaml", &service("roadstead/demo:2", count));
        until("it is scaled", MINUTE * 2, || {
            let tasks = controller.items("tasks");
            tasks.iter().filter(|task| task["lastStatus"] == "RUNNING").count() == count as usize
        });
        controller.wait_steady();
        unnoticed(&format!("scaled to {count}"));
    }
    controller.cli(&["host", "drain", "host-b"]);
    until("it is empty", MINUTE * 2, || lab.running(&["host-b"], "web").is_empty());
    controller.wait_steady();
    unnoticed("a drain");
    controller.cli(&["host", "uncordon", "host-b"]);

    // The structure changes: another port, another rule.
    controller.write("traffic.yaml", &TRAFFIC.replace("statusCode: 410", "statusCode: 418"));
    until("the new rule is in force", MINUTE, || edges.iter().all(|edge| status(*edge, "/gone").contains(" 418 ")));
    unnoticed("a reload");
    drop(load);

    // A load balancer that is killed comes back by itself.
    lab.docker("host-a", &["exec", "rs-lb", "sh", "-c", "kill -9 -1 || true"]);
    until("it is back", MINUTE, || status(edges[0], "/").contains(" 200 "));
    lab.docker("host-a", &["rm", "-f", "rs-lb"]);
    until("it is made anew", MINUTE, || status(edges[0], "/").contains(" 200 "));

    // Without load balancers nothing of them is left.
    controller
        .write("web.yaml", &service("roadstead/demo:2", 3).replace("  loadBalancers: [{ targetGroup: web }]\n", ""));
    controller.remove("traffic.yaml");
    until("they are gone", MINUTE, || {
        lab.hosts().iter().all(|host| !lab.docker(host, &["ps", "-a", "--format", "{{.Names}}"]).contains("rs-lb"))
    });
}
