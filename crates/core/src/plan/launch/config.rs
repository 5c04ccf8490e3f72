//! A container of a task as its engine is to make it.

use std::collections::BTreeMap;

use super::{
    Surroundings, container_name,
    mounts::mounts,
    restart::{Restart, by_engine},
    sandbox::namespaces,
    stop_timeout_s,
};
use crate::model::{
    container::{ContainerConfig, DeviceConfig, HealthCheckConfig, LOG_ROTATION, LogConfig, NetworkAttachment, Ulimit},
    network::{Bridge, SANDBOX},
    ownership::Claim,
    spec::{
        ClusterSpec, TaskDefinitionSpec,
        task_definition::{
            ContainerDefinition, DEFAULT_LOG_DRIVER, Device, DevicePermission, LogConfiguration, NetworkMode,
            SystemControl, Tmpfs,
        },
    },
    state::Revision,
    task::{Task, TaskContainer},
};
use crate::plan::network::Around;

/// What a sandbox on a LAN runs: nothing comes in or goes out until it is told what may.
const SHUT: &str = "\
set -e
nft -f - <<'END'
table inet roadstead {
	chain input { type filter hook input priority -10; policy drop; }
	chain output { type filter hook output priority -10; policy drop; }
	chain forward { type filter hook forward priority -10; policy drop; }
}
END
exec /usr/bin/catatonit -P
";

const BYTES_PER_MIB: u64 = 1024 * 1024;

/// What all containers of a launch have in common.
pub(super) struct Context<'a> {
    /// The task.
    pub(super) task: &'a Task,
    /// Its definition.
    pub(super) spec: &'a TaskDefinitionSpec,
    /// What that is a revision of.
    pub(super) revision: &'a Revision,
    /// What it finds where it is.
    pub(super) around: &'a Surroundings<'a>,
}

