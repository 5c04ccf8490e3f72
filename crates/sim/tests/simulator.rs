//! A few scenarios at every build, and every scenario that once broke. What runs in thousands is in `deploy/test`, through
//! the program `roadstead-sim`.

use std::{fs, path::Path};

use roadstead_sim::{
    Tell, run,
    scenario::{Scenario, Shape, draw},
    search::{chain_breaks, crash_points, stories},
};

const SEEDS: std::ops::Range<u64> = 0..12;

fn shape() -> Shape {
    Shape { faults_ms: 40_000, ..Shape::default() }
}

#[test]
fn no_seed_breaks_a_predicate() {
    let broken: Vec<String> = SEEDS
        .filter_map(|seed| run(&draw(seed, shape()), Tell::Nothing).broken.map(|broken| (seed, broken)))
        .map(|(seed, broken)| format!("seed {seed}: {broken}"))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn scenarios_that_once_broke_do_not_break_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seeds");
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("the folder of seeds") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a file");
        let scenario: Scenario = serde_json::from_str(&text).expect("a scenario");
        let outcome = run(&scenario, Tell::Nothing);
        assert!(outcome.broken.is_none(), "{}: {}", path.display(), outcome.broken.expect("broken"));
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn s22_one_seed_gives_one_trace() {
    for seed in [3, 4_711] {
        let (one, two) = (run(&draw(seed, shape()), Tell::Keep), run(&draw(seed, shape()), Tell::Keep));
        assert_eq!(one.trace, two.trace);
        assert_eq!(one.hash, two.hash);
    }
    let hash = |seed| run(&draw(seed, shape()), Tell::Nothing).hash;
    assert_ne!(hash(1), hash(2), "another seed, another run");
}

#[test]
fn stories_end_well() {
    for story in stories() {
        let outcome = run(&story.scenario, Tell::Keep);
        assert!(outcome.broken.is_none(), "{}:\n{}", story.name, outcome.trace.join("\n"));
    }
}

#[test]
fn there_is_a_point_for_each_step() {
    assert!(crash_points().count() > 500);
}

#[test]
fn chains_end_as_their_last_manifests_alone() {
    for seed in 0..2 {
        assert_eq!(chain_breaks(seed), Ok(()), "seed {seed}");
    }
}
