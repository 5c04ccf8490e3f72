//! Immutable revisions: a changed task definition gets the next number of its family.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{
    name::{Family, RevisionId},
    spec::service::{ServiceSpec, TaskDefinitionRef},
    state::{Revision, State},
    world::Subject,
};

use super::{draft::Draft, rollout};

/// Gives new content a number, content to revisions known only by their hash, and every service its target.
pub(super) fn number(draft: &mut Draft<'_>) {
    let world = draft.world;
    for (family, manifest) in &world.state.desired.task_definitions {
        let (hash, spec) = (manifest.spec.hash(), manifest.spec.spec());
        let known = world.state.revisions.get(family);
        let latest = known.and_then(|revisions| revisions.values().next_back());
        match latest {
            Some(latest) if latest.hash == hash && latest.spec.is_some() => {}
            Some(latest) if latest.hash == hash => {
                draft.put_revision(Revision { spec: Some(Arc::clone(spec)), ..latest.clone() });
            }
            Some(_) | None => {
                let number = latest.map_or(0, |latest| latest.id.number) + 1;
                let id = RevisionId { family: family.clone(), number };
                draft.put_revision(Revision {
                    id: id.clone(),
                    hash: hash.to_owned(),
                    spec: Some(Arc::clone(spec)),
                    images: BTreeMap::new(),
                    created_at: draft.now(),
                });
            }
        }
    }
    for no in 0..draft.services.len() {
        let service = &draft.services[no];
        let wanted = wanted(draft, &service.manifest.spec);
        let target = wanted.as_ref().map(|wanted| rollout::target(draft, service.record(), wanted));
        let target = target.map_err(String::clone);
        let service = &mut draft.services[no];
        (service.wanted, service.target) = (Some(wanted), Some(target));
    }
}

/// The revision that a service asks for: the named one, or its family's newest.
///
/// # Errors
/// A sentence that says what is missing.
fn wanted(draft: &Draft<'_>, spec: &ServiceSpec) -> Result<RevisionId, String> {
    match &spec.task_definition {
        TaskDefinitionRef::Named(name) => named(draft, name),
        TaskDefinitionRef::Inline(_) => Err("its task definition was not resolved".to_owned()),
    }
}

/// The revision that `family:number` names; of a family the one that its manifest asks for.
///
/// # Errors
/// A sentence that says what is missing.
pub(super) fn named(draft: &Draft<'_>, name: &str) -> Result<RevisionId, String> {
    if name.contains(':')
        && let Ok(id) = name.parse::<RevisionId>()
    {
        return match draft.revision(&id) {
            Some(revision) if revision.spec.is_some() => Ok(id),
            Some(_) => Err(format!("the content of {id} is not known any more; name a newer revision")),
            None => Err(format!("there is no revision {id}")),
        };
    }
    let declared = draft.world.state.desired.task_definitions.get_key_value(name);
    let (family, manifest) = declared.ok_or_else(|| format!("there is no TaskDefinition {name}"))?;
    draft.newest_with_hash(family, manifest.spec.hash()).ok_or_else(|| format!("{name} has no revision yet"))
}

/// The same between two plans; `None` when nothing has that content yet.
pub(super) fn wanted_of(state: &State, spec: &ServiceSpec) -> Option<RevisionId> {
    let TaskDefinitionRef::Named(name) = &spec.task_definition else { return None };
    if name.contains(':') {
        return name.parse().ok();
    }
    let (family, manifest) = state.desired.task_definitions.get_key_value(name.as_str())?;
    find_by_hash(state, family, manifest.spec.hash())
}

/// The revision of a family with this content, whatever its number; the newest of them.
pub(super) fn find_by_hash(state: &State, family: &Family, hash: &str) -> Option<RevisionId> {
    state
        .revisions
        .get(family)?
        .values()
        .rev()
        .find(|revision| revision.hash == hash)
        .map(|revision| revision.id.clone())
}

/// Says why a service cannot be acted on.
pub(super) fn report_unresolved(draft: &mut Draft<'_>, subject: Subject, reason: String) {
    draft.waiting(subject, reason, "the manifests change", None);
}
