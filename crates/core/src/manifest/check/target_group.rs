//! TargetGroup by itself, and how a service names some.

use super::{
    health_check::{is_word, path_of_a_request},
    in_range, join,
};
use crate::{
    manifest::{
        node::{Node, Step, at},
        report::{Scope, quote},
    },
    model::spec::{
        TargetGroupSpec,
        load_balancer::ServiceLoadBalancer,
        target_group::{Stickiness, TargetProtocol},
    },
};

/// Over how long a new target may come to its full share, in seconds (ELB).
const SLOW_START_S: std::ops::RangeInclusive<u32> = 30..=900;
/// The longest deregistration delay, in seconds (ELB).
const LONGEST_DELAY_S: u32 = 3600;
/// For how long a client may stay with its target: a week, in seconds (ELB).
const LONGEST_STICKINESS_S: u32 = 604_800;
const LONGEST_COOKIE_NAME: usize = 64;
/// Target groups of one service (ECS).
const MAX_OF_SERVICE: usize = 5;

/// Checks a target group.
pub fn target_group(spec: &TargetGroupSpec, scope: &mut Scope<'_>) {
    port(spec.port, at!["port"], scope);
    health_check(spec, at!["healthCheck"], scope);
    in_range(scope, at!["deregistrationDelay"], spec.deregistration_delay.0, 0..=LONGEST_DELAY_S, " s");
    if spec.slow_start.0 != 0 && !SLOW_START_S.contains(&spec.slow_start.0) {
        let label = format!("0, or from {} s to {} s", SLOW_START_S.start(), SLOW_START_S.end());
        let message = format!("{} s is out of range", spec.slow_start.0);
        scope.error(at!["slowStart"], "out-of-range", message).label(label);
    }
    stickiness(&spec.stickiness, scope);
    match spec.protocol {
        TargetProtocol::Tcp => of_bytes(spec, scope),
        TargetProtocol::Http | TargetProtocol::Https if spec.proxy_protocol => {
            scope
                .error(at!["proxyProtocol"], "target-group", "`proxyProtocol` is for groups with `protocol: TCP`")
                .label("of HTTP's clients targets are told by X-Forwarded-For")
                .help("leave it out");
        }
        TargetProtocol::Http | TargetProtocol::Https => {}
    }
}

