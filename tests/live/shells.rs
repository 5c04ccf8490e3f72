//! A person at a terminal, in a container.

use std::{
    fs,
    io::{Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use crate::support::{Controller, Lab, MINUTE, busybox, run, until};

/// A program on a terminal of its own, and what it has printed there.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    /// `script` makes the terminal and ends with the program's status.
    fn run(command: &str) -> Self {
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &format!("exec {command}"), "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let shown = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&shown);
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut piece) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..length]));
            }
        });
        Self { child, keys, shown }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    fn shows(&self, text: &str) -> bool {
        self.shown.lock().unwrap().contains(text)
    }

    fn wait_for(&self, text: &str) {
        until(&format!("{text:?} on the screen"), MINUTE, || self.shows(text));
    }

    /// Somebody pulls at the window's corner.
    fn resize(&self, rows: u32, columns: u32) {
        let script = self.child.id();
        let children = fs::read_to_string(format!("/proc/{script}/task/{script}/children")).unwrap();
        let program = children.split_whitespace().next().unwrap();
        let terminal = fs::read_link(format!("/proc/{program}/fd/0")).unwrap();
        let (rows, columns) = (rows.to_string(), columns.to_string());
        run(Command::new("stty").arg("-F").arg(terminal).args(["rows", &rows, "cols", &columns]));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- on the screen ---\n{}", self.shown.lock().unwrap());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs a lab"]
fn a_shell_on_a_terminal_is_like_being_there() {
    let lab = Lab::up("shell");
    let folder = tempfile::tempdir().unwrap();
    let archive = busybox(folder.path(), &["sh", "sleep", "stty"]);
    lab.hosts().into_iter().for_each(|host| lab.import(host, &archive, "busybox"));
    let service = "apiVersion: roadstead/v1\nkind: Service\nmetadata: { name: box }\nspec:\n  desiredCount: 1\n  minimumHealthySeconds: 1\n  taskDefinition:\n    containerDefinitions:\n      - { name: box, image: 'busybox:1', memory: 16, stopTimeout: 2, entryPoint: [/bin/sleep], command: ['1000000'] }\n";
    let controller = Controller::start(&lab, &[("box.yaml", service)]);
    controller.wait_steady();

    let program = env!("CARGO_BIN_EXE_roadstead");
    let mut terminal = Terminal::run(&format!("{program} --endpoint {} exec -it box -- sh", controller.endpoint()));
    terminal.wait_for("# ");
    // What is typed is shown as well, so an answer must not stand in the question.
    terminal.press("echo ready$((40 + 2))\r");
    terminal.wait_for("ready42");
    terminal.resize(33, 101);
    until("the window's size arrives", MINUTE, || {
        terminal.press("stty size\r");
        thread::sleep(std::time::Duration::from_millis(200));
        terminal.shows("33 101")
    });
    terminal.press("echo before$((1 + 1)); sleep 1000000\r");
    terminal.wait_for("before2");
    terminal.press("\x03");
    terminal.press("echo interrupted=$?\r");
    terminal.wait_for("interrupted=130");
    terminal.press("exit 7\r");
    let mut status = None;
    until("it ends with the shell", MINUTE, || {
        status = terminal.child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(7));

    let output = controller.try_cli(&["exec", "box", "--", "sh", "-c", "exit 9"]);
    assert_eq!(output.status.code(), Some(9), "without a terminal, too");
}