/// The container of a row.
pub(super) fn config(context: &Context<'_>, row: &TaskContainer, definition: &ContainerDefinition) -> ContainerConfig {
    let (task, spec) = (context.task, context.spec);
    let claim = Claim::of(task, &definition.name.as_str().into(), row, &context.revision.hash);
    let mut labels = definition.docker_labels.clone();
    labels.extend(claim.to_labels());
    let created = |name: &str| container_name(&task.service, &task.revision, &task.id, name);
    let (pid_mode, ipc_mode) = namespaces(spec, definition, created);
    let linux = definition.linux_parameters.clone().unwrap_or_default();
    let capabilities = linux.capabilities.unwrap_or_default();
    let is_sandbox = definition.name == SANDBOX;
    let is_judged_inside = context.around.namespace != Around::Guarded && !definition.disable_networking;
    let attachment = attachment(context, definition, created);
    let joins = matches!(attachment, Some(NetworkAttachment::Of(_)));
    let asks_host =
        matches!(spec.network_mode, NetworkMode::Bridge | NetworkMode::Host) && !definition.disable_networking;
    let memory_bytes = definition.memory.or(spec.memory).map(|memory| u64::from(memory.0) * BYTES_PER_MIB);
    ContainerConfig {
        name: row.created_name.clone(),
        image: match is_sandbox {
            true => context.around.cluster.network.node_image().to_owned(),
            false => context.revision.image(&definition.image),
        },
        entry_point: match is_sandbox && is_judged_inside {
            true => ["/bin/sh", "-c", SHUT].map(str::to_owned).to_vec(),
            false => definition.entry_point.clone(),
        },
        command: if is_sandbox && is_judged_inside { Vec::new() } else { definition.command.clone() },
        environment: environment(context, definition),
        labels,
        ports: row.ports.clone(),
        network_mode: if definition.disable_networking { NetworkMode::None } else { spec.network_mode },
        attachment,
        // ECS's agent: the least there is, where Docker would take 1024 for nothing said.
        cpu_shares: definition.cpu.0.max(2),
        nano_cpus: spec.cpu.map(|cpu| u64::from(cpu.0) * 1_000_000_000 / 1024),
        memory_bytes,
        memory_reservation_bytes: definition.memory_reservation.map(|memory| u64::from(memory.0) * BYTES_PER_MIB),
        user: definition.user.clone(),
        working_directory: definition.working_directory.clone(),
        readonly_root_filesystem: definition.readonly_root_filesystem,
        privileged: definition.privileged,
        // An engine would start what joins a namespace before rules are in it.
        restart: by_engine(spec, definition) != Restart::Never && (is_sandbox || !is_judged_inside),
        restart_failed_only: by_engine(spec, definition) == Restart::OnFailure,
        // What is made from the host Docker knows nothing of.
        health_check: definition.health_check.as_ref().filter(|check| check.probe().is_none()).map(|check| {
            HealthCheckConfig {
                command: check.command.clone(),
                interval_ms: check.interval.as_ms(),
                timeout_ms: check.timeout.as_ms(),
                retries: check.retries,
                start_period_ms: check.start_period.as_ms(),
            }
        }),
        stop_timeout_s: stop_timeout_s(definition),
        log: log(definition.log_configuration.as_ref(), context.around.cluster),
        mounts: mounts(context, definition),
        volumes_from: definition
            .volumes_from
            .iter()
            .map(|from| created(&from.source_container) + if from.read_only { ":ro" } else { "" })
            .collect(),
        tmpfs: match is_sandbox && is_judged_inside {
            true => BTreeMap::from([("/run".to_owned(), "size=4m".to_owned())]),
            false => linux.tmpfs.iter().map(|tmpfs| (tmpfs.container_path.clone(), tmpfs_options(tmpfs))).collect(),
        },
        shared_memory_bytes: linux
            .shared_memory_size
            .filter(|size| size.0 > 0)
            .map(|size| u64::from(size.0) * BYTES_PER_MIB),
        memory_swap_bytes: memory_bytes
            .zip(linux.max_swap)
            .map(|(memory, swap)| memory.saturating_add(u64::from(swap.0) * BYTES_PER_MIB)),
        swappiness: linux.swappiness.filter(|_| linux.max_swap.is_some()),
        ulimits: definition
            .ulimits
            .iter()
            .map(|limit| Ulimit {
                name: limit.name.as_str().to_owned(),
                soft: limit.soft_limit,
                hard: limit.hard_limit,
            })
            .collect(),
        sysctls: system_controls(spec, definition),
        hostname: definition.hostname.clone(),
        extra_hosts: definition
            .extra_hosts
            .iter()
            .map(|entry| format!("{}:{}", entry.hostname, entry.ip_address))
            .collect(),
        dns_servers: match context.around.name_server.filter(|_| is_sandbox) {
            Some(server) => vec![server.to_string()],
            // Docker refuses it of what joins another's network.
            None if joins => Vec::new(),
            None if definition.dns_servers.is_empty() && asks_host => {
                context.around.name_server.iter().map(ToString::to_string).collect()
            }
            None => definition.dns_servers.clone(),
        },
        dns_search_domains: match is_sandbox {
            true => vec![context.around.cluster.service_discovery.namespace(&task.cluster)],
            false if joins => Vec::new(),
            false => definition.dns_search_domains.clone(),
        },
        links: definition.linked().map(|(name, alias)| format!("{}:{alias}", created(name))).collect(),
        security_options: definition.docker_security_options.iter().map(|option| security_option(option)).collect(),
        capabilities_added: match is_sandbox && is_judged_inside {
            true => vec!["NET_ADMIN".to_owned()],
            false => capabilities.add,
        },
        // What is sent raw passes no rules.
        capabilities_dropped: match is_judged_inside && !is_sandbox {
            true if !capabilities.drop.iter().any(|it| matches!(it.as_str(), "NET_RAW" | "CAP_NET_RAW" | "ALL")) => {
                capabilities.drop.into_iter().chain(["NET_RAW".to_owned()]).collect()
            }
            _ => capabilities.drop,
        },
        devices: linux.devices.iter().map(device).collect(),
        gpus: super::gpus_of(definition),
        init: linux.init_process_enabled,
        terminal: definition.pseudo_terminal,
        interactive: definition.interactive,
        pid_mode,
        ipc_mode,
    }
}

