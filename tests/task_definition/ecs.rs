//! Task definitions in the shapes that people have them in ECS, pasted as they are: `tests/fixtures/ecs/` → what is said, and what
//! is launched.

use std::fs;

use roadstead_control::control::ingest::check_expression;
use roadstead_core::{
    manifest::{self, SourceTree, render},
    model::desired::Desired,
};

use crate::{HOST, admitted, launched, root};

/// What is said of a file, and what is then launched.
fn told(name: &str, text: &str, environment: &str) -> String {
    let alone = admitted(&[(name, text), ("app.env", environment)]);
    let mut told = format!("### {name}\n\n{}", render(&alone.diagnostics, false));
    let Some(family) = alone.desired.task_definitions.keys().next() else {
        return told + "\n→ refused\n\n";
    };
    let host = HOST.replace("{ name: box }", "{ name: box, labels: { role: edge, gpu: 'true' } }");
    // Agents run on every host that they fit.
    let how = if name == "agent.json" { "schedulingStrategy: DAEMON" } else { "desiredCount: 1" };
    let service = format!(
        "apiVersion: roadstead/v1\nkind: Service\nmetadata: {{ name: it }}\nspec: {{ taskDefinition: {family}, {how} }}\n"
    );
    let files = [("host.yaml", host.as_str()), (name, text), ("app.env", environment), ("service.yaml", &service)];
    let steps = launched(&admitted(&files).desired);
    assert!(!steps.is_empty(), "{name}: nothing is launched");
    for step in steps {
        let config = &step.config;
        let ports = config.ports.iter().filter(|port| !(32768..=60999).contains(&port.host_port));
        let mut line = format!("→ {} {}", if step.start { "start" } else { "create" }, step.container);
        ports.for_each(|port| line.push_str(&format!(" {}→{}", port.host_port, port.container_port)));
        line.push_str(&format!(" log={}", config.log.driver));
        told.push_str(&format!("\n{line}"));
    }
    told + "\n\n"
}

#[test]
fn what_people_have_in_ecs_runs_or_says_why_not() {
    let folder = root("tests/fixtures/ecs");
    let environment = fs::read_to_string(folder.join("app.env")).unwrap();
    let mut names: Vec<String> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.retain(|name| !name.ends_with(".env"));
    let all: String =
        names.iter().map(|name| told(name, &fs::read_to_string(folder.join(name)).unwrap(), &environment)).collect();
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, { insta::assert_snapshot!("ecs", all) });
}

/// JSON and YAML, wrapped and bare: the same definition is the same revision.
#[test]
fn every_form_of_a_definition_is_the_same_definition() {
    let text = fs::read_to_string(root("tests/fixtures/ecs/web-and-sidecar.json")).unwrap();
    let described: serde_json::Value = serde_json::from_str(&text).unwrap();
    let bare = described["taskDefinition"].to_string();
    let manifest = serde_json::json!({
        "apiVersion": "roadstead/v1", "kind": "TaskDefinition", "metadata": { "name": "shop-web" }, "spec": described,
    });
    let yaml = serde_yaml::to_string(&manifest).unwrap();
    let hash = |name: &str, text: &str| {
        let admission = admitted(&[(name, text)]);
        assert!(!admission.has_errors(), "{name}: {}", render(&admission.diagnostics, false));
        admission.desired.task_definitions["shop-web"].spec.hash().to_owned()
    };
    let first = hash("a.json", &text);
    for (name, text) in [("a.json", bare.as_str()), ("a.json", &manifest.to_string()), ("a.yaml", &yaml)] {
        assert_eq!(hash(name, text), first, "{text}");
    }
}

#[test]
fn placeholders_are_filled_in() {
    let pasted = fs::read_to_string(root("tests/fixtures/ecs/codepipeline.json")).unwrap();
    let image = |text: &str, given: &[(&str, &str)]| {
        let mut tree = SourceTree::from_texts(root("."), [("a.json", text)]);
        tree.images = given.iter().map(|(name, image)| ((*name).to_owned(), (*image).to_owned())).collect();
        let admission = manifest::admit(&tree, &Desired::default(), check_expression);
        let told = render(&admission.diagnostics, false);
        match admission.desired.task_definitions.values().next() {
            Some(found) => Ok((found.spec.container_definitions[0].image.clone(), told)),
            None => Err(told),
        }
    };
    let refused = image(&pasted, &[]).unwrap_err();
    assert!(refused.contains("`variables: { IMAGE1_NAME: registry.example.com/auth:1.4 }`"), "{refused}");
    assert_eq!(image(&pasted, &[("IMAGE1_NAME", "checkout:2")]).unwrap().0, "checkout:2");
    let with = |variables: &str| pasted.replacen('{', &format!("{{ \"variables\": {variables},"), 1);
    let own = with(r#"{ "IMAGE1_NAME": "checkout:1", "IMAGE2": "x" }"#);
    let (filled, told) = image(&own, &[]).unwrap();
    assert_eq!(filled, "checkout:1");
    assert!(told.contains("no image here is `<IMAGE2>`"), "{told}");
    assert_eq!(image(&own, &[("IMAGE1_NAME", "checkout:2")]).unwrap().0, "checkout:2", "what is given wins");
    let service = serde_json::json!({
        "apiVersion": "roadstead/v1", "kind": "Service", "metadata": { "name": "checkout" },
        "variables": { "IMAGE1_NAME": "checkout:3" },
        "spec": { "launchType": "FARGATE", "taskDefinition": serde_json::from_str::<serde_json::Value>(&pasted).unwrap() },
    });
    assert_eq!(image(&service.to_string(), &[]).unwrap().0, "checkout:3", "in a service's own definition, too");
    for (variables, words) in [("[1]", "is a mapping"), (r#"{ "IMAGE1_NAME": {} }"#, "stands for an image")] {
        let told = image(&with(variables), &[]).unwrap_err();
        assert!(told.contains(words), "{told}");
    }
    let bad = image(&with(r#"{ "IMAGE1_NAME": "Not An Image" }"#), &[]).unwrap_err();
    assert!(bad.contains("`Not An Image` is not an image reference"), "{bad}");
}

#[test]
fn pasted_into_a_yaml_file_it_is_the_same() {
    let json = r#"{ "taskDefinition": { "family": "web", "revision": 7, "containerDefinitions": [
        { "name": "app", "image": "demo:1", "memory": 64, "environment": [{ "name": "A", "value": "b" }] } ] } }"#;
    let yaml = "family: web\ncontainerDefinitions:\n  - name: app\n    image: demo:1\n    memory: 64\n    environment: [{ name: A, value: b }]\n";
    let hash = |name: &str, text: &str| {
        let admission = admitted(&[(name, text)]);
        assert_eq!(render(&admission.diagnostics, false), "", "{name}");
        admission.desired.task_definitions["web"].spec.hash().to_owned()
    };
    let expected = hash("web.json", json);
    assert_eq!(hash("web.yaml", json), expected);
    assert_eq!(hash("web.yml", yaml), expected);
}
