//! Service by itself.

use super::{Beside, CheckExpression, awsvpc, cluster, constraints, expose, in_range, join, strategy, target_group};
use crate::{
    manifest::{
        node::{Step, at},
        report::{Scope, quote},
        suggest::did_you_mean,
    },
    model::{
        spec::{
            ServiceSpec,
            service::{
                CrashLoop, LaunchType, PlacementConstraint, PlacementStrategy, PlacementStrategyType,
                SchedulingStrategy, ThresholdType,
            },
        },
        task::MAX_RESTARTS_KEPT,
    },
};

/// Tasks of one service, at most (ECS: 5,000; ours is one controller's measure).
const MAX_DESIRED_COUNT: u32 = 10_000;

/// Checks a service.
pub fn service(spec: &mut ServiceSpec, scope: &mut Scope<'_>, check_expression: CheckExpression, beside: Beside<'_>) {
    if let Some(exposed) = &mut spec.expose {
        expose::expose(exposed, scope, beside);
    }
    in_range(scope, at!["desiredCount"], spec.desired_count, 0..=MAX_DESIRED_COUNT, "");
    constraints(scope, &spec.placement_constraints, true, check_expression);
    strategies(&spec.placement_strategy, scope);
    circuit_breaker(spec, scope);
    strategy::strategy(spec, scope);
    awsvpc::configuration(spec.network_configuration.as_ref(), scope);
    awsvpc::registries(&spec.service_registries, scope);
    target_group::load_balancers(&spec.load_balancers, scope);
    host_loss(spec, scope);
    crash_loop(spec.crash_loop, scope);
    if spec.singleton {
        singleton(spec, scope);
    }
    match spec.scheduling_strategy {
        SchedulingStrategy::Replica if spec.singleton => {}
        SchedulingStrategy::Replica => replica(spec, scope),
        SchedulingStrategy::Daemon => daemon(spec, scope),
    }
    match spec.launch_type {
        LaunchType::Ec2 => {}
        LaunchType::Fargate => fargate(spec, scope),
    }
}

/// Placement strategies of a service or a scheduled task.
pub(super) fn strategies(strategies: &[PlacementStrategy], scope: &mut Scope<'_>) {
    if strategies.len() > 5 {
        let message = format!("{} placement strategies, five are the most", strategies.len());
        scope.error(at!["placementStrategy", 5], "placement", message).label("the sixth");
    }
    for (index, strategy) in strategies.iter().enumerate() {
        placement_strategy(strategy, at!["placementStrategy", index], scope);
    }
}

