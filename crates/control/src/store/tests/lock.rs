//! One controller per folder.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use super::{applied, dir, open, sample};
use crate::store::{Store, StoreError};
use roadstead_core::model::state::Change;

/// In the child process: the folder to hold.
const HOLD: &str = "ROADSTEAD_TEST_HOLD";

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_second_store_is_refused_while_the_first_is_open() {
    let dir = dir();
    let first = open(&dir).await;

    match Store::open(dir.path()).await {
        Err(StoreError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }

    first.close().await.unwrap();
    let second = open(&dir).await;
    drop(second);
    open(&dir).await;
}

/// The holder is this very test in a process of its own.
#[tokio::test]
async fn a_killed_holder_leaves_its_commits_and_no_lock() {
    let change = Change::Task(Arc::new(sample::task("t1", "box-a", &[8080])));
    if let Some(held) = std::env::var_os(HOLD) {
        let store = Store::open(Path::new(&held)).await.unwrap();
        store.commit(std::slice::from_ref(&change), None).await.unwrap();
        println!("\nholding");
        // Until it is killed, or whoever started it is gone.
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let dir = dir();
    let name = "store::tests::lock::a_killed_holder_leaves_its_commits_and_no_lock";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(HOLD, dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let child = Killed(child);
    assert!(output.lines().any(|line| line.unwrap() == "holding"), "the holder did not get the lock");

    let refused = Store::open(dir.path()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Locked { pid, .. } if pid == Some(child.0.id())), "{refused}");

    drop(child);
    assert_eq!(open(&dir).await.load().await.unwrap(), applied(&[change]));
}

#[tokio::test]
async fn nobody_else_may_read_it() {
    let parent = dir();
    let data = parent.path().join("data");

    let store = Store::open(&data).await.unwrap();
    store.commit(&[Change::HostRemoved("box-a".into())], None).await.unwrap();

    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    let files: Vec<_> = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}
