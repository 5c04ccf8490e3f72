//! Random valid sequences of manifest changes, each brought to rest: the end must be that of the last manifests alone, and
//! a bad commit that is reverted must change nothing.

use crate::{
    Broken, Predicate, Tell,
    rng::Rng,
    run,
    scenario::{Happening, Scenario, Scripted, Shape, draw_change, draw_desired},
};

/// Each change has so long to come to rest.
const BETWEEN_MS: u64 = 90_000;

/// A chain of changes, and the same with a bad commit between each two.
pub fn chain(seed: u64) -> (Scenario, Scenario) {
    let mut rng = Rng::keyed(seed, &[17]);
    let shape = Shape { hosts: rng.within(2, 4), services: rng.within(1, 3), ..Shape::default() };
    let desired = draw_desired(&mut rng, shape);
    let mut now = desired.clone();
    let (mut script, mut at_ms) = (Vec::new(), BETWEEN_MS);
    for _ in 0..rng.within(2, 6) {
        if let Some(change) = draw_change(&mut rng, &now) {
            change.make(&mut now);
            script.push(Scripted { at_ms, what: Happening::Manifests { change } });
            script.push(Scripted { at_ms: at_ms + 5_000, what: Happening::Confirm });
            at_ms += BETWEEN_MS;
        }
    }
    let plain = Scenario { seed, desired, script, faults_ms: at_ms, ..Scenario::default() };
    let mut spoilt = plain.clone();
    let bad = (0..at_ms / BETWEEN_MS).map(|nth| Scripted {
        at_ms: nth * BETWEEN_MS + 60_000,
        what: match rng.within(0, 2) {
            0 => Happening::Empty { for_ms: 10_000 },
            1 => Happening::Unreadable { for_ms: 10_000 },
            _ => Happening::BrokenFile { nth, for_ms: 10_000 },
        },
    });
    spoilt.script.extend(bad.collect::<Vec<_>>());
    spoilt.script.sort_by_key(|scripted| scripted.at_ms);
    (plain, spoilt)
}

/// Whether a chain ends as its last manifests alone would, with and without bad commits between.
///
/// # Errors
/// What broke, or how the ends differ.
pub fn chain_breaks(seed: u64) -> Result<(), Broken> {
    let (plain, spoilt) = chain(seed);
    let mut last = plain.desired.clone();
    for scripted in &plain.script {
        if let Happening::Manifests { change } = &scripted.what {
            change.make(&mut last);
        }
    }
    let alone = Scenario { desired: last, script: Vec::new(), faults_ms: 0, ..plain.clone() };
    let runs = [run(&plain, Tell::Nothing), run(&spoilt, Tell::Nothing), run(&alone, Tell::Nothing)];
    if let Some(broken) = runs.iter().find_map(|outcome| outcome.broken.clone()) {
        return Err(broken);
    }
    let [plain_end, spoilt_end, alone_end] = runs.map(|outcome| outcome.end);
    if plain_end != spoilt_end {
        return Err(Broken::new(
            Predicate::S13,
            format!("bad commits made a difference: {plain_end:?} and {spoilt_end:?}"),
        ));
    }
    let fitting = |live: &std::collections::BTreeMap<String, _>| {
        live.keys().filter(|service| plain.always_fits(service)).cloned().collect::<Vec<_>>()
    };
    for service in fitting(&alone_end.live) {
        if plain_end.live.get(&service) != alone_end.live.get(&service) {
            return Err(Broken::new(
                Predicate::L1,
                format!(
                    "{service} ends as {:?} after a chain, and as {:?} from its last manifests alone",
                    plain_end.live.get(&service),
                    alone_end.live.get(&service)
                ),
            ));
        }
    }
    Ok(())
}
