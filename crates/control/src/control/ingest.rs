//! Manifest files → [`Input::Manifests`]. File events are a hint; the truth is a rescan by content hash.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::crash_point::{Point, reach};
use roadstead_core::{
    manifest::{self, Admission, SourceTree},
    model::{
        desired::Desired,
        diagnostic::{Diagnostic, Place, Severity},
    },
    plan::placement::query,
};

use super::{
    rescan::Rescan,
    seams::{Admit, Source},
};
use roadstead_core::turn::Input;

/// Rescan without any hint.
const RESCAN: Duration = Duration::from_secs(5);

/// Reads the manifests whenever they changed.
pub(super) struct Ingest {
    pub(super) source: Box<dyn Source>,
    pub(super) admit: Admit,
    /// For people.
    pub(super) root: PathBuf,
    /// What is in force: what a broken file declared there stays.
    pub(super) in_force: watch::Receiver<Arc<Desired>>,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) rescan: Arc<Rescan>,
    pub(super) stop: CancellationToken,
}

impl Ingest {
    /// Runs until told to stop.
    pub(super) async fn run(mut self) {
        let mut last = Last { hash: None, desired: Arc::clone(&self.in_force.borrow()), diagnostics: None };
        let mut followed = 0;
        loop {
            let asked = self.rescan.asked();
            match self.source.read().await {
                Ok(tree) => self.report(&mut last, &tree).await,
                // Not being able to read is no evidence that nothing is wanted (S5).
                Err(error) => self.report_unreadable(&mut last, &error).await,
            }
            if asked > followed {
                followed = asked;
                let _ = self.inputs.send(Input::ManifestsRead(asked)).await;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.rescan.wished() => {}
                () = self.source.touched() => {}
                () = sleep(RESCAN) => {}
            }
        }
    }

    /// Reports what is wanted when anything is new.
    async fn report(&self, last: &mut Last, tree: &SourceTree) {
        if last.hash.as_deref() == Some(tree.hash.as_str()) && last.diagnostics.is_some() {
            return;
        }
        reach(Point::ManifestsRead);
        let started = Instant::now();
        let in_force = Arc::clone(&self.in_force.borrow());
        let admission = (self.admit)(tree, &in_force);
        tracing::info!(files = tree.files.len(), took_ms = started.elapsed().as_millis() as u64, "manifests read");
        last.hash = Some(tree.hash.clone());
        last.desired = Arc::new(admission.desired);
        last.diagnostics = Some(admission.diagnostics.clone());
        log(&admission.diagnostics, &admission.broken_files);
        let input = Input::Manifests {
            desired: Arc::clone(&last.desired),
            hash: tree.hash.clone(),
            diagnostics: admission.diagnostics,
        };
        reach(Point::ManifestsAdmitted);
        let _ = self.inputs.send(input).await;
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

/// The real [`Admit`].
pub fn admit(tree: &SourceTree, in_force: &Desired) -> Admission {
    manifest::admit(tree, in_force, check_expression)
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
