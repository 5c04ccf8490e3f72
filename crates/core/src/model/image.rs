//! Images: references, what they were resolved to, and when a host asks a registry for one.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a registry is asked for an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ImagePullPolicy {
    /// When the host has no image of that name.
    #[default]
    IfNotPresent,
    /// Each time that a tag is resolved.
    Always,
    /// Never: somebody puts the image on the hosts.
    Never,
}

/// What a reference of a revision stands for, for as long as the revision is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ResolvedImage {
    /// A registry's content: every host runs `repository@digest`.
    Digest(String),
    /// Somebody loaded it on the host by hand: it runs by its tag, and this is its content id there.
    Local(String),
}

/// A reference to resolve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageRequest {
    /// As the task definition has it.
    pub reference: String,
    /// When its registry is asked.
    pub policy: ImagePullPolicy,
    /// The digest that it last stood for: still good while the registry does not answer and the host has that image.
    pub last_digest: Option<String>,
}

/// Whether a reference names its content.
pub fn has_digest(reference: &str) -> bool {
    reference.contains('@')
}

/// The digest in `repository@digest`.
pub fn digest(reference: &str) -> Option<&str> {
    reference.split_once('@').map(|(_, digest)| digest)
}

/// A reference without tag and digest.
pub fn repository(reference: &str) -> &str {
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    let path = name.rfind('/').map_or(0, |slash| slash + 1);
    let tag = name.get(path..).and_then(|last| last.find(':'));
    tag.and_then(|tag| name.get(..path + tag)).unwrap_or(name)
}

/// Whether two references are of one repository: Docker Hub's have a short form.
pub fn same_repository(one: &str, other: &str) -> bool {
    short(repository(one)) == short(repository(other))
}

/// What a reference names, in one form for all that name the same: a digest, or without one a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Familiar<'r> {
    repository: &'r str,
    version: Version<'r>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Version<'r> {
    Digest(&'r str),
    Tag(&'r str),
}

/// A reference in its familiar form.
pub fn familiar(reference: &str) -> Familiar<'_> {
    let repository = repository(reference);
    let tag = || reference.get(repository.len() + 1..).filter(|tag| !tag.is_empty()).unwrap_or("latest");
    let version = digest(reference).map_or_else(|| Version::Tag(tag()), Version::Digest);
    Familiar { repository: short(repository), version }
}

impl fmt::Display for Familiar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Version::Digest(digest) => write!(f, "{}@{digest}", self.repository),
            Version::Tag(tag) => write!(f, "{}:{tag}", self.repository),
        }
    }
}

fn short(repository: &str) -> &str {
    let hub = ["docker.io/", "index.docker.io/"].iter().find_map(|hub| repository.strip_prefix(hub));
    let path = hub.unwrap_or(repository);
    path.strip_prefix("library/").filter(|name| !name.contains('/')).unwrap_or(path)
}

impl ResolvedImage {
    /// What a host is asked to run for `reference`.
    pub fn pinned(&self, reference: &str) -> String {
        match self {
            Self::Digest(digest) => format!("{}@{digest}", repository(reference)),
            Self::Local(_) => reference.to_owned(),
        }
    }

    /// What a host is asked to run for `reference`, in its familiar form.
    pub fn familiar<'r>(&'r self, reference: &'r str) -> Familiar<'r> {
        match self {
            Self::Digest(digest) => {
                Familiar { repository: short(repository(reference)), version: Version::Digest(digest) }
            }
            Self::Local(_) => familiar(reference),
        }
    }

    /// The digest, if it has one.
    pub fn digest(&self) -> Option<&str> {
        match self {
            Self::Digest(digest) => Some(digest),
            Self::Local(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_repository_and_a_tag_or_a_digest() {
        for (reference, name) in [
            ("nginx", "nginx"),
            ("nginx:1.27", "nginx"),
            ("r.example:5000/a/b", "r.example:5000/a/b"),
            ("r.example:5000/a/b:v1", "r.example:5000/a/b"),
            ("r.example:5000/a/b:v1@sha256:01", "r.example:5000/a/b"),
            ("nginx@sha256:01", "nginx"),
        ] {
            assert_eq!(repository(reference), name, "{reference}");
        }
        let digest = ResolvedImage::Digest("sha256:01".into());
        for resolved in [&digest, &ResolvedImage::Local("sha256:02".into())] {
            for reference in ["docker.io/library/a", "r.example:5000/a:v1"] {
                assert_eq!(resolved.familiar(reference), familiar(&resolved.pinned(reference)), "{reference}");
            }
        }
        assert_eq!(digest.pinned("r.example:5000/a:v1"), "r.example:5000/a@sha256:01");
        assert_eq!(ResolvedImage::Local("sha256:02".into()).pinned("a:v1"), "a:v1");
    }

    #[test]
    fn docker_hubs_names_have_a_short_form() {
        for (one, other, same) in [
            ("nginx:1", "nginx@sha256:01", true),
            ("docker.io/library/nginx:1", "nginx@sha256:01", true),
            ("index.docker.io/grafana/loki", "grafana/loki:2", true),
            ("library/nginx", "nginx", true),
            ("r.example/nginx", "nginx", false),
            ("r.example/library/nginx", "r.example/nginx", false),
            ("my/nginx", "nginx", false),
        ] {
            assert_eq!(same_repository(one, other), same, "{one} {other}");
        }
    }

    #[test]
    fn a_reference_has_one_form_by_its_digest_or_else_by_its_tag() {
        for (reference, form) in [
            ("nginx", "nginx:latest"),
            ("docker.io/library/nginx:1", "nginx:1"),
            ("r.example:5000/a", "r.example:5000/a:latest"),
            ("r.example:5000/a:1", "r.example:5000/a:1"),
            ("nginx:1@sha256:01", "nginx@sha256:01"),
            ("docker.io/nginx@sha256:01", "nginx@sha256:01"),
            ("", ":latest"),
        ] {
            assert_eq!(familiar(reference).to_string(), form, "{reference}");
        }
    }
}
