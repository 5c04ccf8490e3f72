//! Manifests that are broken, or take too much away.

use std::{fs, time::Duration};

use crate::support::{Controller, Lab, MINUTE, throughout, until, web};

#[test]
#[ignore = "needs a lab"]
fn a_malformed_file_touches_nothing_and_is_told_at_the_right_line() {
    let lab = Lab::up("malformed");
    let controller = Controller::start(&lab, &[("web.yaml", &web(3))]);
    controller.wait_steady();
    let starts = lab.starts();
    let broken = web(5).replace("desiredCount: 5", "desiredCuont: 5");
    controller.write("web.yaml", &broken);
    let took = until("it is told", MINUTE, || controller.log().contains("web.yaml:5:3"));
    eprintln!("told after {took:?}");
    throughout("nothing changes", Duration::from_secs(3), || lab.starts() == starts);
    let status = controller.try_cli(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    let words = String::from_utf8_lossy(&status.stdout).into_owned() + &String::from_utf8_lossy(&status.stderr);
    assert!(words.contains("desiredCuont"), "and stays to be seen: {words}");
    controller.write("web.yaml", &web(5));
    until("mended, it takes effect", MINUTE, || lab.running(&lab.hosts(), "web").len() == 5);
}

#[test]
#[ignore = "needs a lab"]
fn an_emptied_folder_is_refused_until_confirmed() {
    let lab = Lab::up("emptied");
    let controller = Controller::start(&lab, &[("web.yaml", &web(3))]);
    controller.wait_steady();
    let starts = lab.starts();

    // The whole folder away, then one without a file, then all as it was: an accident that nobody's task feels.
    let (manifests, away) = (controller.path("manifests"), controller.path("away"));
    fs::rename(&manifests, &away).unwrap();
    until("it is said that nothing can be read", MINUTE, || controller.log().contains("cannot be read"));
    fs::create_dir(&manifests).unwrap();
    until("an empty one is held", MINUTE, || controller.log().contains("roadstead confirm "));
    throughout("everything runs on", Duration::from_secs(3), || lab.starts() == starts);
    fs::remove_dir(&manifests).unwrap();
    fs::rename(&away, &manifests).unwrap();
    until("nothing is held", MINUTE, || controller.try_cli(&["status"]).status.success());
    assert_eq!(lab.starts(), starts);
    let seen = controller.log().len();

    controller.remove("web.yaml");
    let mut token = String::new();
    until("it is held, and says how to confirm", MINUTE, || {
        let log = controller.log();
        let Some((_, rest)) = log[seen..].split_once("roadstead confirm ") else { return false };
        token = rest.chars().take_while(char::is_ascii_hexdigit).collect();
        true
    });
    throughout("everything runs on", Duration::from_secs(3), || lab.starts() == starts);
    assert!(!controller.try_cli(&["confirm", "deadbeef"]).status.success(), "another token is refused");
    controller.cli(&["confirm", &token]);
    until("now it is carried out", MINUTE, || lab.running(&lab.hosts(), "web").is_empty());
    until("and nothing is left", MINUTE, || lab.truth().values().all(|containers| containers.is_empty()));
}

#[test]
#[ignore = "needs a lab"]
fn the_example_fleet_becomes_healthy() {
    let lab = Lab::up("examples");
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let mut files: Vec<(String, String)> = Vec::new();
    for entry in fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        files.push((path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
    let controller = Controller::start(&lab, &files);
    controller.wait_steady();
    let services: Vec<String> =
        controller.items("services").iter().map(|service| service["name"].as_str().unwrap().to_owned()).collect();
    assert!(services.len() >= 3, "{services:?}");
    for host in lab.hosts() {
        assert_eq!(lab.running(&[host], "agent").len(), 1, "one daemon task on {host}");
        assert_eq!(lab.running(&[host], "web").len(), 1, "spread over zones: {host}");
    }
    assert_eq!(lab.running(&lab.hosts(), "pair").len(), 4, "two tasks of two containers");
}
