//! A lab and a controller that clean up after themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

pub const MINUTE: Duration = Duration::from_secs(60);

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A lab of three hosts in three zones with the demo image on each.
pub struct Lab {
    name: String,
    folder: PathBuf,
}

impl Lab {
    pub fn up(name: &str) -> Self {
        let lab = Self { name: format!("live-{name}"), folder: PathBuf::new() };
        lab.lab(&["down"]);
        lab.lab(&["up"]);
        lab.lab(&["image"]);
        let exports = lab.lab(&["env"]);
        let folder =
            exports.lines().find_map(|line| line.strip_prefix("export ROADSTEAD_LAB_DIR=")).unwrap().to_owned();
        let mut lab = lab;
        lab.folder = PathBuf::from(folder);
        lab
    }

    /// `deploy/lab VERB … --name NAME`.
    pub fn lab(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(repository().join("deploy/lab"));
        command.arg(arguments[0]).arg("--name").arg(&self.name).args(&arguments[1..]).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "lab {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn docker(&self, host: &str, arguments: &[&str]) -> String {
        let mut all = vec!["docker", host];
        all.extend(arguments);
        self.lab(&all)
    }

    pub fn host_manifests(&self) -> PathBuf {
        self.folder.join("manifests")
    }

    pub fn hosts(&self) -> [&'static str; 3] {
        ["host-a", "host-b", "host-c"]
    }

    /// Our containers by host, as Docker says: id → (name, running).
    pub fn truth(&self) -> BTreeMap<&'static str, BTreeMap<String, (String, bool)>> {
        self.hosts().into_iter().map(|host| (host, self.truth_of(host))).collect()
    }

    pub fn truth_of(&self, host: &str) -> BTreeMap<String, (String, bool)> {
        let list = self.docker(
            host,
            &[
                "ps",
                "-a",
                "--no-trunc",
                "--filter",
                "label=dev.roadstead.task",
                "--format",
                "{{.ID}} {{.Names}} {{.State}}",
            ],
        );
        list.lines()
            .map(|line| {
                let mut words = line.split(' ');
                let (id, name, state) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
                (id.to_owned(), (name.to_owned(), state == "running"))
            })
            .collect()
    }

    /// Names of our running containers of a service, over all hosts given.
    pub fn running(&self, hosts: &[&str], service: &str) -> BTreeSet<String> {
        let prefix = format!("rs-{service}-");
        hosts
            .iter()
            .flat_map(|host| self.truth_of(host).into_values())
            .filter(|(name, running)| *running && name.starts_with(&prefix))
            .map(|(name, _)| name)
            .collect()
    }

    /// id → StartedAt of our running containers.
    pub fn starts(&self) -> BTreeMap<String, String> {
        let mut starts = BTreeMap::new();
        for host in self.hosts() {
            for id in self.truth_of(host).into_iter().filter(|(_, (_, running))| *running).map(|(id, _)| id) {
                let at = self.docker(host, &["inspect", "--format", "{{.State.StartedAt}} {{.RestartCount}}", &id]);
                starts.insert(id, at.trim().to_owned());
            }
        }
        starts
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() && std::env::var_os("KEEP_LAB").is_some() {
            return;
        }
        let _ = Command::new(repository().join("deploy/lab")).args(["down", "--name", &self.name]).output();
    }
}

/// A running controller on its own folders; killed when dropped.
pub struct Controller {
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Controller {
    /// Starts one on the lab's hosts and these manifests (file name, text).
    pub fn start(lab: &Lab, manifests: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hosts = folder.path().join("manifests/hosts");
        fs::create_dir_all(&hosts).unwrap();
        for entry in fs::read_dir(lab.host_manifests()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, hosts.join(path.file_name().unwrap())).unwrap();
        }
        let mut controller = Self { folder, child: None };
        for (file, text) in manifests {
            controller.write(file, text);
        }
        controller.launch();
        controller
    }

    pub fn launch(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_roadstead"))
            .args(["controller", "--manifests"])
            .arg(self.path("manifests"))
            .arg("--data")
            .arg(self.path("data"))
            .arg("--listen")
            .arg(self.endpoint())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        until("the controller answers", MINUTE, || self.try_cli(&["get", "hosts"]).status.success());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn endpoint(&self) -> String {
        format!("unix:{}", self.path("socket").display())
    }

    /// Writes a manifest the way editors do: whole, under another name first.
    pub fn write(&self, file: &str, text: &str) {
        let path = self.path("manifests").join(file);
        let temporary = path.with_extension("tmp~");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, path).unwrap();
    }

    pub fn remove(&self, file: &str) {
        fs::remove_file(self.path("manifests").join(file)).unwrap();
    }

    pub fn try_cli(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_roadstead"))
            .args(arguments)
            .env("ROADSTEAD_ENDPOINT", self.endpoint())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = self.try_cli(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn items(&self, what: &str) -> Vec<Value> {
        let text = self.cli(&["get", what, "-o", "json"]);
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    pub fn host_status(&self, name: &str) -> String {
        let host = self.items("hosts").into_iter().find(|host| host["name"] == name);
        // Not known yet: the manifests are being read.
        host.and_then(|host| host["status"].as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Whether every service has what it wants and its deployment is over.
    pub fn is_steady(&self) -> bool {
        let services = self.items("services");
        !services.is_empty()
            && services.iter().all(|service| {
                service["runningCount"] == service["desiredCount"]
                    && service["pendingCount"] == 0
                    && service["deployments"][0]["rolloutState"] == "COMPLETED"
            })
    }

    pub fn wait_steady(&self) {
        until("every service is steady", 2 * MINUTE, || self.is_steady());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and waits.
    pub fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        until("the controller stops", MINUTE, || child.try_wait().unwrap().is_some());
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- controller's log ---");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits for a condition.
pub fn until(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while started.elapsed() < deadline {
        if holds() {
            return started.elapsed();
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("not within {deadline:?}: {what}");
}

/// Holds for as long as this; checked all the time.
pub fn throughout(what: &str, time: Duration, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while started.elapsed() < time {
        assert!(holds(), "{what}, {:?} in", started.elapsed());
        thread::sleep(Duration::from_millis(200));
    }
}

/// A replicated service of the demo image without a health check, quick to be healthy.
pub fn web(count: u32) -> String {
    format!(
        "apiVersion: roadstead/v1\nkind: Service\nmetadata: {{ name: web }}\nspec:\n  desiredCount: {count}\n  minimumHealthySeconds: 1\n  taskDefinition:\n    containerDefinitions:\n      - {{ name: web, image: 'roadstead/demo:1', memory: 16, stopTimeout: 2, portMappings: [{{ containerPort: 80 }}] }}\n"
    )
}

/// The default cluster with other limits for silent hosts, in seconds.
pub fn cluster(suspect_after: u32, lost_after: u32) -> String {
    format!(
        "apiVersion: roadstead/v1\nkind: Cluster\nmetadata: {{ name: default }}\nspec: {{ hostLoss: {{ suspectAfter: {suspect_after}s, lostAfter: {lost_after}s }} }}\n"
    )
}
