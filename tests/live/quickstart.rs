//! What a newcomer types, and that it leaves nothing behind.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::support::run;

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

    fn containers(&self) -> String {
        let roadstead = self.0.join("bin/roadstead");
        let endpoint = format!("unix:{}", self.0.join("roadstead.sock").display());
        let tasks = run(Command::new(roadstead).args(["get", "tasks", "-o", "json", "--endpoint", &endpoint]));
        let tasks: serde_json::Value = serde_json::from_str(&tasks).unwrap();
        let ids = tasks["items"].as_array().unwrap().iter().flat_map(|task| task["containers"].as_array().unwrap());
        ids.map(|container| container["runtimeId"].to_string()).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        self.run(&["--down"]);
    }
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
    let curl = words.lines().find_map(|line| line.trim().strip_prefix("curl ")).expect("a line to type");
    let answer = run(Command::new("curl").args(["-fsS", "--max-time", "10", curl]));
    let facts = ["task", "host", "zone", "version"];
    assert!(facts.iter().all(|fact| answer.to_lowercase().contains(fact)), "{answer}");

    let before = quickstart.containers();
    assert_eq!(quickstart.up(), words, "again is fine");
    assert_eq!(quickstart.containers(), before, "and starts nothing anew");
    assert!(!traces(&quickstart.0).is_empty(), "what is looked for below is seen while it is there");

    let output = quickstart.run(&["--down"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(traces(&quickstart.0), Vec::<String>::new());
    assert!(!fs::exists(&quickstart.0).unwrap());
}
