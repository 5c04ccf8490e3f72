//! [`ContainerConfig`] as the body of Docker's create request.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig,
    HostConfigLogConfig, Mount, MountType, MountVolumeOptions, MountVolumeOptionsDriverConfig, NetworkingConfig,
    PortBinding, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};

use super::EngineError;
use roadstead_core::model::container::{
    ContainerConfig, HealthCheckConfig, MountConfig, MountSource, NamespaceMode, NetworkAttachment, VolumeConfig,
};
use roadstead_core::model::network::mac_address;
use roadstead_core::model::spec::task_definition::{NetworkMode, Protocol};

/// Nothing of /proc and /sys is hidden from a container, or kept from its writing.
pub const ALL_SYSTEM_PATHS: &str = "systempaths=unconfined";

/// The body of `POST /containers/create`. What a container does not ask for is left out.
///
/// # Errors
/// When its network is not decided yet.
pub fn body(config: &ContainerConfig) -> Result<ContainerCreateBody, EngineError> {
    let own = match &config.attachment {
        Some(NetworkAttachment::Own { network, address }) => Some((network, *address)),
        Some(NetworkAttachment::Of(_)) | None => None,
    };
    let network_mode = match (&config.attachment, config.network_mode) {
        (Some(NetworkAttachment::Own { network, .. }), _) => network.clone(),
        (Some(NetworkAttachment::Of(other)), _) => format!("container:{other}"),
        (None, NetworkMode::Bridge) => "bridge".to_owned(),
        (None, NetworkMode::Host) => "host".to_owned(),
        (None, NetworkMode::None) => "none".to_owned(),
        (None, NetworkMode::Awsvpc) => {
            return Err(EngineError::Refused {
                status: 400,
                message: "a container cannot be created in network mode awsvpc: its task's network is to be named"
                    .into(),
            });
        }
    };
    let restart_policy = match (config.restart, config.restart_failed_only) {
        (true, false) => RestartPolicyNameEnum::UNLESS_STOPPED,
        (true, true) => RestartPolicyNameEnum::ON_FAILURE,
        (false, _) => RestartPolicyNameEnum::NO,
    };
    let (all_paths, security_options): (Vec<String>, Vec<String>) =
        config.security_options.iter().cloned().partition(|option| option == ALL_SYSTEM_PATHS);
    let has_all_paths = !all_paths.is_empty();
    let host_config = HostConfig {
        network_mode: Some(network_mode),
        port_bindings: Some(port_bindings(config)),
        restart_policy: Some(RestartPolicy { name: Some(restart_policy), maximum_retry_count: None }),
        memory: signed(config.memory_bytes),
        memory_reservation: signed(config.memory_reservation_bytes),
        nano_cpus: signed(config.nano_cpus),
        cpu_shares: (config.cpu_shares > 0).then_some(config.cpu_shares.into()),
        readonly_rootfs: Some(config.readonly_root_filesystem),
        privileged: Some(config.privileged),
        log_config: Some(HostConfigLogConfig {
            typ: Some(config.log.driver.clone()),
            config: Some(config.log.options.clone().into_iter().collect()),
        }),
        binds: non_empty(&config.mounts.iter().filter_map(bind).collect::<Vec<_>>()),
        mounts: non_empty(&config.mounts.iter().filter_map(volume_mount).collect::<Vec<_>>()),
        volumes_from: non_empty(&config.volumes_from),
        tmpfs: non_empty_map(&config.tmpfs),
        shm_size: signed(config.shared_memory_bytes),
        memory_swap: signed(config.memory_swap_bytes),
        memory_swappiness: config.swappiness.map(i64::from),
        ulimits: non_empty(&config.ulimits.iter().map(ulimit).collect::<Vec<_>>()),
        sysctls: non_empty_map(&config.sysctls),
        extra_hosts: non_empty(&config.extra_hosts),
        dns: non_empty(&config.dns_servers),
        dns_search: non_empty(&config.dns_search_domains),
        links: non_empty(&config.links),
        security_opt: non_empty(&security_options),
        // Docker's own client says it so, too.
        masked_paths: has_all_paths.then(Vec::new),
        readonly_paths: has_all_paths.then(Vec::new),
        cap_add: non_empty(&config.capabilities_added),
        cap_drop: non_empty(&config.capabilities_dropped),
        devices: non_empty(&config.devices.iter().map(device).collect::<Vec<_>>()),
        device_requests: (config.gpus > 0).then(|| vec![gpus(config.gpus)]),
        init: config.init.then_some(true),
        pid_mode: namespace(&config.pid_mode),
        ipc_mode: namespace(&config.ipc_mode),
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
        hostname: config.hostname.clone(),
        tty: config.terminal.then_some(true),
        open_stdin: config.interactive.then_some(true),
        stop_timeout: Some(config.stop_timeout_s.into()),
        healthcheck: Some(health_check(config.health_check.as_ref())),
        host_config: Some(host_config),
        networking_config: own.map(|(network, address)| endpoint(network, address)),
        ..ContainerCreateBody::default()
    })
}

