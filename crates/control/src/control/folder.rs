//! The watched directory as a [`Source`].

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
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
    touched: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    watching: bool,
}

impl Folder {
    /// Nothing is read yet.
    pub fn new(root: PathBuf) -> Self {
        let touched = Arc::new(Notify::new());
        let hint = Arc::clone(&touched);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                hint.notify_one();
            }
        })
        .inspect_err(|error| tracing::warn!(%error, "file events are not available: the folder is read now and then"))
        .ok();
        Self { root, touched, watcher, watching: false }
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
        let root = self.root.clone();
        let read = tokio::task::spawn_blocking(move || manifest::read_tree(&root, &manifest::Limits::default()));
        let tree = match read.await {
            Ok(tree) => tree.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
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
        self.touched.notified().await;
        let give_up = Instant::now() + LONGEST_WAIT;
        while Instant::now() < give_up {
            if timeout(QUIET, self.touched.notified()).await.is_err() {
                return;
            }
        }
    }
}
