//! A lab and a controller that clean up after themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use roadstead_control::crash_point;
use roadstead_core::model::network::SANDBOX;
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
        Self::with(name, "3")
    }

    /// A lab of so many hosts; [`Self::hosts`] is of three.
    pub fn with(name: &str, hosts: &str) -> Self {
        Self::made(name, &["--hosts", hosts])
    }

    /// The same, every second host in another subnet: nothing but WireGuard's packets come from one to the other.
    pub fn apart(name: &str, hosts: &str) -> Self {
        Self::made(name, &["--hosts", hosts, "--subnets", "2"])
    }

    fn made(name: &str, options: &[&str]) -> Self {
        let lab = Self { name: format!("live-{name}"), folder: PathBuf::new() };
        lab.lab(&["down"]);
        lab.lab(&[&["up"], options].concat());
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

    /// The same, while other things go on; its output is kept.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new(repository().join("deploy/lab"));
        command.arg(arguments[0]).arg("--name").arg(&self.name).args(&arguments[1..]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    }

    pub fn docker(&self, host: &str, arguments: &[&str]) -> String {
        let mut all = vec!["docker", host];
        all.extend(arguments);
        self.lab(&all)
    }

    /// The lab's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A host's address on the lab's network.
    pub fn address(&self, host: &str) -> String {
        let text = fs::read_to_string(self.host_manifests().join(format!("{host}.yaml"))).unwrap();
        text.lines().find_map(|line| line.trim().strip_prefix("address: ")).unwrap().to_owned()
    }

    /// A host's public key: `ssh-ed25519 AAAA…`.
    pub fn host_key(&self, host: &str) -> String {
        let text = fs::read_to_string(self.folder.join("known_hosts")).unwrap();
        let address = self.address(host);
        text.lines().find_map(|line| line.strip_prefix(&address)).unwrap().trim().to_owned()
    }

    /// The lines in which a host's SSH server says that it let somebody in.
    pub fn logins(&self, host: &str) -> Vec<String> {
        let log = self.folder.join("hosts").join(host).join("log/sshd.log");
        let text = fs::read_to_string(log).unwrap_or_default();
        text.lines().filter(|line| line.contains("Accepted publickey for root")).map(str::to_owned).collect()
    }

    /// Loads an archive as an image onto a host, straight through its socket.
    pub fn import(&self, host: &str, archive: &Path, name: &str) {
        self.import_with(host, archive, name, &[]);
    }

    /// The same, with instructions such as `CMD ["/bin/sh"]`.
    pub fn import_with(&self, host: &str, archive: &Path, name: &str, instructions: &[&str]) {
        let socket = self.folder.join("hosts").join(host).join("run/docker.sock");
        let mut curl = Command::new("curl");
        curl.args(["-fsS", "-X", "POST", "-H", "Content-Type: application/x-tar", "--unix-socket"])
            .arg(socket)
            .arg("--data-binary");
        curl.arg(format!("@{}", archive.display()));
        let plain =
            |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02x}") };
        let changes: String = instructions
            .iter()
            .map(|instruction| format!("&changes={}", instruction.bytes().map(plain).collect::<String>()))
            .collect();
        curl.arg(format!("http://engine/images/create?fromSrc=-&repo={name}&tag=1{changes}"));
        run(&mut curl);
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
                let (id, names, state) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
                // What links to it gives it more names, each with that one's own before it.
                let name = names.split(',').find(|name| !name.contains('/')).unwrap();
                (id.to_owned(), (name.to_owned(), state == "running"))
            })
            .collect()
    }

    /// Names of our running containers of a service, over all hosts given; not those that hold networks.
    pub fn running(&self, hosts: &[&str], service: &str) -> BTreeSet<String> {
        let prefix = format!("rs-{service}-");
        hosts
            .iter()
            .flat_map(|host| self.truth_of(host).into_values())
            .filter(|(name, running)| *running && name.starts_with(&prefix) && !name.ends_with(SANDBOX))
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

/// Runs a command that must succeed; its output.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An image around the static busybox, with these of its names.
pub fn busybox(folder: &Path, names: &[&str]) -> PathBuf {
    let root = folder.join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    let program = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(program.expect("the package busybox-static"), root.join("bin/busybox")).unwrap();
    for name in names {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let archive = folder.join("busybox.tar");
    run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(root).arg("."));
    archive
}

/// Bits of a line of /proc/self/status.
pub fn capabilities(status: &str, line: &str) -> u64 {
    let text = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    u64::from_str_radix(text.trim_start_matches(':').trim(), 16).unwrap()
}

/// What this machine may do itself: no container on it may do more.
pub fn own_capabilities() -> u64 {
    capabilities(&fs::read_to_string("/proc/self/status").unwrap(), "CapBnd")
}

/// A process that ends when it is dropped.
pub struct Service(pub Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running controller on its own folders; killed when dropped.
pub struct Controller {
    folder: tempfile::TempDir,
    child: Option<Child>,
    /// More variables.
    environment: Vec<(&'static str, PathBuf)>,
    /// A home folder of its own, also for `ssh`, which asks the account's entry and no variable for it.
    home: Option<PathBuf>,
}

/// What task networks are made with: deploy/test has built it; whoever runs one test alone gets it here.
fn node_image() -> PathBuf {
    if let Some(built) = std::env::var_os("ROADSTEAD_NODE_IMAGE") {
        return built.into();
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("node-image.tar");
    run(Command::new(repository().join("deploy/node-image/build")).arg("--cached").arg(&file));
    file
}

impl Controller {
    /// Starts one on the lab's hosts and these manifests (file name, text).
    pub fn start(lab: &Lab, manifests: &[(&str, &str)]) -> Self {
        let mut controller = Self::new(lab, manifests);
        controller.launch();
        controller
    }

    /// The same, not launched yet.
    pub fn new(lab: &Lab, manifests: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hosts = folder.path().join("manifests/hosts");
        fs::create_dir_all(&hosts).unwrap();
        for entry in fs::read_dir(lab.host_manifests()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, hosts.join(path.file_name().unwrap())).unwrap();
        }
        let environment = vec![("ROADSTEAD_NODE_IMAGE", node_image())];
        let controller = Self { folder, child: None, environment, home: None };
        for (file, text) in manifests {
            controller.write(file, text);
        }
        controller
    }

    /// Sets a variable from the next launch on.
    pub fn set(&mut self, variable: &'static str, value: impl Into<PathBuf>) {
        self.environment.push((variable, value.into()));
    }

    /// Gives it an empty home folder from the next launch on: what the machine's own account has does not count.
    pub fn own_home(&mut self) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let home = self.path("home");
        fs::create_dir_all(home.join(".ssh")).unwrap();
        fs::set_permissions(home.join(".ssh"), fs::Permissions::from_mode(0o700)).unwrap();
        let accounts = fs::read_to_string("/etc/passwd").unwrap();
        let accounts: String = accounts
            .lines()
            .map(|line| {
                let mut fields: Vec<&str> = line.split(':').collect();
                if fields.first() == Some(&"root") {
                    fields[5] = home.to_str().unwrap();
                }
                fields.join(":") + "\n"
            })
            .collect();
        fs::write(home.join("passwd"), accounts).unwrap();
        self.set("HOME", &home);
        self.home = Some(home.clone());
        home
    }

    pub fn launch(&mut self) {
        self.spawn(None);
        until("the controller answers", MINUTE, || self.answers());
    }

    /// Launches it, to kill itself at this crash point.
    pub fn launch_to_crash(&mut self, at: &str) {
        self.spawn(Some(at));
    }

    pub fn is_launched(&self) -> bool {
        self.child.is_some()
    }

    pub fn answers(&self) -> bool {
        self.try_cli(&["get", "hosts"]).status.success()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let ended = self.child.as_mut().unwrap().try_wait().unwrap();
        if ended.is_some() {
            self.child = None;
        }
        ended
    }

    fn spawn(&mut self, crash_at: Option<&str>) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let child = self
            .program()
            .envs(crash_at.map(|point| (crash_point::VARIABLE, point)))
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
    }

    /// The program, in this controller's environment and home.
    fn program(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_roadstead");
        let mut command = match &self.home {
            Some(home) => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", "mount --bind \"$1\" /etc/passwd && shift && exec \"$@\"", "sh"]);
                command.arg(home.join("passwd")).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.envs(self.environment.iter().map(|(variable, value)| (variable, value)));
        command
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn endpoint(&self) -> String {
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
        self.program().args(arguments).env("ROADSTEAD_ENDPOINT", self.endpoint()).stdin(Stdio::null()).output().unwrap()
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
