//! Placement expressions. Input: an expression; after `~~~`, one word per line that hosts have as values.

use std::collections::BTreeMap;

use roadstead_core::plan::placement::query::{Expr, HostAttrs, MAX_LENGTH, parse};

use super::{Reached, parts};

/// Parsed, written back and parsed again an expression is the same and means the same; a mistake is told inside the text.
pub fn language(input: &[u8]) -> Reached {
    let mut reached = Reached::new();
    let (text, words) = parts(input);
    let (text, words) = (String::from_utf8_lossy(text), String::from_utf8_lossy(words));
    let expr = match parse(&text) {
        Ok(expr) => expr,
        Err(error) => {
            assert!(text.get(error.offset..).is_some(), "{error} lies outside of {text:?}");
            assert!(error.message.len() <= 4 * MAX_LENGTH, "{} bytes", error.message.len());
            reached.insert("mistake");
            return reached;
        }
    };
    assert!(text.len() <= MAX_LENGTH);
    let written = expr.to_string();
    if written.len() <= MAX_LENGTH {
        let again = parse(&written).unwrap_or_else(|error| panic!("{text:?} is written {written:?}: {error}"));
        assert_eq!(again, expr, "{text:?} is written {written:?}");
        assert_eq!(again.to_string(), written);
        judge(&expr, &again, &words, &mut reached);
    }
    reached
}

/// Asks both about hosts with and without labels and groups.
fn judge(expr: &Expr, again: &Expr, words: &str, reached: &mut Reached) {
    let words: Vec<&str> = words.lines().take(8).collect();
    let none = BTreeMap::new();
    let same: Vec<BTreeMap<String, String>> = words
        .iter()
        .map(|word| ["a", "disk", "ecs.rack"].map(|label| (label.to_owned(), (*word).to_owned())).into())
        .collect();
    let hosts = std::iter::once(&none).chain(&same).flat_map(|labels| {
        [("", &[][..]), ("X86_64", &words[..])].map(|(architecture, groups)| HostAttrs {
            name: "box-a",
            architecture,
            labels,
            groups,
        })
    });
    let not = Expr::Not(Box::new(expr.clone()));
    for host in hosts {
        let answer = expr.matches(&host);
        assert_eq!(again.matches(&host), answer, "{expr} about {host:?}");
        assert_ne!(not.matches(&host), answer, "{expr} about {host:?}");
        if !expr.asks_for_groups() {
            assert_eq!(expr.matches(&HostAttrs { groups: &[], ..host }), answer, "{expr} about {host:?}");
        }
        reached.insert(if answer { "yes" } else { "no" });
    }
}
