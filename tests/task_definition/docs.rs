//! `docs/task-definition.md`: each field has a row, each row a field, and what is said to show it is there.

use std::{collections::BTreeSet, fs};

use roadstead_core::{manifest::schema, model::spec::Kind};
use serde_json::Value;

use crate::{root, table};

/// Fields that Docker hears nothing of, and who acts on them.
const NOT_DOCKERS: [(&str, &str); 5] = [
    ("placementConstraints", "the planner"),
    ("requiresCompatibilities", "admission"),
    ("runtimePlatform", "the planner"),
    ("imagePullPolicy", "whoever asks a registry"),
    ("versionConsistency", "whoever asks a registry"),
];

/// Fields that no lab can show, and what it lacks.
const NOT_IN_A_LAB: [(&str, &str); 2] =
    [("volumes[].efsVolumeConfiguration", "an NFS server"), ("resourceRequirements", "a GPU")];

/// Paths of fields below a definition, as the rows write them.
fn fields(schema: &Value, definition: &str, prefix: &str, found: &mut BTreeSet<String>) {
    let properties = schema["$defs"][definition]["properties"].as_object();
    for (name, property) in properties.unwrap_or_else(|| panic!("{definition} has no fields")) {
        let path = format!("{prefix}{name}");
        found.insert(path.clone());
        let choices = property["anyOf"].as_array().into_iter().flatten().chain([property]);
        for choice in choices {
            let (target, step) = match choice["items"]["$ref"].as_str() {
                Some(target) => (Some(target), "[]."),
                None => (choice["$ref"].as_str(), "."),
            };
            let Some(inner) = target.and_then(|target| target.strip_prefix("#/$defs/")) else { continue };
            if inner != "ContainerDefinition" && schema["$defs"][inner]["properties"].is_object() {
                fields(schema, inner, &format!("{path}{step}"), found);
            }
        }
    }
}

/// A row: fields, what is done, and by what each is shown.
struct Written {
    fields: Vec<String>,
    done: String,
    shown: Vec<String>,
}

/// The rows below a heading.
fn rows(text: &str, heading: &str) -> Vec<Written> {
    let section = text.split(&format!("## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with("| `"));
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    lines
        .map(|line| {
            let cells = cells(line);
            let [fields, done, shown] = &cells[..] else { panic!("three cells: {line}") };
            let fields = fields.split(", ").map(|field| field.trim_matches('`').to_owned()).collect();
            Written { fields, done: done.clone(), shown: shown.split(", ").map(str::to_owned).collect() }
        })
        .collect()
}

/// Whether a field has a row of its own, or one of what it stands in.
fn is_covered(field: &str, rows: &BTreeSet<String>) -> bool {
    let outer = field.match_indices(['.', '[']).map(|(at, _)| &field[..at]);
    outer.chain([field]).any(|path| rows.contains(path))
}

fn is_inside(field: &str, outer: &str) -> bool {
    field.strip_prefix(outer).is_some_and(|rest| rest.starts_with(['.', '[']))
}

/// The fields that `tests/live/fields.rs` asserts something of: the first word of its checks and of its table's rows.
fn seen_live() -> BTreeSet<String> {
    let text = fs::read_to_string(root("tests/live/fields.rs")).unwrap();
    let table = text.split("const INSPECTED").nth(1).unwrap().split("\n];").next().unwrap();
    let checks = [" same(", " has("].into_iter().flat_map(|check| text.split(check).skip(1));
    let firsts = checks.chain(table.split(" (").skip(1)).filter_map(|rest| rest.trim_start().strip_prefix('"'));
    firsts.filter_map(|rest| rest.split('"').next().map(str::to_owned)).collect()
}

/// Whether a fixture of `tests/fixtures/ecs/` says anything of a field.
fn is_in_a_fixture(field: &str, of_containers: bool) -> bool {
    let definitions = fs::read_dir(root("tests/fixtures/ecs")).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let document: Option<Value> =
            path.extension().filter(|it| *it != "env").map(|_| serde_yaml::from_str(&text).unwrap());
        let document = document?;
        Some(["taskDefinition", "spec"].iter().find_map(|key| document.get(key)).unwrap_or(&document).clone())
    });
    let path = if of_containers { format!("containerDefinitions[].{field}") } else { field.to_owned() };
    definitions.into_iter().any(|definition| holds_path(&definition, &path))
}

