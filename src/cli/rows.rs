//! Views as rows of tables.

mod traffic;

use serde::de::DeserializeOwned;

use super::{
    printer::Tone,
    table::{Cell, Column, column, sparse, wide},
    text::age,
};
use crate::api::view::{
    cluster::ClusterView,
    deployment::DeploymentView,
    event::EventView,
    host::{HostNetworkView, HostView, NetworkStatus},
    scheduled_task::ScheduledTaskView,
    security_group::{PermissionView, SecurityGroupView},
    service::{ServiceStatus, ServiceView},
    subnet::SubnetView,
    task::TaskView,
    task_definition::TaskDefinitionView,
    word,
};
use roadstead_core::model::{
    container::HealthStatus,
    schedule::FireOutcome,
    state::{EventLevel, Outcome, RolloutState},
    task::LastStatus,
    time::Timestamp,
    world::HostStatus,
};

/// A view that is listed.
pub(super) trait Row: DeserializeOwned {
    const COLUMNS: &'static [Column];
    /// One for each column.
    fn cells(&self, now: Timestamp) -> Vec<Cell>;
    /// The same thing at another time has the same name.
    fn name(&self) -> String;
    /// It is of the past: a watch does not begin with it.
    fn is_over(&self) -> bool {
        false
    }
}

fn since(now: Timestamp, at: Timestamp) -> String {
    age(now.since_ms(at))
}

fn optional(text: &Option<String>) -> String {
    text.clone().unwrap_or_default()
}

/// `2/3`, and whether that is as wanted.
fn ratio(part: u32, whole: u32) -> Cell {
    let tone = match part {
        part if part >= whole => Tone::Good,
        0 => Tone::Bad,
        _ => Tone::Change,
    };
    Cell::toned(format!("{part}/{whole}"), tone)
}

fn health_tone(health: HealthStatus) -> Tone {
    match health {
        HealthStatus::Healthy => Tone::Good,
        HealthStatus::Unhealthy => Tone::Bad,
        HealthStatus::Unknown => Tone::Plain,
    }
}

fn task_tone(status: LastStatus) -> Tone {
    match status {
        LastStatus::Running => Tone::Good,
        LastStatus::Provisioning | LastStatus::Pending | LastStatus::Activating => Tone::Change,
        LastStatus::Deactivating | LastStatus::Stopping | LastStatus::Deprovisioning => Tone::Change,
        LastStatus::Stopped => Tone::Faint,
    }
}

fn host_tone(status: HostStatus) -> Tone {
    match status {
        HostStatus::Active => Tone::Good,
        HostStatus::Cordoned | HostStatus::Draining | HostStatus::Suspect => Tone::Change,
        HostStatus::Lost | HostStatus::Untrusted => Tone::Bad,
    }
}

/// `READY`, or what stands in the way.
fn network(view: &HostNetworkView) -> Cell {
    match view.status {
        NetworkStatus::Ready => Cell::toned(word(&view.status), Tone::Good),
        NetworkStatus::NotReady => Cell::toned(view.reason.clone().unwrap_or_else(|| word(&view.status)), Tone::Change),
    }
}

fn rollout_tone(state: RolloutState) -> Tone {
    match state {
        RolloutState::Completed => Tone::Good,
        RolloutState::InProgress => Tone::Change,
        RolloutState::Failed => Tone::Bad,
    }
}

