//! The suite on real engines, in a lab that is made and removed here.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use roadstead_control::engine::{DockerEngine, Engine, Limits};
use roadstead_control::host::{LocalTransport, SshTarget, SshTransport};
use roadstead_core::model::name::RuntimeId;

use crate::suite::{IMAGE, Suite, World};

const LAB: &str = "test-engine";
const HOST: &str = "host-a";

struct Lab {
    folder: PathBuf,
}

impl Drop for Lab {
    fn drop(&mut self) {
        lab(&["down"]);
    }
}

impl Lab {
    fn up() -> Self {
        // A run that was killed may have left one.
        lab(&["down"]);
        let mut made = Self { folder: PathBuf::new() };
        lab(&["up", "--hosts", "2"]);
        let image = lab(&["image"]);
        assert_eq!(image.trim(), IMAGE);
        let environment = lab(&["env"]);
        let folder = environment.lines().find_map(|line| line.strip_prefix("export ROADSTEAD_LAB_DIR="));
        made.folder = folder.expect("the lab's folder").into();
        made
    }

    /// The engine of a host, without SSH between.
    fn engine(&self, host: &str) -> DockerEngine {
        let socket = self.folder.join("hosts").join(host).join("run/docker.sock");
        DockerEngine::new(Arc::new(LocalTransport::new()), socket, limits())
    }

    /// The engine of [`HOST`], as the controller reaches it.
    fn engine_over_ssh(&self) -> DockerEngine {
        let manifest = std::fs::read_to_string(self.folder.join("manifests").join(format!("{HOST}.yaml")));
        let manifest = manifest.expect("the host's manifest");
        let address = manifest.lines().find_map(|line| line.trim().strip_prefix("address: "));
        let target = SshTarget {
            address: address.expect("an address").into(),
            identity_file: Some(self.folder.join("id_ed25519")),
            known_hosts: vec![self.folder.join("known_hosts")],
            ..SshTarget::default()
        };
        DockerEngine::new(Arc::new(SshTransport::new(target, 1)), "/run/docker.sock".into(), limits())
    }

    fn docker(&self, arguments: &[&str]) -> String {
        lab(&[&["docker", HOST, "--name", LAB], arguments].concat())
    }
}

fn limits() -> Limits {
    let soon = Duration::from_secs(3);
    Limits { read: soon, create: soon, ..Limits::default() }
}

/// `deploy/lab VERB …`; its standard output.
fn lab(arguments: &[&str]) -> String {
    let (verb, rest) = arguments.split_first().expect("a verb");
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/lab"))
        .arg(verb)
        .args(rest)
        .env("ROADSTEAD_LAB_NAME", LAB)
        .output()
        .expect("deploy/lab runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    // A panic while cleaning up after a panic would hide the first.
    assert!(output.status.success() || std::thread::panicking() || *verb == "down", "lab {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[async_trait]
impl World for Lab {
    async fn commit(&self, id: &RuntimeId, name: &str) {
        self.docker(&["commit", id.as_str(), name]);
    }
    async fn pass_time(&self) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    async fn crash(&self, id: &RuntimeId) {
        let pid = self.docker(&["inspect", "-f", "{{.State.Pid}}", id.as_str()]);
        lab(&["ssh", HOST, "kill", "-KILL", pid.trim()]);
    }
    async fn kill(&self, id: &RuntimeId) {
        self.docker(&["kill", id.as_str()]);
    }
    async fn remove(&self, id: &RuntimeId) {
        self.docker(&["rm", "-f", id.as_str()]);
    }
    async fn rename(&self, id: &RuntimeId, name: &str) {
        self.docker(&["rename", id.as_str(), name]);
    }
    async fn turn_healthy(&self, _: &RuntimeId) {}
    async fn print_usage_and_end(&self, _: &RuntimeId) {}
    async fn hang(&self) {
        lab(&["stop-engine", HOST]);
    }
    async fn resume(&self) {
        lab(&["continue-engine", HOST]);
    }
    async fn restart_engine(&self) {
        lab(&["kill-engine", HOST]);
        lab(&["start-engine", HOST]);
    }
    async fn reboot(&self) {
        lab(&["reboot", HOST]);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "live: needs root, and starts two Docker hosts"]
async fn a_real_engine_conforms() {
    let lab = Lab::up();
    let (engine, other) = (lab.engine(HOST), lab.engine("host-b"));
    Suite::new(&engine, &lab).run().await;
    Suite::new(&lab.engine_over_ssh(), &lab).run().await;

    let identities = (engine.identify().await.expect("an answer"), other.identify().await.expect("an answer"));
    assert_ne!(identities.0.engine_id, identities.1.engine_id);
    lab.hang().await;
    let (hung, well) = tokio::join!(engine.ping(), other.ping());
    lab.resume().await;
    assert!(hung.is_err_and(|error| error.outcome_unknown()));
    well.expect("the other host goes on");
    engine.ping().await.expect("it is back");
}
