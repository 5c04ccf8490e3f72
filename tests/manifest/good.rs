//! Good manifests: everything is understood, and nothing of it is an error.

use roadstead_core::{
    manifest::{Limits, SourceTree, read_tree, render, schema},
    model::{
        desired::Desired,
        diagnostic::Severity,
        quantity::{CpuUnits, Mebibytes, Seconds},
        spec::{KINDS, LoadBalancerSpec, load_balancer::Action, service::TaskDefinitionRef},
    },
};
use serde_json::Value;

use crate::{admitted, check_expression, fixtures};

fn good(name: &str) -> (Desired, Vec<String>) {
    let text = std::fs::read_to_string(fixtures().join("good").join(name)).unwrap();
    let admission = admitted(&[(name, &text)], &Desired::default());
    assert!(!admission.has_errors(), "{}", render(&admission.diagnostics, false));
    assert!(admission.broken_files.is_empty());
    let told = admission
        .diagnostics
        .iter()
        .map(|diagnostic| format!("{}:{} {}", diagnostic.place.line, diagnostic.place.column, diagnostic.message))
        .collect();
    (admission.desired, told)
}

#[test]
fn the_smallest_service_brings_its_task_definition() {
    let (desired, told) = good("smallest.yaml");
    let service = &desired.services["web"].spec;
    assert_eq!(service.task_definition, TaskDefinitionRef::Named("web".to_owned()));
    assert_eq!(service.desired_count, 3);
    assert_eq!(desired.task_definitions["web"].spec.container_definitions[0].memory, Some(Mebibytes(64)));
    assert_eq!(told, [""; 0]);
    // A name that is not public has no certificate.
    let group = &desired.target_groups["expose:web"];
    assert_eq!((group.file.as_str(), group.line, group.spec.port), ("smallest.yaml", 1, 80));
    assert_eq!(routes(&desired), ["expose:default http/expose:web web.example.com -> expose:web"]);
    let [entry] = &service.load_balancers[..] else { panic!("one target group") };
    assert_eq!(entry.answering(&desired.task_definitions["web"].spec), Some(("web", 80)));
}

#[test]
fn the_full_example_gives_warnings_only() {
    let (desired, told) = good("full.yaml");
    let host = &desired.hosts["box-a"];
    assert_eq!(host.spec.ssh.identity_file.as_deref(), Some("/srv/manifests/id_ed25519"));
    assert_eq!(host.labels["availability-zone"], "az1");
    assert_eq!(desired.services["auth"].spec.cluster.as_str(), "klp");
    assert_eq!(
        (desired.task_definitions["auth"].file.as_str(), desired.task_definitions["auth"].line),
        ("full.yaml", 34)
    );
    // Its tasks would own an address each: a host port is nothing that they could clash over.
    assert_eq!(desired.task_definitions["auth"].spec.container_definitions[0].port_mappings[0].host_port, None);
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, { insta::assert_snapshot!("full", told.join("\n")) });
}

#[test]
fn load_balancers_are_read_in_our_words_and_in_those_of_ecs() {
    let (desired, told) = good("traffic.yaml");
    assert_eq!(told.len(), 2, "{told:?}");
    let [shop] = &desired.services["shop"].spec.load_balancers[..] else { panic!("one target group") };
    assert_eq!(shop.target_group.as_str(), "shop");
    assert_eq!(shop.alternate_target_group.as_ref().map(|name| name.as_str()), Some("shop-next"));
    assert_eq!(shop.production_listener_rule.as_deref(), Some("front/http/shop"));
    let answering = |service: &str| {
        let definition = &desired.task_definitions[service].spec;
        desired.services[service].spec.load_balancers[0].answering(definition)
    };
    assert_eq!((answering("shop"), answering("mail")), (Some(("shop", 8080)), Some(("mail", 2525))));
    let front = &desired.load_balancers["front"].spec;
    let forwards: Vec<String> = front
        .forwards()
        .map(|(listener, rule, groups)| {
            let groups = groups.iter().map(|group| format!("{} {}", group.target_group, group.weight));
            let rule = rule.map_or("", |rule| rule.name.as_str());
            format!("{} {rule}: {}", listener.name, groups.collect::<Vec<_>>().join(", "))
        })
        .collect();
    assert_eq!(forwards, ["http shop: shop 900, shop-next 0", "smtp : mail 1"]);
    let asked: Vec<&str> = front.listeners[0].rules_in_order().iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(asked, ["secure", "shop", "www"]);
}

#[test]
fn what_ecs_prints_is_a_manifest() {
    let (desired, _) = good("described.json");
    let definition = &desired.task_definitions["ledger"].spec;
    let container = &definition.container_definitions[0];
    assert_eq!((definition.cpu, definition.memory), (Some(CpuUnits(512)), Some(Mebibytes(1024))));
    assert_eq!((container.memory, container.port_mappings[0].container_port), (Some(Mebibytes(512)), 8080));
    assert_eq!(container.environment.0["VERSION"], "1.10");
    let log = container.log_configuration.as_ref().unwrap();
    assert_eq!((log.log_driver.as_str(), log.options["awslogs-group"].as_str()), ("awslogs", "/ecs/ledger"));
}