impl Row for HostView {
    const COLUMNS: &'static [Column] = &[
        column("NAME"),
        column("STATUS"),
        column("ZONE"),
        column("TASKS"),
        column("CPU FREE"),
        column("MEMORY FREE"),
        column("ENGINE"),
        wide("ADDRESS"),
        wide("ARCHITECTURE"),
        wide("DISK"),
        wide("NETWORK"),
        wide("CLUSTER"),
        wide("LABELS"),
        sparse("REASON"),
    ];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        let (all, left) = (self.registered_resources, self.remaining_resources);
        let labels: Vec<String> = self.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let disk = self.disk.as_ref().and_then(|disk| disk.used_percent);
        let tasks = match self.pending_tasks_count {
            0 => self.running_tasks_count.to_string(),
            pending => format!("{} (+{pending})", self.running_tasks_count),
        };
        vec![
            self.name.as_str().into(),
            Cell::toned(word(&self.status), host_tone(self.status)),
            optional(&self.availability_zone).into(),
            tasks.into(),
            format!("{}/{}", left.cpu, all.cpu).into(),
            format!("{}/{} MiB", left.memory, all.memory).into(),
            optional(&self.engine_version).into(),
            optional(&self.address).into(),
            optional(&self.architecture).into(),
            disk.map(|percent| format!("{percent}%")).unwrap_or_default().into(),
            self.network.as_ref().map(network).unwrap_or_default(),
            self.cluster.as_str().into(),
            labels.join(",").into(),
            optional(&self.reason).into(),
        ]
    }

    fn name(&self) -> String {
        format!("host/{}", self.name)
    }
}

impl Row for ServiceView {
    const COLUMNS: &'static [Column] = &[
        column("NAME"),
        column("RUNNING"),
        column("PENDING"),
        column("TASK DEFINITION"),
        column("ROLLOUT"),
        wide("CLUSTER"),
        wide("STRATEGY"),
        wide("LAUNCH TYPE"),
        column("AGE"),
        sparse("REASON"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let primary = self.deployments.first();
        // The condition that waits says what to do; what is steady needs no words.
        let reason = self.conditions.iter().rev().find(|condition| condition.wakes_when.is_some() || !condition.status);
        let rollout = match self.status {
            ServiceStatus::Draining => Cell::toned("DRAINING", Tone::Change),
            ServiceStatus::Active => primary
                .map(|primary| Cell::toned(word(&primary.rollout_state), rollout_tone(primary.rollout_state)))
                .unwrap_or_default(),
        };
        vec![
            self.name.as_str().into(),
            ratio(self.running_count, self.desired_count),
            self.pending_count.to_string().into(),
            self.task_definition.as_str().into(),
            rollout,
            self.cluster.as_str().into(),
            word(&self.scheduling_strategy).into(),
            word(&self.launch_type).into(),
            primary.map(|primary| since(now, primary.created_at)).unwrap_or_default().into(),
            reason.map(|condition| condition.message.clone()).unwrap_or_default().into(),
        ]
    }

    fn name(&self) -> String {
        format!("service/{}", self.name)
    }
}

impl Row for TaskView {
    const COLUMNS: &'static [Column] = &[
        column("TASK"),
        column("TASK DEFINITION"),
        column("HOST"),
        column("ZONE"),
        column("STATUS"),
        column("HEALTH"),
        column("RESTARTS"),
        column("PORTS"),
        sparse("ADDRESS"),
        wide("SECURITY GROUPS"),
        wide("SERVICE"),
        wide("CLUSTER"),
        wide("IMAGES"),
        column("AGE"),
        sparse("REASON"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let restarts: u32 = self.containers.iter().map(|container| container.restart_count).sum();
        let bindings = self.containers.iter().flat_map(|container| &container.network_bindings);
        let ports: Vec<String> = bindings
            .map(|port| format!("{}->{}/{}", port.host_port, port.container_port, word(&port.protocol)))
            .collect();
        let images: Vec<&str> = self.containers.iter().map(|container| container.image.as_str()).collect();
        vec![
            self.task_id.as_str().into(),
            self.task_definition.as_str().into(),
            self.host.as_str().into(),
            optional(&self.availability_zone).into(),
            Cell::toned(word(&self.last_status), task_tone(self.last_status)),
            Cell::toned(word(&self.health_status), health_tone(self.health_status)),
            restarts.to_string().into(),
            ports.join(",").into(),
            optional(&self.private_ip).into(),
            self.security_groups.join(",").into(),
            self.group.strip_prefix("service:").unwrap_or(&self.group).into(),
            self.cluster.as_str().into(),
            images.join(",").into(),
            since(now, self.created_at).into(),
            optional(&self.stopped_reason).into(),
        ]
    }

