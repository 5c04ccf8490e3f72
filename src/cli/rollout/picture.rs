//! The target groups of a service while it is deployed: whose tasks are in them, which share of the requests they get, and who can
//! take them.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    api::view::{
        Items,
        target_group::{RuleShareView, TargetGroupView, TargetState},
        task::TaskView,
    },
    cli::{
        Context,
        client::path,
        failure::Failure,
        printer::Tone,
        table::{Cell, Column, Table, column, sparse},
    },
};
use roadstead_core::model::deployment::percent;

const COLUMNS: &[Column] = &[
    column("TARGET GROUP"),
    column("REVISION"),
    column("HEALTHY"),
    sparse("DRAINING"),
    column("REQUESTS"),
    sparse("REASON"),
];

/// The picture, with colours; empty when the service has no target groups.
pub(super) async fn picture(context: &Context, service: &str) -> Result<String, Failure> {
    let groups: Items<TargetGroupView> = context.client.get(&path(&["targetgroups"], &[])).await?;
    if groups.items.iter().all(|group| group.service.as_deref() != Some(service)) {
        return Ok(String::new());
    }
    let tasks: Items<TaskView> = context.client.get(&path(&["tasks"], &[("service", Some(service))])).await?;
    let revisions = tasks.items.iter().map(|task| (task.task_id.as_str(), task.task_definition.as_str())).collect();
    let rows = rows(&groups.items, service, &revisions);
    Ok(Table::whole(COLUMNS, false, &rows, &context.printer))
}

fn rows(groups: &[TargetGroupView], service: &str, revisions: &BTreeMap<&str, &str>) -> Vec<Vec<Cell>> {
    let mut whole: BTreeMap<&str, u64> = BTreeMap::new();
    for share in groups.iter().flat_map(|group| &group.rules) {
        *whole.entry(&share.rule).or_default() += u64::from(share.weight);
    }
    let share = |share: &RuleShareView| {
        let all = whole.get(share.rule.as_str()).copied().unwrap_or_default().max(1);
        let per_mille = u64::from(share.weight) * 1_000 / all;
        format!("{} {}", share.rule, percent(u32::try_from(per_mille).unwrap_or(u32::MAX)))
    };
    let of_service = groups.iter().filter(|group| group.service.as_deref() == Some(service));
    of_service
        .map(|group| {
            let count = |state: TargetState| group.targets.iter().filter(|target| target.state == state).count();
            let draining = count(TargetState::Draining);
            let staying = group.targets.len() - draining;
            let healthy = count(TargetState::Healthy);
            let of: BTreeSet<&str> =
                group.targets.iter().filter_map(|target| revisions.get(target.task_id.as_str()).copied()).collect();
            let unwell = group.targets.iter().filter(|target| target.state == TargetState::Unhealthy);
            vec![
                group.name.as_str().into(),
                of.into_iter().collect::<Vec<_>>().join(", ").into(),
                Cell::toned(
                    format!("{healthy}/{staying}"),
                    if healthy == staying { Tone::Plain } else { Tone::Change },
                ),
                if draining == 0 { Cell::default() } else { draining.to_string().into() },
                group.rules.iter().map(share).collect::<Vec<_>>().join(", ").into(),
                unwell.filter_map(|target| target.reason.clone()).next().unwrap_or_default().into(),
            ]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::view::target_group::TargetView;
    use roadstead_core::model::spec::target_group::TargetProtocol;

    fn group(name: &str, service: &str, rules: &[(&str, u32)], targets: &[(&str, TargetState)]) -> TargetGroupView {
        let target = |(task, state): &(&str, TargetState)| TargetView {
            task_id: (*task).to_owned(),
            host: "a".to_owned(),
            address: "10.0.0.1".to_owned(),
            port: 80,
            state: *state,
            weight: 1,
            reason: (*state == TargetState::Unhealthy).then(|| "it answers 500".to_owned()),
        };
        TargetGroupView {
            name: name.to_owned(),
            cluster: "default".to_owned(),
            protocol: TargetProtocol::Http,
            port: 80,
            healthy_targets_count: 0,
            service: Some(service.to_owned()),
            rules: rules
                .iter()
                .map(|(rule, weight)| RuleShareView { rule: (*rule).to_owned(), weight: *weight })
                .collect(),
            targets: targets.iter().map(target).collect(),
        }
    }

    #[test]
    fn every_group_of_the_service_says_its_share_and_who_is_well() {
        use TargetState::{Draining, Healthy, Unhealthy};
        let groups = [
            group("blue", "web", &[("front/http", 750), ("front/test", 0)], &[("1", Healthy), ("2", Draining)]),
            group("green", "web", &[("front/http", 250), ("front/test", 1000)], &[("3", Healthy), ("4", Unhealthy)]),
            group("other", "api", &[("front/http", 0)], &[]),
        ];
        let revisions = BTreeMap::from([("1", "web:1"), ("2", "web:1"), ("3", "web:2"), ("4", "web:2")]);
        let texts: Vec<String> = rows(&groups, "web", &revisions)
            .into_iter()
            .map(|row| row.into_iter().map(|cell| cell.text).collect::<Vec<_>>().join("|"))
            .collect();
        assert_eq!(
            texts,
            [
                "blue|web:1|1/1|1|front/http 75 %, front/test 0 %|",
                "green|web:2|1/2||front/http 25 %, front/test 100 %|it answers 500",
            ]
        );
    }
}