/// A container's place in the task network.
fn attachment(
    context: &Context<'_>,
    definition: &ContainerDefinition,
    created: impl Fn(&str) -> String,
) -> Option<NetworkAttachment> {
    let network = context.task.network.as_ref().filter(|_| !definition.disable_networking)?;
    Some(match definition.name.as_str() {
        SANDBOX => NetworkAttachment::Own { network: Bridge::network_of(&network.subnet), address: network.address },
        _ => NetworkAttachment::Of(created(SANDBOX)),
    })
}

/// Kernel settings. Those of a network that is shared are its holder's to make.
fn system_controls(spec: &TaskDefinitionSpec, definition: &ContainerDefinition) -> BTreeMap<String, String> {
    let of_network = |control: &&SystemControl| control.namespace.starts_with("net.");
    let pair = |control: &SystemControl| (control.namespace.clone(), control.value.clone());
    match (spec.network_mode, definition.name.as_str()) {
        (NetworkMode::Awsvpc, SANDBOX) => {
            let all = spec.container_definitions.iter().flat_map(|definition| &definition.system_controls);
            all.filter(of_network).map(pair).collect()
        }
        (NetworkMode::Awsvpc, _) => definition.system_controls.iter().filter(|it| !of_network(it)).map(pair).collect(),
        (NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None, _) => {
            definition.system_controls.iter().map(pair).collect()
        }
    }
}

/// Ours, then files (the first that has a name wins, as in ECS), then what is written out: later ones win.
fn environment(context: &Context<'_>, definition: &ContainerDefinition) -> BTreeMap<String, String> {
    let task = context.task;
    let mut environment: BTreeMap<String, String> = [
        ("ROADSTEAD_CLUSTER", task.cluster.as_str()),
        // A standalone task has none.
        ("ROADSTEAD_SERVICE", if task.is_standalone() { "" } else { task.service.as_str() }),
        ("ROADSTEAD_TASK_ID", task.id.as_str()),
        ("ROADSTEAD_TASK_DEFINITION", task.revision.to_string().as_str()),
        ("ROADSTEAD_CONTAINER", definition.name.as_str()),
        ("ROADSTEAD_HOST", task.host.as_str()),
        ("ROADSTEAD_AVAILABILITY_ZONE", context.around.zone.unwrap_or_default()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    for file in definition.environment_files.iter().rev() {
        environment.extend(file.variables.clone());
    }
    environment.extend(definition.environment.0.clone());
    environment
}

/// Docker's own drivers as they are; what needs what is not here goes where the cluster says.
fn log(wanted: Option<&LogConfiguration>, cluster: &ClusterSpec) -> LogConfig {
    let Some(chosen) = wanted.filter(|wanted| wanted.is_dockers()).or(cluster.logging.as_ref()) else {
        return LogConfig::default();
    };
    let mut options = chosen.options.clone();
    if chosen.log_driver == DEFAULT_LOG_DRIVER {
        for (name, value) in LOG_ROTATION {
            options.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    LogConfig { driver: chosen.log_driver.clone(), options }
}

fn tmpfs_options(tmpfs: &Tmpfs) -> String {
    let size = format!("size={}m", tmpfs.size.0);
    std::iter::once(size.as_str()).chain(tmpfs.mount_options.iter().map(String::as_str)).collect::<Vec<_>>().join(",")
}

fn device(device: &Device) -> DeviceConfig {
    let all = [DevicePermission::Read, DevicePermission::Write, DevicePermission::Mknod];
    let permissions = all
        .into_iter()
        .filter(|permission| device.permissions.is_empty() || device.permissions.contains(permission))
        .map(|permission| match permission {
            DevicePermission::Read => 'r',
            DevicePermission::Write => 'w',
            DevicePermission::Mknod => 'm',
        })
        .collect();
    DeviceConfig {
        host_path: device.host_path.clone(),
        container_path: device.container_path.clone().unwrap_or_else(|| device.host_path.clone()),
        permissions,
    }
}

/// ECS writes `apparmor:profile`, Docker takes `apparmor=profile`.
fn security_option(option: &str) -> String {
    match option.split_once(':') {
        Some((name, value)) if !name.contains('=') => format!("{name}={value}"),
        Some(_) | None => option.to_owned(),
    }
}
