//! The hand-made fleet with load balancers on it.

use std::{collections::BTreeMap, sync::Arc};

use roadstead_control::control::{handle::Snapshot, ingest::check_expression};
use roadstead_core::{
    manifest::{self, SourceTree},
    model::{
        container::PortBinding,
        desired::Desired,
        name::RevisionId,
        spec::task_definition::Protocol,
        state::{Revision, ServiceRecord},
        task::{DesiredStatus, LastStatus, Task},
        traffic::{EdgeSeen, Shift, Side, TargetHealth, TargetSeen},
    },
    plan::traffic,
};

const MANIFESTS: &str = r#"
apiVersion: roadstead/v1
kind: TargetGroup
metadata: { name: shop-blue }
spec: { port: 80 }
---
apiVersion: roadstead/v1
kind: TargetGroup
metadata: { name: shop-green }
spec: { port: 80 }
---
apiVersion: roadstead/v1
kind: TargetGroup
metadata: { name: spare }
spec: { port: 25, protocol: TCP }
---
apiVersion: roadstead/v1
kind: LoadBalancer
metadata: { name: front }
spec:
  securityGroups: [front]
  listeners:
    - name: http
      port: 80
      rules:
        - { name: old, action: { redirect: { host: shop.example.com, statusCode: HTTP_301 } }, conditions: { hostHeader: [example.com] } }
        - { name: shop, priority: 10, conditions: { hostHeader: [shop.example.com] }, action: { forward: shop-blue } }
    - { name: test, port: 9000, defaultAction: { forward: shop-green } }
---
apiVersion: roadstead/v1
kind: LoadBalancer
metadata: { name: nowhere }
spec: { hosts: { role: none }, listeners: [{ name: smtp, port: 25, protocol: TCP, defaultAction: { forward: spare } }] }
---
apiVersion: roadstead/v1
kind: Service
metadata: { name: shop }
spec:
  desiredCount: 3
  taskDefinition: { containerDefinitions: [{ name: shop, image: "shop:1", memory: 64, portMappings: [{ containerPort: 8080 }] }] }
  loadBalancers: [{ targetGroup: shop-blue, alternateTargetGroup: shop-green, productionListenerRule: front/http/shop, testListenerRule: front/test }]
---
apiVersion: roadstead/v1
kind: Service
metadata: { name: mail }
spec:
  taskDefinition: { containerDefinitions: [{ name: mail, image: "mail:1", memory: 64, portMappings: [{ containerPort: 25 }] }] }
  loadBalancers: [{ targetGroup: spare }]
"#;

/// Lays it: a deployment sends a tenth to green; one edge shows all, one has a problem, and one cannot be asked.
pub fn lay(snapshot: &mut Snapshot) {
    let tree = SourceTree::from_texts("/manifests", [("traffic.yaml", MANIFESTS)]);
    let more = manifest::admit(&tree, &Desired::default(), check_expression);
    assert!(!more.has_errors(), "{:?}", more.diagnostics);
    let at = snapshot.world.now;
    let state = &mut snapshot.world.state;
    let desired = Arc::make_mut(&mut state.desired);
    desired.target_groups.extend(more.desired.target_groups);
    desired.load_balancers.extend(more.desired.load_balancers);
    desired.services.extend(more.desired.services);
    desired.task_definitions.extend(more.desired.task_definitions);
    let like = state.tasks["aaaa000000000001"].clone();
    for (family, port) in [("shop", 8080), ("mail", 25)] {
        let id = RevisionId { family: family.into(), number: 1 };
        let spec = Some(state.desired.task_definitions[family].spec.spec().clone());
        let revision =
            Revision { id, hash: family.to_owned(), spec, images: BTreeMap::new(), created_at: like.created_at };
        state.revisions.entry(family.into()).or_default().insert(1, revision);
        let tasks = match family {
            "shop" => vec![
                ("5a0000000000000a", "box-a", Side::Blue, false),
                ("5a0000000000000b", "box-b", Side::Blue, false),
                ("5a0000000000000c", "box-a", Side::Blue, true),
                ("5a0000000000000d", "box-b", Side::Green, false),
            ],
            _ => vec![("3a1100000000000a", "box-a", Side::Blue, false)],
        };
        for (number, (task, host, side, leaves)) in (0..).zip(tasks) {
            let mut row = like.containers.get("web").unwrap().clone();
            row.ports = vec![PortBinding { container_port: port, host_port: 41_000 + number, protocol: Protocol::Tcp }];
            let task = Task {
                id: task.into(),
                service: family.into(),
                revision: RevisionId { family: family.into(), number: 1 },
                host: host.into(),
                side,
                desired_status: if leaves { DesiredStatus::Stopped } else { DesiredStatus::Running },
                last_status: if leaves { LastStatus::Deactivating } else { LastStatus::Running },
                started_at: Some(like.created_at),
                containers: [(family.into(), row)].into(),
                ..Task::clone(&like)
            };
            state.tasks.insert(task.id.clone(), Arc::new(task));
        }
    }
    let shift = Some(Shift { live: Side::Blue, per_mille: 100, test: true });
    let record = ServiceRecord { name: "shop".into(), shift, ..ServiceRecord::default() };
    state.services.insert("shop".into(), record);
    let seen = |health, reason: Option<&str>| TargetSeen {
        health,
        reason: reason.map(str::to_owned),
        idle: true,
        answers: None,
    };
    let blue = BTreeMap::from([
        ("5a0000000000000a".into(), seen(TargetHealth::Healthy, None)),
        ("5a0000000000000b".into(), seen(TargetHealth::Unhealthy, Some("it answered 503"))),
    ]);
    let green = BTreeMap::from([("5a0000000000000d".into(), seen(TargetHealth::Initial, None))]);
    let good = EdgeSeen {
        at,
        confirmed: traffic::edges(state).remove("box-a"),
        under_way: None,
        targets: BTreeMap::from([("shop-blue".into(), blue), ("shop-green".into(), green)]),
        is_there: Some(true),
        problem: None,
    };
    assert!(good.confirmed.is_some());
    let problem = Some("port 80 is taken there by another program".to_owned());
    let bad =
        EdgeSeen { at, confirmed: None, under_way: None, targets: BTreeMap::new(), is_there: Some(false), problem };
    snapshot.world.edges = BTreeMap::from([("box-a".into(), good), ("box-b".into(), bad)]).into();
}
