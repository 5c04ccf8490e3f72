//! Images that come from a registry, which may be away or not have them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::support::{Controller, Lab, MINUTE, Service, run, until, web};

/// A registry beside the lab's hosts, on this machine's end of their network.
pub struct Registry {
    folder: tempfile::TempDir,
    address: String,
    process: Option<Service>,
}

impl Registry {
    pub fn start(lab: &Lab) -> Self {
        let (network, _) = lab.address("host-a").rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut registry = Self { folder, address: format!("{network}.1:5000"), process: None };
        let config = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {}/data }} }}\nhttp: {{ addr: \"{}\" }}\n",
            registry.folder.path().display(),
            registry.address
        );
        fs::write(registry.folder.path().join("config.yml"), config).unwrap();
        registry.resume();
        registry
    }

    fn resume(&mut self) {
        let mut command = Command::new(program());
        command.arg("serve").arg(self.folder.path().join("config.yml"));
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.process = Some(Service(process));
        let url = format!("http://{}/v2/", self.address);
        until("the registry answers", MINUTE, || {
            Command::new("curl")
                .args(["-fsS", "-o", "/dev/null", &url])
                .stderr(Stdio::null())
                .status()
                .unwrap()
                .success()
        });
    }

    fn stop(&mut self) {
        self.process = None;
    }

    pub fn image(&self, version: u32) -> String {
        format!("{}/demo:{version}", self.address)
    }

    /// Makes an image of its own content on a host and puts it there; the host keeps it under this name only if told so.
    pub fn push_new(&self, lab: &Lab, name: &str, is_kept: bool) {
        let image = format!("{}/{name}", self.address);
        let container = lab.docker("host-a", &["create", "--label", &format!("of={name}"), "roadstead/demo:1"]);
        lab.docker("host-a", &["commit", "--change", &format!("LABEL of={name}"), container.trim(), &image]);
        lab.docker("host-a", &["rm", container.trim()]);
        lab.docker("host-a", &["push", "--quiet", &image]);
        if !is_kept {
            lab.docker("host-a", &["rmi", &image]);
        }
    }

    /// Puts the demo image there under this version; the host keeps nothing of it under that name.
    pub fn push(&self, lab: &Lab, version: u32) {
        self.push_other(lab, "roadstead/demo:1", version);
    }

    /// The same with other content.
    pub fn push_other(&self, lab: &Lab, content: &str, version: u32) {
        let image = self.image(version);
        lab.docker("host-a", &["tag", content, &image]);
        lab.docker("host-a", &["push", "--quiet", &image]);
        lab.docker("host-a", &["rmi", &image]);
    }
}

/// The program of Debian's package, taken out of it: installed, it would start a service of the machine's own.
fn program() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("docker-registry");
    let program = folder.join("usr/bin/docker-registry");
    if !program.exists() {
        fs::create_dir_all(&folder).unwrap();
        let script = "{ apt-get download docker-registry || { apt-get update && apt-get download docker-registry; }; } >&2 \
            && dpkg-deb -x docker-registry_*.deb . && rm docker-registry_*.deb";
        run(Command::new("sh").args(["-c", script]).current_dir(folder));
    }
    program
}

/// The service with an image of this version.
fn from(registry: &Registry, version: u32) -> String {
    // However long it takes.
    let patient =
        "  minimumHealthySeconds: 1\n  deploymentConfiguration: { deploymentCircuitBreaker: { enable: false } }\n";
    web(3).replace("roadstead/demo:1", &registry.image(version)).replace("  minimumHealthySeconds: 1\n", patient)
}

#[test]
#[ignore = "needs a lab"]
fn a_service_waits_for_its_image_with_a_reason_and_then_goes_on() {
    let lab = Lab::up("pull");
    let mut registry = Registry::start(&lab);
    registry.push(&lab, 1);
    // Two hosts have nothing of it, so that it is really pulled.
    for host in ["host-b", "host-c"] {
        lab.docker(host, &["rmi", "roadstead/demo:1"]);
    }
    let controller = Controller::start(&lab, &[("web.yaml", &from(&registry, 1))]);
    controller.wait_steady();
    let first = lab.running(&lab.hosts(), "web");
    assert_eq!(first.len(), 3, "pulled on every host");

    controller.write("web.yaml", &from(&registry, 2));
    let why = |words: &[&str]| {
        let story = controller.cli(&["events"]) + &controller.cli(&["why", "web"]);
        words.iter().all(|word| story.contains(word))
    };
    until("the missing image is the reason", MINUTE, || why(&[&registry.image(2), "could not start"]));
    until("and the next try is announced", MINUTE, || why(&["the next try is delayed"]));
    assert_eq!(lab.running(&lab.hosts(), "web"), first, "what ran runs on");
    registry.push(&lab, 2);
    until("it goes on by itself", 2 * MINUTE, || {
        let running = lab.running(&lab.hosts(), "web");
        running.len() == 3 && running.is_disjoint(&first)
    });
    controller.wait_steady();
    let second = lab.running(&lab.hosts(), "web");

    registry.push(&lab, 3);
    registry.stop();
    controller.write("web.yaml", &from(&registry, 3));
    until("the registry's silence is the reason", MINUTE, || why(&[&registry.image(3), "connection refused"]));
    assert_eq!(lab.running(&lab.hosts(), "web"), second, "what ran runs on");
    registry.resume();
    until("it goes on by itself", 2 * MINUTE, || {
        let running = lab.running(&lab.hosts(), "web");
        running.len() == 3 && running.is_disjoint(&second)
    });
    controller.wait_steady();
}

