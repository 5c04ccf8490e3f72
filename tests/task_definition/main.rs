//! Task definitions end to end: manifests in, what Docker is asked to create out; and that the docs say so of every field.

mod docs;
mod ecs;
mod table;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use roadstead_control::{control::ingest::check_expression, engine::create_body};
use roadstead_core::turn::{Core, Input};
use roadstead_core::{
    manifest::{Admission, SourceTree, admit},
    model::{
        action::{ActionResult, Answer, LaunchStep, Verb},
        desired::Desired,
        image::{ImageRequest, ResolvedImage},
        name::HostName,
        observed::{EngineIdentity, HostContact, HostObservation},
        state::State,
        time::Timestamp,
        volume::VolumesSeen,
    },
};
use serde_json::Value;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const HOST: &str =
    "apiVersion: roadstead/v1\nkind: Host\nmetadata: { name: box }\nspec: { address: 198.18.0.11, gpus: 4 }\n";

fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn admitted(files: &[(&str, &str)]) -> Admission {
    admit(&SourceTree::from_texts("/srv/manifests", files.iter().copied()), &Desired::default(), check_expression)
}

/// What a fleet of one big host launches first.
fn launched(desired: &Desired) -> Vec<LaunchStep> {
    let (mut core, _) = Core::new(State::default(), 1, NOW, false);
    let desired = Arc::new(desired.clone());
    core.take(NOW, Input::Manifests { desired, hash: "1".into(), diagnostics: Vec::new() });
    let contact = HostContact {
        watched_since: NOW,
        engine_answered_at: Some(NOW),
        link_answered_at: Some(NOW),
        ..HostContact::default()
    };
    core.take(NOW, Input::Contacts([(HostName::from("box"), contact)].into()));
    let identity = EngineIdentity {
        engine_id: "box".into(),
        architecture: "X86_64".into(),
        cpus: 32,
        memory_mib: 262_144,
        ..EngineIdentity::default()
    };
    let look = HostObservation {
        host: "box".into(),
        started_at: NOW,
        finished_at: NOW,
        identity,
        containers: BTreeMap::new(),
    };
    core.take(NOW, Input::Volumes("box".into(), VolumesSeen::default()));
    core.take(NOW, Input::Look(Arc::new(look)));
    let mut plan = core.decide(NOW);
    // Loaded there by hand, it runs by its tag.
    let asked = plan.actions.iter().find_map(|action| match &action.verb {
        Verb::Resolve { images, .. } => Some((action.key(), images.clone())),
        Verb::Launch { .. }
        | Verb::Stop { .. }
        | Verb::Remove { .. }
        | Verb::Tidy { .. }
        | Verb::Sweep { .. }
        | Verb::Prune { .. } => None,
    });
    if let Some((key, images)) = asked {
        let local = |image: ImageRequest| (image.reference, ResolvedImage::Local("sha256:1d".into()));
        let result = ActionResult::Resolved { images: images.into_iter().map(local).collect() };
        core.take(NOW, Input::Answer(Answer { key, host: "box".into(), at: NOW, result }));
        plan = core.decide(NOW);
    }
    let launches = plan.actions.into_iter().filter_map(|action| match action.verb {
        Verb::Launch { containers } => Some(containers),
        Verb::Resolve { .. }
        | Verb::Stop { .. }
        | Verb::Remove { .. }
        | Verb::Tidy { .. }
        | Verb::Sweep { .. }
        | Verb::Prune { .. } => None,
    });
    launches.flatten().collect()
}

/// The bodies of Docker's create requests by container, with `TASK` for the task's id.
fn bodies(steps: &[LaunchStep]) -> BTreeMap<String, Value> {
    let body = |step: &LaunchStep| {
        let text = serde_json::to_string(&create_body(&step.config).unwrap()).unwrap();
        let text = text.replace(&step.config.labels["dev.roadstead.task"], "TASK");
        (step.container.to_string(), serde_json::from_str(&text).unwrap())
    };
    steps.iter().map(body).collect()
}