    fn name(&self) -> String {
        format!("task/{}", self.task_id)
    }

    fn is_over(&self) -> bool {
        self.last_status == LastStatus::Stopped
    }
}

impl Row for ScheduledTaskView {
    const COLUMNS: &'static [Column] = &[
        column("NAME"),
        column("SCHEDULE"),
        column("TIME ZONE"),
        column("TASK DEFINITION"),
        column("ACTIVE"),
        column("LAST"),
        column("OUTCOME"),
        column("NEXT"),
        wide("CLUSTER"),
        wide("COUNT"),
        wide("POLICY"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let last = self.fires.first();
        let outcome = last.map(|fire| {
            let tone = match fire.outcome {
                FireOutcome::Succeeded => Tone::Good,
                FireOutcome::Failed | FireOutcome::Missed => Tone::Bad,
                FireOutcome::Running | FireOutcome::Skipped | FireOutcome::Replaced => Tone::Change,
            };
            Cell::toned(word(&fire.outcome), tone)
        });
        let next = match self.next_fire_at {
            _ if self.suspend => "suspended".to_owned(),
            Some(at) if at <= now => "waits".to_owned(),
            Some(at) => format!("in {}", since(at, now)),
            None => "never".to_owned(),
        };
        vec![
            self.name.as_str().into(),
            self.schedule.as_str().into(),
            self.time_zone.as_str().into(),
            self.task_definition.as_str().into(),
            self.active_count.to_string().into(),
            last.map(|fire| since(now, fire.scheduled_at)).unwrap_or_default().into(),
            outcome.unwrap_or_default(),
            next.into(),
            self.cluster.as_str().into(),
            self.count.to_string().into(),
            word(&self.concurrency_policy).into(),
        ]
    }

    fn name(&self) -> String {
        format!("scheduledtask/{}", self.name)
    }
}

impl Row for TaskDefinitionView {
    const COLUMNS: &'static [Column] =
        &[column("NAME"), column("STATUS"), column("CONTAINERS"), column("IMAGES"), wide("HASH"), column("AGE")];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let containers =
            self.spec.as_ref().and_then(|spec| spec.get("containerDefinitions")).and_then(|list| list.as_array());
        let of = |field: &str| -> String {
            let texts = containers
                .into_iter()
                .flatten()
                .filter_map(|container| container.get(field).and_then(|text| text.as_str()));
            texts.collect::<Vec<_>>().join(",")
        };
        vec![
            self.task_definition.as_str().into(),
            word(&self.status).into(),
            of("name").into(),
            of("image").into(),
            self.hash.as_str().into(),
            since(now, self.registered_at).into(),
        ]
    }

    fn name(&self) -> String {
        format!("taskdefinition/{}", self.task_definition)
    }
}

impl Row for DeploymentView {
    const COLUMNS: &'static [Column] = &[
        column("ID"),
        column("SERVICE"),
        column("TASK DEFINITION"),
        column("STATUS"),
        column("ROLLOUT"),
        column("OUTCOME"),
        column("RUNNING"),
        column("FAILED"),
        column("AGE"),
        sparse("REASON"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let outcome = self.outcome.map(|outcome| {
            let tone = match outcome {
                Outcome::Succeeded => Tone::Good,
                Outcome::Failed | Outcome::RolledBack => Tone::Bad,
                Outcome::Superseded => Tone::Faint,
            };
            Cell::toned(word(&outcome), tone)
        });
        vec![
            self.id.as_str().into(),
            self.service.as_str().into(),
            self.task_definition.as_str().into(),
            word(&self.status).into(),
            Cell::toned(word(&self.rollout_state), rollout_tone(self.rollout_state)),
            outcome.unwrap_or_default(),
            format!("{}/{}", self.running_count, self.desired_count).into(),
            match self.failure_threshold {
                Some(threshold) => format!("{}/{threshold}", self.failed_tasks).into(),
                None => self.failed_tasks.to_string().into(),
            },
            since(now, self.created_at).into(),
            self.rollout_state_reason.as_str().into(),
        ]
    }