/// What runs, by host, as its engine has it.
fn images(lab: &Lab) -> BTreeSet<String> {
    let ours =
        |host: &str| lab.docker(host, &["ps", "--no-trunc", "--filter", "name=rs-web-", "--format", "{{.Image}}"]);
    lab.hosts().iter().flat_map(|host| ours(host).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
#[ignore = "needs a lab"]
fn a_tag_that_moves_is_followed_when_a_person_says_so() {
    let lab = Lab::up("tags");
    let registry = Registry::start(&lab);
    registry.push(&lab, 1);
    let digest = |controller: &Controller| {
        let tasks = controller.items("tasks");
        let digests = tasks.iter().map(|task| task["containers"][0]["imageDigest"].as_str().unwrap().to_owned());
        digests.collect::<BTreeSet<_>>()
    };
    let manifest = from(&registry, 1);
    let controller = Controller::start(&lab, &[("web.yaml", &manifest.replace("desiredCount: 3", "desiredCount: 1"))]);
    controller.wait_steady();
    let first = digest(&controller);
    assert!(first.len() == 1 && first.iter().all(|digest| digest.starts_with("sha256:")), "{first:?}");

    // Between two starts the tag moves.
    let container = lab.docker("host-a", &["create", "--label", "other=1", "roadstead/demo:1"]);
    lab.docker("host-a", &["commit", "--change", "LABEL moved=1", container.trim(), "roadstead/demo:moved"]);
    lab.docker("host-a", &["rm", container.trim()]);
    registry.push_other(&lab, "roadstead/demo:moved", 1);
    controller.write("web.yaml", &manifest);
    controller.wait_steady();
    let running = images(&lab);
    assert_eq!(running.len(), 1, "the same bits on all hosts: {running:?}");
    assert_eq!(digest(&controller), first);
    assert!(
        running.iter().all(|image| first.iter().any(|digest| image.ends_with(&format!("demo@{digest}")))),
        "{running:?}"
    );

    controller.cli(&["rollout", "restart", "web"]);
    until("the new content runs everywhere", 2 * MINUTE, || {
        let now = images(&lab);
        now.len() == 1 && now != running && digest(&controller).is_disjoint(&first)
    });
    controller.wait_steady();
    assert!(controller.cli(&["get", "taskdefinitions"]).contains("web:2"));
}

/// Digests of what a host has of a repository.
fn digests(lab: &Lab, repository: &str) -> BTreeSet<String> {
    let list = lab.docker("host-a", &["images", "--digests", "--format", "{{.Repository}} {{.Digest}}"]);
    let of_it = list.lines().filter_map(|line| line.split_once(' ').filter(|(name, _)| *name == repository));
    of_it.map(|(_, digest)| digest.to_owned()).collect()
}

#[test]
#[ignore = "needs a lab"]
fn old_images_go_from_a_full_disk_and_the_last_revisions_and_what_is_not_ours_stay() {
    let lab = Lab::with("cleanup", "1");
    let registry = Registry::start(&lab);
    let service = |version: u32| from(&registry, version).replace("desiredCount: 3", "desiredCount: 1");
    // Every disk is fuller than that.
    let cleanup = "apiVersion: roadstead/v1\nkind: Cluster\nmetadata: { name: default }\n\
        spec: { imageCleanup: { highThresholdPercent: 1, lowThresholdPercent: 0, minimumAge: 0s, keepRevisions: 2 } }\n";
    let ours = format!("{}/demo", registry.address);
    let others = format!("{}/other", registry.address);
    for version in 1..=3 {
        registry.push_new(&lab, &format!("demo:{version}"), false);
    }
    registry.push_new(&lab, "other:1", true);
    assert_eq!((digests(&lab, &ours).len(), digests(&lab, &others).len()), (0, 1));

    let controller = Controller::start(&lab, &[("cluster.yaml", cleanup), ("web.yaml", &service(1))]);
    let deployed = |version: u32| {
        if version > 1 {
            controller.write("web.yaml", &service(version));
        }
        until("this version is deployed", 2 * MINUTE, || {
            let services = controller.items("services");
            controller.is_steady() && services[0]["taskDefinition"] == format!("web:{version}")
        });
        controller.items("tasks")[0]["containers"][0]["imageDigest"].as_str().unwrap().to_owned()
    };
    deployed(1);
    let second = deployed(2);
    assert_eq!(digests(&lab, &ours).len(), 2);
    let third = deployed(3);
    until("the first one's image is gone", 3 * MINUTE, || controller.cli(&["events"]).contains("removed 1 image,"));
    assert_eq!(digests(&lab, &ours), BTreeSet::from([second, third]));
    assert_eq!(digests(&lab, &others).len(), 1, "what is not ours stays");
    let by_hand = lab.docker("host-a", &["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(by_hand.lines().any(|name| name == "roadstead/demo:1"), "{by_hand}");
    until("nothing is left to remove, and the host says so", 3 * MINUTE, || {
        controller.cli(&["describe", "host", "host-a"]).contains("and no image can be removed")
    });
    let described = controller.cli(&["describe", "host", "host-a"]);
    assert!(described.contains("Used percent: ") && described.contains("Data root: "), "{described}");
    assert_eq!(lab.running(&["host-a"], "web").len(), 1);
}
