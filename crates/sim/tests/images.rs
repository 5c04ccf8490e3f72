//! What an image stands for, asked of the fake engine.

use std::sync::Arc;

use roadstead_control::{
    control::{
        images::Images,
        pulls::{HostPulls, PullBoard},
    },
    engine::{Engine, EngineError},
};
use roadstead_core::model::{
    action::ActionResult,
    image::{ImagePullPolicy, ImageRequest, ResolvedImage},
    time::Timestamp,
};
use roadstead_sim::engine::{FakeEngine, Registry};

const IMAGE: &str = "r.example/demo:1";

fn engine() -> Arc<FakeEngine> {
    let engine = Arc::new(FakeEngine::new(1, Arc::new(|| Timestamp(1))));
    engine.set_registry(IMAGE, Registry::Has);
    engine
}

async fn ask(
    engine: &Arc<FakeEngine>,
    policy: ImagePullPolicy,
    fresh: bool,
    last: Option<&str>,
) -> Result<ResolvedImage, String> {
    let request = ImageRequest { reference: IMAGE.into(), policy, last_digest: last.map(str::to_owned) };
    let engine: Arc<dyn Engine> = Arc::<FakeEngine>::clone(engine);
    let images = Images::new(engine, HostPulls::default(), PullBoard::default(), "task".into());
    match images.resolve(&[request], fresh).await {
        ActionResult::Resolved { mut images } => Ok(images.remove(IMAGE).expect("what was asked for")),
        ActionResult::Failed { reason, .. } | ActionResult::Unknown { reason } | ActionResult::NotSent { reason } => {
            Err(reason)
        }
        ActionResult::Done { .. }
        | ActionResult::Pruned { .. }
        | ActionResult::Partly { .. }
        | ActionResult::Removed { .. } => panic!("no answer"),
    }
}

#[tokio::test]
async fn the_policy_says_who_is_asked() {
    use ImagePullPolicy::{Always, IfNotPresent, Never};
    let engine = engine();
    let absent = ask(&engine, Never, false, None).await.expect_err("it is not there");
    assert!(absent.contains("imagePullPolicy is NEVER"), "{absent}");
    let first = ask(&engine, IfNotPresent, false, None).await.expect("the registry has it");
    assert_eq!(engine.image(IMAGE).await.expect("an answer"), None, "to ask is not to pull");
    engine.pull(IMAGE, &|_| ()).await.expect("a pull");

    engine.push_anew(IMAGE);
    for policy in [IfNotPresent, Never] {
        assert_eq!(ask(&engine, policy, false, None).await.as_ref(), Ok(&first), "{policy:?}");
    }
    let second = ask(&engine, Always, false, None).await.expect("the registry has it");
    assert_ne!(second, first);
    assert_eq!(ask(&engine, IfNotPresent, true, None).await.as_ref(), Ok(&second), "a person wants it anew");
    assert_eq!(ask(&engine, Never, true, None).await.as_ref(), Ok(&first));

    engine.set_registry(IMAGE, Registry::Away);
    assert!(ask(&engine, Always, false, None).await.is_err());
    assert_eq!(ask(&engine, IfNotPresent, true, None).await, Ok(first), "what is there is better than nothing");
}

#[tokio::test]
async fn what_was_loaded_by_hand_is_not_asked_for_in_a_registry() {
    let engine = engine();
    engine.add_image(IMAGE);
    for fresh in [false, true] {
        let image = ask(&engine, ImagePullPolicy::IfNotPresent, fresh, None).await.expect("it is there");
        assert!(matches!(image, ResolvedImage::Local(_)), "{image:?}");
    }
}

#[tokio::test]
async fn without_its_registry_the_last_digest_counts_where_it_is() {
    let engine = engine();
    let ResolvedImage::Digest(digest) =
        ask(&engine, ImagePullPolicy::IfNotPresent, false, None).await.expect("it has it")
    else {
        panic!("no digest");
    };
    let pinned = format!("r.example/demo@{digest}");
    engine.pull(&pinned, &|_| ()).await.expect("by digest");
    assert_eq!(engine.image(IMAGE).await.expect("an answer"), None, "there is no tag");
    assert!(engine.image(&pinned).await.expect("an answer").is_some());

    for away in [Registry::Away, Registry::RateLimited] {
        engine.set_registry(IMAGE, away);
        let known = ask(&engine, ImagePullPolicy::IfNotPresent, false, Some(&digest)).await;
        assert_eq!(known, Ok(ResolvedImage::Digest(digest.clone())), "{away:?}");
        assert!(ask(&engine, ImagePullPolicy::IfNotPresent, false, None).await.is_err());
    }
    engine.set_registry(IMAGE, Registry::Missing);
    assert!(ask(&engine, ImagePullPolicy::IfNotPresent, false, Some(&digest)).await.is_err(), "it was taken away");
    let other = engine.pull("r.example/demo@sha256:00", &|_| ()).await;
    assert!(matches!(other, Err(EngineError::ImageMissing { .. })), "{other:?}");
}
