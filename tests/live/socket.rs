//! A host's Docker, asked straight through its socket.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use serde_json::Value;

use crate::support::{Lab, MINUTE};

/// One of our containers, as Docker tells of it.
#[derive(Clone, Debug)]
pub struct Found {
    pub host: &'static str,
    pub name: String,
    pub running: bool,
    /// Its labels without `dev.roadstead.`.
    pub labels: BTreeMap<String, String>,
}

/// The answer's status and body.
pub fn ask(lab: &Lab, host: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let socket = lab.folder().join("hosts").join(host).join("run/docker.sock");
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(MINUTE)).unwrap();
    // 1.0: the answer ends with the connection.
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// Our containers on all hosts by id, whatever their state.
pub fn ours(lab: &Lab) -> BTreeMap<String, Found> {
    const PREFIX: &str = "dev.roadstead.";
    let mut found = BTreeMap::new();
    for host in lab.hosts() {
        let (status, body) = ask(lab, host, "GET", "/containers/json?all=1", "");
        assert_eq!(status, 200, "{host}: {body}");
        for container in serde_json::from_str::<Vec<Value>>(&body).unwrap() {
            let labels: BTreeMap<String, String> = container["Labels"]
                .as_object()
                .unwrap()
                .iter()
                .filter_map(|(label, value)| {
                    Some((label.strip_prefix(PREFIX)?.to_owned(), value.as_str().unwrap().to_owned()))
                })
                .collect();
            if labels.is_empty() {
                continue;
            }
            let name = container["Names"][0].as_str().unwrap().trim_start_matches('/').to_owned();
            let running = container["State"] == "running";
            found.insert(container["Id"].as_str().unwrap().to_owned(), Found { host, name, running, labels });
        }
    }
    found
}

/// What happened to a host's containers between two times (Unix, seconds): the actions' names.
pub fn happened(lab: &Lab, host: &str, since: f64, until: f64) -> Vec<String> {
    let filter = "%7B%22type%22%3A%5B%22container%22%5D%7D";
    let path = format!("/events?since={since:.6}&until={until:.6}&filters={filter}");
    let (status, body) = ask(lab, host, "GET", &path, "");
    assert_eq!(status, 200, "{host}: {body}");
    let events = body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.map(|event| event["Action"].as_str().unwrap().to_owned()).collect()
}

/// How many follow a host's events.
pub fn listeners(lab: &Lab, host: &str) -> u64 {
    let (status, body) = ask(lab, host, "GET", "/info", "");
    assert_eq!(status, 200, "{host}: {body}");
    serde_json::from_str::<Value>(&body).unwrap()["NEventsListener"].as_u64().unwrap()
}

/// When a container was started, and how often its engine started it again.
pub fn started(lab: &Lab, host: &str, id: &str) -> String {
    let (status, body) = ask(lab, host, "GET", &format!("/containers/{id}/json"), "");
    assert_eq!(status, 200, "{host}: {body}");
    let details: Value = serde_json::from_str(&body).unwrap();
    format!("{} {}", details["State"]["StartedAt"], details["RestartCount"])
}
