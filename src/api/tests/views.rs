//! Every view's JSON, as the contract prints it.

use std::{collections::BTreeMap, sync::Arc};

use insta::assert_json_snapshot;

use super::{NOW, certificates, fleet, task_network, traffic};
use crate::api::view::{
    certificate, cluster, deployment, event, host, load_balancer, metrics, plan, security_group, service, status,
    subnet, target_group, task, task_definition, why,
};
use roadstead_control::control::handle::Snapshot;
use roadstead_core::model::{
    report::{Doing, Report},
    spec::Kind,
    world::Subject,
};

#[test]
fn hosts() {
    let snapshot = fleet::snapshot(NOW);
    let hosts = host::list(&snapshot, None);
    assert_json_snapshot!(hosts);
    assert!(host::list(&snapshot, Some("other")).is_empty());
    assert_eq!(host::view(&snapshot, &"box-x".into()), None);
}

#[test]
fn services() {
    let snapshot = fleet::snapshot(NOW);
    assert_json_snapshot!(service::list(&snapshot, Some("default"), &fleet::events(NOW)));
    assert!(service::list(&snapshot, Some("other"), &[]).is_empty());
    assert_eq!(service::view(&snapshot, &"nope".into(), &[]), None);
}

#[test]
fn tasks() {
    let snapshot = fleet::snapshot(NOW);
    let all = task::list(&snapshot, &task::TaskFilter { stopped: true, ..task::TaskFilter::default() });
    assert_json_snapshot!(all);
    let ids = |filter| task::list(&snapshot, &filter).into_iter().map(|task| task.task_id).collect::<Vec<_>>();
    let base = task::TaskFilter::default;
    assert_eq!(ids(base()).len(), 3);
    assert_eq!(ids(task::TaskFilter { host: Some("box-b"), ..base() }), ["aaaa000000000002"]);
    assert_eq!(ids(task::TaskFilter { service: Some("agent"), ..base() }), ["cccc000000000004"]);
    assert!(ids(task::TaskFilter { cluster: Some("other"), stopped: true, ..base() }).is_empty());
}

#[test]
fn a_task_network_is_shown() {
    let mut snapshot = fleet::snapshot(NOW);
    assert!(subnet::list(&snapshot, None).is_empty() && security_group::list(&snapshot).is_empty());
    task_network::lay(&mut snapshot);
    assert_json_snapshot!("subnets", subnet::list(&snapshot, None));
    assert!(subnet::list(&snapshot, Some("other")).is_empty());
    assert_json_snapshot!("security_groups", security_group::list(&snapshot));
    let hosts = host::list(&snapshot, None).into_iter().map(|host| (host.name, host.network));
    assert_json_snapshot!("host_networks", hosts.collect::<Vec<_>>());
    // What holds its network is not among its containers; what is published there is its containers'.
    let task = task::find(&snapshot.world.state, "dddd").unwrap();
    assert_json_snapshot!("network_task", task::view(&snapshot.world.state, task));
}

#[test]
fn what_is_not_wanted_any_more_is_shown_while_tasks_have_it() {
    let mut snapshot = fleet::snapshot(NOW);
    task_network::lay(&mut snapshot);
    let desired = Arc::make_mut(&mut snapshot.world.state.desired);
    desired.subnets.remove("app-a");
    desired.security_groups.clear();
    let subnets = subnet::list(&snapshot, None);
    let gone = subnets.iter().find(|subnet| subnet.name == "app-a").unwrap();
    assert_eq!((gone.cidr.as_str(), gone.addresses_in_use, gone.cluster.as_str()), ("10.64.16.0/20", 1, "default"));
    assert_eq!(gone.reason.as_deref(), Some("no longer declared in the manifests; tasks have addresses of it"));
    let groups = security_group::list(&snapshot);
    let auth = groups.iter().find(|group| group.name == "auth").unwrap();
    assert_eq!((auth.declared, auth.ingress.len(), auth.egress.len(), auth.members.len()), (false, 0, 0, 1));
}

#[test]
fn load_balancers_are_shown() {
    let mut snapshot = fleet::snapshot(NOW);
    assert!(target_group::list(&snapshot, None).is_empty() && load_balancer::list(&snapshot, None).is_empty());
    traffic::lay(&mut snapshot);
    assert_json_snapshot!("target_groups", target_group::list(&snapshot, Some("default")));
    assert_json_snapshot!("load_balancers", load_balancer::list(&snapshot, Some("default")));
    assert!(target_group::list(&snapshot, Some("other")).is_empty());
    assert!(load_balancer::list(&snapshot, Some("other")).is_empty());
    let shop = service::view(&snapshot, &"shop".into(), &[]).unwrap();
    assert_json_snapshot!("service_targets", shop.load_balancers);
}

