//! Images on a host: looking, pulling for as long as it gets on, and removing.

use std::collections::BTreeMap;

use bollard::auth::DockerCredentials;
use bollard::models::{CreateImageInfo, ImageInspect, ImageSummary};
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptions, RemoveImageOptionsBuilder};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::call::Call;
use super::error::clip;
use super::{DockerEngine, EngineError, ImageFacts, Progress, PullProgress};
use roadstead_core::model::{image, storage::StoredImage};

/// A longer name of an image is cut, and then it is no name of ours.
const NAME_MAX_BYTES: usize = 512;

impl DockerEngine {
    pub(super) async fn stored_images(&self) -> Result<BTreeMap<String, StoredImage>, EngineError> {
        let call = self.call("list images", self.question()).await?;
        let docker = call.docker()?;
        let images = self.run(&call, docker.list_images(None::<ListImagesOptions>)).await?;
        if images.len() > self.limits.images {
            return Err(call.malformed(&format!("more than {} images", self.limits.images)));
        }
        images
            .into_iter()
            .map(stored)
            .map(|image| image.ok_or_else(|| call.malformed("an image without an id")))
            .collect()
    }

    /// Never by force, and no parent of it that somebody may have built upon.
    pub(super) async fn remove_one_image(&self, id: &str) -> Result<(), EngineError> {
        let Some(id) = checked_digest(Some(id)) else {
            let message = format!("`{}` is no image id", clip(id, 80));
            return Err(EngineError::Refused { status: 400, message });
        };
        let call = self.call(format!("remove image {id:.19}"), self.change(self.limits.remove)).await?;
        let docker = call.docker()?;
        let options = RemoveImageOptionsBuilder::new().force(false).noprune(true).build();
        match self.run(&call, docker.remove_image(&id, Some(options), None::<DockerCredentials>)).await {
            Ok(_) | Err(EngineError::NotFound { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }
}

/// None when the answer is no image. Docker writes `<none>` for a name that is missing.
fn stored(answer: ImageSummary) -> Option<(String, StoredImage)> {
    let id = checked_digest(Some(&answer.id))?;
    let names = |names: Vec<String>| {
        let names = names.iter().filter(|name| !name.starts_with("<none>"));
        names.map(|name| clip(name, NAME_MAX_BYTES)).collect()
    };
    let (tags, digests) = (names(answer.repo_tags), names(answer.repo_digests));
    Some((id, StoredImage { tags, digests, size_bytes: u64::try_from(answer.size).unwrap_or_default() }))
}

/// References become parts of request paths.
pub(super) fn check_reference(image: &str) -> Result<(), EngineError> {
    let sane = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-/:@".contains(&byte);
    let begins = image.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins && image.len() <= 512 && image.bytes().all(sane) && !image.contains("..") && !image.contains("//") {
        return Ok(());
    }
    Err(EngineError::Refused { status: 400, message: format!("`{}` is no image reference", clip(image, 80)) })
}

/// None when the answer is no image.
pub(super) fn facts(reference: &str, answer: ImageInspect) -> Option<ImageFacts> {
    let id = answer.id.filter(|id| !id.is_empty())?;
    let digests = answer.repo_digests.unwrap_or_default();
    let of_repository = digests.iter().filter(|known| image::same_repository(known, reference));
    let asked = image::digest(reference);
    let digest = of_repository
        .filter_map(|known| checked_digest(image::digest(known)))
        .find(|digest| asked.is_none_or(|asked| asked == digest));
    Some(ImageFacts { id: clip(&id, 256), digest })
}

/// A digest becomes part of a reference.
pub(super) fn checked_digest(digest: Option<&str>) -> Option<String> {
    let (algorithm, hex) = digest?.split_once(':')?;
    let is_hex = (32..=128).contains(&hex.len()) && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_word =
        !algorithm.is_empty() && algorithm.len() <= 16 && algorithm.bytes().all(|b| b.is_ascii_alphanumeric());
    (is_hex && is_word).then(|| format!("{algorithm}:{hex}"))
}

/// Pulls `image`; the call's deadline is for each step.
pub(super) async fn pull(call: Call, image: &str, progress: Progress<'_>) -> Result<(), EngineError> {
    let docker = call.docker()?;
    let call = call.for_image(image);
    let (deadline, what) = (call.deadline(), call.what().to_owned());
    let options = CreateImageOptionsBuilder::new().from_image(&tagged(image)).build();
    let mut steps = call.stream(docker.create_image(Some(options), None, None)).await?;
    loop {
        match timeout(deadline, steps.next()).await {
            Ok(Some(step)) => progress(words(step?)),
            Ok(None) => return Ok(()),
            Err(_) => {
                let reason = format!("no progress in {deadline:?}");
                return Err(EngineError::OutcomeUnknown { what, reason });
            }
        }
    }
}

/// Without a tag Docker would pull all there are.
pub(super) fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) {
        return image.to_owned();
    }
    format!("{image}:latest")
}

fn words(step: CreateImageInfo) -> PullProgress {
    let detail = step.progress_detail.unwrap_or_default();
    let bytes = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
    PullProgress {
        layer: clip(&step.id.unwrap_or_default(), 64),
        status: clip(&step.status.unwrap_or_default(), 128),
        current_bytes: bytes(detail.current),
        total_bytes: bytes(detail.total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_cannot_leave_their_path() {
        for good in ["nginx", "nginx:1.27", "r.example:5000/a/b_c:v1", "a@sha256:0123"] {
            assert!(check_reference(good).is_ok(), "{good}");
        }
        for bad in ["", "-x", "../x", "a/../../b", "a?force=1", "a#b", "a b", "a//b", "a%2e", &"a".repeat(513)] {
            assert!(check_reference(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_digest_is_that_of_the_repository_that_was_asked_for() {
        let hex = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let with = |digests: &[String]| ImageInspect {
            id: Some("sha256:1d".into()),
            repo_digests: Some(digests.to_vec()),
            ..ImageInspect::default()
        };
        let both = with(&[format!("other/demo@{}", hex("a")), format!("r.example:5000/demo@{}", hex("b"))]);
        let digest = |reference: &str| facts(reference, both.clone()).unwrap().digest;
        assert_eq!(digest("r.example:5000/demo:1"), Some(hex("b")));
        assert_eq!(digest("other/demo:1"), Some(hex("a")));
        assert_eq!(digest("demo:1"), None, "tagged by hand");
        assert_eq!(facts("demo:1", ImageInspect::default()), None);
        for bad in ["b", "sha256:", "sha256:../../x", "sha256:zz", &format!("sha256:{}", "a".repeat(999))] {
            assert_eq!(facts("demo", with(&[format!("demo@{bad}")])).unwrap().digest, None, "{bad}");
        }
    }

    #[test]
    fn one_tag_is_pulled() {
        for (image, full) in [
            ("nginx", "nginx:latest"),
            ("r.example:5000/a", "r.example:5000/a:latest"),
            ("nginx:1.27", "nginx:1.27"),
            ("a@sha256:01", "a@sha256:01"),
        ] {
            assert_eq!(tagged(image), full);
        }
    }
}
