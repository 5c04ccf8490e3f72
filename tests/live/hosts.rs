//! `host add` and `host check` on real machines: whom they trust, what they refuse, and what they say.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::support::{Controller, Lab, MINUTE, run, until, web};

fn fingerprint(lab: &Lab, host: &str) -> String {
    let key = lab.folder().join("hosts").join(host).join("etc/ssh/ssh_host_ed25519_key.pub");
    run(Command::new("ssh-keygen").arg("-lf").arg(key)).split(' ').nth(1).unwrap().to_owned()
}

fn identity(lab: &Lab) -> String {
    lab.folder().join("id_ed25519").display().to_string()
}

/// A command that finds no controller.
fn alone(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(arguments)
        .env("ROADSTEAD_ENDPOINT", "unix:/nowhere/socket")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Exit status 1; what was said.
fn refused(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A controller that knows of these hosts of the lab only.
fn controller_of(lab: &Lab, hosts: &[&str]) -> Controller {
    let controller = Controller::new(lab, &[("web.yaml", &web(1))]);
    for file in files(&controller.path("manifests/hosts")) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        if !hosts.contains(&name) {
            fs::remove_file(&file).unwrap();
        }
    }
    controller
}

#[test]
#[ignore = "needs a lab"]
fn a_machine_becomes_a_host_once_and_only_if_it_is_the_one_that_was_meant() {
    let lab = Lab::with("hostadd", "2");
    let mut controller = controller_of(&lab, &["host-b"]);
    controller.launch();
    let hosts = controller.path("manifests/hosts");
    let (before, address, key) = (files(&hosts), lab.address("host-a"), identity(&lab));
    let add = |address: &str, more: &[&str]| {
        let target = format!("root@{address}");
        let mut arguments = vec!["host", "add", &target, "--identity", &key];
        arguments.extend(more);
        controller.try_cli(&arguments)
    };

    let said = refused(&add(&address, &["--fingerprint", &fingerprint(&lab, "host-b")]));
    assert!(said.contains(&fingerprint(&lab, "host-a")), "{said}");
    assert_eq!(files(&hosts), before);
    assert_eq!(lab.logins("host-a"), [""; 0], "nobody logged in to a machine that nobody vouched for");

    let right = fingerprint(&lab, "host-a");
    let output = add(&address, &["--fingerprint", &right, "--zone", "zone-a"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let written = hosts.join("host-a.yaml");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), written.display().to_string());
    assert!(!lab.logins("host-a").is_empty());
    until("the new host is used", MINUTE, || controller.host_status("host-a") == "ACTIVE");

    let said = refused(&add(&address, &["--fingerprint", &right, "--name", "twin"]));
    assert!(said.contains("declared already: host host-a"), "{said}");
    let other_address = format!("{}.99", address.rsplit_once('.').unwrap().0);
    lab.lab(&["ssh", "host-a", &format!("ip addr add {other_address}/24 dev eth0")]);
    let said = refused(&add(&other_address, &["--fingerprint", &right, "--name", "twin"]));
    assert!(said.contains("✗ identity  the same engine id and machine id as host host-a"), "{said}");
    assert_eq!(files(&hosts).len(), before.len() + 1);
}

#[test]
#[ignore = "needs a lab"]
fn machines_behind_another_are_reached_as_they_were_checked() {
    let lab = Lab::up("hostjump");
    let mut controller = controller_of(&lab, &[]);
    let ssh = controller.own_home().join(".ssh");
    let [a, gate, c] = lab.hosts().map(|host| lab.address(host));
    fs::copy(lab.folder().join("id_ed25519"), ssh.join("fleet")).unwrap();
    fs::write(ssh.join("known_hosts"), format!("{gate} {}\n", lab.host_key("host-b"))).unwrap();
    let config = format!(
        "Host box-* {gate}\n  User root\n  IdentityFile ~/.ssh/fleet\n\
         Host box-a\n  HostName {a}\n  ProxyJump {gate}\n\
         Host box-c\n  HostName {c}\n  ProxyJump {gate}\n  HostKeyAlias something-else\n"
    );
    fs::write(ssh.join("config"), config).unwrap();
    controller.launch();
    // The way as a whole, and the name that stands for it where a manifest has no words for all of it.
    for (name, host, written) in [
        ("box-a", "host-a", [format!("address: \"{a}\""), format!("proxyJump: \"root@{gate}:22\"")]),
        ("box-c", "host-c", ["address: box-c".to_owned(), "user: root".to_owned()]),
    ] {
        let file = controller.cli(&["host", "add", name, "--name", name, "--fingerprint", &fingerprint(&lab, host)]);
        let text = fs::read_to_string(file.trim()).unwrap();
        assert!(written.iter().all(|line| text.contains(line)), "{text}");
        let checked = lab.logins(host).len();
        until("the controller goes the same way", MINUTE, || controller.host_status(name) == "ACTIVE");
        let logins = lab.logins(host);
        assert!(logins.len() > checked);
        assert!(logins.iter().all(|login| login.contains(&format!(" from {gate} "))), "{logins:#?}");
    }
    controller.cli(&["host", "check", "--all"]);
}

/// The named check of each host in the lab's manifests or those of `folder`, and the exit status.
fn checks(folder: &Path, name: &str) -> (Vec<Value>, Option<i32>) {
    let output = alone(&["host", "check", "--all", "-o", "json", "--manifests", folder.to_str().unwrap()]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = report["items"].as_array().unwrap().iter().map(|host| {
        let checks = host["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).cloned().unwrap_or_default()
    });
    (found.collect(), output.status.code())
}

#[test]
#[ignore = "needs a lab"]
fn clones_and_broken_machines_are_told_with_a_next_step() {
    let lab = Lab::with("hostcheck", "2");
    let manifests = lab.host_manifests();
    let (found, status) = checks(&manifests, "identity");
    assert!(found.len() == 2 && found.iter().all(|check| check["ok"] == true), "{found:?}");
    assert_eq!(status, Some(0));

    // Where each version of the engine keeps who it is.
    let state = |host: &str| lab.folder().join("hosts").join(host);
    let mut copied = 0;
    for file in ["etc/docker/key.json", "lib/docker/engine-id"] {
        if state("host-a").join(file).exists() {
            fs::copy(state("host-a").join(file), state("host-b").join(file)).unwrap();
            copied += 1;
        }
    }
    assert!(copied > 0, "the engine keeps its identity in a place that this test does not know");
    lab.lab(&["kill-engine", "host-b"]);
    lab.lab(&["start-engine", "host-b"]);
    let (found, status) = checks(&manifests, "identity");
    for (check, other) in found.iter().zip(["host-b", "host-a"]) {
        let detail = check["detail"].as_str().unwrap();
        assert!(check["ok"] == false && detail.contains(&format!("the same engine id as host {other}")), "{check}");
        assert!(check["next"].as_str().unwrap().contains("engine-id"), "{check}");
    }
    assert_eq!(status, Some(1));

    let folder = tempfile::tempdir().unwrap();
    fs::copy(manifests.join("host-a.yaml"), folder.path().join("host-a.yaml")).unwrap();
    let (target, key) = (format!("root@{}", lab.address("host-b")), identity(&lab));
    let print = fingerprint(&lab, "host-b");
    let (into, only) = (folder.path().to_str().unwrap(), files(folder.path()));
    let add = || alone(&["host", "add", &target, "--identity", &key, "--fingerprint", &print, "--manifests", into]);
    let said = refused(&add());
    assert!(said.contains("✗ identity  the same engine id as host host-a"), "{said}");
    assert_eq!(files(folder.path()), only);

    lab.lab(&["kill-engine", "host-b"]);
    let said = refused(&add());
    assert!(said.contains("✗ docker") && said.contains("→ install Docker"), "{said}");
    assert_eq!(files(folder.path()), only);
    let (found, status) = checks(&manifests, "docker");
    assert!(found[0]["ok"] == true && found[1]["ok"] == false, "{found:?}");
    assert!(found[1]["next"].as_str().unwrap().contains("systemctl"), "{found:?}");
    assert_eq!(status, Some(1));

    let text = fs::read_to_string(manifests.join("host-a.yaml")).unwrap();
    for (from, to, detail, next) in [
        ("user: root", "user: nobody-here", "refused the user \"nobody-here\"", "ssh-copy-id"),
        (&lab.host_key("host-a"), &lab.host_key("host-b"), "not who it should be", "hostKey"),
        (&lab.address("host-a"), &lab.address("host-b"), "not who it should be", "hostKey"),
    ] {
        assert!(text.contains(from));
        fs::write(folder.path().join("host-a.yaml"), text.replace(from, to)).unwrap();
        let (found, status) = checks(folder.path(), "login");
        let [login] = &found[..] else { panic!("{found:?}") };
        assert!(login["ok"] == false && login["detail"].as_str().unwrap().contains(detail), "{login}");
        assert!(login["next"].as_str().unwrap().contains(next), "{login}");
        assert_eq!(status, Some(1));
    }
}
