//! Who is who: host keys, our keys, jump hosts, the user's SSH configuration.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use roadstead_control::host::{
    Agent, ExecRequest, LinkState, SshTarget, SshTransport, Transport, TransportError, resolve_with, scan_host_keys,
};

use crate::conformance::{run, until, within};
use crate::sshd::{DEADLINE, Sshd, free_port, keygen, public_key, set_mode};

async fn attempt(target: SshTarget) -> Result<(), TransportError> {
    let transport = SshTransport::new(target, 1);
    let output = within(transport.exec(ExecRequest::new(["true"]))).await?;
    assert!(output.status.success());
    Ok(())
}

/// A refusal came before any word about us.
fn assert_nothing_sent(sshd: &Sshd) {
    assert!(!sshd.saw_login(), "{}", sshd.log());
}

#[tokio::test]
async fn the_log_would_show_a_login() {
    let Some(sshd) = Sshd::start("") else { return };
    attempt(sshd.target()).await.unwrap();
    assert!(sshd.saw_login());
}

#[tokio::test]
async fn another_host_key_is_refused_before_anything_is_sent() {
    let Some(sshd) = Sshd::start("") else { return };
    let other = sshd.path("other");
    keygen("ed25519", &other, "");
    let mut target = sshd.target();
    target.host_keys = vec![public_key(&other)];
    let transport = SshTransport::new(target, 1);

    let error = within(transport.exec(ExecRequest::new(["true"]))).await;

    let Err(TransportError::Untrusted { host, expected, presented, revoked: false }) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*host, format!("127.0.0.1:{}", sshd.port));
    assert_eq!(expected.len(), 1);
    assert!(presented.starts_with("ssh-ed25519 SHA256:"), "{presented}");
    assert_ne!(*presented, expected[0]);
    let link = transport.link().borrow().clone();
    assert!(matches!(link, LinkState::Down { error: TransportError::Untrusted { .. }, .. }));
    assert_nothing_sent(&sshd);
}

#[tokio::test]
async fn another_key_type_is_refused_before_anything_is_sent() {
    let Some(sshd) = Sshd::start("") else { return };
    let other = sshd.path("other");
    keygen("ecdsa", &other, "");
    let mut target = sshd.target();
    target.host_keys = vec![public_key(&other)];

    let error = attempt(target).await;

    let Err(TransportError::Untrusted { presented, .. }) = &error else {
        panic!("{error:?}");
    };
    assert!(presented.contains("ssh-ed25519"), "{presented}");
    assert_nothing_sent(&sshd);
}

#[tokio::test]
async fn a_host_with_several_keys_presents_the_pinned_one() {
    let key_types = ["ed25519", "ecdsa", "rsa"];
    let Some(sshd) = Sshd::start_with_keys("", &key_types) else {
        return;
    };
    for key_type in key_types {
        let mut target = sshd.target();
        target.host_keys = vec![sshd.host_key(key_type)];
        attempt(target).await.unwrap();
    }
}

#[tokio::test]
async fn known_hosts_pin_and_revoke() {
    let Some(sshd) = Sshd::start("") else { return };
    let known_hosts = sshd.path("known_hosts");
    let key = sshd.host_key("ed25519");
    let mut target = sshd.target();
    target.host_keys.clear();
    target.known_hosts = vec![known_hosts.clone()];

    fs::write(&known_hosts, format!("127.0.0.1 {key}\n")).unwrap();
    let other_port = attempt(target.clone()).await;
    assert!(matches!(other_port, Err(TransportError::Misconfigured { .. })));

    fs::write(&known_hosts, format!("[127.0.0.1]:{} {key}\n", sshd.port)).unwrap();
    let hashed = Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&known_hosts).stderr(Stdio::null()).status();
    assert!(hashed.unwrap().success());
    attempt(target.clone()).await.unwrap();

    let before = sshd.log().matches("userauth-request").count();
    let revoked = format!("@revoked * {key}\n");
    fs::write(&known_hosts, revoked).unwrap();
    target.host_keys = vec![key];
    let error = attempt(target).await;
    assert!(matches!(error, Err(TransportError::Untrusted { revoked: true, .. })), "{error:?}");
    assert_eq!(sshd.log().matches("userauth-request").count(), before);
}

