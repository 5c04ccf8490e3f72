//! What would happen: the watched manifests, with some texts put over them, planned to the end on a copy.

use std::{path::Path, sync::Arc};

use crate::{
    manifest,
    model::{
        diagnostic::{Diagnostic, Place, Severity},
        report::Waiting,
        world::{Plan, Subject},
    },
    plan::{absorb, forecast},
};

use super::{
    handle::{Snapshot, WhatIf},
    ingest::check_expression,
};

/// Plans on a copy.
pub(super) fn answer(
    snapshot: &Snapshot,
    root: &Path,
    question: &WhatIf,
) -> Result<(Plan, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut tree = manifest::read_tree(root, &manifest::Limits::default()).map_err(|error| {
        vec![Diagnostic {
            place: Place::default(),
            severity: Severity::Error,
            code: "unreadable".into(),
            message: error.to_string(),
            also: Vec::new(),
            help: None,
        }]
    })?;
    for (path, text) in &question.files {
        tree.put(path.as_str(), text.as_str());
    }
    let admission = manifest::admit(&tree, &snapshot.world.state.desired, check_expression);
    if admission.has_errors() {
        return Err(admission.diagnostics);
    }
    let mut world = snapshot.world.clone();
    let desired = Arc::new(admission.desired);
    let verdict = absorb::desired(&world.state, &desired, "forecast", world.now);
    world.state.desired = desired;
    let mut plan = forecast::forecast(&world);
    if let absorb::SyncVerdict::Held(held, _) = verdict {
        plan.report.waiting.insert(
            0,
            Waiting {
                subject: Subject::Fleet,
                reason: format!("this would first be held: {}", held.reason),
                wakes_when: "you say `roadstead confirm TOKEN` with the token that is printed then".to_owned(),
                wakes_at: None,
            },
        );
    }
    Ok((plan, admission.diagnostics))
}
