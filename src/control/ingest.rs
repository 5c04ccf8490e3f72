//! Manifest files → [`Input::Manifests`]. File events are a hint; the truth is a rescan by content hash.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use notify::{RecursiveMode, Watcher};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    manifest::{self, SourceTree},
    model::{
        desired::Desired,
        diagnostic::{Diagnostic, Place, Severity},
    },
    plan::placement::query,
};

use super::core::Input;

/// No file event for this long: whoever writes has finished.
pub const QUIET: Duration = Duration::from_millis(200);
/// A folder that is never quiet is read all the same after this.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Rescan without any hint.
const RESCAN: Duration = Duration::from_secs(5);

/// Reads the folder whenever it changed.
pub(super) struct Ingest {
    pub(super) root: PathBuf,
    /// What is in force: what a broken file declared there stays.
    pub(super) in_force: watch::Receiver<Arc<Desired>>,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) rescan: Arc<Notify>,
    pub(super) stop: CancellationToken,
}

impl Ingest {
    /// Runs until told to stop.
    pub(super) async fn run(self) {
        let touched = Arc::new(Notify::new());
        let hint = Arc::clone(&touched);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                hint.notify_one();
            }
        })
        .inspect_err(
            |error| tracing::warn!(%error, "file events are not available: the folder is read every {RESCAN:?}"),
        )
        .ok();
        let mut watching = false;
        let mut last = Last { hash: None, desired: Arc::clone(&self.in_force.borrow()), diagnostics: None };
        loop {
            if !watching && let Some(watcher) = &mut watcher {
                watching = watcher.watch(&self.root, RecursiveMode::Recursive).is_ok();
            }
            let read = self.read(&mut last).await;
            if read.is_err() {
                // The folder may be another one when it is back.
                if let Some(watcher) = &mut watcher {
                    let _ = watcher.unwatch(&self.root);
                }
                watching = false;
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.rescan.notified() => {}
                () = sleep(RESCAN) => {}
                () = touched.notified() => quiet(&touched).await,
            }
        }
    }

    /// Reads the folder and reports when anything is new.
    async fn read(&self, last: &mut Last) -> Result<(), ()> {
        let root = self.root.clone();
        let tree = tokio::task::spawn_blocking(move || manifest::read_tree(&root, &manifest::Limits::default())).await;
        let tree: SourceTree = match tree {
            Ok(Ok(tree)) => tree,
            Ok(Err(error)) => {
                // Not being able to read is no evidence that nothing is wanted (S5).
                self.report_unreadable(last, &error.to_string()).await;
                return Err(());
            }
            Err(error) => {
                self.report_unreadable(last, &error.to_string()).await;
                return Err(());
            }
        };
        if last.hash.as_deref() == Some(tree.hash.as_str()) && last.diagnostics.is_some() {
            return Ok(());
        }
        let started = Instant::now();
        let in_force = Arc::clone(&self.in_force.borrow());
        let admission = manifest::admit(&tree, &in_force, check_expression);
        tracing::info!(files = tree.files.len(), took_ms = started.elapsed().as_millis() as u64, "manifests read");
        last.hash = Some(tree.hash.clone());
        last.desired = Arc::new(admission.desired);
        last.diagnostics = Some(admission.diagnostics.clone());
        log(&admission.diagnostics, &admission.broken_files);
        let input = Input::Manifests {
            desired: Arc::clone(&last.desired),
            hash: tree.hash,
            diagnostics: admission.diagnostics,
        };
        let _ = self.inputs.send(input).await;
        Ok(())
    }

    async fn report_unreadable(&self, last: &mut Last, error: &str) {
        let diagnostic = Diagnostic {
            place: Place::default(),
            severity: Severity::Error,
            code: "unreadable".into(),
            message: format!("{error}; what was in force stays in force"),
            also: Vec::new(),
            help: None,
        };
        let diagnostics = vec![diagnostic];
        if last.diagnostics.as_ref() == Some(&diagnostics) {
            return;
        }
        tracing::error!(folder = %self.root.display(), error, "the manifests cannot be read; what was in force stays in force");
        last.diagnostics = Some(diagnostics.clone());
        let hash = last.hash.take().unwrap_or_default();
        let _ = self.inputs.send(Input::Manifests { desired: Arc::clone(&last.desired), hash, diagnostics }).await;
    }
}

struct Last {
    hash: Option<String>,
    desired: Arc<Desired>,
    diagnostics: Option<Vec<Diagnostic>>,
}

/// Waits until nothing was touched for [`QUIET`], and no longer than [`LONGEST_WAIT`].
async fn quiet(touched: &Notify) {
    let give_up = Instant::now() + LONGEST_WAIT;
    while Instant::now() < give_up {
        if timeout(QUIET, touched.notified()).await.is_err() {
            return;
        }
    }
}

/// The planner's own parser checks constraint expressions at admission.
pub fn check_expression(text: &str) -> Result<(), (usize, String)> {
    query::parse(text).map(|_| ()).map_err(|error| (error.offset, error.message))
}

fn log(diagnostics: &[Diagnostic], broken: &BTreeSet<String>) {
    for diagnostic in diagnostics {
        let place = format!("{}:{}:{}", diagnostic.place.file, diagnostic.place.line, diagnostic.place.column);
        match diagnostic.severity {
            Severity::Error => tracing::error!(%place, "{}", diagnostic.message),
            Severity::Warning => tracing::warn!(%place, "{}", diagnostic.message),
            Severity::Notice => tracing::info!(%place, "{}", diagnostic.message),
        }
    }
    for file in broken {
        tracing::warn!(%file, "broken: what it declared before stays in force");
    }
}
