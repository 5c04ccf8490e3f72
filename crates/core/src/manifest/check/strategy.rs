//! How a service's revisions take over from each other.

use super::{in_range, join, tls};
use crate::{
    manifest::{
        document::is_label,
        node::{Step, at},
        report::{Scope, quote},
    },
    model::{
        deployment::LifecycleStage,
        quantity::Seconds,
        spec::{
            ServiceSpec,
            service::SchedulingStrategy,
            strategy::{DeploymentControllerType, DeploymentStrategy, LONGEST_HOOK_S, LifecycleHook, Prometheus},
        },
    },
};

/// A day (ECS).
const LONGEST_BAKE_MINUTES: u32 = 1_440;
const LONGEST_BAKE_S: u32 = LONGEST_BAKE_MINUTES * 60;

/// Checks how a service deploys.
pub(super) fn strategy(spec: &ServiceSpec, scope: &mut Scope<'_>) {
    let configuration = &spec.deployment_configuration;
    let canary = configuration.canary_configuration.unwrap_or_default();
    let linear = configuration.linear_configuration.unwrap_or_default();
    let base = at!["deploymentConfiguration"];
    let of_canary = join(base, at!["canaryConfiguration"]);
    let of_linear = join(base, at!["linearConfiguration"]);
    bake(scope, base, ["bakeTime", "bakeTimeInMinutes"], configuration.bake_time, configuration.bake_time_in_minutes);
    let fields = ["canaryBakeTime", "canaryBakeTimeInMinutes"];
    bake(scope, &of_canary, fields, canary.canary_bake_time, canary.canary_bake_time_in_minutes);
    let fields = ["stepBakeTime", "stepBakeTimeInMinutes"];
    bake(scope, &of_linear, fields, linear.step_bake_time, linear.step_bake_time_in_minutes);
    let chosen = spec.strategy();
    controller(spec, scope);
    let turns = match chosen {
        DeploymentStrategy::Rolling => false,
        DeploymentStrategy::BlueGreen | DeploymentStrategy::Canary | DeploymentStrategy::Linear => true,
    };
    let idle = [
        ("bakeTime", configuration.bake_time.is_some() && !turns),
        ("bakeTimeInMinutes", configuration.bake_time_in_minutes.is_some() && !turns),
        ("canaryConfiguration", configuration.canary_configuration.is_some() && chosen != DeploymentStrategy::Canary),
        ("linearConfiguration", configuration.linear_configuration.is_some() && chosen != DeploymentStrategy::Linear),
        ("lifecycleHooks", !configuration.lifecycle_hooks.is_empty() && !turns),
    ];
    for (field, _) in idle.into_iter().filter(|(_, is_idle)| *is_idle) {
        let message = format!("with the strategy {} there is no {}", word(chosen), quote(field));
        scope.warning(&join(base, &[Step::Key(field)]), "deployment", message).label("has no effect");
    }
    for (index, hook) in configuration.lifecycle_hooks.iter().enumerate() {
        lifecycle_hook(hook, index, scope);
    }
    alarms(spec, scope);
    if turns {
        two_groups(spec, scope);
    }
}

fn alarms(spec: &ServiceSpec, scope: &mut Scope<'_>) {
    let alarms = &spec.deployment_configuration.alarms;
    let base = at!["deploymentConfiguration", "alarms"];
    if !alarms.alarm_names.is_empty() {
        scope
            .error(&join(base, at!["alarmNames"]), "alarm", "there are no CloudWatch alarms here")
            .help("`maximumErrorPercent: 1`: a deployment ends when so many more of its requests fail");
    }
    if let Some(minimum) = alarms.minimum_requests {
        in_range(scope, &join(base, at!["minimumRequests"]), minimum, 1..=u32::MAX, "");
    }
    for (field, least) in [
        ("maximumLatencyMs", alarms.maximum_latency_ms),
        ("maximumLatencyIncreasePercent", alarms.maximum_latency_increase_percent),
    ] {
        least.into_iter().for_each(|value| in_range(scope, &join(base, &[Step::Key(field)]), value, 1..=u32::MAX, ""));
    }
    if let Some(prometheus) = &alarms.prometheus {
        self::prometheus(prometheus, &join(base, at!["prometheus"]), scope);
    }
    let is_slow_watched = alarms.maximum_latency_ms.or(alarms.maximum_latency_increase_percent).is_some();
    if let Some(percentile) = alarms.latency_percentile {
        let field = join(base, at!["latencyPercentile"]);
        in_range(scope, &field, percentile, 1..=99, "");
        if !is_slow_watched {
            scope
                .warning(&field, "alarm", "there is no `maximumLatencyMs`, and no `maximumLatencyIncreasePercent`")
                .label("has no effect");
        }
    }
    for (field, is_said) in [
        ("maximumErrorPercent", alarms.maximum_error_percent.is_some()),
        ("maximumLatencyMs", alarms.maximum_latency_ms.is_some()),
        ("maximumLatencyIncreasePercent", alarms.maximum_latency_increase_percent.is_some()),
    ] {
        if is_said && !spec.has_targets() {
            scope
                .error(&join(base, &[Step::Key(field)]), "alarm", "load balancers count the requests, and none is said")
                .help("say `expose` or `loadBalancers`, or leave it out");
        }
    }
}

