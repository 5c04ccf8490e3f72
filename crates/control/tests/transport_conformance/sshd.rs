//! An SSH server of our own, with its own keys, and nothing left of it afterwards.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use roadstead_control::host::SshTarget;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PROGRAM: &str = "/usr/sbin/sshd";
pub const DEADLINE: Duration = Duration::from_secs(30);

pub struct Sshd {
    pub dir: TempDir,
    pub port: u16,
    child: Child,
}

/// Said aloud; an error where everything that is needed was installed.
pub fn skipped(needs: &str) {
    assert!(std::env::var_os("ROADSTEAD_TESTS_MUST_RUN").is_none(), "needs {needs}");
    eprintln!("skipped: needs {needs}");
}

impl Sshd {
    /// Starts a server with these further lines of configuration. `None` when this machine cannot.
    pub fn start(extra: &str) -> Option<Self> {
        Self::start_with_keys(extra, &["ed25519"])
    }

    pub fn start_with_keys(extra: &str, key_types: &[&str]) -> Option<Self> {
        if !Path::new(PROGRAM).exists() || !rustix::process::geteuid().is_root() {
            skipped(&format!("root and {PROGRAM}"));
            return None;
        }
        // The server's privilege separation directory.
        fs::create_dir_all("/run/sshd").unwrap();
        let dir = tempfile::tempdir().unwrap();
        for key_type in key_types {
            keygen(key_type, &dir.path().join(format!("host_{key_type}")), "");
        }
        keygen("ed25519", &dir.path().join("id"), "");
        fs::copy(dir.path().join("id.pub"), dir.path().join("authorized_keys")).unwrap();
        let extra = extra.replace("DIR", dir.path().to_str().unwrap());
        // Another process may take the port between our look and the server's start.
        for _ in 0..20 {
            let port = free_port();
            let config = config(dir.path(), port, key_types, &extra);
            fs::write(dir.path().join("sshd_config"), config).unwrap();
            let mut child = spawn(dir.path());
            if answers(port, &mut child) {
                return Some(Self { dir, port, child });
            }
        }
        panic!("sshd does not start: {}", read(&dir.path().join("log")));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The public host key of this type, as a manifest holds it.
    pub fn host_key(&self, key_type: &str) -> String {
        public_key(&self.path(&format!("host_{key_type}")))
    }

    /// A target that this server lets in.
    pub fn target(&self) -> SshTarget {
        SshTarget {
            address: "127.0.0.1".into(),
            port: self.port,
            identity_file: Some(self.path("id")),
            host_keys: vec![self.host_key("ed25519")],
            ..SshTarget::default()
        }
    }

    /// Says what the server noted so far.
    pub fn log(&self) -> String {
        read(&self.path("log"))
    }

    /// How often somebody logged in.
    pub fn logins(&self) -> usize {
        self.log().matches("Accepted publickey for").count()
    }

    /// Whether anybody got as far as naming a user.
    pub fn saw_login(&self) -> bool {
        self.log().contains("userauth-request")
    }

    /// Sends a signal to the processes behind the open connections, not to the listener.
    pub fn signal_sessions(&self, signal: Signal) {
        for pid in descendants(self.child.id()) {
            send(pid, signal);
        }
    }

    /// Ends the listener and all connections.
    pub fn kill(&mut self) {
        let sessions = descendants(self.child.id());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        for pid in sessions {
            send(pid, Signal::KILL);
        }
    }

    /// Starts it again, on the same port with the same keys.
    pub fn restart(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            self.child = spawn(self.dir.path());
            if answers(self.port, &mut self.child) {
                return;
            }
        }
        panic!("sshd does not start again: {}", self.log());
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let sessions = descendants(self.child.id());
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in sessions {
            send(pid, Signal::KILL);
        }
        // Commands whose session ended before them are nobody's children any more.
        for _ in 0..10 {
            let orphans = with_environment(self.dir.path());
            if orphans.is_empty() {
                return;
            }
            for pid in orphans {
                send(pid, Signal::KILL);
            }
        }
    }
}

fn config(dir: &Path, port: u16, key_types: &[&str], extra: &str) -> String {
    let dir = dir.display();
    let keys: String = key_types.iter().map(|key_type| format!("HostKey {dir}/host_{key_type}\n")).collect();
    format!(
        "ListenAddress 127.0.0.1\nPort {port}\n{keys}PidFile none\nUsePAM no\nStrictModes no\n\
         AuthorizedKeysFile {dir}/authorized_keys\nPermitRootLogin prohibit-password\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel DEBUG1\n\
         MaxStartups 100\n{extra}\nSetEnv ROADSTEAD_TEST={dir}\n"
    )
}

fn spawn(dir: &Path) -> Child {
    Command::new(PROGRAM)
        .arg("-D")
        .arg("-f")
        .arg(dir.join("sshd_config"))
        .arg("-E")
        .arg(dir.join("log"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the server listens; false when it ended instead.
fn answers(port: u16, child: &mut Child) -> bool {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return child.try_wait().unwrap().is_none();
        }
        std::thread::yield_now();
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

pub fn keygen(key_type: &str, path: &Path, passphrase: &str) {
    let status =
        Command::new("ssh-keygen").args(["-q", "-t", key_type, "-N", passphrase, "-f"]).arg(path).status().unwrap();
    assert!(status.success());
    assert_eq!(fs::metadata(path).unwrap().mode() & 0o077, 0);
}

pub fn public_key(path: &Path) -> String {
    let text = read(&path.with_extension("pub"));
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    words.join(" ")
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        // It may have ended meanwhile.
        let _ = kill_process(pid, signal);
    }
}

/// All processes of this machine.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// All processes whose environment names this directory, as that of every command of its server does.
fn with_environment(dir: &Path) -> Vec<u32> {
    let dir = dir.to_str().unwrap();
    let named = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(dir)
    };
    processes().filter(named).collect()
}

/// All processes that descend from this one.
fn descendants(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for pid in processes() {
        let stat = read(Path::new(&format!("/proc/{pid}/stat")));
        // pid (name) state ppid …; the name may hold spaces and brackets.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| {
            let parent = rest.split(' ').nth(1)?;
            parent.parse::<u32>().ok()
        });
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(c, _)| c));
        next += 1;
    }
    found.remove(0);
    found
}