fn holds_path(value: &Value, path: &str) -> bool {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let Some(inner) = value.get(first.trim_end_matches("[]")) else { return false };
    let items: Vec<&Value> = match inner.as_array() {
        Some(items) => items.iter().collect(),
        None => vec![inner],
    };
    items.into_iter().any(|item| match rest {
        Some(rest) => holds_path(item, rest),
        // What the console fills in says nothing.
        None => ![Value::Null, "".into(), 0.into(), false.into()].contains(item) && *item != serde_json::json!({}),
    })
}

/// Whether a snapshot holds what is said of a field, a warning or an error: its name is in the message, or underlined.
fn says(snapshot: &str, kind: &str, field: &str) -> bool {
    let text = fs::read_to_string(root(snapshot)).unwrap();
    let name = field.rsplit(['.', ']']).next().unwrap();
    let mut findings = text.split("\n\n").filter(|finding| finding.trim_start().starts_with(kind));
    findings.any(|finding| {
        let mut lines = finding.trim_start().lines();
        let in_message = lines.next().unwrap().contains(&format!("`{name}`"));
        let key_at = lines.clone().find_map(|line| line.find(name));
        let caret_at = lines.find_map(|line| line.find('^'));
        // Under the key, or under its value.
        let is_underlined =
            key_at.zip(caret_at).is_some_and(|(key, caret)| caret == key || caret == key + name.len() + 2);
        in_message || is_underlined
    })
}

/// All test functions that rows may name.
fn functions(folder: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![root(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(path).unwrap();
                let tests = text.split("test]\n").skip(1);
                names.extend(tests.filter_map(|test| test.split("fn ").nth(1)?.split('(').next().map(str::to_owned)));
            }
        }
    }
    names
}

fn holds(heading: &str, definition: &str, rows_of_table: &[table::Row]) {
    let text = fs::read_to_string(root("docs/task-definition.md")).unwrap();
    let seen_live = seen_live();
    let live_functions = functions("tests/live");
    let functions: BTreeSet<String> = [functions("tests"), functions("crates")].into_iter().flatten().collect();
    let of_containers = definition == "ContainerDefinition";
    let mut known = BTreeSet::new();
    fields(&schema(Some(Kind::TaskDefinition)), definition, "", &mut known);
    let rows = rows(&text, heading);
    let written: BTreeSet<String> = rows.iter().flat_map(|row| row.fields.iter().cloned()).collect();
    // What has fields of its own is covered when they all are.
    let has_fields = |field: &str| known.iter().any(|other| is_inside(other, field));
    let missing: Vec<_> = known.iter().filter(|field| !has_fields(field) && !is_covered(field, &written)).collect();
    assert!(missing.is_empty(), "without a row: {missing:?}");
    let stale: Vec<_> = written.iter().filter(|field| !known.contains(*field)).collect();
    assert!(stale.is_empty(), "rows of fields that are not there: {stale:?}");
    for row in &rows {
        for (field, by) in row.fields.iter().flat_map(|field| row.shown.iter().map(move |by| (field, by))) {
            let is_there = match by.as_str() {
                "table" => rows_of_table.iter().any(|row| row.field == field),
                "live" => seen_live.contains(field),
                "ecs" => is_in_a_fixture(field, of_containers),
                bad if bad.starts_with("bad: ") => {
                    root(&format!("tests/fixtures/manifests/bad/{}.txt", &bad[5..])).exists()
                }
                function => functions.contains(function),
            };
            assert!(is_there, "{field} is not shown by `{by}`");
        }
        for field in &row.fields {
            let is_said = |kind: &str| {
                row.shown.iter().any(|by| match by.strip_prefix("bad: ") {
                    Some(name) => says(&format!("tests/manifest/snapshots/{name}.snap"), kind, field),
                    None => by == "ecs" && says("tests/task_definition/snapshots/ecs.snap", kind, field),
                })
            };
            let is_shown = match row.done.split([' ', ',', ':']).next().unwrap() {
                "warned" | "kept" => is_said("warning["),
                "refused" => is_said("error["),
                _ if NOT_DOCKERS.iter().chain(&NOT_IN_A_LAB).any(|(other, _)| other == field) => true,
                _ => row.shown.iter().any(|by| by == "live" || live_functions.contains(by)),
            };
            assert!(is_shown, "{field}: {} — and nothing shows that", row.done);
        }
    }
}

#[test]
fn every_field_of_a_task_has_its_row() {
    holds("The task", "TaskDefinitionSpec", &table::of_a_task());
}

#[test]
fn every_field_of_a_container_has_its_row() {
    holds("A container", "ContainerDefinition", &table::of_a_container());
}
