//! Manifests, from outside: texts in, what is wanted and what is wrong out.

mod cases;
mod good;
mod stays;
mod tls;
mod walk;

use std::path::PathBuf;

use roadstead_core::{
    manifest::{Admission, SourceTree, admit},
    model::desired::Desired,
};

/// Stands for the planner's parser: a lone `=` is a mistake.
fn check_expression(expression: &str) -> Result<(), (usize, String)> {
    match expression.find(" = ") {
        Some(at) => Err((at + 1, "expected `==`".to_owned())),
        None => Ok(()),
    }
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/manifests")
}

fn admitted(texts: &[(&str, &str)], previous: &Desired) -> Admission {
    admit(&SourceTree::from_texts("/srv/manifests", texts.iter().copied()), previous, check_expression)
}
