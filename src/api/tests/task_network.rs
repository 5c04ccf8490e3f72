//! The hand-made fleet with a task network on it.

use std::{collections::BTreeMap, sync::Arc};

use roadstead_control::control::{handle::Snapshot, ingest::check_expression};
use roadstead_core::{
    manifest::{self, SourceTree},
    model::{
        container::PortBinding,
        desired::Desired,
        name::RevisionId,
        network::{NetworkSeen, SANDBOX, SubnetRecord, TaskNetwork},
        report::{Report, Waiting},
        spec::task_definition::Protocol,
        state::Revision,
        task::Task,
        world::Subject,
    },
    plan::network,
};

const MANIFESTS: &str = r#"
apiVersion: roadstead/v1
kind: Subnet
metadata: { name: app-a }
spec: { availabilityZone: a, cidr: 10.64.16.0/20 }
---
apiVersion: roadstead/v1
kind: Subnet
metadata: { name: data }
spec: { cidr: 10.64.64.0/28, hostPrefix: 29 }
---
apiVersion: roadstead/v1
kind: SecurityGroup
metadata: { name: auth }
spec:
  description: who may log people in
  ingress:
    - { protocol: tcp, fromPort: 8080, sources: [{ securityGroup: internal-alb }, { cidr: 10.0.0.0/8 }] }
    - { protocol: udp, fromPort: 7000, toPort: 7010, sources: [{ securityGroup: auth }] }
---
apiVersion: roadstead/v1
kind: SecurityGroup
metadata: { name: closed }
spec: { egress: [] }
---
apiVersion: roadstead/v1
kind: Service
metadata: { name: auth }
spec:
  taskDefinition:
    networkMode: awsvpc
    containerDefinitions:
      - { name: otel, image: "otel:1", memory: 32 }
      - { name: auth, image: "auth:1", memory: 64, portMappings: [{ containerPort: 8080 }] }
  networkConfiguration: { awsvpcConfiguration: { subnets: [app-a], securityGroups: [auth], assignPublicIp: ENABLED } }
"#;

/// Lays the network: one task has an address, one host is ready, and one is not.
pub fn lay(snapshot: &mut Snapshot) {
    let tree = SourceTree::from_texts("/manifests", [("network.yaml", MANIFESTS)]);
    let more = manifest::admit(&tree, &Desired::default(), check_expression);
    assert!(!more.has_errors(), "{:?}", more.diagnostics);
    let state = &mut snapshot.world.state;
    let desired = Arc::make_mut(&mut state.desired);
    desired.subnets.extend(more.desired.subnets);
    desired.security_groups.extend(more.desired.security_groups);
    desired.services.extend(more.desired.services);
    desired.task_definitions.extend(more.desired.task_definitions);
    let id = RevisionId { family: "auth".into(), number: 1 };
    let spec = Some(state.desired.task_definitions["auth"].spec.spec().clone());
    let like = state.tasks["aaaa000000000001"].clone();
    let created_at = like.created_at;
    let revision = Revision { id: id.clone(), hash: "ca11ed".to_owned(), spec, images: BTreeMap::new(), created_at };
    state.revisions.entry("auth".into()).or_default().insert(1, revision);
    let container = |name: &str, ports| {
        let mut row = like.containers.get("web").unwrap().clone();
        row.created_name = format!("rs-{name}");
        row.runtime_id = Some(format!("run-{name}").into());
        row.ports = ports;
        (name.into(), row)
    };
    let published = vec![PortBinding { container_port: 8080, host_port: 8080, protocol: Protocol::Tcp }];
    let task = Task {
        id: "dddd000000000005".into(),
        service: "auth".into(),
        revision: id,
        containers: [container("auth", vec![]), container("otel", vec![]), container(SANDBOX, published)].into(),
        network: Some(Arc::new(TaskNetwork {
            subnet: "app-a".into(),
            address: [10, 64, 16, 7].into(),
            security_groups: vec!["auth".into()],
        })),
        ..Task::clone(&like)
    };
    state.tasks.insert(task.id.clone(), Arc::new(task));
    for (name, cidr, host_prefix, hosts) in
        [("app-a", "10.64.16.0/20", 26, vec!["box-a"]), ("data", "10.64.64.0/28", 29, vec!["box-a", "box-b"])]
    {
        let slices = hosts.into_iter().zip(0..).map(|(host, number)| (host.into(), number)).collect();
        let record = SubnetRecord { name: name.into(), cidr: cidr.parse().unwrap(), host_prefix, lan: None, slices };
        state.subnets.insert(name.into(), record);
    }
    let confirmed = network::pictures(state).remove("box-a");
    assert!(confirmed.is_some());
    let problem = Some("its image roadstead-node is not there".to_owned());
    let at = snapshot.world.now;
    let seen = |confirmed, problem| NetworkSeen {
        at,
        confirmed,
        under_way: None,
        slices: BTreeMap::new(),
        problem,
        public_key: None,
    };
    snapshot.world.networks =
        BTreeMap::from([("box-a".into(), seen(confirmed, None)), ("box-b".into(), seen(None, problem))]).into();
    let waiting = Waiting {
        subject: Subject::Subnet("data".into()),
        reason: "host box-c gets no slice: all 2 of /29 are taken".to_owned(),
        wakes_when: "another host goes".to_owned(),
        wakes_at: None,
    };
    let report = Report { waiting: vec![waiting], ..Report::clone(&snapshot.report) };
    snapshot.report = report.into();
}
