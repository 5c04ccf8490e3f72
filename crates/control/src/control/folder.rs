//! The watched directory as a [`Source`].

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::seams::Source;
use roadstead_core::manifest::{self, SourceTree};

/// No file event for this long: whoever writes has finished.
pub const QUIET: Duration = Duration::from_millis(200);
/// A folder that is never quiet is read all the same after this.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// A folder and, where the system offers them, its file events.
pub struct Folder {
    root: PathBuf,
    events: Arc<Events>,
    watcher: Option<RecommendedWatcher>,
    watching: bool,
    /// The last text that was handed on.
    known: Option<String>,
    /// So many events had come when they paused; for one reading.
    quiet_at: Option<u64>,
}

#[derive(Default)]
struct Events {
    count: AtomicU64,
    came: Notify,
}

impl Folder {
    /// Nothing is read yet.
    pub fn new(root: PathBuf) -> Self {
        let mut folder = Self::without_events(root);
        let events = Arc::clone(&folder.events);
        folder.watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                events.count.fetch_add(1, Ordering::SeqCst);
                events.came.notify_one();
            }
        })
        .inspect_err(|error| tracing::warn!(%error, "file events are not available: the folder is read now and then"))
        .ok();
        folder
    }

    fn without_events(root: PathBuf) -> Self {
        Self { root, events: Arc::default(), watcher: None, watching: false, known: None, quiet_at: None }
    }

    async fn scan(&self) -> Result<SourceTree, String> {
        let root = self.root.clone();
        let read = tokio::task::spawn_blocking(move || manifest::read_tree(&root, &manifest::Limits::default()));
        match read.await {
            Ok(tree) => tree.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What is new is handed on when nobody writes any more: the events paused before it was read and none came since,
    /// or it reads the same again a while later.
    async fn settled(&mut self) -> Result<SourceTree, String> {
        let quiet_at = self.quiet_at.take();
        let mut tree = self.scan().await?;
        if self.known.as_deref() == Some(tree.hash.as_str())
            || quiet_at.is_some_and(|count| count == self.events.count.load(Ordering::SeqCst))
        {
            return Ok(tree);
        }
        let give_up = Instant::now() + LONGEST_WAIT;
        while Instant::now() < give_up {
            sleep(QUIET).await;
            let again = self.scan().await?;
            let same = again.hash == tree.hash;
            tree = again;
            if same {
                break;
            }
        }
        Ok(tree)
    }
}

#[async_trait]
impl Source for Folder {
    async fn read(&mut self) -> Result<SourceTree, String> {
        if !self.watching
            && let Some(watcher) = &mut self.watcher
        {
            self.watching = watcher.watch(&self.root, RecursiveMode::Recursive).is_ok();
        }
        let tree = self.settled().await;
        self.known = tree.as_ref().ok().map(|tree| tree.hash.clone());
        if tree.is_err() {
            // The folder may be another one when it is back.
            if let Some(watcher) = &mut self.watcher {
                let _ = watcher.unwatch(&self.root);
            }
            self.watching = false;
        }
        tree
    }

    async fn touched(&mut self) {
        self.events.came.notified().await;
        let give_up = Instant::now() + LONGEST_WAIT;
        while Instant::now() < give_up {
            let count = self.events.count.load(Ordering::SeqCst);
            if timeout(QUIET, self.events.came.notified()).await.is_err() {
                self.quiet_at = Some(count);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const FIRST: &str = "kind: Cluster\nmetadata: { name: a }\n";
    const SECOND: &str = "---\nkind: Cluster\nmetadata: { name: b }\n";

    fn texts(tree: &SourceTree) -> Vec<&str> {
        tree.files.values().map(|file| file.text.as_str()).collect()
    }

    /// The clock moves only while everybody waits, so the second half always comes between two readings.
    #[tokio::test(start_paused = true)]
    async fn what_is_being_written_is_not_handed_on() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("fleet.yaml");
        fs::write(&file, FIRST).unwrap();
        let mut folder = Folder::without_events(root.path().to_owned());
        let whole = format!("{FIRST}{SECOND}");
        let writer = async {
            sleep(QUIET / 2).await;
            fs::write(&file, &whole).unwrap();
        };
        let (tree, ()) = tokio::join!(folder.read(), writer);
        assert_eq!(texts(&tree.unwrap()), [whole.as_str()]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_is_never_quiet_is_read_all_the_same() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = Folder::without_events(root.path().to_owned());
        let writer = async {
            for nth in 0.. {
                fs::write(root.path().join("fleet.yaml"), format!("# {nth}\n{FIRST}")).unwrap();
                sleep(QUIET / 2).await;
            }
        };
        tokio::select! {
            tree = folder.read() => assert_eq!(tree.unwrap().files.len(), 1),
            () = writer => {}
            () = sleep(LONGEST_WAIT * 3) => panic!("it waits for ever"),
        }
    }

    #[tokio::test]
    async fn a_change_is_noticed_and_read_once_the_events_pause() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(root.path().to_owned());
        assert!(folder.read().await.unwrap().files.is_empty());
        fs::write(root.path().join("fleet.yaml"), FIRST).unwrap();
        timeout(Duration::from_secs(20), folder.touched()).await.expect("a file event");
        assert_eq!(texts(&folder.read().await.unwrap()), [FIRST]);
    }
}
