//! What a newcomer types, and that it leaves nothing behind.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use serde_json::Value;

use crate::support::{MINUTE, run, until};

const LAB: &str = "live-quickstart";

struct Quickstart(PathBuf);

impl Quickstart {
    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/quickstart"))
            .args(arguments)
            .env("ROADSTEAD_QUICKSTART_DIR", &self.0)
            .env("ROADSTEAD_QUICKSTART_LAB", LAB)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Its closing words.
    fn up(&self) -> String {
        let output = self.run(&["--binary", env!("CARGO_BIN_EXE_roadstead")]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn roadstead(&self, arguments: &[&str]) -> String {
        let endpoint = format!("unix:{}", self.0.join("roadstead.sock").display());
        run(Command::new(self.0.join("bin/roadstead")).args(arguments).env("ROADSTEAD_ENDPOINT", endpoint))
    }

    fn tasks(&self) -> Vec<Value> {
        let tasks: Value = serde_json::from_str(&self.roadstead(&["get", "tasks", "-o", "json"])).unwrap();
        tasks["items"].as_array().unwrap().clone()
    }

    fn containers(&self) -> Vec<String> {
        let tasks = self.tasks();
        let containers = tasks.iter().flat_map(|task| task["containers"].as_array().unwrap());
        containers.map(|container| container["runtimeId"].to_string()).collect()
    }
}

fn curl(url: &str) -> String {
    run(Command::new("curl").args(["-fsS", "--max-time", "30", url]))
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        self.run(&["--down"]);
    }
}

/// Somebody on this machine holds a connection to it.
fn connected(url: &str) -> bool {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    run(Command::new("ss").args(["-Htn", "state", "established"])).contains(address)
}

/// Lines of these commands that name the lab or the folder.
fn traces(folder: &Path) -> Vec<String> {
    let names = [LAB.to_owned(), folder.display().to_string()];
    let commands: [&[&str]; 4] =
        [&["ps", "-eo", "args"], &["ip", "-brief", "link"], &["ip", "netns"], &["cat", "/proc/self/mountinfo"]];
    let mut found = Vec::new();
    for command in commands {
        let text = run(Command::new(command[0]).args(&command[1..]));
        found.extend(text.lines().filter(|line| names.iter().any(|name| line.contains(name))).map(str::to_owned));
    }
    found
}

#[test]
#[ignore = "needs root and deploy/lab"]
fn the_quickstart_answers_twice_and_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let quickstart = Quickstart(parent.path().join("newcomer"));

    let words = quickstart.up();
    let url = words.lines().find_map(|line| line.trim().strip_prefix("curl ")).expect("a line to type");
    let facts = curl(url);
    let task = quickstart.tasks().into_iter().find(|task| facts.contains(task["taskId"].as_str().unwrap()));
    let task = task.expect("a task of ours answers");
    let (id, host) = (task["taskId"].as_str().unwrap(), task["host"].as_str().unwrap());
    let zone = task["availabilityZone"].as_str().unwrap();
    for fact in [format!("host     {host}\n"), format!("zone     {zone}\n"), "version  1\n".to_owned()] {
        assert!(facts.contains(&fact), "{fact} is not in {facts}");
    }
    assert_eq!(curl(&format!("{url}burn?ms=5")), "burned 5 ms\n");

    let before = quickstart.containers();
    assert_eq!(quickstart.up(), words, "again is fine");
    assert_eq!(quickstart.containers(), before, "and starts nothing anew");
    assert!(!traces(&quickstart.0).is_empty(), "what is looked for below is seen while it is there");

    // A request under way is answered although its task is told to stop.
    let slow = thread::spawn({
        let url = format!("{url}slow?ms=2000");
        move || curl(&url)
    });
    until("the request has been accepted", MINUTE, || connected(url));
    quickstart.roadstead(&["stop", id]);
    assert_eq!(slow.join().unwrap(), "waited 2000 ms\n");

    // The service behind the internal load balancer is deployed while clients ask it.
    let auth = quickstart.tasks().into_iter().find(|task| task["group"] == "service:auth").expect("a task of auth");
    assert!(["zone-a", "zone-b"].contains(&auth["availabilityZone"].as_str().unwrap()), "{auth}");
    assert!(auth["privateIp"].as_str().unwrap().starts_with("10.64."), "{auth}");
    let output = quickstart.run(&["--swap"]);
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{words}{}", String::from_utf8_lossy(&output.stderr));
    let told = words.lines().last().unwrap_or_default();
    assert!(told.contains("while version 2 took over from version 1") && told.ends_with(": 0 failed"), "{words}");
    eprintln!("{told}");

    let output = quickstart.run(&["--down"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(traces(&quickstart.0), Vec::<String>::new());
    assert!(!fs::exists(&quickstart.0).unwrap());
}
