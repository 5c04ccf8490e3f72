//! What stays as it was when a file or an object is broken.

use roadstead_core::{
    manifest::{SourceTree, admit, render},
    model::desired::Desired,
};

use crate::{admitted, check_expression};

fn service(name: &str, count: u32) -> String {
    format!(
        "apiVersion: roadstead/v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec:\n  desiredCount: {count}\n  taskDefinition: {{ containerDefinitions: [{{ name: {name}, image: {name}:{count}, memory: 64 }}] }}\n"
    )
}

fn before() -> Desired {
    let admission = admitted(&[("a.yaml", &service("a", 1)), ("sub/b.yaml", &service("b", 1))], &Desired::default());
    assert!(!admission.has_errors(), "{}", render(&admission.diagnostics, false));
    admission.desired
}

fn counts(desired: &Desired) -> Vec<(String, u32, String)> {
    let image = |name: &str| desired.task_definitions[name].spec.container_definitions[0].image.clone();
    desired
        .services
        .iter()
        .map(|(name, service)| (name.to_string(), service.spec.desired_count, image(name.as_str())))
        .collect()
}

fn row(name: &str, count: u32) -> (String, u32, String) {
    (name.to_owned(), count, format!("{name}:{count}"))
}

#[test]
fn a_good_file_takes_effect_beside_a_broken_one() {
    let after = admitted(&[("a.yaml", "kind: ["), ("sub/b.yaml", &service("b", 2))], &before());
    assert_eq!(counts(&after.desired), [row("a", 1), row("b", 2)]);
    assert_eq!(after.broken_files.iter().collect::<Vec<_>>(), ["a.yaml"]);
}

#[test]
fn one_unknown_field_keeps_all_of_its_file() {
    let texts = format!("{}---\n{}", service("a", 2).replace("desiredCount", "desiredCuont"), service("c", 1));
    let after = admitted(&[("a.yaml", &texts), ("sub/b.yaml", &service("b", 1))], &before());
    assert_eq!(counts(&after.desired), [row("a", 1), row("b", 1)]);
}

#[test]
fn an_object_that_is_wrong_stays_and_the_rest_of_its_file_takes_effect() {
    let texts = format!("{}---\n{}---\n{}", service("a", 20_000), service("c", 1), service("d", 20_000));
    let after = admitted(&[("a.yaml", &texts), ("sub/b.yaml", &service("b", 1))], &before());
    assert_eq!(counts(&after.desired), [row("a", 1), row("b", 1), row("c", 1)]);
    assert!(after.broken_files.is_empty());
    assert!(after.has_errors());
}

#[test]
fn what_is_deleted_is_gone() {
    let after = admitted(&[("a.yaml", &service("a", 1))], &before());
    assert_eq!(counts(&after.desired), [row("a", 1)]);
    assert_eq!(after.desired.task_definitions.len(), 1);
}

#[test]
fn a_file_that_became_empty_is_a_half_written_one() {
    let after = admitted(&[("a.yaml", "\n"), ("sub/b.yaml", &service("b", 1)), ("new.yaml", "")], &before());
    assert_eq!(counts(&after.desired), [row("a", 1), row("b", 1)]);
    assert_eq!(after.diagnostics.len(), 1);
    assert_eq!(after.diagnostics[0].code, "empty-file");
}

#[test]
fn what_cannot_be_read_is_not_gone() {
    for unread in ["sub/", "sub/b.yaml"] {
        let mut tree = SourceTree::from_texts("/srv/manifests", [("a.yaml", service("a", 2))]);
        tree.unread.insert(unread.to_owned());
        let after = admit(&tree, &before(), check_expression);
        assert_eq!(counts(&after.desired), [row("a", 2), row("b", 1)], "{unread}");
    }
    // Another folder whose name begins alike.
    let before =
        admitted(&[("sub/b.yaml", &service("b", 1)), ("su/c.yaml", &service("c", 1))], &Desired::default()).desired;
    let mut tree = SourceTree::from_texts("/srv/manifests", [("a.yaml", service("a", 2))]);
    tree.unread.insert("su/".to_owned());
    assert_eq!(counts(&admit(&tree, &before, check_expression).desired), [row("a", 2), row("c", 1)]);
}

