//! Hosts that fall silent, come back, or are not who they say they are.

use std::{fs, thread, time::Duration};

use crate::support::{Controller, Lab, MINUTE, cluster, throughout, until, web};

#[test]
#[ignore = "needs a lab"]
fn a_short_cut_changes_nothing() {
    let lab = Lab::up("flap");
    let controller = Controller::start(&lab, &[("web.yaml", &web(6))]);
    controller.wait_steady();
    let starts = lab.starts();
    lab.lab(&["cut", "host-b"]);
    thread::sleep(Duration::from_secs(5));
    lab.lab(&["heal", "host-b"]);
    until("it answers again", MINUTE, || controller.host_status("host-b") == "ACTIVE");
    throughout("nothing happens", Duration::from_secs(10), || lab.running(&lab.hosts(), "web").len() == 6);
    assert_eq!(lab.starts(), starts);
}

fn lost(name: &str, suspect_after: u32, lost_after: u32) {
    let lab = Lab::up(name);
    let manifests = [("cluster.yaml", cluster(suspect_after, lost_after)), ("web.yaml", web(30))];
    let manifests: Vec<(&str, &str)> = manifests.iter().map(|(file, text)| (*file, text.as_str())).collect();
    let controller = Controller::start(&lab, &manifests);
    controller.wait_steady();
    assert_eq!(lab.running(&["host-a"], "web").len(), 10);
    lab.lab(&["cut", "host-a"]);
    let took =
        until("its ten tasks run elsewhere", 2 * MINUTE, || lab.running(&["host-b", "host-c"], "web").len() == 30);
    eprintln!("lostAfter {lost_after} s: ten tasks run elsewhere {took:?} after the cut");
    assert_eq!(controller.host_status("host-a"), "LOST");
    lab.lab(&["heal", "host-a"]);
    let took = until("the duplicates are gone", 2 * MINUTE, || lab.running(&["host-a"], "web").is_empty());
    eprintln!("duplicates are gone {took:?} after healing");
    controller.wait_steady();
    assert_eq!(lab.running(&lab.hosts(), "web").len(), 30);
}

#[test]
#[ignore = "needs a lab"]
fn a_lost_hosts_tasks_run_elsewhere_and_its_duplicates_go() {
    lost("lost", 5, 12);
}

#[test]
#[ignore = "needs a lab"]
fn a_lost_hosts_tasks_run_elsewhere_sooner_when_asked() {
    lost("lost3", 1, 3);
}

#[test]
#[ignore = "needs a lab"]
fn when_most_hosts_fall_silent_the_brake_holds() {
    let lab = Lab::up("brake");
    let cluster = cluster(1, 3);
    let controller = Controller::start(&lab, &[("cluster.yaml", &cluster), ("web.yaml", &web(6))]);
    controller.wait_steady();
    lab.lab(&["cut", "host-a"]);
    lab.lab(&["cut", "host-b"]);
    until("both are lost", MINUTE, || {
        controller.host_status("host-a") == "LOST" && controller.host_status("host-b") == "LOST"
    });
    throughout("nothing is replaced", Duration::from_secs(5), || lab.running(&["host-c"], "web").len() == 2);
    lab.lab(&["heal", "host-a"]);
    until("one answers: what ran on the other is replaced", 2 * MINUTE, || {
        lab.running(&["host-a", "host-c"], "web").len() == 6
    });
    lab.lab(&["heal", "host-b"]);
    until("and its duplicates go", 2 * MINUTE, || lab.running(&lab.hosts(), "web").len() == 6);
}

#[test]
#[ignore = "needs a lab"]
fn a_wrong_host_key_is_untrusted_and_not_one_command_is_sent() {
    let lab = Lab::up("wrongkey");
    let path = lab.host_manifests().join("host-b.yaml");
    let right = fs::read_to_string(&path).unwrap();
    let other = fs::read_to_string(lab.host_manifests().join("host-a.yaml")).unwrap();
    let key = |text: &str| text.lines().find(|line| line.contains("hostKey")).unwrap().to_owned();
    fs::write(&path, right.replace(&key(&right), &key(&other))).unwrap();
    let controller = Controller::start(&lab, &[("web.yaml", &web(4))]);
    until("it is untrusted", MINUTE, || controller.host_status("host-b") == "UNTRUSTED");
    until("the others do all the work", MINUTE, || lab.running(&["host-a", "host-c"], "web").len() == 4);
    assert!(lab.truth_of("host-b").is_empty());
    let log =
        lab.lab(&["ssh", "host-b", "cat /var/log/sshd.log 2>/dev/null || cat /var/log/auth.log 2>/dev/null || true"]);
    let accepted = log.lines().filter(|line| line.contains("Accepted")).count();
    assert_eq!(accepted, 1, "nobody but this very check logged in:\n{log}");
    let why = controller.cli(&["get", "hosts", "-o", "json"]);
    assert!(why.contains("is not who it should be"), "{why}");
}

#[test]
#[ignore = "needs a lab"]
fn a_drained_host_gives_up_its_tasks_after_others_started() {
    let lab = Lab::up("drain");
    let controller = Controller::start(&lab, &[("web.yaml", &web(6))]);
    controller.wait_steady();
    controller.cli(&["host", "drain", "host-a"]);
    until("it is empty", 2 * MINUTE, || {
        assert!(lab.running(&lab.hosts(), "web").len() >= 6, "never fewer than six");
        lab.running(&["host-a"], "web").is_empty()
    });
    assert_eq!(controller.host_status("host-a"), "DRAINING");
    controller.cli(&["host", "uncordon", "host-a"]);
    assert_eq!(controller.host_status("host-a"), "ACTIVE");
}

#[test]
#[ignore = "needs a lab"]
fn a_removed_host_is_left_empty_and_its_tasks_run_elsewhere() {
    let lab = Lab::up("remove");
    let controller = Controller::start(&lab, &[("web.yaml", &web(6))]);
    controller.wait_steady();
    let file = controller.path("manifests/hosts/host-b.yaml");
    let refused = controller.try_cli(&["host", "remove", "host-b"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && words.contains("host drain host-b"), "{words}");
    assert!(file.exists(), "it has tasks: nothing was done");
    controller.cli(&["host", "drain", "host-b"]);
    until("it is empty", 2 * MINUTE, || {
        assert!(lab.running(&lab.hosts(), "web").len() >= 6, "never fewer than six");
        lab.truth_of("host-b").is_empty()
    });
    until("it may go", MINUTE, || controller.try_cli(&["host", "remove", "host-b"]).status.success());
    assert!(!file.exists());
    until("the controller lets it go", MINUTE, || controller.items("hosts").len() == 2);
    controller.wait_steady();
    assert_eq!(lab.running(&["host-a", "host-c"], "web").len(), 6);
    assert!(lab.truth_of("host-b").is_empty());
}
