//! What is Linux's own: capabilities, limits, devices, kernel settings.

use std::collections::BTreeSet;

use super::{in_range, join, one_of, volumes};
use crate::{
    manifest::{
        node::{Step, at},
        report::{Scope, quote},
        suggest::did_you_mean,
    },
    model::spec::{
        TaskDefinitionSpec,
        task_definition::{
            ContainerDefinition, IpcMode, LinuxParameters, NetworkMode, ResourceRequirement, ResourceType, Ulimit,
        },
    },
};

/// Of capabilities(7), without `CAP_`.
const CAPABILITIES: &[&str] = &[
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "SYSLOG",
    "WAKE_ALARM",
];

/// Mount options of a tmpfs (ECS); some take a value.
const TMPFS_OPTIONS: &[&str] = &[
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "gid",
    "mand",
    "mode",
    "mpol",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nr_blocks",
    "nr_inodes",
    "private",
    "rbind",
    "relatime",
    "remount",
    "ro",
    "rprivate",
    "rshared",
    "rslave",
    "runbindable",
    "rw",
    "shared",
    "size",
    "slave",
    "strictatime",
    "suid",
    "sync",
    "uid",
    "unbindable",
];

/// Kernel settings that belong to the IPC namespace.
const IPC_SETTINGS: &[&str] = &[
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

/// Checks what container number `index` asks of the kernel.
pub fn check(container: &ContainerDefinition, index: usize, task: &TaskDefinitionSpec, scope: &mut Scope<'_>) {
    let base = at!["containerDefinitions", index];
    if let Some(linux) = &container.linux_parameters {
        let has_limit = container.memory.or(task.memory).is_some();
        parameters(linux, has_limit, &join(base, &[Step::Key("linuxParameters")]), scope);
    }
    limits(&container.ulimits, base, scope);
    settings(container, base, task, scope);
    hardware(&container.resource_requirements, base, scope);
    security(&container.docker_security_options, base, scope);
}

fn parameters(linux: &LinuxParameters, has_limit: bool, base: &[Step<'_>], scope: &mut Scope<'_>) {
    let capabilities = linux.capabilities.clone().unwrap_or_default();
    for (field, names) in [("add", &capabilities.add), ("drop", &capabilities.drop)] {
        for (number, name) in names.iter().enumerate() {
            let path = join(base, &[Step::Key("capabilities"), Step::Key(field), Step::Index(number)]);
            let bare = name.strip_prefix("CAP_").unwrap_or(name);
            if !CAPABILITIES.contains(&bare) {
                scope
                    .error(&path, "capability", format!("there is no capability {}", quote(name)))
                    .maybe_help(did_you_mean(bare, CAPABILITIES.iter().copied()));
            }
        }
    }
    for (number, device) in linux.devices.iter().enumerate() {
        let at = |field| join(base, &[Step::Key("devices"), Step::Index(number), Step::Key(field)]);
        volumes::absolute(&device.host_path, &at("hostPath"), scope);
        if let Some(path) = &device.container_path {
            volumes::target(path, &at("containerPath"), scope);
        }
    }
    for (number, tmpfs) in linux.tmpfs.iter().enumerate() {
        let at = |field| join(base, &[Step::Key("tmpfs"), Step::Index(number), Step::Key(field)]);
        volumes::target(&tmpfs.container_path, &at("containerPath"), scope);
        if tmpfs.size.0 == 0 {
            scope.error(&at("size"), "out-of-range", "a file system of no size").label("MiB, or such as 64Mi");
        }
        for (option_number, option) in tmpfs.mount_options.iter().enumerate() {
            let path = join(&at("mountOptions"), &[Step::Index(option_number)]);
            let (word, value) = option.split_once('=').map_or((option.as_str(), ""), |(word, value)| (word, value));
            if value.contains(',') {
                scope.error(&path, "wrong-value", "one option for each item");
            } else {
                one_of(scope, &path, word, TMPFS_OPTIONS);
            }
        }
    }
    if linux.max_swap.is_some() && !has_limit {
        let path = join(base, &[Step::Key("maxSwap")]);
        scope.warning(&path, "max-swap", "without a `memory` limit of the container or the task it changes nothing");
    }
    if let Some(swappiness) = linux.swappiness {
        let path = join(base, &[Step::Key("swappiness")]);
        in_range(scope, &path, swappiness, 0..=100, "");
        if linux.max_swap.is_none() {
            scope.warning(&path, "swappiness", "without `maxSwap` it changes nothing (ECS's rule)");
        }
    }
}

fn limits(limits: &[Ulimit], base: &[Step<'_>], scope: &mut Scope<'_>) {
    let mut seen = BTreeSet::new();
    for (number, limit) in limits.iter().enumerate() {
        let at = |field| join(base, &[Step::Key("ulimits"), Step::Index(number), Step::Key(field)]);
        if !seen.insert(limit.name) {
            let message = format!("the limit {} is given twice", quote(limit.name.as_str()));
            scope.error(&at("name"), "ulimit", message).label("again here");
        }
        for (field, value) in [("softLimit", limit.soft_limit), ("hardLimit", limit.hard_limit)] {
            if value < -1 {
                scope
                    .error(&at(field), "out-of-range", format!("{value} is no limit"))
                    .label("at least 0, or -1: none");
            }
        }
        let beyond = |limit: i64| if limit < 0 { i64::MAX } else { limit };
        if beyond(limit.soft_limit) > beyond(limit.hard_limit) {
            let hard = scope.node.locate(&at("hardLimit"));
            scope
                .error(&at("softLimit"), "ulimit", "the soft limit is above the hard one")
                .also(hard, "this is as far as it can be raised");
        }
    }
}

fn settings(container: &ContainerDefinition, base: &[Step<'_>], task: &TaskDefinitionSpec, scope: &mut Scope<'_>) {
    let mut seen = BTreeSet::new();
    for (number, control) in container.system_controls.iter().enumerate() {
        let path = join(base, &[Step::Key("systemControls"), Step::Index(number), Step::Key("namespace")]);
        let name = control.namespace.as_str();
        let of_ipc = IPC_SETTINGS.contains(&name) || name.starts_with("fs.mqueue.");
        if !seen.insert(name) {
            scope.error(&path, "system-control", format!("{} is set twice", quote(name))).label("again here");
        } else if name.starts_with("net.") {
            if task.network_mode == NetworkMode::Host {
                scope
                    .error(&path, "system-control", "with `networkMode: host` this would change the host's own network")
                    .help("set it on the host");
            }
        } else if of_ipc {
            if task.ipc_mode == Some(IpcMode::Host) {
                scope
                    .error(&path, "system-control", "with `ipcMode: host` this would change the host itself")
                    .help("set it on the host");
            }
        } else {
            scope
                .error(&path, "system-control", format!("{} is not a container's own setting", quote(name)))
                .label("it would change the whole host")
                .help(format!(
                    "`net.…`, `fs.mqueue.…`, {}",
                    super::super::report::quote_all(IPC_SETTINGS.iter().copied())
                ));
        }
    }
}

fn hardware(requirements: &[ResourceRequirement], base: &[Step<'_>], scope: &mut Scope<'_>) {
    for (number, requirement) in requirements.iter().enumerate() {
        let at = |field| join(base, &[Step::Key("resourceRequirements"), Step::Index(number), Step::Key(field)]);
        match requirement.kind {
            ResourceType::Gpu => match requirement.value.trim().parse::<u16>() {
                Ok(1..) => {}
                Ok(0) | Err(_) => {
                    let message = format!("{} is no number of GPUs", quote(&requirement.value));
                    scope.error(&at("value"), "wrong-value", message).label("such as 1");
                }
            },
            ResourceType::InferenceAccelerator => {
                scope.warning(&at("type"), "not-acted-on", "nobody but Amazon has inference accelerators: left out");
            }
        }
    }
}

fn security(options: &[String], base: &[Step<'_>], scope: &mut Scope<'_>) {
    const KINDS: &[&str] = &["no-new-privileges", "label", "apparmor", "seccomp", "systempaths"];
    for (number, option) in options.iter().enumerate() {
        let path = join(base, &[Step::Key("dockerSecurityOptions"), Step::Index(number)]);
        let word = option.split([':', '=']).next().unwrap_or_default();
        if word == "credentialspec" {
            scope.error(&path, "windows", "credential specs are for Windows: hosts are Linux machines");
        } else {
            one_of(scope, &path, word, KINDS);
        }
    }
}
