//! Data that stays on its host, moves with its task, and goes with it.

use std::process::Command;

use serde_json::Value;

use crate::support::{Controller, Lab, MINUTE, until};

const SERVICE: &str = "\
apiVersion: roadstead/v1
kind: Service
metadata: { name: db }
spec:
  desiredCount: 1
  minimumHealthySeconds: 1
  taskDefinition:
    containerDefinitions:
      - name: db
        image: 'roadstead/demo:1'
        memory: 16
        stopTimeout: 2
        mountPoints:
          - { sourceVolume: data, containerPath: /data }
          - { sourceVolume: scratch, containerPath: /scratch }
    volumes:
      - { name: data, dockerVolumeConfiguration: { scope: shared, autoprovision: true } }
      - { name: scratch }
";

struct Data<'l> {
    lab: &'l Lab,
    controller: Controller,
}

impl Data<'_> {
    fn volume(&self) -> Value {
        let list: Value = serde_json::from_str(&self.controller.cli(&["volume", "ls", "-o", "json"])).unwrap();
        list["items"][0].clone()
    }

    fn host(&self) -> String {
        self.volume()["host"].as_str().unwrap().to_owned()
    }

    fn elsewhere(&self) -> &'static str {
        let host = self.host();
        self.lab.hosts().into_iter().find(|other| *other != host).unwrap()
    }

    fn volumes(&self, host: &str) -> Vec<String> {
        self.lab.docker(host, &["volume", "ls", "-q"]).lines().map(str::to_owned).collect()
    }

    /// Runs a shell command where the volume's files are.
    fn sh(&self, host: &str, script: &str) -> String {
        let folder = self.lab.docker(host, &["volume", "inspect", "--format", "{{.Mountpoint}}", "data"]);
        self.lab.lab(&["ssh", host, &format!("cd {} && {script}", folder.trim())])
    }

    /// Everything that is to be the same elsewhere.
    fn content(&self, host: &str) -> String {
        self.sh(host, "find . -printf '%p %y %m %U %G %s %n %l\\n' | sort && find . -type f | sort | xargs sha256sum")
    }

    fn until_at(&self, host: &str) {
        until("the volume is there, and nowhere else", 2 * MINUTE, || {
            let volume = self.volume();
            volume["host"] == host && volume["status"] == "IN_USE" && volume["oldCopy"].is_null()
        });
        let with: Vec<&str> =
            self.lab.hosts().into_iter().filter(|host| self.volumes(host).contains(&"data".to_owned())).collect();
        assert_eq!(with, [host]);
        until("its task runs there", MINUTE, || self.lab.running(&[host], "db").len() == 1);
        assert_eq!(self.lab.running(&self.lab.hosts(), "db").len(), 1);
        let lenders = self.lab.truth().into_values().flatten().filter(|(_, (name, _))| name.starts_with("rs-copy-"));
        assert_eq!(lenders.count(), 0);
    }
}

