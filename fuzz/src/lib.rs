//! The fuzz targets. What must hold of their inputs stands with the ordinary tests, which run the corpus through the same functions.

#[path = "../../tests/fuzz/targets/mod.rs"]
mod targets;

/// Runs a target by its name; panics when something does not hold.
pub fn run(name: &str, input: &[u8]) {
    let (_, target) = targets::TARGETS.iter().find(|(target, _)| *target == name).expect("a target of that name");
    target(input);
}
