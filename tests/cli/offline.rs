//! Without a controller: help, validation, exit statuses.

use std::process::{Command, Output};

fn roadstead(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roadstead")).args(arguments).output().unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let output = roadstead(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The verbs that a help text lists.
fn verbs(help: &str) -> Vec<&str> {
    let list = help.split_once("Commands:\n").map_or("", |(_, rest)| rest).lines();
    let names = list.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|verb| *verb != "help").collect()
}

#[test]
fn every_verb_has_its_help() {
    let mut todo: Vec<Vec<String>> = vec![Vec::new()];
    let mut seen = 0;
    while let Some(path) = todo.pop() {
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = printed(&arguments);
        assert!(help.contains("Usage: roadstead"), "{path:?}: {help}");
        let inside = verbs(&help);
        if inside.is_empty() {
            seen += 1;
        }
        todo.extend(inside.into_iter().map(|verb| path.iter().cloned().chain([verb.to_owned()]).collect()));
    }
    assert!(seen > 30, "{seen} verbs");
}

#[test]
fn what_init_writes_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = folder.path().join("fleet");
    let fleet = fleet.to_str().unwrap();
    printed(&["init", fleet]);
    printed(&["validate", fleet]);
    let file =
        std::fs::read_dir(fleet).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_file()).unwrap();
    std::fs::write(&file, "# mine\n").unwrap();
    roadstead(&["init", fleet]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "# mine\n", "what is there is left alone");
}

#[test]
fn schemas_and_completions_are_printed() {
    for kind in ["cluster", "host", "taskdefinition", "service"] {
        let schema: serde_json::Value = serde_json::from_str(&printed(&["schema", kind])).unwrap();
        assert!(schema["properties"]["spec"].is_object() || schema["$defs"].is_object(), "{kind}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(printed(&["completion", shell]).contains("rollout"), "{shell}");
    }
}

/// Transcripts, one a file: what is typed, what is printed, with which exit status.
#[test]
fn transcripts() {
    trycmd::TestCases::new()
        .case("tests/cli/transcripts/*.md")
        .env("NO_COLOR", "1")
        .env("ROADSTEAD_ENDPOINT", "unix:/nonexistent/roadstead.sock");
}
