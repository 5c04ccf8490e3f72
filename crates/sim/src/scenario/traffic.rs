//! Some seeds put some services behind load balancers, on one host or on several; then people lay hands on these.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{
    Change, Happening, Scripted, Sickness,
    change::{ENDS_WELL, SICKNESS},
};
use crate::rng::Rng;
use roadstead_core::model::{
    desired::{Desired, Manifest},
    name::{HostName, ServiceName},
    quantity::Seconds,
    spec::{
        LoadBalancerSpec, TargetGroupSpec, TaskDefinitionSpec,
        service::{DeploymentConfiguration, SchedulingStrategy},
        task_definition::NetworkMode,
    },
};
use roadstead_core::plan::absorb::RolloutVerb;
use serde_json::{Value, json};

/// Sets these draws apart, so that they do not change the others.
const APART: u64 = 0x7472_6166_6669_6321;
/// Of the hosts that load balancers run on.
const EDGE: &str = "edge";
/// What hooks run.
const HOOK: &str = "hook";

/// What is wanted from the beginning, and what happens to it later.
pub(super) fn draw(seed: u64, desired: &mut Desired, faults_ms: u64) -> Vec<Scripted> {
    let mut rng = Rng::new(seed ^ APART);
    if !rng.chance(200) {
        return Vec::new();
    }
    let mut groups = Vec::new();
    let names: Vec<ServiceName> = desired.services.keys().cloned().collect();
    for (number, name) in names.iter().enumerate() {
        // One is for certain.
        if number > 0 && rng.chance(500) {
            continue;
        }
        let delay = rng.within(0, 20);
        if put_behind(desired, name, delay).is_some() {
            groups.push(name);
            if rng.chance(500) {
                let bake = rng.within(0, 15);
                let strategy = match rng.within(0, 2) {
                    0 => json!({ "strategy": "BLUE_GREEN" }),
                    1 => {
                        json!({ "strategy": "CANARY", "canaryConfiguration": { "canaryPercent": 5, "canaryBakeTime": bake } })
                    }
                    _ => {
                        json!({ "strategy": "LINEAR", "linearConfiguration": { "stepPercent": 40, "stepBakeTime": bake } })
                    }
                };
                take_turns(desired, name, strategy, rng.within(0, 15));
                if rng.chance(400) {
                    hook(&mut rng, seed, desired, name);
                    watch(seed, desired, name);
                }
            }
        }
    }
    let Some(first) = groups.first() else { return Vec::new() };
    let rules: Vec<_> = groups
        .iter()
        .map(|name| {
            json!({ "name": name, "conditions": { "pathPattern": [format!("/{name}/*")] }, "action": { "forward": name } })
        })
        .collect();
    let tests: Vec<_> = groups
        .iter()
        .filter(|name| desired.target_groups.contains_key(green(name).as_str()))
        .map(|name| json!({ "name": name, "conditions": { "pathPattern": [format!("/{name}/*")] }, "action": { "forward": green(name) } }))
        .collect();
    let spec = json!({
        "hosts": { EDGE: "true" },
        "listeners": [
            { "name": "http", "port": 80, "rules": rules, "defaultAction": { "forward": first } },
            { "name": "test", "port": 81, "rules": tests },
        ],
    });
    let Ok(spec) = serde_json::from_value::<LoadBalancerSpec>(spec) else { return Vec::new() };
    desired.load_balancers.insert("front".into(), manifest(spec, "front-balancer.yaml".to_owned()));
    let hosts: Vec<HostName> = desired.hosts.keys().cloned().collect();
    for (number, host) in hosts.iter().enumerate() {
        let last = u8::try_from(number).unwrap_or(u8::MAX);
        desired.hosts.entry(host.clone()).and_modify(|host| {
            host.spec.private_address = Some(Ipv4Addr::new(192, 0, 2, last));
        });
        if number == 0 || rng.chance(300) {
            desired.hosts.entry(host.clone()).and_modify(|host| {
                host.labels.insert(EDGE.to_owned(), "true".to_owned());
            });
        }
    }
    let strike = |_| {
        let host = rng.pick(&hosts).cloned()?;
        Some(Scripted { at_ms: rng.within(0, faults_ms), what: Happening::RemoveBalancers { host } })
    };
    let times = Rng::new(seed ^ APART).within(0, 3);
    let mut script: Vec<Scripted> = (0..times).filter_map(strike).collect();
    let turning = desired.services.iter().filter(|(_, service)| service.spec.takes_turns());
    for (name, _) in turning {
        deployments(&mut rng, name, faults_ms, &mut script);
    }
    script
}

/// What a service's deployments wait for: a task that ends well, mostly in time, or a person.
fn hook(rng: &mut Rng, seed: u64, desired: &mut Desired, service: &ServiceName) {
    let stages = [
        "PRE_SCALE_UP",
        "POST_SCALE_UP",
        "TEST_TRAFFIC_SHIFT",
        "PRODUCTION_TRAFFIC_SHIFT",
        "POST_PRODUCTION_TRAFFIC_SHIFT",
    ];
    let stages = [rng.pick(&stages)];
    let hook = match rng.chance(700) {
        true => {
            let timeout = rng.within(15, 60);
            // Drawn apart, too: other seeds stay as they were.
            match Rng::keyed(seed, &[APART, number_of(service)]).chance(500) {
                true => json!([{ "lifecycleStages": stages, "url": "http://hooks.test/check", "timeout": timeout }]),
                false => json!([{ "lifecycleStages": stages, "taskDefinition": HOOK, "timeout": timeout }]),
            }
        }
        false => json!([{ "lifecycleStages": stages, "pause": true }]),
    };
    let container = json!({ "name": "main", "image": "demo:1", "memory": 8, "environment": { SICKNESS: ENDS_WELL } });
    let definition = json!({ "containerDefinitions": [container] });
    let (Ok(hooks), Ok(definition)) = (serde_json::from_value(hook), serde_json::from_value(definition)) else {
        return;
    };
    let Some(service) = desired.services.get_mut(service) else { return };
    service.spec.deployment_configuration.lifecycle_hooks = hooks;
    let definition: TaskDefinitionSpec = definition;
    desired.task_definitions.insert(HOOK.into(), manifest(definition.into(), format!("{HOOK}.yaml")));
}

