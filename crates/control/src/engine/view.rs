//! Docker's list entries and inspect answers as [`ContainerView`]. What hosts say is bounded here.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, ContainerSummaryStateEnum, EndpointSettings,
    HealthStatusEnum, NetworkSettings, PortMap, PortSummaryTypeEnum,
};

use super::details::Shown;
use super::error::clip;
use super::{Inspected, Verify};
use roadstead_core::model::container::{ContainerState, ContainerView, HealthStatus, PortBinding};
use roadstead_core::model::name::RuntimeId;
use roadstead_core::model::ownership::PREFIX;
use roadstead_core::model::spec::task_definition::Protocol;
use roadstead_core::model::time::Timestamp;

const NAME_MAX_BYTES: usize = 512;
const MESSAGE_MAX_BYTES: usize = 1024;
/// Our own label values are far shorter.
const LABEL_MAX_BYTES: usize = 1024;
/// Ours are fewer. With any left out the digest is wrong, so that nothing can hide behind the bound.
const LABELS_MAX: usize = 64;

/// A list entry as far as it goes, and what it shows of changes.
pub(super) fn from_summary(summary: ContainerSummary, verify: Verify<'_>) -> Result<(ContainerView, Shown), String> {
    let id = runtime_id(summary.id.as_deref().unwrap_or_default())?;
    let status = summary.status.unwrap_or_default();
    let shown = Shown::new(&status);
    let state = summary.state.and_then(state_in_list).ok_or_else(|| format!("container {id} has no state"))?;
    let labels = our_labels(summary.labels.unwrap_or_default());
    let (health, has_health_check) = shown.health();
    let ports = summary.ports.unwrap_or_default().into_iter().filter_map(|port| {
        let protocol = match port.typ? {
            PortSummaryTypeEnum::TCP => Protocol::Tcp,
            PortSummaryTypeEnum::UDP => Protocol::Udp,
            PortSummaryTypeEnum::SCTP | PortSummaryTypeEnum::EMPTY => return None,
        };
        Some(PortBinding { container_port: port.private_port, host_port: port.public_port?, protocol })
    });
    let view = ContainerView {
        name: own_name(summary.names.unwrap_or_default()),
        image: clip(&summary.image.unwrap_or_default(), NAME_MAX_BYTES),
        image_id: clip(&summary.image_id.unwrap_or_default(), NAME_MAX_BYTES),
        state,
        health,
        has_health_check,
        exit_code: shown.exit_code(),
        oom_killed: false,
        started_at: None,
        finished_at: None,
        restart_count: 0,
        error: String::new(),
        ports: sorted(ports.collect()),
        owner: verify(&labels),
        id,
    };
    Ok((view, shown))
}

/// Everything about one container.
pub(super) fn from_inspect(answer: ContainerInspectResponse, verify: Verify<'_>) -> Result<Inspected, String> {
    let id = runtime_id(answer.id.as_deref().unwrap_or_default())?;
    let state = answer.state.unwrap_or_default();
    let status = state.status.and_then(state_in_inspect).ok_or_else(|| format!("container {id} has no state"))?;
    let config = answer.config.unwrap_or_default();
    let labels = our_labels(config.labels.unwrap_or_default());
    let health = state.health.and_then(|health| health.status);
    let bindings = answer.host_config.unwrap_or_default().port_bindings.unwrap_or_default();
    let network = answer.network_settings.unwrap_or_default();
    let address = address(&network);
    let published = network.ports.unwrap_or_default();
    let mut ports = host_ports(&bindings);
    ports.extend(host_ports(&published));
    let view = ContainerView {
        name: own_name(answer.name.into_iter().collect()),
        image: clip(&config.image.unwrap_or_default(), NAME_MAX_BYTES),
        image_id: clip(&answer.image.unwrap_or_default(), NAME_MAX_BYTES),
        state: status,
        health: health.map_or(HealthStatus::Unknown, health_status),
        has_health_check: health.is_some_and(|health| match health {
            HealthStatusEnum::STARTING | HealthStatusEnum::HEALTHY | HealthStatusEnum::UNHEALTHY => true,
            HealthStatusEnum::NONE | HealthStatusEnum::EMPTY => false,
        }),
        exit_code: match status {
            // A restarting one tells the code of its last crash.
            ContainerState::Exited | ContainerState::Dead | ContainerState::Restarting => state.exit_code,
            ContainerState::Created | ContainerState::Running | ContainerState::Paused | ContainerState::Removing => {
                None
            }
        },
        oom_killed: state.oom_killed.unwrap_or_default(),
        started_at: state.started_at.as_deref().and_then(timestamp),
        finished_at: state.finished_at.as_deref().and_then(timestamp),
        restart_count: answer.restart_count.and_then(|count| u32::try_from(count).ok()).unwrap_or_default(),
        error: clip(&state.error.unwrap_or_default(), MESSAGE_MAX_BYTES),
        ports: sorted(ports),
        owner: verify(&labels),
        id,
    };
    Ok(Inspected { view, labels, address })
}

