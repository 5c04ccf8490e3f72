//! Image references, by the grammar of the `distribution` project: `[registry[:port]/]path[:tag][@digest]`.

use std::sync::LazyLock;

use regex_lite::Regex;

use crate::manifest::{
    node::Step,
    report::{Scope, quote},
    variables::placeholder,
};

static REFERENCE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let domain = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?";
    let component = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*";
    let tag = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}";
    let digest = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
    Regex::new(&format!(r"^(?:{domain}/)?{component}(?:/{component})*(?::{tag})?(?:@{digest})?$")).ok()
});

/// Longer than any registry takes.
const LONGEST: usize = 1024;

/// Checks an image reference.
pub fn check(image: &str, path: &[Step<'_>], scope: &mut Scope<'_>) {
    if let Some(name) = placeholder(image) {
        scope
            .error(
                path,
                "placeholder",
                format!("{} is a placeholder that a CodePipeline fills in, not an image", quote(image)),
            )
            .label("nothing has filled it in")
            .help(format!(
                "fill it in beside `spec`, or beside what ECS prints: `variables: {{ {name}: registry.example.com/auth:1.4 }}`; `--image {name}=…` tries one"
            ));
        return;
    }
    if image.len() <= LONGEST && REFERENCE.as_ref().is_none_or(|reference| reference.is_match(image)) {
        return;
    }
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let help = if image.is_empty() {
        "write an image such as `nginx:1.27`".to_owned()
    } else if image.contains("${") || image.contains("{{") {
        "variables are not filled in here: write the image itself".to_owned()
    } else if image.contains("://") {
        "leave the scheme out: `registry.example.com/auth:1.4`".to_owned()
    } else if image.trim() != image || image.contains(' ') {
        "an image has no blanks".to_owned()
    } else if name
        .rsplit_once('/')
        .map_or(name, |(_, last)| last)
        .split(':')
        .next()
        .is_some_and(|last| last.contains(|c: char| c.is_ascii_uppercase()))
    {
        "repository names are lower case".to_owned()
    } else {
        "it is `[registry[:port]/]name[:tag][@sha256:…]`".to_owned()
    };
    scope.error(path, "bad-image", format!("{} is not an image reference", quote(image))).help(help);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_from_other_words() {
        let good = |image: &str| REFERENCE.as_ref().unwrap().is_match(image);
        let digest = "a".repeat(64);
        for image in [
            "nginx",
            "nginx:1.27",
            "library/nginx",
            "localhost:5000/a/b:v1",
            "registry.example.com/auth:1.4",
            "198.18.0.1:5000/x_y/z__a--b:T.1",
        ] {
            assert!(good(image), "{image}");
            assert!(good(&format!("{image}@sha256:{digest}")), "{image}");
        }
        for image in [
            "",
            "Nginx",
            "nginx:",
            "nginx:a:b",
            "/nginx",
            "a//b",
            "nginx@sha256:12",
            "-nginx",
            "a b",
            "nginx:1.27 ",
            "http://x/y",
        ] {
            assert!(!good(image), "{image}");
        }
    }
}
