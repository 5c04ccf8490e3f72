//! What would happen: the watched manifests, with some texts put over them, planned to the end on a copy.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use roadstead_core::{
    manifest::{self, SourceTree},
    model::{
        desired::Desired,
        diagnostic::{Diagnostic, Place, Severity},
        report::Waiting,
        spec::{KINDS, Kind},
        world::Subject,
    },
    plan::{absorb, forecast},
};

use super::{
    handle::{Forecast, Snapshot, WhatIf},
    ingest::check_expression,
};

/// Plans on a copy.
pub(super) fn answer(snapshot: &Snapshot, root: &Path, question: &WhatIf) -> Result<Forecast, Vec<Diagnostic>> {
    let tree = SourceTree { images: question.images.clone(), ..tree(root, question)? };
    let admission = manifest::admit(&tree, &snapshot.world.state.desired, check_expression);
    if admission.has_errors() {
        return Err(admission.diagnostics);
    }
    let mut world = snapshot.world.clone();
    let desired = Arc::new(admission.desired);
    let removed = removed(&world.state.desired, &desired);
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
    Ok(Forecast { plan, removed, diagnostics: admission.diagnostics })
}

/// The texts that the question is about.
fn tree(root: &Path, question: &WhatIf) -> Result<SourceTree, Vec<Diagnostic>> {
    if question.whole {
        return Ok(SourceTree::from_texts(
            root,
            question.files.iter().map(|(path, text)| (path.as_str(), text.as_str())),
        ));
    }
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
    Ok(tree)
}

/// What is in force and would be no longer.
fn removed(before: &Desired, after: &Desired) -> Vec<(Kind, String)> {
    KINDS
        .iter()
        .flat_map(|row| {
            let names: Vec<&str> = match row.kind {
                Kind::Cluster => gone(&before.clusters, &after.clusters),
                Kind::Host => gone(&before.hosts, &after.hosts),
                Kind::TaskDefinition => gone(&before.task_definitions, &after.task_definitions),
                Kind::Service => gone(&before.services, &after.services),
                Kind::ScheduledTask => gone(&before.scheduled_tasks, &after.scheduled_tasks),
                Kind::Subnet => gone(&before.subnets, &after.subnets),
                Kind::SecurityGroup => gone(&before.security_groups, &after.security_groups),
                Kind::TargetGroup => gone(&before.target_groups, &after.target_groups),
                Kind::LoadBalancer => gone(&before.load_balancers, &after.load_balancers),
            };
            names.into_iter().map(|name| (row.kind, name.to_owned()))
        })
        .collect()
}

fn gone<'a, K: Ord + AsRef<str>, V>(before: &'a BTreeMap<K, V>, after: &BTreeMap<K, V>) -> Vec<&'a str> {
    before.keys().filter(|name| !after.contains_key(*name)).map(AsRef::as_ref).collect()
}