/// Docker's ids are 64 hex digits. They become parts of request paths.
pub(super) fn runtime_id(text: &str) -> Result<RuntimeId, String> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.into());
    }
    Err(format!("`{}` is no container id", clip(text, 80)))
}

/// Docker's time stamps; year 1 means never.
pub(super) fn timestamp(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok().filter(|ms| *ms > 0).map(Timestamp)
}

/// A container has further names `/other/alias` for legacy links.
fn own_name(names: Vec<String>) -> String {
    let bare = |name: &String| name.strip_prefix('/').unwrap_or(name).to_owned();
    let mut names = names.iter().map(bare);
    let name = names.find(|name| !name.contains('/')).unwrap_or_default();
    clip(&name, NAME_MAX_BYTES)
}

fn our_labels(labels: HashMap<String, String>) -> BTreeMap<String, String> {
    let ours =
        |(label, value): &(String, String)| label.starts_with(PREFIX) && label.len() + value.len() <= LABEL_MAX_BYTES;
    let all: BTreeMap<String, String> = labels.into_iter().filter(ours).collect();
    all.into_iter().take(LABELS_MAX).collect()
}

fn host_ports(map: &PortMap) -> Vec<PortBinding> {
    let mut ports = Vec::new();
    for (key, bindings) in map {
        let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => continue,
        };
        let Ok(container_port) = port.parse() else { continue };
        for binding in bindings.iter().flatten() {
            let host_port = binding.host_port.as_deref().and_then(|port| port.parse().ok());
            if let Some(host_port) = host_port.filter(|port| *port != 0) {
                ports.push(PortBinding { container_port, host_port, protocol });
            }
        }
    }
    ports
}

/// Of its networks the first by name that it has an address in, IPv4 before IPv6.
fn address(network: &NetworkSettings) -> Option<IpAddr> {
    let networks: BTreeMap<_, _> = network.networks.iter().flatten().collect();
    let addresses = |of: fn(&EndpointSettings) -> &Option<String>| {
        networks.values().find_map(|endpoint| of(endpoint).as_deref()?.parse::<IpAddr>().ok())
    };
    addresses(|endpoint| &endpoint.ip_address).or_else(|| addresses(|endpoint| &endpoint.global_ipv6_address))
}

/// Docker lists a port once per address family.
fn sorted(mut ports: Vec<PortBinding>) -> Vec<PortBinding> {
    ports.sort();
    ports.dedup();
    ports
}

pub(super) fn health_status(status: HealthStatusEnum) -> HealthStatus {
    match status {
        HealthStatusEnum::HEALTHY => HealthStatus::Healthy,
        HealthStatusEnum::UNHEALTHY => HealthStatus::Unhealthy,
        HealthStatusEnum::STARTING | HealthStatusEnum::NONE | HealthStatusEnum::EMPTY => HealthStatus::Unknown,
    }
}

fn state_in_list(state: ContainerSummaryStateEnum) -> Option<ContainerState> {
    Some(match state {
        ContainerSummaryStateEnum::CREATED => ContainerState::Created,
        // Podman's word for the time between SIGTERM and the end.
        ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::STOPPING => ContainerState::Running,
        ContainerSummaryStateEnum::PAUSED => ContainerState::Paused,
        ContainerSummaryStateEnum::RESTARTING => ContainerState::Restarting,
        ContainerSummaryStateEnum::EXITED => ContainerState::Exited,
        ContainerSummaryStateEnum::REMOVING => ContainerState::Removing,
        ContainerSummaryStateEnum::DEAD => ContainerState::Dead,
        ContainerSummaryStateEnum::EMPTY => return None,
    })
}

