//! The fuzz targets over their corpus and over chance, as ordinary tests: see "Fuzzing" in CONTRIBUTING.md.

mod random;
mod targets;

use std::{collections::BTreeMap, fs, path::PathBuf};

use targets::{Reached, TARGETS};

/// What a corpus must still reach: one that is only refused tests nothing.
const MUST_REACH: &[(&str, &[&str])] = &[
    (
        "manifest",
        &[
            "Cluster",
            "Host",
            "TaskDefinition",
            "Service",
            "TargetGroup",
            "LoadBalancer",
            "stays",
            "a broken file",
            "error",
            "warning",
            "read",
            "not read",
        ],
    ),
    ("docker_list", &["ours", "not ours", "malformed", "server error"]),
    ("docker_inspect", &["ours", "not ours", "not there", "port taken", "out of space", "unknown", "malformed"]),
    ("docker_event", &["die", "health", "an event", "another event", "its end", "malformed"]),
    ("labels", &["ours as given", "a claim", "forged", "another fleet's", "foreign"]),
    ("constraint", &["yes", "no", "mistake"]),
    (
        "haproxy",
        &[
            "healthy",
            "unhealthy",
            "initial",
            "a reason",
            "as it was told",
            "otherwise",
            "remains",
            "a state that stays",
        ],
    ),
];

fn corpus(target: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().path()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn holds_over_its_corpus(name: &str) {
    let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).unwrap();
    let mut reached = Reached::new();
    for (path, input) in corpus(name) {
        // Shown when the target panics.
        println!("{}", path.display());
        reached.extend(target(&input));
    }
    let (_, landmarks) = MUST_REACH.iter().find(|(target, _)| *target == name).unwrap();
    let missed: Vec<_> = landmarks.iter().filter(|landmark| !reached.contains(*landmark)).collect();
    assert!(missed.is_empty(), "the corpus no longer reaches {missed:?}, only {reached:?}");
}

macro_rules! targets {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            holds_over_its_corpus(stringify!($target));
        })*

        #[test]
        fn every_target_is_fuzzed_and_tested() {
            let listed: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(listed, [$(stringify!($target)),*]);
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
            for name in listed {
                let text = fs::read_to_string(folder.join(format!("{name}.rs"))).unwrap();
                assert!(text.contains(name), "{name}.rs runs another target");
            }
        }
    };
}

targets! { manifest docker_list docker_inspect docker_event labels constraint haproxy }

#[test]
fn the_corpus_is_small() {
    let all: Vec<(PathBuf, Vec<u8>)> = TARGETS.iter().flat_map(|(name, _)| corpus(name)).collect();
    let bytes: usize = all.iter().map(|(_, input)| input.len()).sum();
    assert!(all.len() <= 300 && bytes <= 1 << 20, "{} files, {bytes} bytes: `fuzz/minimise`", all.len());
}