    fn name(&self) -> String {
        format!("deployment/{}", self.id)
    }
}

impl Row for SubnetView {
    const COLUMNS: &'static [Column] = &[
        column("NAME"),
        column("CLUSTER"),
        column("ZONE"),
        column("CIDR"),
        column("SLICES"),
        column("ADDRESSES"),
        wide("DRIVER"),
        wide("SLICE SIZE"),
        wide("HOSTS"),
        sparse("REASON"),
    ];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        let used = |in_use: u32, free: u32| format!("{in_use}/{}", in_use.saturating_add(free));
        let hosts: Vec<String> = self
            .hosts
            .iter()
            .map(|it| format!("{} {}", it.host, used(it.addresses_in_use, it.available_ip_address_count)))
            .collect();
        vec![
            self.name.as_str().into(),
            self.cluster.as_str().into(),
            optional(&self.availability_zone).into(),
            self.cidr.as_str().into(),
            format!("{}/{}", self.slices_in_use, self.slices_total).into(),
            used(self.addresses_in_use, self.available_ip_address_count).into(),
            self.driver.as_str().into(),
            format!("/{}", self.host_prefix).into(),
            hosts.join(", ").into(),
            optional(&self.reason).into(),
        ]
    }

    fn name(&self) -> String {
        format!("subnet/{}", self.name)
    }
}

impl Row for SecurityGroupView {
    const COLUMNS: &'static [Column] =
        &[column("NAME"), column("INGRESS"), column("EGRESS"), column("MEMBERS"), wide("DESCRIPTION")];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        let rules = |rules: &[PermissionView]| match rules {
            [] => "nothing".to_owned(),
            some => some.iter().map(rule).collect::<Vec<_>>().join("; "),
        };
        vec![
            self.name.as_str().into(),
            rules(&self.ingress).into(),
            rules(&self.egress).into(),
            self.members.len().to_string().into(),
            optional(&self.description).into(),
        ]
    }

    fn name(&self) -> String {
        format!("securitygroup/{}", self.name)
    }
}

/// `tcp/8080-8090 web,10.0.0.0/8`.
fn rule(rule: &PermissionView) -> String {
    let ports = match (rule.from_port, rule.to_port) {
        (Some(from), Some(to)) if from != to => format!("/{from}-{to}"),
        (Some(port), _) => format!("/{port}"),
        (None, _) => String::new(),
    };
    format!("{}{ports} {}", word(&rule.protocol), rule.peers.join(","))
}

impl Row for ClusterView {
    const COLUMNS: &'static [Column] = &[
        column("NAME"),
        column("STATUS"),
        column("HOSTS"),
        column("SERVICES"),
        column("RUNNING"),
        column("PENDING"),
        wide("SUSPECT AFTER"),
        wide("LOST AFTER"),
    ];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        vec![
            self.name.as_str().into(),
            self.status.as_str().into(),
            self.registered_hosts_count.to_string().into(),
            self.active_services_count.to_string().into(),
            self.running_tasks_count.to_string().into(),
            self.pending_tasks_count.to_string().into(),
            format!("{}s", self.suspect_after_s).into(),
            format!("{}s", self.lost_after_s).into(),
        ]
    }

    fn name(&self) -> String {
        format!("cluster/{}", self.name)
    }
}

impl Row for EventView {
    const COLUMNS: &'static [Column] =
        &[column("AGE"), column("LEVEL"), column("ABOUT"), column("REASON"), wide("ID"), column("MESSAGE")];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let about = match self.name.as_str() {
            "" => self.kind.clone(),
            name => format!("{}/{name}", self.kind),
        };
        let tone = match self.level {
            EventLevel::Normal => Tone::Plain,
            EventLevel::Warning => Tone::Change,
        };
        vec![
            since(now, self.at).into(),
            Cell::toned(word(&self.level), tone),
            about.into(),
            self.reason.as_str().into(),
            self.id.to_string().into(),
            self.message.as_str().into(),
        ]
    }

    fn name(&self) -> String {
        format!("event/{}", self.id)
    }
}