fn state_in_inspect(state: ContainerStateStatusEnum) -> Option<ContainerState> {
    Some(match state {
        ContainerStateStatusEnum::CREATED => ContainerState::Created,
        ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::STOPPING => ContainerState::Running,
        ContainerStateStatusEnum::PAUSED => ContainerState::Paused,
        ContainerStateStatusEnum::RESTARTING => ContainerState::Restarting,
        ContainerStateStatusEnum::EXITED => ContainerState::Exited,
        ContainerStateStatusEnum::REMOVING => ContainerState::Removing,
        ContainerStateStatusEnum::DEAD => ContainerState::Dead,
        ContainerStateStatusEnum::EMPTY => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use roadstead_core::model::ownership::Owner;

    fn foreign(_: &BTreeMap<String, String>) -> Owner {
        Owner::Foreign
    }

    #[test]
    fn ids_that_could_change_a_path_are_refused() {
        let id = "0a".repeat(32);
        assert_eq!(runtime_id(&id), Ok(id.as_str().into()));
        for bad in ["", "abc", "../../images/x", &"g".repeat(64), &format!("{}/", "a".repeat(63)), &"a".repeat(65)] {
            assert!(runtime_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_labels_of_ours_and_of_sane_size_are_looked_at() {
        let summary = |labels: &[(&str, String)]| ContainerSummary {
            id: Some("ab".repeat(32)),
            state: Some(ContainerSummaryStateEnum::RUNNING),
            labels: Some(labels.iter().map(|(label, value)| ((*label).to_owned(), value.clone())).collect()),
            ..ContainerSummary::default()
        };
        let seen = std::sync::Mutex::new(Vec::new());
        let verify = |labels: &BTreeMap<String, String>| {
            seen.lock().expect("no panic").extend(labels.keys().cloned());
            Owner::Foreign
        };
        let labels = [
            ("dev.roadstead.task", "x".to_owned()),
            ("dev.roadstead.name", "y".repeat(1 << 20)),
            ("com.example", "z".to_owned()),
        ];
        from_summary(summary(&labels), &verify).expect("a view");
        assert_eq!(*seen.lock().expect("no panic"), ["dev.roadstead.task"]);
        let names: Vec<String> = (0..100).map(|number| format!("dev.roadstead.{number:03}")).collect();
        let many: Vec<(&str, String)> = names.iter().map(|name| (name.as_str(), String::new())).collect();
        seen.lock().expect("no panic").clear();
        from_summary(summary(&many), &verify).expect("a view");
        assert_eq!(*seen.lock().expect("no panic"), names[..LABELS_MAX]);
    }

    #[test]
    fn a_port_in_two_address_families_is_one_port() {
        let summary: ContainerSummary = serde_json::from_value(serde_json::json!({
            "Id": "ab".repeat(32), "Names": ["/linked/alias", "/web"], "State": "running",
            "Status": "Up 3 minutes (unhealthy)",
            "Ports": [
                {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                {"PrivatePort": 81, "Type": "tcp"},
                {"PrivatePort": 53, "PublicPort": 53, "Type": "udp"}
            ]
        }))
        .expect("Docker's form");
        let (view, _) = from_summary(summary, &foreign).expect("a view");
        assert_eq!(view.name, "web");
        assert_eq!((view.health, view.has_health_check), (HealthStatus::Unhealthy, true));
        let ports: Vec<_> = view.ports.iter().map(|port| (port.container_port, port.host_port)).collect();
        assert_eq!(ports, [(53, 53), (80, 8080)]);
    }

    #[test]
    fn its_address_is_the_first_that_is_one() {
        let at = |networks: serde_json::Value| {
            let network = serde_json::from_value(serde_json::json!({ "Networks": networks })).expect("Docker's form");
            address(&network).map(|address| address.to_string())
        };
        let bridge = serde_json::json!({ "bridge": { "IPAddress": "172.17.0.2", "GlobalIPv6Address": "2001:db8::2" } });
        assert_eq!(at(bridge).as_deref(), Some("172.17.0.2"));
        let own = serde_json::json!({ "a": { "IPAddress": "" }, "b": { "IPAddress": "10.0.0.2" } });
        assert_eq!(at(own).as_deref(), Some("10.0.0.2"));
        let six = serde_json::json!({ "a": { "IPAddress": "", "GlobalIPv6Address": "2001:db8::2" } });
        assert_eq!(at(six).as_deref(), Some("2001:db8::2"));
        for none in
            [serde_json::json!({ "host": { "IPAddress": "" } }), serde_json::json!({ "x": { "IPAddress": "../" } })]
        {
            assert_eq!(at(none), None);
        }
    }

    #[test]
    fn year_one_is_never() {
        assert_eq!(timestamp("0001-01-01T00:00:00Z"), None);
        assert_eq!(timestamp("1970-01-01T00:00:01.5Z"), Some(Timestamp(1500)));
        assert_eq!(timestamp("yesterday"), None);
    }
}