/// The address that a container has in a network, and the hardware address that goes with it.
fn endpoint(network: &str, address: Ipv4Addr) -> NetworkingConfig {
    let ipam = EndpointIpamConfig { ipv4_address: Some(address.to_string()), ..EndpointIpamConfig::default() };
    let settings = EndpointSettings {
        ipam_config: Some(ipam),
        mac_address: Some(mac_address(address)),
        ..EndpointSettings::default()
    };
    NetworkingConfig { endpoints_config: Some(HashMap::from([(network.to_owned(), settings)])) }
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

/// A folder of the host: as a bind, since only that makes it when it is missing.
fn bind(mount: &MountConfig) -> Option<String> {
    match &mount.source {
        MountSource::Host(path) => Some(format!("{path}:{}{}", mount.target, if mount.read_only { ":ro" } else { "" })),
        MountSource::Volume(_) => None,
    }
}

fn volume_mount(mount: &MountConfig) -> Option<Mount> {
    let volume = match &mount.source {
        MountSource::Host(_) => return None,
        MountSource::Volume(volume) => volume,
    };
    let driver = (!volume.driver.is_empty() || !volume.options.is_empty()).then(|| MountVolumeOptionsDriverConfig {
        name: Some(if volume.driver.is_empty() { "local".to_owned() } else { volume.driver.clone() }),
        options: non_empty_map(&volume.options),
    });
    Some(Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume.name.clone()),
        target: Some(mount.target.clone()),
        read_only: mount.read_only.then_some(true),
        volume_options: Some(MountVolumeOptions {
            no_copy: volume.no_copy.then_some(true),
            labels: non_empty_map(&volume.labels),
            driver_config: driver,
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    })
}

/// The volumes that must be there before a container is made: Docker would make them.
pub(super) fn needed_volumes(config: &ContainerConfig) -> impl Iterator<Item = &VolumeConfig> {
    config.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Host(_) => None,
        MountSource::Volume(volume) => volume.must_exist.then_some(volume),
    })
}

fn ulimit(limit: &roadstead_core::model::container::Ulimit) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(limit.name.clone()), soft: Some(limit.soft), hard: Some(limit.hard) }
}

fn device(device: &roadstead_core::model::container::DeviceConfig) -> DeviceMapping {
    DeviceMapping {
        path_on_host: Some(device.host_path.clone()),
        path_in_container: Some(device.container_path.clone()),
        cgroup_permissions: Some(device.permissions.clone()),
    }
}

fn gpus(count: u32) -> DeviceRequest {
    DeviceRequest {
        count: Some(count.into()),
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    }
}

fn namespace(mode: &NamespaceMode) -> Option<String> {
    match mode {
        NamespaceMode::Own => None,
        NamespaceMode::Shareable => Some("shareable".to_owned()),
        NamespaceMode::Host => Some("host".to_owned()),
        NamespaceMode::Of(container) => Some(format!("container:{container}")),
        NamespaceMode::None => Some("none".to_owned()),
    }
}

/// An empty list would mean "none at all" to Docker, not "the image's".
fn non_empty<T: Clone>(items: &[T]) -> Option<Vec<T>> {
    (!items.is_empty()).then(|| items.to_vec())
}

fn non_empty_map(map: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!map.is_empty()).then(|| map.clone().into_iter().collect())
}

fn signed(number: Option<u64>) -> Option<i64> {
    number.map(|number| i64::try_from(number).unwrap_or(i64::MAX))
}
