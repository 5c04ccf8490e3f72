//! Against an API over a hand-made fleet.

use std::{
    collections::BTreeMap,
    process::{Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use insta::assert_snapshot;
use roadstead::api::{ListenTarget, serve};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UnixStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use roadstead_core::turn::{Command as Order, CommandError};

use super::{
    control::handle::Snapshot,
    engine::Engine,
    fleet::Fleet,
    model::{name::HostName, task::LastStatus, time::Timestamp},
};

/// Against a test that hangs; nothing is timed.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Controller {
    pub endpoint: String,
    stop: CancellationToken,
    fleet: Fleet,
}

impl Controller {
    pub async fn start() -> Self {
        Self::start_with(BTreeMap::new()).await
    }

    pub async fn start_with(engines: BTreeMap<HostName, Arc<dyn Engine>>) -> Self {
        let now = Timestamp(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap());
        let mut fleet = Fleet::new(now, engines).await;
        let path = fleet.folder.path().join("roadstead.sock");
        let stop = CancellationToken::new();
        let (commands, mut orders) = tokio::sync::mpsc::channel::<super::control::handle::CommandEnvelope>(4);
        fleet.handle.commands = commands;
        tokio::spawn(async move {
            while let Some((order, answer)) = orders.recv().await {
                let _ = answer.send(match order {
                    Order::Confirm { .. } => Err(CommandError::Refused("nothing is held under that token".to_owned())),
                    Order::SetSchedulability { host, to, .. } => Ok(format!("{host} is {to:?} \u{1b}[31mnow")),
                    other => Ok(format!("{other:?}")),
                });
            }
        });
        let target = ListenTarget::Unix(path.clone());
        tokio::spawn(serve(fleet.handle.clone(), target, None, stop.clone()));
        while UnixStream::connect(&path).await.is_err() {
            tokio::task::yield_now().await;
        }
        Self { endpoint: format!("unix:{}", path.display()), stop, fleet }
    }

    /// Changes the picture.
    pub fn change(&self, how: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = Snapshot::clone(&self.fleet.handle.snapshot());
        how(&mut snapshot);
        self.fleet.snapshots.send(Arc::new(snapshot)).unwrap();
    }

    /// Runs the program; what it printed and its exit status.
    pub async fn run(&self, arguments: &str) -> (String, String, i32) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roadstead"));
        command
            .args(arguments.split_whitespace())
            .env("ROADSTEAD_ENDPOINT", &self.endpoint)
            .env("NO_COLOR", "1")
            .env_remove("ROADSTEAD_TOKEN");
        let Output { status, stdout, stderr } =
            tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).unwrap().replace(self.fleet.folder.path().to_str().unwrap(), "[FOLDER]")
        };
        (text(stdout), text(stderr), status.code().unwrap())
    }

    /// What a command that succeeds prints.
    async fn out(&self, arguments: &str) -> String {
        let (out, error, status) = self.run(arguments).await;
        assert_eq!((error.as_str(), status), ("", 0), "{arguments}");
        assert!(!out.contains('\u{1b}'), "{arguments} prints a host's escape sequences: {out:?}");
        out
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_good_to_read() {
    let controller = Controller::start().await;
    for (name, arguments) in [
        ("hosts", "get hosts"),
        ("hosts_wide", "get hosts -o wide"),
        ("services", "ls"),
        ("services_wide", "get services -o wide"),
        ("tasks", "ps --all"),
        ("tasks_names", "ps -o name"),
        ("taskdefinitions", "get td"),
        ("deployments", "get deployments"),
        ("clusters", "get clusters -o wide"),
        ("events", "events"),
        ("describe_task", "describe task/bbbb"),
        ("why_service", "why web"),
        ("why_task", "why task/bbbb"),
    ] {
        // Whoever made the table's spaces, nobody needs them at the ends of lines.
        let out = controller.out(arguments).await;
        let moments = regex_lite::Regex::new(r"\d{4}-\d\d-\d\dT[0-9:.]+Z").unwrap();
        assert_snapshot!(name, moments.replace_all(&out, "[TIME]"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_network_is_good_to_read() {
    let controller = Controller::start().await;
    controller.change(super::task_network::lay);
    let outs = [
        "get subnets -o wide",
        "get sg -o wide",
        "ps --service auth",
        "ps --service auth -o wide",
        "get hosts -o wide",
        "describe subnet app-a",
        "describe securitygroup/auth",
    ];
    let mut told = String::new();
    for arguments in outs {
        told.push_str(&format!("$ roadstead {arguments}\n{}\n", controller.out(arguments).await));
    }
    let of_group = "why task/dddd --from 10.1.2.3 --port 8080";
    let refused = "why dddd --from 10.64.16.9 --port 22 --protocol tcp";
    for (arguments, passes) in [(of_group, 0), (refused, 1), ("why dddd --from task/dddd --protocol icmp", 0)] {
        let (out, error, status) = controller.run(arguments).await;
        assert_eq!((error.as_str(), status), ("", passes), "{arguments}");
        told.push_str(&format!("$ roadstead {arguments}\n{out}\n"));
    }
    assert_snapshot!("task_network", told);
    for (arguments, status, words) in [
        ("why dddd --from 10.0.0.0/8 --port 80", 2, "is not one address"),
        ("why dddd --from 10.0.0.1", 2, "to which port?"),
        ("why dddd --from 10.0.0.1 --port 8 --protocol icmp", 2, "icmp has no ports"),
        ("why web --from 10.0.0.1 --port 80", 2, "web is no task"),
        ("why aaaa000000000001 --from 10.0.0.1 --port 80", 1, "has no address of its own"),
        ("why dddd --from ffff --port 80", 1, "there is no task \"ffff\""),
        ("why dddd --port 80", 2, "--from"),
    ] {
        let (_, error, ended) = controller.run(arguments).await;
        assert!(error.contains(words) && ended == status, "{arguments}: {ended} {error}");
    }
    let (_, error, status) = controller.run("logs task/dddd -c task.sandbox").await;
    assert_eq!(
        (error.as_str(), status),
        ("error: there is no container \"task.sandbox\"\n  hint: there is auth, otel\n", 1)
    );
    let (_, error, _) = controller.run("exec task/dddd -c task.sandbox -- true").await;
    assert!(error.contains("it has auth, otel"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn load_balancers_are_good_to_read() {
    let controller = Controller::start().await;
    controller.change(super::traffic::lay);
    let outs = [
        "get targetgroups",
        "get tg -o wide",
        "get targetgroup/shop-blue -o name",
        "describe targetgroup shop-blue",
        "get loadbalancers",
        "get lb -o wide",
        "describe lb/front",
        "get lb --cluster other",
    ];
    let mut told = String::new();
    for arguments in outs {
        let (out, _, _) = controller.run(arguments).await;
        told.push_str(&format!("$ roadstead {arguments}\n{out}\n"));
    }
    assert_snapshot!("traffic", told);
    let (_, error, status) = controller.run("describe targetgroup nope").await;
    assert!(error.contains("targetgroup") && status == 1, "{status} {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_keep_the_contracts_order() {
    let controller = Controller::start().await;
    let out = controller.out("get services web -o json").await;
    assert!(out.starts_with("{\n  \"name\": \"web\",\n  \"cluster\": \"default\",\n  \"status\": \"ACTIVE\""), "{out}");
    let out = controller.out("get hosts -o yaml").await;
    assert!(out.starts_with("---\nitems:\n- name: box-a\n  address: 192.0.2.1\n"), "{out}");
    let plan: serde_json::Value = serde_json::from_str(&controller.out("plan -o json").await).unwrap();
    assert!(plan["actions"].is_array() && plan["waiting"].is_array() && plan["summary"].is_object());
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_statuses_and_messages() {
    let controller = Controller::start().await;
    for (arguments, status, error) in [
        ("get services nope", 1, "error: there is no service \"nope\"\n  hint: `roadstead get services` lists them\n"),
        (
            "get tasks aaaa",
            2,
            "error: several tasks begin with \"aaaa\": aaaa000000000001, aaaa000000000002\n  hint: give more of the id\n",
        ),
        (
            "why nope",
            1,
            "error: there is neither a service nor a task \"nope\"\n  hint: `roadstead get services` and `roadstead get tasks --all` list them\n",
        ),
        ("confirm 1234", 1, "error: nothing is held under that token\n"),
        (
            "host remove box-a",
            1,
            "error: host box-a still has 2 tasks\n  hint: `roadstead host drain box-a` moves them elsewhere first\n",
        ),
        ("exec -t web -- sh", 2, "error: -t needs a terminal on standard input and output\n  hint: leave -t out\n"),
        ("get services --cluster other", 0, "no services found\n"),
    ] {
        assert_eq!(controller.run(arguments).await, (String::new(), error.to_owned(), status), "{arguments}");
    }
    let (out, _, status) = controller.run("status").await;
    assert_eq!(status, 1, "a change is held");
    assert!(out.contains("roadstead confirm 5eed"), "{out}");
    let (out, error, status) = controller.run("host drain box-a").await;
    assert_eq!((out.as_str(), status), ("box-a is Draining now\n", 0));
    assert!(error.contains("get tasks --host box-a -w"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_tells_by_its_status_whether_anything_would_change() {
    let controller = Controller::start().await;
    let folder = controller.fleet.folder.path();
    let good = folder.join("good.yaml");
    let text = "apiVersion: roadstead/v1\nkind: Service\nmetadata: { name: more }\nspec: { taskDefinition: { containerDefinitions: [{ name: c, image: \"demo:1\", memory: 16 }] } }\n";
    std::fs::write(&good, text).unwrap();
    let (out, _, status) = controller.run(&format!("plan --detailed-exitcode -f {}", good.display())).await;
    assert_eq!(status, 2, "{out}");
    assert!(out.contains("more"), "{out}");
    let bad = folder.join("bad.yaml");
    std::fs::write(&bad, text.replace("memory", "memroy")).unwrap();
    let (_, error, status) = controller.run(&format!("plan -f {}", bad.display())).await;
    assert_eq!(status, 1);
    assert!(error.contains("bad.yaml:4") && error.contains("memory"), "{error}");
    let (_, error, status) = controller.run("plan --detailed-exitcode -f /nonexistent").await;
    assert_eq!(status, 1, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_a_directory_shows_what_it_takes_away() {
    let controller = Controller::start().await;
    let service = |name: &str| {
        format!(
            "apiVersion: roadstead/v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec: {{ taskDefinition: {{ containerDefinitions: [{{ name: c, image: \"demo:1\", memory: 16 }}] }} }}\n"
        )
    };
    let folder = controller.fleet.folder.path().join("next");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("more.yaml"), service("more")).unwrap();
    let (out, _, _) = controller.run(&format!("plan -f {}", folder.display())).await;
    for gone in ["- remove   host box-a: ", "- remove   service web: "] {
        assert!(out.contains(gone), "{gone}: {out}");
    }
    assert!(out.contains("this would first be held"), "{out}");
    let (out, _, _) = controller.run(&format!("plan -f {}", folder.join("more.yaml").display())).await;
    assert!(!out.contains("host box-a: the manifests"), "a file takes nothing away: {out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_prints_what_changes_and_ends_with_the_controller() {
    let controller = Controller::start().await;
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_roadstead"));
    program
        .args(["get", "tasks", "--service", "web", "-w", "-o", "name"])
        .env("ROADSTEAD_ENDPOINT", &controller.endpoint);
    let mut program = program.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let mut next = async || timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
    assert_eq!(next().await.as_deref(), Some("task/aaaa000000000001"));
    assert_eq!(next().await.as_deref(), Some("task/aaaa000000000002"));
    controller.change(|snapshot| {
        let task = snapshot.world.state.tasks.get_mut("aaaa000000000002").unwrap();
        Arc::make_mut(task).last_status = LastStatus::Running;
    });
    assert_eq!(next().await.as_deref(), Some("task/aaaa000000000002"), "only what changed");
    controller.stop.cancel();
    assert_eq!(next().await, None);
    assert_eq!(timeout(PATIENCE, program.wait()).await.unwrap().unwrap().code(), Some(2));
}