#[tokio::test]
async fn without_a_pinned_key_nobody_is_called() {
    let target = SshTarget { address: "127.0.0.1".into(), port: free_port(), ..SshTarget::default() };
    let error = attempt(target).await;
    assert!(matches!(error, Err(TransportError::Misconfigured { .. })));
}

#[tokio::test]
async fn a_key_that_others_may_read_is_refused() {
    let Some(sshd) = Sshd::start("") else { return };
    set_mode(&sshd.path("id"), 0o644);
    let error = attempt(sshd.target()).await;
    let Err(TransportError::Misconfigured { problem, next_step }) = &error else {
        panic!("{error:?}");
    };
    assert!(problem.contains("0644"), "{problem}");
    assert!(next_step.contains("chmod 600"), "{next_step}");
    assert_nothing_sent(&sshd);
}

#[tokio::test]
async fn a_stranger_is_unauthorised() {
    let Some(sshd) = Sshd::start("") else { return };
    let stranger = sshd.path("stranger");
    keygen("ed25519", &stranger, "");
    let mut target = sshd.target();
    target.identity_file = Some(stranger);
    let error = attempt(target).await;
    let Err(TransportError::Unauthorised { user, tried, .. }) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(user, "root");
    assert_eq!(tried.len(), 1);
}

#[tokio::test]
async fn rsa_keys_log_in() {
    let Some(sshd) = Sshd::start("") else { return };
    let key = sshd.path("rsa");
    keygen("rsa", &key, "");
    fs::copy(sshd.path("rsa.pub"), sshd.path("authorized_keys")).unwrap();
    let mut target = sshd.target();
    target.identity_file = Some(key);
    attempt(target).await.unwrap();
}

#[tokio::test]
async fn a_locked_key_needs_the_agent() {
    let Some(sshd) = Sshd::start("") else { return };
    let key = sshd.path("locked");
    keygen("ed25519", &key, "secret words");
    fs::copy(sshd.path("locked.pub"), sshd.path("authorized_keys")).unwrap();
    let mut target = sshd.target();
    target.identity_file = Some(key.clone());

    let error = attempt(target.clone()).await;
    let Err(TransportError::Misconfigured { problem, next_step }) = &error else {
        panic!("{error:?}");
    };
    assert!(problem.contains("passphrase"), "{problem}");
    assert!(next_step.contains("ssh-add"), "{next_step}");

    let agent = SshAgent::start(sshd.dir.path()).await;
    target.agent = Agent::Socket(agent.socket.clone());
    let empty = attempt(target.clone()).await;
    assert!(matches!(empty, Err(TransportError::Misconfigured { .. })));

    agent.add(&key, "secret words");
    attempt(target.clone()).await.unwrap();
    // By its public half, and as any key that the agent holds.
    target.identity_file = Some(sshd.path("locked.pub"));
    attempt(target.clone()).await.unwrap();
    target.identity_file = None;
    attempt(target).await.unwrap();
}

struct SshAgent {
    socket: std::path::PathBuf,
    child: Child,
}

impl SshAgent {
    async fn start(dir: &Path) -> Self {
        let socket = dir.join("agent.sock");
        let child = Command::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        let agent = Self { socket, child };
        until("the agent's socket", || agent.socket.exists()).await;
        agent
    }

