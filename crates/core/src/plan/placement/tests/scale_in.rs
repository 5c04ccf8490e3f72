//! Tasks and strategies → who goes, in order.

use super::*;
use crate::model::name::TaskId;

/// (what it shows, hosts, tasks as `HOST:ID:AGE_MINUTES[:SIZE | :unready]`, strategies, how many, who goes)
type Row =
    (&'static str, &'static [&'static str], &'static [&'static str], &'static str, usize, &'static [&'static str]);

const ROWS: &[Row] = &[
    ("none, please", &["a"], &["a:1:9"], "", 0, &[]),
    ("more than there are", &["a"], &["a:1:9"], "", 5, &["1"]),
    (
        "no strategy: the zone with most, then the host with most, then the newest",
        &["a zone=1", "b zone=1", "c zone=2"],
        &["a:1:9", "b:2:1", "b:3:8", "c:4:2", "c:5:1"],
        "",
        3,
        &["2", "5", "3"],
    ),
    (
        "spread: zones stay even",
        &["a zone=1", "b zone=2", "c zone=3"],
        &["a:1:9", "a:2:8", "b:3:9", "b:4:8", "c:5:1"],
        "spread=zone",
        2,
        &["4", "2"],
    ),
    (
        "spread over racks: those without are a group, too",
        &["a rack=1", "b", "c"],
        &["a:1:1", "b:2:9", "c:3:8"],
        "spread=attribute:rack",
        1,
        &["3"],
    ),
    (
        "those not ready go first, whatever the zones say",
        &["a zone=1", "b zone=2"],
        &["a:1:9", "a:2:8", "b:3:99:unready"],
        "spread=zone",
        1,
        &["3"],
    ),
    (
        "binpack: the host that would have most left",
        &["a 9/400", "b 9/900", "c 9/600"],
        &["a:1:1", "b:2:5", "b:3:4", "c:4:9"],
        "binpack=memory",
        3,
        &["3", "2", "4"],
    ),
    (
        "binpack: what went before counts",
        &["a 9/500", "b 9/450"],
        &["a:1:1", "b:2:2", "b:3:1"],
        "binpack=memory",
        3,
        &["1", "3", "2"],
    ),
    (
        "binpack: what goes makes room, by its own size",
        &["a 0/0", "b 450/450"],
        &["a:1:9:300", "a:2:1:600", "b:3:1:64"],
        "binpack=memory",
        3,
        &["2", "1", "3"],
    ),
    (
        "the same by cpu",
        &["a 0/0", "b 450/450"],
        &["a:1:9:300", "a:2:1:600", "b:3:1:64"],
        "binpack=cpu",
        3,
        &["2", "1", "3"],
    ),
    (
        "zone first, then memory",
        &["a 9/400 zone=1", "b 9/900 zone=1", "c 9/9999 zone=2"],
        &["a:1:1", "b:2:5", "c:3:1"],
        "spread=zone binpack=memory",
        1,
        &["2"],
    ),
    ("hosts that are gone are emptied first", &["a"], &["a:1:1:unready", "x:2:50"], "", 1, &["2"]),
    (
        "FARGATE asks no strategy",
        &["a 9/100 zone=1", "b 9/900 zone=2"],
        &["a:1:1", "a:2:5", "b:3:1"],
        "FARGATE binpack=memory",
        1,
        &["1"],
    ),
];

#[test]
fn every_row_holds() {
    for (what, fleet, texts, strategies, n, expected) in ROWS {
        let fleet = hosts(fleet);
        let rows: Vec<(HostName, TaskId, Timestamp, Option<&str>)> = texts
            .iter()
            .map(|text| {
                let fields: Vec<&str> = text.split(':').collect();
                let age_ms = fields[2].parse::<u64>().unwrap() * 60_000;
                (fields[0].into(), fields[1].into(), Timestamp(NOW.0 - age_ms), fields.get(3).copied())
            })
            .collect();
        let candidates: Vec<ScaleInCandidate<'_>> = rows
            .iter()
            .map(|(host, id, created_at, more)| {
                let size = more.and_then(|more| more.parse().ok());
                ScaleInCandidate {
                    id,
                    host,
                    ready: *more != Some("unready"),
                    created_at: *created_at,
                    cpu: size.unwrap_or(1),
                    memory: size.unwrap_or(100),
                }
            })
            .collect();
        let ask = ask(&format!("web {strategies}"));
        let choose = |candidates: &[ScaleInCandidate<'_>]| {
            let chosen =
                placer(&fleet, &[]).choose_scale_in(&ask.service, candidates, ask.launch_type, &ask.strategies, *n);
            chosen.into_iter().map(|id| id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(choose(&candidates), *expected, "{what}");
        let backwards: Vec<ScaleInCandidate<'_>> = candidates.iter().rev().copied().collect();
        assert_eq!(choose(&backwards), *expected, "{what}, told backwards");
    }
}