#[test]
fn a_file_that_is_renamed_and_broken_at_once_is_not_gone() {
    let after = admitted(&[("renamed.yaml", "kind: ["), ("sub/b.yaml", &service("b", 2))], &before());
    assert_eq!(counts(&after.desired), [row("a", 1), row("b", 2)]);
    assert!(
        after
            .diagnostics
            .iter()
            .any(|diagnostic| diagnostic.code == "gone-or-renamed" && diagnostic.place.file == "a.yaml")
    );
    // Mended, it is the renamed one; or it was another, and the first is gone.
    let mended = admitted(&[("renamed.yaml", &service("a", 3)), ("sub/b.yaml", &service("b", 2))], &after.desired);
    assert_eq!(counts(&mended.desired), [row("a", 3), row("b", 2)]);
    let other = admitted(&[("renamed.yaml", &service("c", 1)), ("sub/b.yaml", &service("b", 2))], &after.desired);
    assert_eq!(counts(&other.desired), [row("b", 2), row("c", 1)]);
}

#[test]
fn a_service_that_moved_out_of_a_broken_file_is_taken_from_its_new_one() {
    let after =
        admitted(&[("a.yaml", "kind: ["), ("c.yaml", &service("a", 3)), ("sub/b.yaml", &service("b", 1))], &before());
    assert_eq!(counts(&after.desired), [row("a", 3), row("b", 1)]);
}

#[test]
fn what_stays_keeps_what_it_needs() {
    let task = |image: &str| {
        format!(
            "apiVersion: roadstead/v1\nkind: TaskDefinition\nmetadata: {{ name: web }}\nspec: {{ containerDefinitions: [{{ name: web, image: '{image}', memory: 64 }}] }}\n"
        )
    };
    let service = |count: u32| {
        format!(
            "apiVersion: roadstead/v1\nkind: Service\nmetadata: {{ name: web }}\nspec: {{ cluster: klp, desiredCount: {count}, taskDefinition: web }}\n"
        )
    };
    let cluster =
        "apiVersion: roadstead/v1\nkind: Cluster\nmetadata: { name: klp }\nspec: { hostLoss: { lostAfter: 30s } }\n";
    let before = admitted(
        &[("cluster.yaml", cluster), ("service.yaml", &service(1)), ("task.yaml", &task("web:1"))],
        &Desired::default(),
    );
    assert!(!before.has_errors(), "{}", render(&before.diagnostics, false));
    let before = before.desired;

    // Deleted although a service that cannot be read still names them.
    let after = admitted(&[("service.yaml", "kind: [")], &before);
    assert_eq!(after.desired, before);
    // Deleted although a good service still names them: the service is told, and all stays.
    let after = admitted(&[("service.yaml", &service(2))], &before);
    assert_eq!(after.desired, before);
    assert_eq!(
        after.diagnostics.iter().map(|diagnostic| diagnostic.code.as_ref()).collect::<Vec<_>>(),
        ["unknown-reference"]
    );
    // The task definition is wrong now; the service goes on with the one that was.
    let after =
        admitted(&[("cluster.yaml", cluster), ("service.yaml", &service(2)), ("task.yaml", &task("Web"))], &before);
    assert_eq!(after.desired.services["web"].spec.desired_count, 2);
    assert_eq!(after.desired.task_definitions, before.task_definitions);
}

#[test]
fn of_two_with_one_name_neither_is_taken() {
    let after = admitted(
        &[("a.yaml", &service("a", 2)), ("sub/b.yaml", &service("b", 1)), ("z.yaml", &service("a", 3))],
        &before(),
    );
    assert_eq!(counts(&after.desired), [row("a", 1), row("b", 1)]);
    let anew = admitted(&[("a.yaml", &service("a", 2)), ("z.yaml", &service("a", 3))], &Desired::default());
    assert!(anew.desired.is_empty());
}