/// Queries of one service's alarms: each is asked every few seconds.
const MAX_QUERIES: usize = 10;
/// Bytes of a query.
const LONGEST_QUERY: usize = 4_096;

fn prometheus(prometheus: &Prometheus, base: &[Step<'_>], scope: &mut Scope<'_>) {
    address(&prometheus.url, &join(base, at!["url"]), "alarm", scope);
    if let Some(interval) = prometheus.interval {
        in_range(scope, &join(base, at!["interval"]), interval.0, 1..=3_600, " s");
    }
    let count = prometheus.queries.len();
    if count == 0 || count > MAX_QUERIES {
        let message = format!("{count} queries: from 1 to {MAX_QUERIES} are possible");
        scope.error(&join(base, at!["queries"]), "alarm", message);
        return;
    }
    for (index, query) in prometheus.queries.iter().enumerate() {
        let field = |name: &'static str| join(base, at!["queries", index, name]);
        if !is_label(&query.name) {
            scope
                .error(&field("name"), "bad-name", format!("{} is no name for an alarm", quote(&query.name)))
                .label("1 to 63 lower-case letters, digits and hyphens");
        } else if prometheus.queries.iter().take(index).any(|other| other.name == query.name) {
            scope.error(&field("name"), "duplicate", format!("two queries are named {}", quote(&query.name)));
        }
        if query.query.trim().is_empty() || query.query.len() > LONGEST_QUERY {
            let message = format!("a query has from 1 to {LONGEST_QUERY} characters");
            scope
                .error(&field("query"), "alarm", message)
                .help("such as `rate(errors_total{service=\"$service\"}[1m]) > 5`");
        }
        if let Some(periods) = query.evaluation_periods {
            in_range(scope, &field("evaluationPeriods"), periods, 1..=100, "");
        }
    }
}

fn address(url: &str, path: &[Step<'_>], code: &'static str, scope: &mut Scope<'_>) {
    if !tls::is_url(url, &["http", "https"]) {
        scope
            .error(path, code, format!("{} is no address that can be asked", quote(url)))
            .label("such as http://hooks.lan:8080/deployments");
    }
}

fn lifecycle_hook(hook: &LifecycleHook, index: usize, scope: &mut Scope<'_>) {
    let base = at!["deploymentConfiguration", "lifecycleHooks", index];
    let field = |field: &'static str| join(base, &[Step::Key(field)]);
    if hook.hook_target_arn.is_some() {
        scope.error(&field("hookTargetArn"), "hook", "there are no Lambda functions here").help(
            "`taskDefinition`: a task that exits with 0 when all is well; `url`: a server; or `pause: true`: a person",
        );
    } else if [hook.task_definition.is_some(), hook.url.is_some(), hook.pause]
        .iter()
        .filter(|is_said| **is_said)
        .count()
        != 1
    {
        scope
            .error(base, "hook", "a hook runs a task, asks a server, or waits for a person")
            .label("one of `taskDefinition`, `url` and `pause: true`");
    }
    if let Some(url) = &hook.url {
        address(url, &field("url"), "hook", scope);
    }
    if hook.lifecycle_stages.is_empty() {
        scope.error(base, "hook", "`lifecycleStages` says at which stages it comes, and has none");
    }
    for (nth, stage) in hook.lifecycle_stages.iter().enumerate() {
        if matches!(stage, LifecycleStage::ScaleUp | LifecycleStage::BakeTime | LifecycleStage::CleanUp) {
            let path = join(&field("lifecycleStages"), &[Step::Index(nth)]);
            scope.error(&path, "hook", format!("there are no hooks at {}", stage.word()));
        }
    }
    if let Some(timeout) = hook.timeout {
        in_range(scope, &field("timeout"), timeout.0, 1..=LONGEST_HOOK_S, " s");
        if hook.pause {
            scope.warning(&field("timeout"), "hook", "a person is waited for without end").label("has no effect");
        }
    }
}

fn word(strategy: DeploymentStrategy) -> &'static str {
    match strategy {
        DeploymentStrategy::Rolling => "ROLLING",
        DeploymentStrategy::BlueGreen => "BLUE_GREEN",
        DeploymentStrategy::Canary => "CANARY",
        DeploymentStrategy::Linear => "LINEAR",
    }
}

/// A duration in our words or in ECS's.
fn bake(scope: &mut Scope<'_>, base: &[Step<'_>], fields: [&'static str; 2], ours: Option<Seconds>, ecs: Option<u32>) {
    let [in_seconds, in_minutes] = fields.map(|field| join(base, &[Step::Key(field)]));
    if let Some(ours) = ours {
        in_range(scope, &in_seconds, ours.0, 0..=LONGEST_BAKE_S, " s");
    }
    if let Some(ecs) = ecs {
        in_range(scope, &in_minutes, ecs, 0..=LONGEST_BAKE_MINUTES, " minutes");
    }
    if ours.is_some() && ecs.is_some() {
        scope
            .error(&in_minutes, "deployment", format!("{} says it already", quote(fields[0])))
            .help("leave one of the two out");
    }
}

fn controller(spec: &ServiceSpec, scope: &mut Scope<'_>) {
    let path = at!["deploymentController", "type"];
    match spec.deployment_controller.unwrap_or_default().kind {
        DeploymentControllerType::Ecs => {}
        DeploymentControllerType::CodeDeploy => {
            if spec.deployment_configuration.strategy == Some(DeploymentStrategy::Rolling) {
                scope
                    .error(path, "deployment", "CODE_DEPLOY means BLUE_GREEN, and `strategy` says ROLLING")
                    .help("leave one of the two out");
            }
        }
        DeploymentControllerType::External => {
            scope
                .error(path, "deployment", "there is no deployment controller but this one")
                .label("not EXTERNAL")
                .help("leave `deploymentController` out");
        }
    }
}

/// Whoever takes turns needs two target groups, and the rule that turns from one to the other.
fn two_groups(spec: &ServiceSpec, scope: &mut Scope<'_>) {
    let strategy = word(spec.strategy());
    let says = at!["deploymentConfiguration", "strategy"];
    let at_word: &[Step<'_>] = if scope.node.find(says).is_some() { says } else { at!["deploymentController", "type"] };
    if spec.scheduling_strategy == SchedulingStrategy::Daemon {
        scope
            .error(
                at_word,
                "deployment",
                format!("a DAEMON's tasks cannot run beside each other, as {strategy} has it"),
            )
            .help("`strategy: ROLLING`");
        return;
    }
    if spec.singleton {
        scope
            .error(at_word, "deployment", format!("of a singleton there are never two, as {strategy} has it"))
            .help("`strategy: ROLLING`");
        return;
    }
    if spec.expose.is_some() {
        scope
            .error(at!["expose"], "deployment", format!("`expose` makes one target group, and {strategy} needs two"))
            .help("`strategy: ROLLING`, or target groups and a rule of your own with `loadBalancers`");
        return;
    }
    if spec.load_balancers.is_empty() {
        scope
            .error(at_word, "deployment", format!("{strategy} turns the requests of a load balancer, and none is said"))
            .help("say `loadBalancers` with `targetGroup`, `alternateTargetGroup` and `productionListenerRule`");
    }
    for (index, own) in spec.load_balancers.iter().enumerate() {
        let missing = [
            ("alternateTargetGroup", own.alternate_target_group.is_none()),
            ("productionListenerRule", own.production_listener_rule.is_none()),
        ];
        for (field, _) in missing.into_iter().filter(|(_, is_missing)| *is_missing) {
            let what = match field {
                "alternateTargetGroup" => "the target group that takes turns with it",
                _ => "the rule that clients come by: `LOADBALANCER/LISTENER/RULE`, or `LOADBALANCER/LISTENER`",
            };
            scope
                .error(at!["loadBalancers", index], "deployment", format!("{strategy} needs {}", quote(field)))
                .label(what);
        }
    }
}
