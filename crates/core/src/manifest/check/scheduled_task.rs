//! ScheduledTask by itself.

use super::{
    CheckExpression, awsvpc, constraints, in_range, inside,
    service::{chooses_no_host, strategies},
};
use crate::{
    manifest::{
        node::{Span, at},
        report::{Scope, quote},
        suggest::did_you_mean,
    },
    model::{
        spec::{ScheduledTaskSpec, scheduled_task::MAX_HISTORY, service::LaunchType},
        standalone::MAX_COUNT,
        timing::{self, Timing},
    },
};

/// Checks a scheduled task.
pub fn scheduled_task(spec: &ScheduledTaskSpec, scope: &mut Scope<'_>, check_expression: CheckExpression) {
    in_range(scope, at!["count"], spec.count, 1..=MAX_COUNT, "");
    in_range(scope, at!["successfulJobsHistoryLimit"], spec.successful_jobs_history_limit, 0..=MAX_HISTORY, "");
    in_range(scope, at!["failedJobsHistoryLimit"], spec.failed_jobs_history_limit, 0..=MAX_HISTORY, "");
    constraints(scope, &spec.placement_constraints, true, check_expression);
    strategies(&spec.placement_strategy, scope);
    awsvpc::configuration(spec.network_configuration.as_ref(), scope);
    match spec.launch_type {
        LaunchType::Ec2 => {}
        LaunchType::Fargate => chooses_no_host(&spec.placement_strategy, &spec.placement_constraints, scope),
    }
    if let Err(bad) = Timing::new(&spec.schedule, &spec.time_zone) {
        let path = at!["schedule"];
        let whole = scope.node.locate(path);
        let from = inside(whole, scope.node.find(path), &spec.schedule, bad.offset);
        let end_column = from.column.saturating_add(u32::try_from(bad.length).unwrap_or(u32::MAX));
        let span = if from == whole && bad.offset > 0 {
            whole
        } else {
            Span { end_column: end_column.min(whole.end_column), ..from }
        };
        scope.error(path, "schedule", bad.message).at(span).help(bad.help);
    }
    if !timing::is_zone(&spec.time_zone) {
        let zones = timing::zones();
        scope
            .error(at!["timeZone"], "time-zone", format!("there is no time zone {}", quote(&spec.time_zone)))
            .maybe_help(did_you_mean(&spec.time_zone, zones.iter().map(String::as_str)));
    }
}