    fn add(&self, key: &Path, passphrase: &str) {
        let askpass = self.socket.with_file_name("askpass");
        fs::write(&askpass, format!("#!/bin/sh\necho '{passphrase}'\n")).unwrap();
        set_mode(&askpass, 0o700);
        let status = Command::new("ssh-add")
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", &self.socket)
            .env("SSH_ASKPASS", &askpass)
            .env("SSH_ASKPASS_REQUIRE", "force")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_jump_host_is_checked_too() {
    let (Some(jump), Some(sshd)) = (Sshd::start(""), Sshd::start("")) else {
        return;
    };
    let mut via = jump.target();
    via.host_keys = vec![sshd.host_key("ed25519")];
    let mut target = sshd.target();
    target.proxy_jump = Some(Box::new(via));

    let error = attempt(target).await;

    let Err(TransportError::Untrusted { host, .. }) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*host, format!("127.0.0.1:{}", jump.port));
    assert_nothing_sent(&jump);
    assert_nothing_sent(&sshd);
}

#[tokio::test]
async fn a_jump_host_does_not_vouch_for_the_target() {
    let (Some(jump), Some(sshd)) = (Sshd::start(""), Sshd::start("")) else {
        return;
    };
    let mut target = sshd.target();
    target.host_keys = vec![jump.host_key("ed25519")];
    target.proxy_jump = Some(Box::new(jump.target()));
    let error = attempt(target).await;
    assert!(matches!(error, Err(TransportError::Untrusted { .. })));
    assert_nothing_sent(&sshd);
}

#[tokio::test]
async fn a_jump_host_that_does_not_forward_says_so() {
    let (Some(jump), Some(sshd)) = (Sshd::start("AllowTcpForwarding no"), Sshd::start("")) else {
        return;
    };
    let mut target = sshd.target();
    target.proxy_jump = Some(Box::new(jump.target()));
    let error = attempt(target).await;
    let Err(TransportError::Forbidden { detail }) = &error else {
        panic!("{error:?}");
    };
    assert!(detail.contains("AllowTcpForwarding"), "{detail}");
}

#[tokio::test]
async fn scanning_reads_the_keys_and_logs_in_nowhere() {
    let Some(sshd) = Sshd::start_with_keys("", &["ed25519", "rsa"]) else {
        return;
    };
    let target = SshTarget { address: "127.0.0.1".into(), port: sshd.port, ..SshTarget::default() };
    let keys = within(scan_host_keys(&target, DEADLINE)).await.unwrap();
    let texts: Vec<&str> = keys.iter().map(|key| key.key.as_str()).collect();
    assert_eq!(texts, [sshd.host_key("ed25519"), sshd.host_key("rsa")]);
    let listed = Command::new("ssh-keygen").args(["-l", "-f"]).arg(sshd.path("host_ed25519.pub")).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains(&keys[0].fingerprint), "{listed}");
    assert_nothing_sent(&sshd);
}

#[tokio::test]
async fn the_users_own_ssh_configuration_is_resolved() {
    let (Some(jump), Some(sshd)) = (Sshd::start(""), Sshd::start("")) else {
        return;
    };
    let known_hosts = sshd.path("known_hosts");
    let lines = [&sshd, &jump].map(|server| format!("[127.0.0.1]:{} {}\n", server.port, server.host_key("ed25519")));
    fs::write(&known_hosts, lines.concat()).unwrap();
    let config = sshd.path("ssh_config");
    let text = format!(
        "Host box\n Port {}\n ProxyJump bastion\n IdentityFile {}\n\
         Host bastion\n Port {}\n IdentityFile {}\n\
         Match originalhost box,bastion\n HostName 127.0.0.1\n User root\n IdentityAgent none\n \
         UserKnownHostsFile {}\n",
        sshd.port,
        sshd.path("id").display(),
        jump.port,
        jump.path("id").display(),
        known_hosts.display(),
    );
    fs::write(&config, text).unwrap();

    let target = resolve_with("box", Some(&config)).await.unwrap();

    assert_eq!(target.port, sshd.port);
    assert_eq!(target.proxy_jump.as_ref().map(|jump| jump.port), Some(jump.port));
    let transport = SshTransport::new(target, 1);
    assert!(run(&transport, &["true"]).await.status.success());
    assert!(jump.saw_login());
}