#[test]
fn what_people_write_is_read_as_it_stands() {
    let (desired, told) = good("human.yaml");
    let definition = &desired.task_definitions["human"];
    assert_eq!(told, [""; 0]);
    assert_eq!((definition.labels["rack"].as_str(), definition.labels["version"].as_str()), ("12", "1.10"));
    assert_eq!(definition.spec.cpu, Some(CpuUnits(512)));
    let [a, b] = &definition.spec.container_definitions[..] else { panic!("two containers") };
    assert_eq!((a.memory, a.stop_timeout), (Some(Mebibytes(256)), Some(Seconds(60))));
    assert_eq!(a.health_check.as_ref().unwrap().command, ["CMD-SHELL", "curl -f localhost"]);
    assert_eq!((b.name.as_str(), b.image.as_str()), ("b", "a:1"));
    let environment: Vec<_> = b.environment.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(environment, ["DEBUG=false", "EMPTY=", "PORT=8080", "VERSION=1.10"]);
}

#[test]
fn json_means_what_it_means_elsewhere() {
    let words = [r#"\u00e9\/\n\t\""#, r"\ud83d\ude00 \uD83D\uDE00", r"\\ud83d", r"#: {x}, [y] & *z", ""];
    for word in words {
        let text = r#"{
	"family":	"a",
	"containerDefinitions":	[{ "name": "a", "image": "a", "memory": 64,	"command": ["WORD"] }]
}"#
        .replace("WORD", word);
        let admission = admitted(&[("a.json", &text)], &Desired::default());
        assert!(!admission.has_errors(), "{}", render(&admission.diagnostics, false));
        let ours = &admission.desired.task_definitions["a"].spec.container_definitions[0].command[0];
        let theirs: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(Some(ours.as_str()), theirs["containerDefinitions"][0]["command"][0].as_str());
    }
}

/// What is kept in the database reads back as what it was.
#[test]
fn desired_survives_json() {
    for name in ["smallest.yaml", "full.yaml", "described.json", "human.yaml", "traffic.yaml"] {
        let (desired, _) = good(name);
        let json = serde_json::to_string(&desired).unwrap();
        assert_eq!(serde_json::from_str::<Desired>(&json).unwrap(), desired, "{name}");
    }
}

#[test]
fn the_example_fleet_is_good() {
    let tree =
        read_tree(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/manifests")), &Limits::default()).unwrap();
    let admission = roadstead_core::manifest::admit(&tree, &Desired::default(), check_expression);
    assert!(!admission.has_errors(), "{}", render(&admission.diagnostics, false));
    assert!(!admission.desired.services.is_empty());
}

/// `docs/schema/` is what `roadstead schema` prints. Written anew with `UPDATE_SCHEMA=1`.
#[test]
fn schemas_in_docs_are_those_of_the_types() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema");
    let kinds = KINDS.iter().map(|info| (info.name.to_lowercase(), schema(Some(info.kind))));
    for (name, schema) in kinds.chain([("manifest".to_owned(), schema(None))]) {
        let path = folder.join(format!("{name}.json"));
        let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).is_ok_and(|written| written == text),
            "{} is stale: UPDATE_SCHEMA=1 writes it",
            path.display()
        );
    }
}

/// Every `$ref` of every schema leads somewhere.
#[test]
fn schemas_refer_to_what_they_define() {
    fn references<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
        match value {
            Value::Object(object) => {
                out.extend(object.get("$ref").and_then(Value::as_str));
                object.values().for_each(|value| references(value, out));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, out)),
            _ => {}
        }
    }
    for schema in KINDS.iter().map(|info| schema(Some(info.kind))).chain([schema(None)]) {
        let mut found = Vec::new();
        references(&schema, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            assert!(schema.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
        }
    }
}

/// Our reading of YAML against that of the YAML crate: the same number, flag and text everywhere.
#[test]
fn yaml_means_what_it_means_elsewhere() {
    let scalars = [
        "1",
        "-1",
        "+1",
        "0",
        "007",
        "0x1f",
        "0o17",
        "1.5",
        "-1.5",
        "1e3",
        ".5",
        "5.",
        "true",
        "True",
        "yes",
        "no",
        "on",
        "null",
        "~",
        "''",
        "\"1\"",
        "1.2.3",
        "1_000",
        "12:30",
        "2025-04-02",
        "!!str 12",
        "'a''b'",
        "\"a\\nb\"",
        "a b",
        "1-2",
        "0.0",
        "-0",
        "18446744073709551615",
    ];
    for scalar in scalars {
        let text = format!(
            "apiVersion: roadstead/v1\nkind: Service\nmetadata: {{ name: a }}\nspec:\n  tags: {{ value: {scalar} }}\n  \
             taskDefinition: {{ containerDefinitions: [{{ name: a, image: b, memory: 8 }}] }}\n"
        );
        let tree = SourceTree::from_texts("/", [("a.yaml", text.as_str())]);
        let desired = roadstead_core::manifest::admit(&tree, &Desired::default(), check_expression).desired;
        let ours = desired.services["a"].spec.tags.as_ref().unwrap().0["value"].clone();
        let theirs: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(ours, theirs["spec"]["tags"]["value"], "{scalar}");
    }
}

