//! How the controller logs in: by the person's own SSH configuration, or by an agent.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{Controller, Lab, MINUTE, Service, run, until, web};

fn reason(controller: &Controller, name: &str) -> String {
    let host = controller.items("hosts").into_iter().find(|host| host["name"] == name);
    host.and_then(|host| host["reason"].as_str().map(str::to_owned)).unwrap_or_default()
}

#[test]
#[ignore = "needs a lab"]
fn an_address_is_enough_where_ssh_is_configured() {
    let lab = Lab::up("sshconfig");
    lab.lab(&["ssh", "host-a", "/usr/sbin/sshd -p 2222 -E /var/log/sshd.log -o PidFile=/run/sshd-2222.pid"]);
    let only_address = "apiVersion: roadstead/v1\nkind: Host\nmetadata: { name: box-a }\nspec: { address: box-a }\n";
    let mut controller = Controller::new(&lab, &[("hosts/host-a.yaml", only_address), ("web.yaml", &web(2))]);
    controller.remove("hosts/host-b.yaml");
    controller.remove("hosts/host-c.yaml");
    let ssh = controller.own_home().join(".ssh");
    let address = lab.address("host-a");
    fs::copy(lab.folder().join("id_ed25519"), ssh.join("fleet")).unwrap();
    fs::write(ssh.join("known_hosts"), format!("[{address}]:2222 {}\n", lab.host_key("host-a"))).unwrap();
    let configure = |user: &str| {
        let text = format!(
            "Host box-*\n  User {user}\n  Port 2222\n  IdentityFile ~/.ssh/fleet\nHost box-a\n  HostName {address}\n"
        );
        fs::write(ssh.join("config"), text).unwrap();
    };
    configure("nobody-here");
    controller.launch();
    until("the configured name is refused", MINUTE, || reason(&controller, "box-a").contains("nobody-here"));
    controller.stop();
    let before = lab.logins("host-a").len();
    configure("root");
    controller.launch();
    until("it runs what is wanted", MINUTE, || lab.running(&["host-a"], "web").len() == 2);
    assert!(lab.logins("host-a").len() > before);
    assert_eq!(controller.host_status("box-a"), "ACTIVE");
}

#[test]
#[ignore = "needs a lab"]
fn a_key_in_an_agent_is_enough() {
    let lab = Lab::up("agent");
    let (address, key) = (lab.address("host-a"), lab.host_key("host-a"));
    let host = format!(
        "apiVersion: roadstead/v1\nkind: Host\nmetadata: {{ name: host-a }}\nspec:\n  address: {address}\n  ssh: {{ user: root, hostKey: \"{key}\" }}\n"
    );
    let mut controller = Controller::new(&lab, &[("hosts/host-a.yaml", &host), ("web.yaml", &web(2))]);
    controller.remove("hosts/host-b.yaml");
    controller.remove("hosts/host-c.yaml");
    controller.own_home();
    let socket = controller.path("agent.sock");
    let agent = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn();
    let _agent = Service(agent.unwrap());
    until("the agent listens", MINUTE, || socket.exists());
    controller.set("SSH_AUTH_SOCK", &socket);
    controller.launch();
    until("an agent without keys is the reason", MINUTE, || reason(&controller, "host-a").contains("agent"));
    add(&socket, &lab.folder().join("id_ed25519"));
    until("with the key it runs what is wanted", 2 * MINUTE, || lab.running(&["host-a"], "web").len() == 2);
}

fn add(socket: &Path, key: &Path) {
    run(Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", socket));
}
