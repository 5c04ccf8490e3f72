//! The controller's picture in Prometheus' text format: what alerts are made of.
//!
//! Names and units: "Metric and label naming", Prometheus documentation.

use std::{collections::BTreeMap, fmt::Write};

use super::{certificate, deployment, host, load_balancer, service, status, target_group, word};
use roadstead_control::control::handle::Snapshot;
use roadstead_core::model::state::RolloutState;

/// A sample: its labels and its value.
type Sample<'a> = (Vec<(&'static str, &'a str)>, f64);

#[derive(Default)]
struct Text(String);

impl Text {
    fn gauge<'a>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample<'a>>) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.into_iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(ms: u64) -> f64 {
    // Times are far from where a double loses milliseconds.
    ms as f64 / 1_000.0
}

/// All metrics.
pub fn text(snapshot: &Snapshot) -> String {
    let mut text = Text::default();
    let about = status::view(snapshot);
    text.gauge("roadstead_build_info", "The controller's version.", [(vec![("version", about.version.as_str())], 1.0)]);
    text.gauge(
        "roadstead_start_time_seconds",
        "When the controller started, in Unix time.",
        [(vec![], seconds(about.started_at.0))],
    );
    text.gauge("roadstead_manifest_errors", "Errors in the manifests.", [(vec![], f64::from(about.errors))]);
    text.gauge(
        "roadstead_change_held",
        "Whether a change of the manifests waits for a person.",
        [(vec![], f64::from(u8::from(about.held.is_some())))],
    );
    let hosts = host::list(snapshot, None);
    let statuses: Vec<String> = hosts.iter().map(|host| word(&host.status)).collect();
    text.gauge(
        "roadstead_host_status",
        "1 for the status that a host has.",
        hosts.iter().zip(&statuses).map(|(host, status)| {
            (vec![("cluster", host.cluster.as_str()), ("host", host.name.as_str()), ("status", status.as_str())], 1.0)
        }),
    );
    let services = service::list(snapshot, None, &[]);
    for (name, help, count) in [
        ("desired", "Tasks that are wanted.", (|it| it.desired_count) as fn(&service::ServiceView) -> u32),
        ("running", "Tasks that run.", |it| it.running_count),
        ("pending", "Tasks on their way.", |it| it.pending_count),
    ] {
        text.gauge(
            &format!("roadstead_service_{name}_tasks"),
            help,
            services.iter().map(|it| {
                (vec![("cluster", it.cluster.as_str()), ("service", it.name.as_str())], f64::from(count(it)))
            }),
        );
    }
    let deployments = deployment::list(snapshot, None);
    text.gauge(
        "roadstead_deployment_in_progress",
        "1 for each deployment under way.",
        deployments
            .iter()
            .filter(|it| it.outcome.is_none() && it.rollout_state == RolloutState::InProgress)
            .map(|it| (vec![("service", it.service.as_str()), ("task_definition", it.task_definition.as_str())], 1.0)),
    );
    targets(&mut text, snapshot);
    certificates(&mut text, snapshot);
    text.0
}

fn targets(text: &mut Text, snapshot: &Snapshot) {
    let groups = target_group::list(snapshot, None);
    let mut counts: BTreeMap<(&str, String), u32> = BTreeMap::new();
    for (group, target) in groups.iter().flat_map(|group| group.targets.iter().map(move |target| (group, target))) {
        *counts.entry((group.name.as_str(), word(&target.state))).or_default() += 1;
    }
    text.gauge(
        "roadstead_target_group_targets",
        "Targets by their state.",
        counts.iter().map(|((group, state), count)| {
            (vec![("target_group", *group), ("state", state.as_str())], f64::from(*count))
        }),
    );
    let balancers = load_balancer::list(snapshot, None);
    let edges: Vec<(&str, &str, String)> = balancers
        .iter()
        .flat_map(|it| it.hosts.iter().map(|edge| (it.name.as_str(), edge.host.as_str(), word(&edge.status))))
        .collect();
    text.gauge(
        "roadstead_load_balancer_host_status",
        "1 for the status that a load balancer has on a host.",
        edges.iter().map(|(balancer, host, status)| {
            (vec![("load_balancer", *balancer), ("host", *host), ("status", status.as_str())], 1.0)
        }),
    );
}

fn certificates(text: &mut Text, snapshot: &Snapshot) {
    let certificates = certificate::list(snapshot);
    text.gauge(
        "roadstead_certificate_not_after_timestamp_seconds",
        "When a certificate ends, in Unix time; none while there is none.",
        certificates.iter().filter_map(|it| {
            let labels = vec![("certificate", it.name.as_str()), ("source", it.source.as_str())];
            Some((labels, seconds(it.not_after?.0)))
        }),
    );
    text.gauge(
        "roadstead_certificate_status",
        "1 for the status that a certificate has: ISSUED, PENDING, FAILED, RENEWAL_FAILED.",
        certificates.iter().map(|it| (vec![("certificate", it.name.as_str()), ("status", it.status.as_str())], 1.0)),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_break_out() {
        let mut text = Text::default();
        text.gauge("a", "b", [(vec![("c", "d\"\\\n} 1")], 2.5)]);
        assert_eq!(text.0, "# HELP a b\n# TYPE a gauge\na{c=\"d\\\"\\\\\\n} 1\"} 2.5\n");
    }
}
