//! Target groups and load balancers as rows.

use super::{Cell, Column, Row, Timestamp, Tone, column, optional, ratio, sparse, wide, word};
use crate::api::view::{
    certificate::CertificateView,
    load_balancer::{EdgeStatus, LoadBalancerState, LoadBalancerView},
    target_group::{TargetGroupView, TargetState, TargetView},
};

impl Row for TargetGroupView {
    const COLUMNS: &'static [Column] = &[
        column("NAME"),
        column("CLUSTER"),
        column("PROTOCOL"),
        column("PORT"),
        column("TARGETS"),
        wide("SERVICE"),
        wide("RULES"),
        sparse("REASON"),
    ];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        let rules: Vec<String> = self.rules.iter().map(|it| format!("{} {}", it.rule, it.weight)).collect();
        let troubled = |target: &&TargetView| match target.state {
            TargetState::Healthy | TargetState::Draining => false,
            TargetState::Initial | TargetState::Unhealthy | TargetState::Unused | TargetState::Unavailable => true,
        };
        let reason = self.targets.iter().filter(troubled).find_map(|target| target.reason.as_ref());
        vec![
            self.name.as_str().into(),
            self.cluster.as_str().into(),
            word(&self.protocol).into(),
            self.port.to_string().into(),
            ratio(self.healthy_targets_count, u32::try_from(self.targets.len()).unwrap_or(u32::MAX)),
            optional(&self.service).into(),
            rules.join(", ").into(),
            reason.cloned().unwrap_or_default().into(),
        ]
    }

    fn name(&self) -> String {
        format!("targetgroup/{}", self.name)
    }
}

impl Row for CertificateView {
    const COLUMNS: &'static [Column] = &[
        column("DOMAINS"),
        column("SOURCE"),
        column("ISSUER"),
        column("EXPIRES"),
        column("DAYS LEFT"),
        column("STATUS"),
        column("HOSTS"),
        wide("NAME"),
        wide("SERIAL"),
        wide("LOAD BALANCERS"),
        sparse("NEXT TRY"),
        sparse("REASON"),
    ];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        let days = match self.days_left {
            Some(days) if self.ending => Cell::toned(days.to_string(), Tone::Bad),
            Some(days) => days.to_string().into(),
            None => String::new().into(),
        };
        let status = match self.status.as_str() {
            "ISSUED" => "ISSUED".into(),
            "PENDING" => Cell::toned("PENDING", Tone::Change),
            other => Cell::toned(other, Tone::Bad),
        };
        vec![
            self.domains.join(",").into(),
            self.source.as_str().into(),
            optional(&self.issuer).into(),
            self.not_after.map(|at| at.to_string()).unwrap_or_default().into(),
            days,
            status,
            self.hosts.join(",").into(),
            self.name.as_str().into(),
            optional(&self.serial).into(),
            self.load_balancers.join(",").into(),
            self.next_try_at.map(|at| at.to_string()).unwrap_or_default().into(),
            optional(&self.reason).into(),
        ]
    }

    fn name(&self) -> String {
        format!("certificate/{}", self.name)
    }
}

impl Row for LoadBalancerView {
    const COLUMNS: &'static [Column] = &[
        column("NAME"),
        column("CLUSTER"),
        column("HOSTS"),
        column("LISTENERS"),
        column("STATE"),
        wide("RUNS ON"),
        wide("SECURITY GROUPS"),
        sparse("REASON"),
    ];

    fn cells(&self, _: Timestamp) -> Vec<Cell> {
        let count = |hosts: usize| u32::try_from(hosts).unwrap_or(u32::MAX);
        let ready = self.hosts.iter().filter(|edge| edge.status == EdgeStatus::Ready).count();
        let listeners: Vec<String> = self
            .listeners
            .iter()
            .map(|listener| format!("{} {}/{}", listener.name, word(&listener.protocol), listener.port))
            .collect();
        let tone = match self.state {
            LoadBalancerState::Active => Tone::Good,
            LoadBalancerState::ActiveImpaired | LoadBalancerState::Provisioning => Tone::Change,
            LoadBalancerState::Failed => Tone::Bad,
        };
        let hosts: Vec<&str> = self.hosts.iter().map(|edge| edge.host.as_str()).collect();
        vec![
            self.name.as_str().into(),
            self.cluster.as_str().into(),
            ratio(count(ready), count(self.hosts.len())),
            listeners.join(", ").into(),
            Cell::toned(word(&self.state), tone),
            hosts.join(",").into(),
            self.security_groups.join(",").into(),
            optional(&self.reason).into(),
        ]
    }

    fn name(&self) -> String {
        format!("loadbalancer/{}", self.name)
    }
}
