//! Whatever the bytes: no panic, an end, and every finding inside its file.

use proptest::prelude::*;
use roadstead::{
    manifest::{SourceTree, admit, render},
    model::{
        desired::Desired,
        diagnostic::{Diagnostic, Place},
    },
};

use crate::{check_expression, fixtures};

fn inside(place: &Place, tree: &SourceTree) -> Result<(), TestCaseError> {
    let file = tree.files.get(&place.file).ok_or_else(|| TestCaseError::fail(format!("no file {}", place.file)))?;
    prop_assert!((1..=file.line_count()).contains(&place.line), "line {} of {}", place.line, file.line_count());
    let chars = file.line(place.line).chars().count() as u32;
    prop_assert!(place.column >= 1 && place.column <= chars + 1, "column {} of {chars}", place.column);
    prop_assert!(
        place.length >= 1 && place.column + place.length <= chars + 2,
        "{} + {} of {chars}",
        place.column,
        place.length
    );
    prop_assert!(!place.snippet.contains(char::is_control), "{:?}", place.snippet);
    Ok(())
}

fn holds(name: &str, text: &str) -> Result<(), TestCaseError> {
    let tree = SourceTree::from_texts("/srv/manifests", [(name, text)]);
    let admission = admit(&tree, &Desired::default(), check_expression);
    for diagnostic in &admission.diagnostics {
        inside(&diagnostic.place, &tree)?;
        diagnostic.also.iter().try_for_each(|place| inside(place, &tree))?;
        let json = serde_json::to_string(diagnostic).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Diagnostic>(&json).unwrap(), diagnostic);
    }
    prop_assert_eq!(admission.has_errors(), admission.diagnostics.iter().any(Diagnostic::is_error));
    let drawn = render(&admission.diagnostics, false);
    prop_assert!(!drawn.contains(char::from(27)));
    // Admitted again on top of itself nothing moves.
    prop_assert_eq!(admit(&tree, &admission.desired, check_expression).desired, admission.desired);
    Ok(())
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
        holds(if json { "a.json" } else { "a.yaml" }, &text)?;
    }

    #[test]
    fn any_sequence_of_pieces_is_judged(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..60)) {
        holds("a.yaml", &pieces.concat())?;
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
        holds(if json { "a.json" } else { "a.yaml" }, &chars.into_iter().collect::<String>())?;
    }
}
