//! What must hold of hostile bytes, one function per fuzz target: it panics when something does not.
//!
//! Each returns what it [`Reached`], so that a test can tell a corpus that arrives from one that is only refused.

pub mod constraint;
pub mod docker;
pub mod haproxy;
pub mod labels;
pub mod manifest;

use std::collections::BTreeSet;

/// Landmarks that an input passed.
pub type Reached = BTreeSet<&'static str>;

/// A target by its name.
pub type Target = (&'static str, fn(&[u8]) -> Reached);

/// Every target: a new one gets a row here and a file in `fuzz/fuzz_targets`.
pub const TARGETS: &[Target] = &[
    ("manifest", manifest::admission),
    ("docker_list", docker::list),
    ("docker_inspect", docker::inspect),
    ("docker_event", docker::events),
    ("labels", labels::ownership),
    ("constraint", constraint::language),
    ("haproxy", haproxy::answers),
];

/// The first two parts of an input that a line `~~~` divides; the second is empty where there is none.
fn parts(input: &[u8]) -> (&[u8], &[u8]) {
    const DIVIDER: &[u8] = b"\n~~~\n";
    match input.windows(DIVIDER.len()).position(|window| window == DIVIDER) {
        Some(at) => (&input[..at], &input[at + DIVIDER.len()..]),
        None => (input, &[]),
    }
}

/// Text of others that people will read: bounded, and nothing that a terminal would obey.
fn assert_readable(text: &str, max_bytes: usize) {
    assert!(text.len() <= max_bytes, "{} bytes, {max_bytes} are the most: {text:.200?}…", text.len());
    assert!(!text.contains(char::is_control), "control characters in {text:?}");
}
