//! A few seeds of the simulator, at every build; a campaign is `roadstead-sim --seeds FROM..TO` in release.

use roadstead::sim::swarm::{Shape, run};

const SEEDS: std::ops::Range<u64> = 0..60;

#[test]
fn no_seed_breaks_a_predicate() {
    let shape = Shape { steps: 120, ..Shape::default() };
    let broken: Vec<String> = SEEDS
        .filter_map(|seed| run(seed, shape, false).broken.map(|broken| (seed, broken)))
        .map(|(seed, broken)| format!("seed {seed}: {} {}", broken.predicate, broken.detail))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn s22_one_seed_gives_one_trace() {
    let shape = Shape { steps: 120, ..Shape::default() };
    for seed in [3, 4_711] {
        assert_eq!(run(seed, shape, true).trace, run(seed, shape, true).trace);
    }
    assert_ne!(run(1, shape, false).hash, run(2, shape, false).hash, "another seed, another run");
}
