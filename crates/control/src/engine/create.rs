//! [`ContainerConfig`] as the body of Docker's create request.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, PortBinding, RestartPolicy,
    RestartPolicyNameEnum,
};

use super::EngineError;
use roadstead_core::model::container::{ContainerConfig, HealthCheckConfig};
use roadstead_core::model::spec::task_definition::{NetworkMode, Protocol};

/// Docker's default log driver keeps everything for ever; these keep 30 MB per container.
const LOG_FILE_MAX_SIZE: &str = "10m";
const LOG_FILES_MAX: &str = "3";

pub(super) fn body(config: &ContainerConfig) -> Result<ContainerCreateBody, EngineError> {
    let network_mode = match config.network_mode {
        NetworkMode::Bridge => "bridge",
        NetworkMode::Host => "host",
        NetworkMode::None => "none",
        NetworkMode::Awsvpc => {
            return Err(EngineError::Refused {
                status: 400,
                message: "a container cannot be created in network mode awsvpc: its task's network is to be named"
                    .into(),
            });
        }
    };
    let restart_policy = if config.restart { RestartPolicyNameEnum::UNLESS_STOPPED } else { RestartPolicyNameEnum::NO };
    let host_config = HostConfig {
        network_mode: Some(network_mode.into()),
        port_bindings: Some(port_bindings(config)),
        restart_policy: Some(RestartPolicy { name: Some(restart_policy), maximum_retry_count: None }),
        memory: signed(config.memory_bytes),
        memory_reservation: signed(config.memory_reservation_bytes),
        nano_cpus: signed(config.nano_cpus),
        cpu_shares: (config.cpu_shares > 0).then_some(config.cpu_shares.into()),
        readonly_rootfs: Some(config.readonly_root_filesystem),
        privileged: Some(config.privileged),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(HashMap::from([
                ("max-size".into(), LOG_FILE_MAX_SIZE.into()),
                ("max-file".into(), LOG_FILES_MAX.into()),
            ])),
        }),
        ..HostConfig::default()
    };
    Ok(ContainerCreateBody {
        image: Some(config.image.clone()),
        entrypoint: non_empty(&config.entry_point),
        cmd: non_empty(&config.command),
        env: Some(config.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        labels: Some(config.labels.clone().into_iter().collect()),
        exposed_ports: Some(config.ports.iter().map(container_port).collect()),
        user: config.user.clone(),
        working_dir: config.working_directory.clone(),
        stop_timeout: Some(config.stop_timeout_s.into()),
        healthcheck: Some(health_check(config.health_check.as_ref())),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    })
}

fn port_bindings(config: &ContainerConfig) -> HashMap<String, Option<Vec<PortBinding>>> {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &config.ports {
        let binding = PortBinding { host_ip: None, host_port: Some(port.host_port.to_string()) };
        bindings.entry(container_port(port)).or_default().get_or_insert_default().push(binding);
    }
    bindings
}

fn container_port(port: &roadstead_core::model::container::PortBinding) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{}/{protocol}", port.container_port)
}

fn health_check(check: Option<&HealthCheckConfig>) -> HealthConfig {
    let Some(check) = check else {
        return HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() };
    };
    let nanoseconds = |ms: u64| signed(Some(ms.saturating_mul(1_000_000)));
    HealthConfig {
        test: Some(check.command.clone()),
        interval: nanoseconds(check.interval_ms),
        timeout: nanoseconds(check.timeout_ms),
        retries: Some(check.retries.into()),
        start_period: nanoseconds(check.start_period_ms),
        ..HealthConfig::default()
    }
}

/// An empty list would mean "none at all" to Docker, not "the image's".
fn non_empty(words: &[String]) -> Option<Vec<String>> {
    (!words.is_empty()).then(|| words.to_vec())
}

fn signed(number: Option<u64>) -> Option<i64> {
    number.map(|number| i64::try_from(number).unwrap_or(i64::MAX))
}
