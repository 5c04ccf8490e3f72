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
        network::NetworkSeen,
        observed::{EngineIdentity, HostContact, HostObservation},
        state::State,
        time::Timestamp,
        volume::VolumesSeen,
    },
    plan::network::pictures,
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
    // Loaded there by hand, it runs by its tag.
    let local = |image: ImageRequest| (image.reference, ResolvedImage::Local("sha256:1d".into()));
    for _ in 0..5 {
        // The host makes of the task network what it should.
        let confirmed = pictures(&core.world().state).remove("box").filter(|picture| !picture.bridges.is_empty());
        let seen = NetworkSeen {
            at: NOW,
            confirmed,
            under_way: None,
            slices: BTreeMap::new(),
            problem: None,
            public_key: None,
        };
        core.take(NOW, Input::Network("box".into(), seen));
        let mut launches = Vec::new();
        for action in core.decide(NOW).actions {
            let key = action.key();
            match action.verb {
                Verb::Launch { containers } => launches.extend(containers),
                Verb::Resolve { images, .. } => {
                    let result = ActionResult::Resolved { images: images.into_iter().map(local).collect() };
                    core.take(NOW, Input::Answer(Answer { key, host: "box".into(), at: NOW, result }));
                }
                Verb::Stop { .. }
                | Verb::Remove { .. }
                | Verb::Tidy { .. }
                | Verb::Sweep { .. }
                | Verb::Prune { .. } => {}
            }
        }
        if !launches.is_empty() {
            return launches;
        }
    }
    Vec::new()
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
