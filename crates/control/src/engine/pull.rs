//! Pulling an image, for as long as it gets on.

use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::call::Call;
use super::error::clip;
use super::{EngineError, Progress, PullProgress};

/// References become parts of request paths.
pub(super) fn check_reference(image: &str) -> Result<(), EngineError> {
    let sane = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-/:@".contains(&byte);
    let begins = image.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins && image.len() <= 512 && image.bytes().all(sane) && !image.contains("..") && !image.contains("//") {
        return Ok(());
    }
    Err(EngineError::Refused { status: 400, message: format!("`{}` is no image reference", clip(image, 80)) })
}

/// Pulls `image`; the call's deadline is for each step.
pub(super) async fn run(call: Call, image: &str, progress: Progress<'_>) -> Result<(), EngineError> {
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
fn tagged(image: &str) -> String {
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