#[test]
fn of_two_hosts_at_one_address_the_older_stays() {
    let host = |name: &str| {
        format!(
            "apiVersion: roadstead/v1\nkind: Host\nmetadata: {{ name: {name} }}\nspec: {{ address: 198.18.0.11, ssh: {{ knownHosts: k }} }}\n"
        )
    };
    let before = admitted(&[("z.yaml", &host("old"))], &Desired::default()).desired;
    let after = admitted(&[("a.yaml", &host("new")), ("z.yaml", &host("old"))], &before);
    assert_eq!(after.desired, before);
    assert_eq!(after.diagnostics[0].place.file, "a.yaml");
}

#[test]
fn what_stays_keeps_its_network() {
    let subnet = "apiVersion: roadstead/v1\nkind: Subnet\nmetadata: { name: app }\nspec: { cluster: klp, cidr: 10.64.16.0/20 }\n";
    let others = "apiVersion: roadstead/v1\nkind: Cluster\nmetadata: { name: klp }\n---\napiVersion: roadstead/v1\nkind: SecurityGroup\nmetadata: { name: web }\n";
    let service = |count: u32| {
        format!(
            "apiVersion: roadstead/v1\nkind: Service\nmetadata: {{ name: web }}\nspec:\n  cluster: klp\n  desiredCount: {count}\n  taskDefinition: {{ networkMode: awsvpc, containerDefinitions: [{{ name: web, image: web:1, memory: 64 }}] }}\n  networkConfiguration: {{ awsvpcConfiguration: {{ subnets: [app], securityGroups: [web] }} }}\n"
        )
    };
    let before = admitted(
        &[("others.yaml", others), ("service.yaml", &service(1)), ("subnet.yaml", subnet)],
        &Desired::default(),
    );
    assert!(!before.has_errors(), "{}", render(&before.diagnostics, false));
    let before = before.desired;

    // Deleted although a service that cannot be read, or a good one, still names them.
    for text in ["kind: [", &service(2)] {
        assert_eq!(admitted(&[("service.yaml", text)], &before).desired, before);
    }
    // Outside of its cluster's network from now on: the subnet is told, and stays where its tasks are.
    let moved = others.replace("klp }", "klp }\nspec: { network: { cidr: 10.80.0.0/16 } }");
    let after = admitted(&[("others.yaml", &moved), ("service.yaml", &service(2)), ("subnet.yaml", subnet)], &before);
    assert_eq!(after.desired.subnets, before.subnets);
    assert_eq!(after.desired.services["web"].spec.desired_count, 2);
    assert_eq!(after.diagnostics[0].place.file, "subnet.yaml");
}

#[test]
fn who_had_a_thing_before_keeps_it() {
    let subnet = |name: &str| {
        format!(
            "apiVersion: roadstead/v1\nkind: Subnet\nmetadata: {{ name: {name} }}\nspec: {{ cidr: 10.64.16.0/20 }}\n"
        )
    };
    let named = |name: &str| service(name, 1).replace("spec:\n", "spec:\n  serviceRegistries: [{ name: login }]\n");
    let host = |name: &str| {
        format!(
            "apiVersion: roadstead/v1\nkind: Host\nmetadata: {{ name: {name} }}\nspec: {{ address: {name}.example.com, privateAddress: 198.18.0.11, ssh: {{ knownHosts: k }} }}\n"
        )
    };
    for (old, new) in [(subnet("old"), subnet("new")), (named("old"), named("new")), (host("old"), host("new"))] {
        let before = admitted(&[("z.yaml", &old)], &Desired::default()).desired;
        assert!(!before.is_empty());
        // Whether the old one can still be read or not.
        for (text, broken) in [(old.as_str(), 0), ("kind: [", 1)] {
            let after = admitted(&[("a.yaml", &new), ("z.yaml", text)], &before);
            assert_eq!(after.desired, before, "{new}");
            assert_eq!(after.broken_files.len(), broken);
            let told = |file: &str| {
                let errors = after.diagnostics.iter().filter(|told| told.is_error() && told.place.file == file);
                errors.count()
            };
            assert_eq!((told("a.yaml"), told("z.yaml")), (1, broken), "{}", render(&after.diagnostics, false));
        }
        // A rename is none of it.
        let after = admitted(&[("a.yaml", &new)], &before);
        assert!(!after.has_errors(), "{}", render(&after.diagnostics, false));
    }
}