#[test]
fn findings_come_in_the_order_of_the_files() {
    let texts = [("b.yaml", "kind: X"), ("a.yaml", "apiVersion: roadstead/v1\nkind: X\n---\nkind: Y")];
    let admission = admitted(&texts, &Desired::default());
    let places: Vec<_> = admission
        .diagnostics
        .iter()
        .map(|diagnostic| (diagnostic.place.file.as_str(), diagnostic.place.line))
        .collect();
    assert_eq!(places, [("a.yaml", 2), ("a.yaml", 4), ("b.yaml", 1)]);
    assert!(admission.diagnostics.iter().all(|diagnostic| diagnostic.severity == Severity::Error));
}

/// Every rule: load balancer, listener, rule, host, path, and where it leads.
fn routes(desired: &Desired) -> Vec<String> {
    let mut routes = Vec::new();
    for (name, balancer) in &desired.load_balancers {
        for (listener, rule) in
            balancer.spec.listeners.iter().flat_map(|it| it.rules_in_order().into_iter().map(move |rule| (it, rule)))
        {
            let to = match &rule.action {
                Action::Forward(groups) => groups.0[0].target_group.to_string(),
                Action::Redirect(to) => format!("{:?} {:?}", to.protocol.unwrap(), to.port.unwrap()),
                Action::FixedResponse(answer) => answer.status_code.to_string(),
            };
            let asked = [&rule.conditions.host_header[..], &rule.conditions.path_pattern[..]].concat().join(" ");
            routes.push(format!("{name} {}/{} {asked} -> {to}", listener.name, rule.name));
        }
    }
    routes
}

fn certificates(desired: &Desired) -> Vec<String> {
    let of = |balancer: &LoadBalancerSpec| balancer.certificates().map(|it| it.id().to_string()).collect::<Vec<_>>();
    desired.load_balancers.values().flat_map(|balancer| of(&balancer.spec)).collect()
}

#[test]
fn exposed_services_get_a_route_and_a_certificate() {
    let (desired, told) = good("expose.yaml");
    assert_eq!(told, [""; 0]);
    assert_eq!(
        routes(&desired),
        [
            "default http/own shop.lan -> 418",
            "default http/expose:admin shop.lan /admin/* -> expose:admin",
            "default http/expose:shop shop.lan -> Https 8443",
            "default https/expose:admin shop.lan /admin/* -> expose:admin",
            "default https/expose:shop shop.lan -> expose:shop",
            "expose:other http/expose:api api.shop.io -> expose:api",
            "expose:other http/expose:any *.lan -> expose:any",
            "expose:other https/expose:api api.shop.io -> expose:api",
            "expose:other https/expose:any *.lan -> expose:any",
        ]
    );
    assert_eq!(certificates(&desired), ["self-signed:old.lan", "self-signed:shop.lan", "acme:api.shop.io"]);
    assert_eq!(desired.target_groups["expose:shop"].spec.health_check.path, "/healthz");
    let [own, made] = &desired.services["admin"].spec.load_balancers[..] else {
        panic!("its own group, and the one made")
    };
    assert_eq!((own.target_group.as_str(), made.target_group.as_str()), ("own", "expose:admin"));
    assert_eq!(made.container_port, Some(9000));
}

#[test]
fn what_is_exposed_no_more_is_taken_away() {
    let (before, _) = good("expose.yaml");
    let text = std::fs::read_to_string(fixtures().join("good/expose.yaml")).unwrap();
    // The same again is the same, and so is what cannot be read.
    assert_eq!(admitted(&[("expose.yaml", &text)], &before).desired, before);
    assert_eq!(admitted(&[("expose.yaml", "kind: [")], &before).desired, before);
    let none: String = text.lines().filter(|line| !line.contains("expose:")).map(|line| format!("{line}\n")).collect();
    let after = admitted(&[("expose.yaml", &none)], &before).desired;
    assert_eq!(routes(&after), ["default http/own shop.lan -> 418"]);
    assert_eq!(certificates(&after), ["self-signed:old.lan"]);
    assert_eq!(after.target_groups.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["own"]);
    assert_eq!(after.services["shop"].spec.load_balancers, []);
}