fn number_of(service: &ServiceName) -> u64 {
    service.as_str().bytes().fold(0, |number, byte| number.wrapping_mul(31).wrapping_add(byte.into()))
}

/// An alarm that never fires, of a Prometheus that does not always answer.
fn watch(seed: u64, desired: &mut Desired, service: &ServiceName) {
    if !Rng::keyed(seed, &[APART, number_of(service), 1]).chance(300) {
        return;
    }
    let queries = json!([{ "name": "never", "query": "vector(0) > 1" }]);
    let alarms = json!({ "prometheus": { "url": "http://prometheus.test", "interval": 2, "queries": queries } });
    let (Ok(alarms), Some(service)) = (serde_json::from_value(alarms), desired.services.get_mut(service)) else {
        return;
    };
    service.spec.deployment_configuration.alarms = alarms;
}

/// Revisions of a service, and what people say while they take their turns.
fn deployments(rng: &mut Rng, service: &ServiceName, faults_ms: u64, script: &mut Vec<Scripted>) {
    for _ in 0..rng.within(1, 4) {
        let kinds = [Sickness::Unhealthy, Sickness::Crashes, Sickness::NoImage];
        let sickness = if rng.chance(700) { Sickness::None } else { rng.pick(&kinds).copied().unwrap_or_default() };
        let change = Change::Image { service: service.clone(), version: rng.within(2, 9), sickness };
        script.push(Scripted { at_ms: rng.within(0, faults_ms), what: Happening::Manifests { change } });
    }
    for _ in 0..rng.within(0, 3) {
        let verbs = [
            RolloutVerb::Pause,
            RolloutVerb::Continue,
            RolloutVerb::Abort,
            RolloutVerb::Abort,
            RolloutVerb::Undo { to: None },
            RolloutVerb::Restart,
        ];
        let Some(verb) = rng.pick(&verbs).cloned() else { return };
        let what = Happening::Rollout { service: service.clone(), verb };
        script.push(Scripted { at_ms: rng.within(0, faults_ms), what });
    }
}

fn manifest<S>(spec: S, file: String) -> Manifest<S> {
    Manifest { labels: BTreeMap::new(), annotations: BTreeMap::new(), file, line: 1, spec }
}

/// Gives a service a port and a target group.
fn put_behind(desired: &mut Desired, name: &ServiceName, delay_s: u64) -> Option<()> {
    let definition = desired.task_definitions.get_mut(name.as_str())?;
    if definition.spec.network_mode == NetworkMode::None {
        return None;
    }
    let mut spec = definition.spec.clone();
    spec.edit(|spec| {
        let has_port = spec.container_definitions.iter().any(|container| !container.port_mappings.is_empty());
        let mapping = serde_json::from_value(json!({ "containerPort": 8080 }));
        if let (false, Some(container), Ok(mapping)) = (has_port, spec.container_definitions.first_mut(), mapping) {
            container.port_mappings.push(mapping);
        }
    });
    let container = spec.container_definitions.iter().find(|container| !container.port_mappings.is_empty())?;
    let own = json!([{ "targetGroup": name, "containerName": container.name }]);
    definition.spec = spec;
    desired.services.get_mut(name)?.spec.load_balancers = serde_json::from_value(own).ok()?;
    let group = json!({ "port": 8080, "deregistrationDelay": delay_s });
    let group = serde_json::from_value::<TargetGroupSpec>(group).ok()?;
    desired.target_groups.insert(name.as_str().into(), manifest(group, format!("{name}-targets.yaml")));
    Some(())
}

/// The group that takes turns with a service's own.
fn green(name: &ServiceName) -> String {
    format!("{name}-green")
}

/// Lets a service's revisions take turns in two target groups.
fn take_turns(desired: &mut Desired, name: &ServiceName, strategy: Value, bake_s: u64) {
    let Some(group) = desired.target_groups.get(name.as_str()).cloned() else { return };
    let Some(service) = desired.services.get_mut(name) else { return };
    if service.spec.singleton || service.spec.scheduling_strategy == SchedulingStrategy::Daemon {
        return;
    }
    let Some(own) = service.spec.load_balancers.first_mut() else { return };
    let Ok(strategy) = serde_json::from_value::<DeploymentConfiguration>(strategy) else { return };
    own.alternate_target_group = Some(green(name).as_str().into());
    own.production_listener_rule = Some(format!("front/http/{name}"));
    own.test_listener_rule = Some(format!("front/test/{name}"));
    let configuration = &mut service.spec.deployment_configuration;
    configuration.strategy = strategy.strategy;
    configuration.canary_configuration = strategy.canary_configuration;
    configuration.linear_configuration = strategy.linear_configuration;
    configuration.bake_time_in_minutes = None;
    configuration.bake_time = Some(Seconds(u32::try_from(bake_s).unwrap_or(0)));
    desired.target_groups.insert(green(name).as_str().into(), group);
}