#[test]
#[ignore = "needs a lab"]
fn a_volume_moves_with_its_data_and_what_ended_leaves_nothing() {
    let lab = Lab::up("volumes");
    let controller = Controller::start(&lab, &[("db.yaml", SERVICE)]);
    controller.wait_steady();
    let mut data = Data { lab: &lab, controller };
    let (from, to) = (data.host(), data.elsewhere());
    let fill = "head -c 30000000 /dev/urandom >big && mkdir -m 750 sub && echo one >sub/word && ln sub/word link && \
                ln -s sub/word soft && chown -R 12:34 sub && chmod 600 big";
    data.sh(&from, fill);
    let before = data.content(&from);

    let said = data.controller.cli(&["volume", "move", "data", "--to", to]);
    assert_eq!(said.trim(), format!("volume data is on {to}"));
    data.until_at(to);
    assert_eq!(data.content(to), before);
    let refused = data.controller.try_cli(&["volume", "move", "data", "--to", to]);
    assert_eq!(refused.status.code(), Some(1));

    // Back, with a controller that dies on the way.
    data.controller.cli(&["volume", "move", "data", "--to", &from, "--no-wait"]);
    until("it is being copied", MINUTE, || !data.volume()["copiedBytes"].is_null() || data.host() == from);
    data.controller.kill();
    data.controller.launch();
    until("the controller answers", MINUTE, || data.controller.answers());
    data.until_at(&from);
    assert_eq!(data.content(&from), before);

    let archive = tempfile::tempdir().unwrap();
    let file = archive.path().join("data.tar");
    let said = data.controller.cli(&["volume", "backup", "data", "-f", file.to_str().unwrap()]);
    assert!(said.contains("sha256 "), "{said}");
    let listed = Command::new("tar").arg("-tvf").arg(&file).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("volume/sub/word") && listed.contains("30000000"), "{listed}");

    // Its own volume goes with a task, also when somebody else removes its container.
    let scratch = |data: &Data<'_>| {
        let mut all: Vec<String> = lab.hosts().into_iter().flat_map(|host| data.volumes(host)).collect();
        all.retain(|name| name.starts_with("rs-task-"));
        all
    };
    let old = scratch(&data);
    assert_eq!(old.len(), 1, "{old:?}");
    let (id, _) = lab.truth_of(&from).into_iter().find(|(_, (_, running))| *running).unwrap();
    lab.docker(&from, &["rm", "-f", &id]);
    until("the new task has one, and the old one is gone", MINUTE, || {
        let now = scratch(&data);
        now.len() == 1 && now != old
    });
    assert_eq!(data.content(&from), before);
}

#[test]
#[ignore = "needs a lab"]
fn a_volume_is_restored_from_a_backup_and_from_nothing_else() {
    let lab = Lab::with("restore", "1");
    let controller = Controller::start(&lab, &[("db.yaml", SERVICE)]);
    controller.wait_steady();
    let data = Data { lab: &lab, controller };
    let host = data.host();
    let fill = "head -c 3000000 /dev/urandom >big && mkdir -m 750 sub && echo one >sub/word && ln sub/word link && \
                ln -s sub/word soft && chown -R 12:34 sub && chmod 600 big";
    data.sh(&host, fill);
    let before = data.content(&host);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let saved = data.controller.cli(&["volume", "backup", "data", "-f", &file("data.tar")]);
    data.sh(&host, "echo two >sub/word && rm big && echo more >more");
    let changed = data.content(&host);
    let first = lab.running(&[&host], "db");

    // Cut off, of another folder, and written by another program: nothing is touched.
    let whole = std::fs::read(file("data.tar")).unwrap();
    std::fs::write(file("cut.tar"), &whole[..whole.len() / 2]).unwrap();
    std::fs::create_dir_all(folder.path().join("volume")).unwrap();
    std::fs::write(folder.path().join("volume/x"), "x").unwrap();
    let tar = |name: &str, what: &str| {
        let done =
            Command::new("tar").args(["--format=gnu", "-cf", &file(name), "-C"]).arg(folder.path()).arg(what).status();
        assert!(done.unwrap().success());
    };
    tar("other.tar", "cut.tar");
    tar("gnu.tar", "volume");
    for (name, words) in [("cut.tar", "cut off"), ("other.tar", "does not begin"), ("gnu.tar", "is not what was sent")]
    {
        let refused = data.controller.try_cli(&["volume", "restore", "data", "-f", &file(name)]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && said.contains(words), "{name}: {said}");
        assert_eq!(data.content(&host), changed, "{name}");
    }
    assert_eq!(lab.running(&[&host], "db"), first, "what ran runs on");
    let is_staged = || data.volumes(&host).iter().any(|name| name.starts_with("rs-restore-data"));
    assert!(!is_staged());

    let said = data.controller.cli(&["volume", "restore", "data", "-f", &file("data.tar")]);
    let sum = saved.trim().rsplit(' ').next().unwrap();
    assert!(said.contains(sum) && said.contains("is restored"), "{said}");
    until("its task runs again", MINUTE, || {
        let now = lab.running(&[&host], "db");
        now.len() == 1 && now != first
    });
    assert_eq!(data.content(&host), before);
    until("nothing is left of it", MINUTE, || !is_staged());
    let lenders = lab.truth_of(&host).into_values().filter(|(name, _)| !name.starts_with("rs-db-"));
    assert_eq!(lenders.count(), 0);
}