fn placement_strategy(strategy: &PlacementStrategy, base: &[Step<'_>], scope: &mut Scope<'_>) {
    let path = join(base, &[Step::Key("field")]);
    match (strategy.kind, strategy.field.as_deref()) {
        (PlacementStrategyType::Spread, None) => {
            scope
                .error(base, "placement", "`spread` needs a `field`")
                .help("`attribute:availability-zone` for zones, `host` for machines, `attribute:LABEL` for any label");
        }
        (PlacementStrategyType::Spread, Some(field)) => {
            let label = field.strip_prefix("attribute:");
            if !matches!(field, "host" | "instanceId") && label.is_none_or(str::is_empty) {
                let message = format!("{} is nothing that tasks can be spread over", quote(field));
                scope.error(&path, "placement", message).maybe_help(Some(
                    match did_you_mean(field, ["host", "instanceId"]) {
                        Some(help) => help,
                        None => format!("`host`, `instanceId`, or a label: {}", quote(&format!("attribute:{field}"))),
                    },
                ));
            }
        }
        (PlacementStrategyType::Binpack, None) => {
            scope.error(base, "placement", "`binpack` needs a `field`").help("`cpu` or `memory`");
        }
        (PlacementStrategyType::Binpack, Some("cpu" | "memory")) => {}
        (PlacementStrategyType::Binpack, Some(field)) => {
            scope
                .error(&path, "placement", format!("`binpack` packs by `cpu` or `memory`, not by {}", quote(field)))
                .maybe_help(did_you_mean(field, ["cpu", "memory"]));
        }
        (PlacementStrategyType::Random, None) => {}
        (PlacementStrategyType::Random, Some(_)) => {
            scope.error(&path, "placement", "`random` takes no `field`");
        }
    }
}

fn percentages(spec: &ServiceSpec, scope: &mut Scope<'_>) -> bool {
    let bounds = &spec.deployment_configuration;
    if let Some(percent) = bounds.minimum_healthy_percent {
        in_range(scope, at!["deploymentConfiguration", "minimumHealthyPercent"], percent, 0..=100, " %");
    }
    if let Some(percent) = bounds.maximum_percent {
        in_range(scope, at!["deploymentConfiguration", "maximumPercent"], percent, 100..=10_000, " %");
    }
    !scope.failed()
}

/// More failures than this no deployment has.
const MAX_THRESHOLD: u32 = 10_000;

fn circuit_breaker(spec: &ServiceSpec, scope: &mut Scope<'_>) {
    let threshold = spec.deployment_configuration.deployment_circuit_breaker.threshold_configuration;
    let at = ["deploymentConfiguration", "deploymentCircuitBreaker", "thresholdConfiguration", "value"];
    let unit = match threshold.kind {
        ThresholdType::BoundedPercent | ThresholdType::UnboundedPercent => " %",
        ThresholdType::Count => "",
    };
    in_range(scope, &at.map(Step::Key), threshold.value, 1..=MAX_THRESHOLD, unit);
}

fn host_loss(spec: &ServiceSpec, scope: &mut Scope<'_>) {
    cluster::host_loss(spec.host_loss.suspect_after, spec.host_loss.lost_after, scope);
    let waits = match spec.scheduling_strategy {
        SchedulingStrategy::Daemon => Some("a DAEMON's tasks are not replaced elsewhere"),
        SchedulingStrategy::Replica if spec.singleton => Some("a singleton waits for its lost host"),
        SchedulingStrategy::Replica if spec.waits_for_lost_host() => Some("`onHostLoss: wait` waits for the host"),
        SchedulingStrategy::Replica => None,
    };
    if let (Some(_), Some(why)) = (spec.host_loss.lost_after, waits) {
        scope.warning(at!["hostLoss", "lostAfter"], "host-loss", why).label("has no effect");
    }
}

/// More than a day's restarts are no loop.
const LONGEST_PERIOD_S: u32 = 86_400;

fn crash_loop(limits: CrashLoop, scope: &mut Scope<'_>) {
    let most = u32::try_from(MAX_RESTARTS_KEPT).unwrap_or(u32::MAX);
    in_range(scope, at!["crashLoop", "restarts"], limits.restarts, 1..=most, "");
    in_range(scope, at!["crashLoop", "period"], limits.period.0, 1..=LONGEST_PERIOD_S, " s");
}

/// It stops before it starts anew and waits for its host, whatever else is said.
fn singleton(spec: &ServiceSpec, scope: &mut Scope<'_>) {
    if spec.desired_count > 1 {
        scope
            .error(at!["desiredCount"], "singleton", format!("a singleton has one task, not {}", spec.desired_count))
            .help("leave `singleton` out, or make `desiredCount` 1");
    }
    if spec.scheduling_strategy == SchedulingStrategy::Daemon {
        scope
            .error(at!["singleton"], "singleton", "a DAEMON runs a task on every matching host")
            .help("leave one of `singleton` and `schedulingStrategy: DAEMON` out");
    }
    let bounds = &spec.deployment_configuration;
    for (field, given, fixed) in
        [("minimumHealthyPercent", bounds.minimum_healthy_percent, 0), ("maximumPercent", bounds.maximum_percent, 100)]
    {
        if given.is_some_and(|given| given != fixed) {
            scope
                .error(at!["deploymentConfiguration", field], "singleton", "of a singleton there are never two")
                .label(format!("is always {fixed}"))
                .help("leave it out");
        }
    }
}

fn replica(spec: &ServiceSpec, scope: &mut Scope<'_>) {
    if !percentages(spec, scope) {
        return;
    }
    let bounds = &spec.deployment_configuration;
    let desired = u64::from(spec.desired_count);
    let minimum = u64::from(bounds.minimum_healthy_percent.unwrap_or(100));
    let maximum = u64::from(bounds.maximum_percent.unwrap_or(200));
    let (floor, ceiling) = ((desired * minimum).div_ceil(100), desired * maximum / 100);
    if desired > 0 && floor >= desired && ceiling <= desired {
        let field = if bounds.maximum_percent.is_some() { "maximumPercent" } else { "minimumHealthyPercent" };
        scope
            .warning(
                &[Step::Key("deploymentConfiguration"), Step::Key(field)],
                "stuck-deployment",
                "no later deployment of this service can begin",
            )
            .label(format!("of {desired} at least {floor} must run and at most {ceiling} may"))
            .help("leave room for one more (`maximumPercent`) or one less (`minimumHealthyPercent`)");
    }
}

fn daemon(spec: &ServiceSpec, scope: &mut Scope<'_>) {
    percentages(spec, scope);
    if scope.node.get("desiredCount").is_some() {
        scope
            .warning(at!["desiredCount"], "daemon", "a DAEMON runs one task on every matching host")
            .label("has no effect");
    }
    if !spec.placement_strategy.is_empty() {
        scope
            .error(
                at!["placementStrategy"],
                "daemon",
                "a DAEMON runs on every matching host: there is nothing to spread or pack",
            )
            .help("`placementConstraints` choose the hosts");
    }
    if spec.deployment_configuration.maximum_percent.is_some_and(|percent| percent > 100) {
        scope
            .warning(
                at!["deploymentConfiguration", "maximumPercent"],
                "daemon",
                "a host never runs two tasks of one DAEMON",
            )
            .label("counts as 100");
    }
    if spec.deployment_configuration.minimum_healthy_percent == Some(100) {
        scope
            .warning(
                at!["deploymentConfiguration", "minimumHealthyPercent"],
                "stuck-deployment",
                "no later deployment of this service can begin",
            )
            .label("a DAEMON stops its task on a host before it starts the new one")
            .help("99 or less replaces them one by one");
    }
}

fn fargate(spec: &ServiceSpec, scope: &mut Scope<'_>) {
    if spec.scheduling_strategy == SchedulingStrategy::Daemon {
        scope
            .error(
                at!["schedulingStrategy"],
                "fargate",
                "with `launchType: FARGATE` there are no hosts to run a DAEMON on each of",
            )
            .help("`launchType: EC2`");
    }
    chooses_no_host(&spec.placement_strategy, &spec.placement_constraints, scope);
}

/// With FARGATE nobody chooses hosts.
pub(super) fn chooses_no_host(
    strategies: &[PlacementStrategy],
    constraints: &[PlacementConstraint],
    scope: &mut Scope<'_>,
) {
    for (field, given) in
        [("placementStrategy", !strategies.is_empty()), ("placementConstraints", !constraints.is_empty())]
    {
        if given {
            scope
                .error(
                    &[Step::Key(field)],
                    "fargate",
                    format!("with `launchType: FARGATE` you choose no host, so {} has no meaning", quote(field)),
                )
                .help("leave it out, or use `launchType: EC2`");
        }
    }
}
