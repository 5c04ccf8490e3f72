//! `docs/task-definition.md`: each field has a row, each row a field, and what is said to show it is there.

use std::{collections::BTreeSet, fs};

use roadstead_core::{manifest::schema, model::spec::Kind};
use serde_json::Value;

use crate::{root, table};

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

/// The rows below a heading: fields, and by what each is shown.
fn rows(text: &str, heading: &str) -> Vec<(Vec<String>, Vec<String>)> {
    let section = text.split(&format!("## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with("| `"));
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    lines
        .map(|line| {
            let cells = cells(line);
            let [fields, _, shown] = &cells[..] else { panic!("three cells: {line}") };
            let fields = fields.split(", ").map(|field| field.trim_matches('`').to_owned()).collect();
            (fields, shown.split(", ").map(str::to_owned).collect())
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

/// All test functions that rows may name.
fn functions() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![root("tests"), root("crates")];
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
    let live = fs::read_to_string(root("tests/live/fields.rs")).unwrap();
    let functions = functions();
    let mut known = BTreeSet::new();
    fields(&schema(Some(Kind::TaskDefinition)), definition, "", &mut known);
    let rows = rows(&text, heading);
    let written: BTreeSet<String> = rows.iter().flat_map(|(fields, _)| fields.iter().cloned()).collect();
    // What has fields of its own is covered when they all are.
    let has_fields = |field: &str| known.iter().any(|other| is_inside(other, field));
    let missing: Vec<_> = known.iter().filter(|field| !has_fields(field) && !is_covered(field, &written)).collect();
    assert!(missing.is_empty(), "without a row: {missing:?}");
    let stale: Vec<_> = written.iter().filter(|field| !known.contains(*field)).collect();
    assert!(stale.is_empty(), "rows of fields that are not there: {stale:?}");
    for (fields, shown) in &rows {
        for (field, by) in fields.iter().flat_map(|field| shown.iter().map(move |by| (field, by))) {
            let is_there = match by.as_str() {
                "table" => rows_of_table.iter().any(|row| row.field == field),
                "live" => live.contains(&format!("\"{field}\"")),
                "ecs" => true,
                bad if bad.starts_with("bad: ") => {
                    root(&format!("tests/fixtures/manifests/bad/{}.txt", &bad[5..])).exists()
                }
                function => functions.contains(function),
            };
            assert!(is_there, "{field} is not shown by `{by}`");
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