#[test]
fn the_same_tree_again_changes_nothing() {
    let texts = [("a.yaml", service("a", 1)), ("b.yaml", service("b", 20_000)), ("c.yaml", "kind: [".to_owned())];
    let tree = SourceTree::from_texts("/", texts);
    let first = admit(&tree, &Desired::default(), check_expression);
    let second = admit(&tree, &first.desired, check_expression);
    assert_eq!(first.desired, second.desired);
    assert_eq!(first.diagnostics, second.diagnostics);
}

#[test]
fn what_stays_keeps_its_target_groups_and_load_balancers() {
    let group = |name: &str| {
        format!(
            "apiVersion: roadstead/v1\nkind: TargetGroup\nmetadata: {{ name: {name} }}\nspec: {{ cluster: klp, port: 80 }}\n"
        )
    };
    let balancer = |port: u16| {
        format!(
            "apiVersion: roadstead/v1\nkind: LoadBalancer\nmetadata: {{ name: front }}\nspec: {{ cluster: klp, listeners: [{{ name: http, port: {port}, defaultAction: {{ forward: web }} }}] }}\n"
        )
    };
    let service = |count: u32| {
        format!(
            "apiVersion: roadstead/v1\nkind: Service\nmetadata: {{ name: web }}\nspec: {{ cluster: klp, desiredCount: {count}, taskDefinition: {{ containerDefinitions: [{{ name: web, image: web, memory: 64, portMappings: [{{ containerPort: 80 }}] }}] }}, loadBalancers: [{{ targetGroup: web, alternateTargetGroup: next, productionListenerRule: front/http }}] }}\n"
        )
    };
    let cluster = "apiVersion: roadstead/v1\nkind: Cluster\nmetadata: { name: klp }\n";
    let groups = format!("{}---\n{}", group("web"), group("next"));
    let texts = [
        ("balancer.yaml", balancer(80)),
        ("cluster.yaml", cluster.to_owned()),
        ("groups.yaml", groups.clone()),
        ("service.yaml", service(1)),
    ];
    let texts = texts.iter().map(|(file, text)| (*file, text.as_str())).collect::<Vec<_>>();
    let before = admitted(&texts, &Desired::default());
    assert!(!before.has_errors(), "{}", render(&before.diagnostics, false));
    let before = before.desired;
    // Deleted although what cannot be read still names them.
    assert_eq!(admitted(&[("service.yaml", "kind: [")], &before).desired, before);
    // Deleted although a good service, or a good load balancer, still names them: it is told, and all stays.
    assert_eq!(admitted(&[("service.yaml", &service(2))], &before).desired, before);
    let after = admitted(&[("balancer.yaml", &balancer(81)), ("cluster.yaml", cluster)], &before);
    assert!(after.has_errors());
    assert_eq!(after.desired.load_balancers, before.load_balancers);
    assert_eq!(after.desired.target_groups.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["web"]);
    // A port stays with who had it, although the other one is declared first.
    let other = balancer(80).replace("name: front", "name: other");
    let hosts =
        "apiVersion: roadstead/v1\nkind: Host\nmetadata: { name: box }\nspec: { address: 198.18.0.11, cluster: klp }\n";
    let all = [
        ("a.yaml", other.as_str()),
        ("balancer.yaml", &balancer(80)),
        ("cluster.yaml", cluster),
        ("groups.yaml", &groups),
        ("hosts.yaml", hosts),
        ("service.yaml", &service(1)),
    ];
    let after = admitted(&all, &before);
    assert_eq!(after.desired.load_balancers.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["front"]);
}