pub(super) fn port(port: u16, path: &[Step<'_>], scope: &mut Scope<'_>) {
    if port == 0 {
        scope.error(path, "out-of-range", "0 is not a port").label("from 1 to 65535");
    }
}

/// Checks a group's health check, which stands at `base`.
pub(super) fn health_check(spec: &TargetGroupSpec, base: &[Step<'_>], scope: &mut Scope<'_>) {
    let check = &spec.health_check;
    let field = |field: &'static str| join(base, &[Step::Key(field)]);
    let is_written = |scope: &Scope<'_>, name: &'static str| scope.node.find(&field(name)).is_some();
    if let Some(own) = check.port {
        port(own, &field("port"), scope);
    }
    in_range(scope, &field("interval"), check.interval.0, 1..=300, " s");
    in_range(scope, &field("timeout"), check.timeout.0, 1..=120, " s");
    in_range(scope, &field("healthyThresholdCount"), check.healthy_threshold_count, 2..=10, "");
    in_range(scope, &field("unhealthyThresholdCount"), check.unhealthy_threshold_count, 2..=10, "");
    // ▲ ELB refuses it; here both are 5 s when nothing is said, and the next check waits for the one before.
    if check.timeout > check.interval && is_written(scope, "timeout") {
        let message = format!("a check may take longer ({} s) than the time between two", check.timeout.0);
        scope
            .warning(&field("timeout"), "health-check", message)
            .label(format!("`interval` is {} s", check.interval.0))
            .help("a shorter `timeout`, or a longer `interval`");
    }
    match spec.check_protocol() {
        TargetProtocol::Http | TargetProtocol::Https => {
            path_of_a_request(&check.path, &field("path"), scope);
            if spec.good_answers().is_none() {
                let message = format!("{} does not say which answers are good", quote(&check.matcher));
                scope
                    .error(&field("matcher"), "matcher", message)
                    .label("status codes from 200 to 499: `200`, `200,202` or `200-299`");
            }
        }
        TargetProtocol::Tcp => {
            for name in ["path", "matcher"] {
                if !is_written(scope, name) {
                    continue;
                }
                scope
                    .warning(&field(name), "health-check", "a check over TCP asks for nothing: a connection is enough")
                    .label("has no effect")
                    .help("`protocol: HTTP` in `healthCheck` asks for a path");
            }
        }
    }
}

fn stickiness(stickiness: &Stickiness, scope: &mut Scope<'_>) {
    in_range(scope, at!["stickiness", "duration"], stickiness.duration.0, 1..=LONGEST_STICKINESS_S, " s");
    let name = &stickiness.cookie_name;
    if !is_word(name) || name.len() > LONGEST_COOKIE_NAME {
        scope
            .error(at!["stickiness", "cookieName"], "bad-name", format!("{} is no name for a cookie", quote(name)))
            .label(format!("1 to {LONGEST_COOKIE_NAME} letters, digits, hyphens and underscores"));
    }
}

/// What a group that passes bytes on cannot do.
fn of_bytes(spec: &TargetGroupSpec, scope: &mut Scope<'_>) {
    if spec.stickiness.enabled {
        scope
            .error(at!["stickiness"], "target-group", "clients stay with a target by a cookie, which TCP has not")
            .help("leave `stickiness` out, or make it a group with `protocol: HTTP`");
    }
    if spec.slow_start.0 != 0 {
        scope
            .error(at!["slowStart"], "target-group", "a TCP group has no slow start")
            .help("leave it out, or make it a group with `protocol: HTTP`");
    }
}

/// Checks the target groups that a service names.
pub fn load_balancers(groups: &[ServiceLoadBalancer], scope: &mut Scope<'_>) {
    if groups.len() > MAX_OF_SERVICE {
        let message = format!("{} target groups, {MAX_OF_SERVICE} are the most", groups.len());
        scope.error(at!["loadBalancers", MAX_OF_SERVICE], "target-group", message).label("one too many");
        return;
    }
    let mut named: Vec<&str> = Vec::new();
    let mut rules: Vec<&str> = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let names = [
            ("targetGroup", Some(&group.target_group)),
            ("alternateTargetGroup", group.alternate_target_group.as_ref()),
        ];
        for (field, name) in names {
            let Some(name) = name.map(|name| name.as_str()) else { continue };
            if named.contains(&name) {
                let message = format!("the target group {} is named twice", quote(name));
                let help = match field {
                    "alternateTargetGroup" => "the two that take turns are two groups",
                    _ => "a task is a target of a group once",
                };
                scope
                    .error(&in_service(scope.node, index, field), "target-group", message)
                    .label("again here")
                    .help(help);
            }
            named.push(name);
        }
        let written = [
            ("productionListenerRule", &group.production_listener_rule),
            ("testListenerRule", &group.test_listener_rule),
        ];
        for (field, rule) in written {
            let Some(rule) = rule else { continue };
            let path = in_service(scope.node, index, field);
            let parts = rule.split('/').count();
            if rule.starts_with("arn:") || !(2..=3).contains(&parts) || rule.split('/').any(str::is_empty) {
                scope
                    .error(&path, "bad-reference", format!("{} names no rule", quote(rule)))
                    .label("`LOADBALANCER/LISTENER/RULE`, or `LOADBALANCER/LISTENER` for its default action");
            } else if rules.contains(&rule.as_str()) {
                let message = format!("the rule {} is named twice", quote(rule));
                scope
                    .error(&path, "target-group", message)
                    .help("one rule is for production, and another, if any, for trying what is new");
            }
            rules.push(rule);
        }
        if group.container_port == Some(0) {
            port(0, &in_service(scope.node, index, "containerPort"), scope);
        }
    }
}

/// Where a field of `loadBalancers[index]` stands: in our words or in ECS's, or else the item itself.
pub fn in_service(node: &Node, index: usize, field: &'static str) -> Vec<Step<'static>> {
    let of_ecs = match field {
        "targetGroup" => "targetGroupArn",
        "alternateTargetGroup" => "alternateTargetGroupArn",
        other => other,
    };
    let item = [Step::Key("loadBalancers"), Step::Index(index)];
    let advanced = join(&item, &[Step::Key("advancedConfiguration")]);
    let places = [(&item[..], field), (&item[..], of_ecs), (&advanced, field), (&advanced, of_ecs)];
    let mut paths = places.into_iter().map(|(base, field)| join(base, &[Step::Key(field)]));
    paths.find(|path| node.find(path).is_some()).unwrap_or_else(|| item.to_vec())
}
