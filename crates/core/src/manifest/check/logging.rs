//! Where output goes.

use super::join;
use crate::{
    manifest::{
        node::Step,
        report::{Scope, quote, quote_all},
        suggest::did_you_mean,
    },
    model::spec::task_definition::{DOCKER_LOG_DRIVERS, ELSEWHERE_LOG_DRIVERS, LogConfiguration},
};

/// The code of what is said once for all manifests.
pub const TAKEN_OVER: &str = "log-driver-taken-over";

/// Checks a container's log configuration: a driver that is not here is no reason not to start.
pub fn container(log: &LogConfiguration, base: &[Step<'_>], scope: &mut Scope<'_>) {
    let path = join(base, &[Step::Key("logDriver")]);
    let driver = log.log_driver.as_str();
    if driver == "awsfirelens" {
        scope
            .warning(
                &path,
                "log-driver",
                "`awsfirelens` needs a log router, and none is run: taken over by the cluster's `logging`, else by `json-file`",
            )
            .help("give the cluster `logging: { logDriver: fluentd, options: { fluentd-address: … } }`; the `options` here are left out");
    } else if ELSEWHERE_LOG_DRIVERS.contains(&driver) {
        scope
            .notice(
                &path,
                TAKEN_OVER,
                format!("{} needs what is not here: taken over by the cluster's `logging`, else by Docker's `json-file` with rotation", quote(driver)),
            )
            .help("said once; `roadstead logs` reads them");
    } else if !log.is_dockers() {
        scope
            .warning(
                &path,
                "log-driver",
                format!(
                    "Docker has no log driver {}: taken over by the cluster's `logging`, else by `json-file`",
                    quote(driver)
                ),
            )
            .maybe_help(
                did_you_mean(driver, DOCKER_LOG_DRIVERS.iter().copied())
                    .or_else(|| Some(format!("it has {}", quote_all(DOCKER_LOG_DRIVERS.iter().copied())))),
            );
    }
}

/// Checks a cluster's: this is where the others end, so it must be one of Docker's.
pub fn cluster(log: &LogConfiguration, base: &[Step<'_>], scope: &mut Scope<'_>) {
    super::one_of(scope, &join(base, &[Step::Key("logDriver")]), &log.log_driver, DOCKER_LOG_DRIVERS);
}
