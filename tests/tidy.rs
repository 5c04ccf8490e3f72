//! The house rules that a machine can hold: the layers' arrows, purity, file size, no panics on input.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use roadstead_control::crash_point::Point;

/// Which modules each module may use. An arrow that is not here does not exist.
const LAYERS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("manifest", &["model"]),
    ("plan", &["model"]),
    ("turn", &["model", "plan"]),
    ("store", &["model"]),
    ("host", &["model"]),
    ("engine", &["model", "host"]),
    ("net", &["model", "engine"]),
    ("lb", &["model", "engine", "net"]),
    ("control", &["model", "manifest", "plan", "turn", "store", "host", "engine", "net", "lb"]),
    ("sim", &["model", "manifest", "plan", "turn", "store", "engine", "host", "net", "lb", "control"]),
    ("api", &["model", "plan", "turn", "store", "engine", "manifest", "control"]),
    ("cli", &["model", "manifest", "plan", "turn", "host", "engine", "net", "lb", "control", "api"]),
];

const SOURCES: &[&str] = &["crates/core/src", "crates/control/src", "src"];

/// The simulator is a crate of one module.
const SIMULATOR: &str = "crates/sim/src";

/// No I/O, no async, no clock, no randomness, ordered maps only.
const PURE: &[&str] = &["model", "plan", "turn"];

/// A file with more lines holds two ideas.
const MAX_LINES: usize = 620;

fn sources() -> BTreeMap<PathBuf, String> {
    fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path, text);
            }
        }
    }
    let mut found = BTreeMap::new();
    for folder in SOURCES.iter().chain([&SIMULATOR]) {
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    }
    assert!(found.len() > 50, "the walk found the sources");
    found
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs")
}

/// The file without its test module, without comments.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn module(path: &Path) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if path.starts_with(root.join(SIMULATOR)) {
        return Some("sim".to_owned());
    }
    let inside = SOURCES.iter().find_map(|folder| path.strip_prefix(root.join(folder)).ok())?;
    let first = inside.components().next()?.as_os_str().to_str()?.to_owned();
    (inside.components().count() > 1).then_some(first)
}

/// The modules that a file names, of its crate and of the others, grouped imports included.
fn used(code: &str) -> Vec<String> {
    let mut used = Vec::new();
    let roots = ["crate::", "roadstead_core::", "roadstead_control::"];
    for (position, root) in roots.iter().flat_map(|root| code.match_indices(root)) {
        let rest = &code[position + root.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            used.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            continue;
        };
        let (mut depth, mut name) = (1, String::new());
        for character in group.chars() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ if depth == 1 && (character.is_alphanumeric() || character == '_' || character == ':') => {
                    name.push(character);
                    continue;
                }
                _ => {}
            }
            if depth <= 1 && !name.is_empty() {
                used.push(name.split("::").next().unwrap_or_default().to_owned());
                name.clear();
            }
            if depth == 0 {
                break;
            }
            if depth > 1 && !name.is_empty() {
                used.push(name.split("::").next().unwrap_or_default().to_owned());
                name.clear();
            }
        }
    }
    used.retain(|name| !name.is_empty());
    used
}

#[test]
fn data_flows_one_way() {
    let layers: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let Some(module) = module(&path).filter(|_| !is_test(&path)) else { continue };
        let Some(allowed) = layers.get(module.as_str()) else {
            wrong.push(format!("{}: module `{module}` has no row in the table of layers", path.display()));
            continue;
        };
        for other in used(&code(&text)) {
            if other != module && layers.contains_key(other.as_str()) && !allowed.contains(&other.as_str()) {
                wrong.push(format!("{}: {module} → {other}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows against the layers:\n{}", wrong.join("\n"));
}

#[test]
fn the_core_is_pure() {
    let forbidden = [
        "async fn",
        "tokio::",
        "std::fs",
        // Addresses are plain values.
        "std::net::Tcp",
        "std::net::Udp",
        "ToSocketAddrs",
        "std::env",
        "std::process",
        "SystemTime",
        "Instant::",
        "HashMap",
        "HashSet",
        "rand::",
        "println!",
        "eprintln!",
        "tracing::",
    ];
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if !module(&path).is_some_and(|module| PURE.contains(&module.as_str())) || is_test(&path) {
            continue;
        }
        let code = code(&text);
        wrong.extend(
            forbidden.iter().filter(|word| code.contains(*word)).map(|word| format!("{}: {word}", path.display())),
        );
    }
    assert!(wrong.is_empty(), "impure:\n{}", wrong.join("\n"));
}

#[test]
fn nothing_panics_on_input() {
    let forbidden = [".unwrap()", ".expect(\"", "todo!(", "unimplemented!(", "dbg!("];
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if is_test(&path) {
            continue;
        }
        let code = code(&text);
        wrong.extend(
            forbidden.iter().filter(|word| code.contains(*word)).map(|word| format!("{}: {word}", path.display())),
        );
    }
    assert!(wrong.is_empty(), "may panic:\n{}", wrong.join("\n"));
}

#[test]
fn no_file_holds_too_much() {
    let long: Vec<String> = sources()
        .iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "ask what two ideas are in:\n{}", long.join("\n"));
}

#[test]
fn every_crash_point_stands_in_one_place() {
    let sources = sources();
    let wrong: Vec<String> = Point::ALL
        .iter()
        .map(|point| (point, format!("reach(Point::{point:?})")))
        .map(|(point, call)| (point, sources.values().map(|text| text.matches(&call).count()).sum::<usize>()))
        .filter(|(_, places)| *places != 1)
        .map(|(point, places)| format!("{point:?}: {places} places"))
        .collect();
    assert!(wrong.is_empty(), "each is reached from exactly one line:\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_what_it_must() {
    let text = "use crate::model::x;\nuse crate::{\n    engine::{Engine, EngineError},\n    host::ExecRequest,\n    store,\n};\nfn f() { crate::plan::plan() }
use roadstead_core::{manifest::{self, Admission}, model::name};
fn g() { roadstead_control::control::run() }";
    assert_eq!(used(text), ["model", "engine", "host", "store", "plan", "manifest", "model", "control"]);
}
