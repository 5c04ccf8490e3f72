//! Manifests from chance, for what holds of every text: broader than the corpus, and other each time.

use std::path::PathBuf;

use proptest::prelude::*;

use crate::targets::manifest::admission;

fn holds(name: &str, text: &str) {
    admission(format!("== {name}\n{text}").as_bytes());
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/manifests")
}

fn good_texts() -> Vec<String> {
    let mut texts: Vec<String> = ["smallest.yaml", "full.yaml", "described.json", "human.yaml"]
        .iter()
        .map(|name| std::fs::read_to_string(fixtures().join("good").join(name)).unwrap())
        .collect();
    for theme in ["fields", "host", "service", "task"] {
        let bad = std::fs::read_to_string(fixtures().join(format!("bad/{theme}.txt"))).unwrap();
        texts.extend(bad.split("### ").skip(1).filter_map(|case| Some(case.split_once('\n')?.1.to_owned())));
    }
    texts
}

/// Pieces that mean something to YAML or to us.
const PIECES: &[&str] = &[
    "",
    "\n",
    "  ",
    "\t",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "'",
    "\"",
    "|\n",
    ">\n",
    "&a ",
    "*a",
    "<<: *a",
    "!!str ",
    "!x ",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "#",
    "null",
    "~",
    "-1",
    "99999999999",
    "é",
    "\u{1b}[31m",
    "\r\n",
    "\u{feff}",
    "\u{202e}",
    "spec",
    "name",
    "true",
    "name: ",
    "? ",
    "\\",
    "@",
    "`",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_judged(text in any::<String>(), json in any::<bool>()) {
        holds(if json { "a.json" } else { "a.yaml" }, &text);
    }

    #[test]
    fn any_sequence_of_pieces_is_judged(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..60)) {
        holds("a.yaml", &pieces.concat());
    }

    #[test]
    fn manifests_with_slips_are_judged(
        text in prop::sample::select(good_texts()),
        slips in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, prop::sample::select(PIECES)), 1..6),
        json in any::<bool>(),
    ) {
        let mut chars: Vec<char> = text.chars().collect();
        for (index, removed, piece) in slips {
            let start = index.index(chars.len() + 1);
            let end = (start + removed).min(chars.len());
            chars.splice(start..end, piece.chars());
        }
        holds(if json { "a.json" } else { "a.yaml" }, &chars.into_iter().collect::<String>());
    }
}
