//! Engines that hang or die.

use std::{thread, time::Duration};

use crate::support::{Controller, Lab, MINUTE, throughout, until, web};

#[test]
#[ignore = "needs a lab"]
fn a_hung_engine_harms_nobody_else_and_leaves_no_duplicates() {
    let lab = Lab::up("hang");
    let controller = Controller::start(&lab, &[("web.yaml", &web(6))]);
    controller.wait_steady();
    let starts = lab.starts();
    lab.lab(&["stop-engine", "host-b"]);
    // Others go on being served while it hangs.
    let (id, _) = lab.truth_of("host-a").into_iter().find(|(_, (_, running))| *running).unwrap();
    lab.docker("host-a", &["kill", &id]);
    until("the killed one is replaced on the others", MINUTE, || lab.running(&["host-a", "host-c"], "web").len() == 4);
    until("it is suspected", MINUTE, || controller.host_status("host-b") == "SUSPECT");
    throughout("a hung engine is not a lost host", Duration::from_secs(14), || {
        controller.host_status("host-b") == "SUSPECT"
    });
    lab.lab(&["continue-engine", "host-b"]);
    until("it is trusted again", MINUTE, || controller.host_status("host-b") == "ACTIVE");
    controller.wait_steady();
    throughout("six, and no duplicate after", Duration::from_secs(5), || lab.running(&lab.hosts(), "web").len() == 6);
    let after = lab.starts();
    let untouched = starts.iter().filter(|(id, at)| after.get(*id) == Some(at)).count();
    assert_eq!(untouched, 5, "all but the killed one were never restarted");
}

#[test]
#[ignore = "needs a lab"]
fn a_killed_engine_comes_back_with_its_tasks() {
    let lab = Lab::up("kill9");
    let controller = Controller::start(&lab, &[("web.yaml", &web(6))]);
    controller.wait_steady();
    lab.lab(&["kill-engine", "host-c"]);
    thread::sleep(Duration::from_secs(2));
    lab.lab(&["start-engine", "host-c"]);
    until("it answers again", MINUTE, || controller.host_status("host-c") == "ACTIVE");
    controller.wait_steady();
    until("exactly six", MINUTE, || lab.running(&lab.hosts(), "web").len() == 6);
    throughout("and six they stay", Duration::from_secs(5), || lab.running(&lab.hosts(), "web").len() == 6);
}