#[test]
fn what_no_edge_tells_is_unavailable_and_not_unhealthy() {
    let mut snapshot = fleet::snapshot(NOW);
    traffic::lay(&mut snapshot);
    let states = |snapshot: &Snapshot| {
        let groups = target_group::list(snapshot, None);
        let blue = groups.iter().find(|group| group.name == "shop-blue").unwrap();
        blue.targets.iter().map(|target| target.state).collect::<Vec<_>>()
    };
    use target_group::TargetState::{Draining, Healthy, Unavailable, Unhealthy};
    assert_eq!(states(&snapshot), [Healthy, Unhealthy, Draining]);
    // What a silent edge said last is not what it would say now.
    let mut silent = snapshot.world.contacts.get("box-a").unwrap().clone();
    silent.untrusted = Some("another machine".to_owned());
    let contacts = snapshot.world.contacts.iter().map(|(name, contact)| (name.clone(), contact.clone()));
    let mut contacts: BTreeMap<_, _> = contacts.collect();
    contacts.insert("box-a".into(), silent);
    snapshot.world.contacts = contacts.into();
    assert_eq!(states(&snapshot), [Unavailable, Unavailable, Draining]);
    let balancers = load_balancer::list(&snapshot, None);
    let front = balancers.iter().find(|balancer| balancer.name == "front").unwrap();
    assert_eq!(front.state, load_balancer::LoadBalancerState::Provisioning);
}

#[test]
fn tasks_are_found_by_the_beginning_of_their_id() {
    let state = fleet::snapshot(NOW).world.state;
    let found = |id| task::find(&state, id).map(|task| task.id.to_string());
    assert_eq!(found("bbbb000000000003").as_deref(), Ok("bbbb000000000003"));
    assert_eq!(found("b").as_deref(), Ok("bbbb000000000003"));
    assert_eq!(
        found("aaaa"),
        Err(task::NoTask::Ambiguous(vec!["aaaa000000000001".to_owned(), "aaaa000000000002".to_owned()]))
    );
    assert_eq!(found("d"), Err(task::NoTask::Unknown));
    assert_eq!(found(""), Err(task::NoTask::Unknown));
}

#[test]
fn the_rest() {
    let snapshot = fleet::snapshot(NOW);
    assert_json_snapshot!("clusters", cluster::list(&snapshot));
    assert_json_snapshot!("deployments", deployment::list(&snapshot, None));
    assert_json_snapshot!("task_definition", task_definition::find(&snapshot, "web"));
    assert_eq!(task_definition::find(&snapshot, "web:1"), task_definition::find(&snapshot, "web"));
    assert_eq!(task_definition::find(&snapshot, "web:2"), None);
    assert_json_snapshot!("status", status::view(&snapshot));
    assert_json_snapshot!("events", fleet::events(NOW).iter().map(event::view).collect::<Vec<_>>());
    assert_json_snapshot!("plan", plan::view(&snapshot.report, &[], Vec::new(), |_| Some("web".to_owned())));
}

#[test]
fn why_a_service_and_a_task_are_as_they_are() {
    let snapshot = fleet::snapshot(NOW);
    let mut of_service = why::service(&snapshot, &"web".into(), &[]).unwrap();
    // Their views are shown elsewhere.
    assert_eq!(of_service.tasks.drain(..).count(), 3);
    assert_json_snapshot!("why_service", of_service);
    let task = task::find(&snapshot.world.state, "bbbb").unwrap();
    assert_eq!(
        why::task(&snapshot, task, &[]).summary,
        "STOPPED: web:1 of service web on box-a: container web exited with 3"
    );
}

#[test]
fn a_new_task_is_one_line_of_a_plan() {
    let doing = |action: &str, task: &str, reason: &str| Doing {
        action: action.to_owned(),
        subject: Subject::Task(task.into()),
        host: None,
        reason: reason.to_owned(),
    };
    let report = Report {
        doing: vec![
            doing("place", "new", "web wants 3 tasks"),
            doing("start", "new", "web wants it"),
            doing("start", "new", "its next container"),
            doing("start", "old", "web wants it"),
            doing("start", "old", "web wants it"),
            doing("place", "waits", "web wants 3 tasks"),
            doing("stop", "old", "one too many"),
        ],
        waiting: Vec::new(),
    };
    let view = plan::view(&report, &[(Kind::TaskDefinition, "api".to_owned())], Vec::new(), |_| None);
    let lines: Vec<String> =
        view.actions.iter().map(|line| format!("{} {} {}", line.action, line.name, line.reason)).collect();
    assert_eq!(
        lines,
        [
            "remove api the manifests do not declare it any more",
            "start new web wants 3 tasks",
            "start old web wants it",
            "place waits web wants 3 tasks",
            "stop old one too many",
        ]
    );
    assert_eq!(view.summary.actions["start"], 2);
}

#[test]
fn certificates_and_what_prometheus_scrapes() {
    let mut snapshot = fleet::snapshot(NOW);
    traffic::lay(&mut snapshot);
    certificates::lay(&mut snapshot);
    assert_json_snapshot!("certificates", certificate::list(&snapshot));
    let text = metrics::text(&snapshot).replace(env!("CARGO_PKG_VERSION"), "VERSION");
    insta::assert_snapshot!("metrics", text);
}
