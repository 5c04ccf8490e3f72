//! What deployments ask over HTTP: hooks that say when a stage may end, and a Prometheus whose queries are alarms.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    support::{Controller, Lab, MINUTE, Service, until},
    traffic::outcome,
    turns::{TRAFFIC, service},
};

/// Answers every request with the same, and notes what was sent. Its thread ends with the test's process.
struct Server {
    address: SocketAddr,
    answer: Arc<Mutex<String>>,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Server {
    fn start(answer: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, asked) = (Arc::new(Mutex::new(answer.to_owned())), Arc::new(Mutex::new(Vec::new())));
        let (said, noted) = (Arc::clone(&answer), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let body = read(&stream).unwrap_or_default();
                noted.lock().unwrap().extend(serde_json::from_slice::<Value>(&body));
                let text = said.lock().unwrap().clone();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    text.len()
                );
                let _ = (&stream).write_all((head + &text).as_bytes());
            }
        });
        Self { address, answer, asked }
    }

    fn says(&self, answer: &str) {
        *self.answer.lock().unwrap() = answer.to_owned();
    }

    fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> std::io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim().to_ascii_lowercase().split_once(':') {
            Some(("content-length", bytes)) => length = bytes.trim().parse().unwrap_or_default(),
            None if line.trim().is_empty() => break,
            Some(_) | None => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(body)
}

fn primary(controller: &Controller) -> Value {
    let mut all = controller.items("deployments");
    all.retain(|deployment| deployment["status"] == "PRIMARY");
    all.remove(0)
}

/// Until another deployment than `id` began.
fn begun(controller: &Controller, id: &Value) {
    until("it has begun", MINUTE, || primary(controller)["id"] != *id);
}

fn ended(controller: &Controller, id: &Value) -> String {
    let all = controller.items("deployments");
    let ended = all.iter().find(|deployment| deployment["id"] == *id).unwrap();
    ended["rolloutStateReason"].as_str().unwrap().to_owned()
}

#[test]
#[ignore = "needs a lab"]
fn a_server_says_when_a_stage_may_end_and_whether_the_deployment_failed() {
    let lab = Lab::with("hooks", "2");
    lab.lab(&["image", "--version", "2"]);
    let server = Server::start(r#"{"hookStatus":"IN_PROGRESS","callBackDelay":1}"#);
    let hooked = format!(
        "strategy: BLUE_GREEN, bakeTime: 1s, lifecycleHooks: [{{ lifecycleStages: [POST_TEST_TRAFFIC_SHIFT], url: 'http://{}/check', timeout: 2m }}]",
        server.address
    );
    let mut controller = Controller::start(&lab, &[("web.yaml", &service(1, &hooked)), ("traffic.yaml", TRAFFIC)]);
    controller.wait_steady();
    assert_eq!(server.asked(), Vec::<Value>::new(), "the first deployment takes no turns");

    let before = primary(&controller)["id"].clone();
    controller.write("web.yaml", &service(2, &hooked));
    until("it is asked again and again", MINUTE, || server.asked().len() > 2);
    assert_eq!(primary(&controller)["stage"], "POST_TEST_TRAFFIC_SHIFT");
    assert!(controller.cli(&["why", "web"]).contains("/check: IN_PROGRESS"));
    // A controller that died asks on.
    controller.kill();
    let asked = server.asked().len();
    controller.launch();
    until("it is asked by the next controller", MINUTE, || server.asked().len() > asked);
    assert_eq!(primary(&controller)["stage"], "POST_TEST_TRAFFIC_SHIFT");
    server.says(r#"{"hookStatus":"SUCCEEDED"}"#);
    assert_eq!(outcome(&controller), "SUCCEEDED");
    let asked = server.asked();
    let first = &asked[0];
    assert!(asked.iter().all(|other| other == first), "{asked:?}");
    let said = |field: &str| first[field].as_str().unwrap_or_default();
    assert_eq!((said("service"), said("lifecycleStage")), ("web", "POST_TEST_TRAFFIC_SHIFT"));
    assert_eq!((said("sourceRevision"), said("targetRevision")), ("web:1", "web:2"));
    assert_ne!(first["deployment"], before);

    server.says(r#"{"hookStatus":"FAILED"}"#);
    let before = primary(&controller)["id"].clone();
    controller.write("web.yaml", &service(1, &hooked));
    begun(&controller, &before);
    let failing = primary(&controller)["id"].clone();
    assert_eq!(outcome(&controller), "ROLLED_BACK");
    let reason = ended(&controller, &failing);
    assert!(reason.contains("/check says FAILED"), "{reason}");
}

/// A Prometheus that looks at one exporter every second.
fn prometheus(folder: &Path, exporter: SocketAddr) -> (Service, SocketAddr) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "global: {{ scrape_interval: 1s }}\nscrape_configs: [{{ job_name: demo, static_configs: [{{ targets: ['{exporter}'] }}] }}]\n"
    );
    std::fs::write(folder.join("prometheus.yml"), config).unwrap();
    let mut command = Command::new("prometheus");
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
    let running = Service(command.arg(format!("--web.listen-address={address}")).spawn().unwrap());
    (running, address)
}

fn metrics(errors: u32) -> String {
    let line = |revision: u32| format!("demo_errors{{service=\"web\",revision=\"{revision}\"}} {errors}\n");
    (1..9).map(line).collect()
}

#[test]
#[ignore = "needs a lab"]
fn a_query_of_prometheus_takes_a_deployment_back_and_silence_does_not() {
    let lab = Lab::with("prometheus", "2");
    lab.lab(&["image", "--version", "2"]);
    let folder = tempfile::tempdir().unwrap();
    let exporter = Server::start(&metrics(0));
    let (running, address) = prometheus(folder.path(), exporter.address);
    let watched = |bake: &str| {
        format!(
            "strategy: BLUE_GREEN, bakeTime: {bake}, alarms: {{ prometheus: {{ url: 'http://{address}', interval: 1s, queries: [{{ name: errors, query: 'demo_errors{{service=\"$service\",revision=\"$revision\"}} > 5', evaluationPeriods: 2 }}] }} }}"
        )
    };
    let controller = Controller::start(&lab, &[("web.yaml", &service(1, &watched("1h"))), ("traffic.yaml", TRAFFIC)]);
    controller.wait_steady();
    until("prometheus answers", MINUTE, || TcpStream::connect(address).is_ok());

    let before = primary(&controller)["id"].clone();
    controller.write("web.yaml", &service(2, &watched("1h")));
    begun(&controller, &before);
    let failing = primary(&controller)["id"].clone();
    until("it bakes", MINUTE, || primary(&controller)["stage"] == "BAKE_TIME");
    exporter.says(&metrics(9));
    assert_eq!(outcome(&controller), "ROLLED_BACK");
    let reason = ended(&controller, &failing);
    assert!(reason.contains("its alarm: the query errors had a result 2 times in a row"), "{reason}");

    // Nobody answers: it goes on, and says so.
    drop(running);
    let before = primary(&controller)["id"].clone();
    let other = service(2, &watched("20s")).replace("memory: 16", "memory: 16, environment: { ROUND: '2' }");
    controller.write("web.yaml", &other);
    begun(&controller, &before);
    until("it is told that nobody watches", MINUTE, || {
        controller.cli(&["why", "web"]).contains("the alarm errors does not watch its deployment")
    });
    assert_eq!(outcome(&controller), "SUCCEEDED");
}
