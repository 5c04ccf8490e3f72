//! Bad manifests and what is said of them: `tests/fixtures/manifests/bad/*.txt` → `tests/manifest/snapshots/*.snap`.
//!
//! A case begins with `### what is wrong`; its file is `fleet.yaml`, and `== name` begins another.

use roadstead_core::{manifest::render, model::desired::Desired};

use crate::{admitted, fixtures};

fn files_of(case: &str) -> Vec<(&str, String)> {
    let mut files: Vec<(&str, String)> = Vec::new();
    for line in case.lines() {
        match line.strip_prefix("== ") {
            Some(name) => files.push((name, String::new())),
            None => {
                if files.is_empty() {
                    files.push(("fleet.yaml", String::new()));
                }
                let (_, text) = files.last_mut().unwrap();
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    files
}

fn told(theme: &str) -> (usize, String) {
    let text = std::fs::read_to_string(fixtures().join(format!("bad/{theme}.txt"))).unwrap();
    let (mut number, mut out) = (0, String::new());
    for case in text.split("### ").skip(1) {
        let (title, body) = case.split_once('\n').unwrap();
        let files = files_of(body);
        let texts: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let admission = admitted(&texts, &Desired::default());
        out.push_str(&format!("### {title}\n\n{}\n", render(&admission.diagnostics, false)));
        number += 1;
    }
    (number, out)
}

macro_rules! themes {
    ($($theme:ident)*) => {
        $(#[test]
        fn $theme() {
            let (_, told) = told(stringify!($theme));
            insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, { insta::assert_snapshot!(stringify!($theme), told) });
        })*
    };
}

themes! { syntax header fields host service strategy task containers schedule network target_group load_balancer traffic expose }
