//! Controllers that die, lose their memory, or meet another one.

use std::{fs, thread, time::Duration};

use crate::support::{Controller, Lab, MINUTE, throughout, until, web};

#[test]
#[ignore = "needs a lab"]
fn killed_in_the_middle_of_a_scale_up_it_ends_with_exactly_thirty() {
    let lab = Lab::up("crash");
    let mut controller = Controller::start(&lab, &[("web.yaml", &web(3))]);
    controller.wait_steady();
    controller.write("web.yaml", &web(30));
    until("some of them run", MINUTE, || lab.running(&lab.hosts(), "web").len() > 8);
    controller.kill();
    thread::sleep(Duration::from_millis(500));
    controller.launch();
    until("thirty run", 2 * MINUTE, || lab.running(&lab.hosts(), "web").len() == 30);
    controller.wait_steady();
    throughout("exactly thirty, and nothing else of ours exists", Duration::from_secs(5), || {
        lab.truth().values().map(|containers| containers.len()).sum::<usize>() == 30
    });
}

#[test]
#[ignore = "needs a lab"]
fn with_its_database_deleted_it_adopts_and_restarts_nothing() {
    let lab = Lab::up("amnesia");
    let mut controller = Controller::start(&lab, &[("web.yaml", &web(6))]);
    controller.wait_steady();
    let starts = lab.starts();
    controller.stop();
    assert_eq!(lab.starts(), starts, "a graceful stop leaves everything running");
    for file in ["roadstead.db", "roadstead.db-wal", "roadstead.db-shm"] {
        let _ = fs::remove_file(controller.path("data").join(file));
    }
    controller.launch();
    controller.wait_steady();
    throughout("nothing is restarted", Duration::from_secs(5), || lab.starts() == starts);
    let tasks = controller.items("tasks");
    assert_eq!(tasks.iter().filter(|task| task["lastStatus"] == "RUNNING").count(), 6, "adopted");
}

#[test]
#[ignore = "needs a lab"]
fn a_second_controller_is_refused() {
    let lab = Lab::up("second");
    let controller = Controller::start(&lab, &[("web.yaml", &web(1))]);
    controller.wait_steady();
    // On the same folder: the lock.
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(["controller", "--manifests"])
        .arg(controller.path("manifests"))
        .arg("--data")
        .arg(controller.path("data"))
        .arg("--listen")
        .arg(format!("unix:{}", controller.path("other").display()))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains(&controller.pid().to_string()), "it names who holds the lock: {words}");
}
