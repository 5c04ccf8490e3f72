//! Which scenarios to run: drawn ones are [`crate::scenario::draw`]'s; here are those that follow from others.

mod chains;
mod database;
mod enumerate;
mod minimise;

pub use chains::{chain, chain_breaks};
pub use database::database_breaks;
pub use enumerate::{Named, crash_points, small_scope, stories};
pub use minimise::minimise;

use super::{Broken, End, Predicate, Tell, run, scenario::Scenario};

/// A run with faults must come to the same end as the same manifests without (the differential check).
///
/// # Errors
/// What broke in either run, or how their ends differ.
pub fn differs_from_calm(scenario: &Scenario) -> Result<(), Broken> {
    let faulty = run(scenario, Tell::Nothing);
    if let Some(broken) = faulty.broken {
        return Err(broken);
    }
    let calm = run(&scenario.without_faults(), Tell::Nothing);
    if let Some(broken) = calm.broken {
        return Err(broken);
    }
    compare(scenario, &calm.end, &faulty.end)
}

/// Live tasks are the same; nothing is made less often than without faults.
fn compare(scenario: &Scenario, calm: &End, faulty: &End) -> Result<(), Broken> {
    for (service, live) in &calm.live {
        let other = faulty.live.get(service);
        if other != Some(live) && scenario.always_fits(service) {
            return Err(Broken::new(
                Predicate::L1,
                format!("{service} ends as {other:?} after faults, and as {live:?} without"),
            ));
        }
    }
    Ok(())
}
