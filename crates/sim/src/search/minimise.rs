//! A scenario that breaks a predicate → the smallest that we find which breaks the same one.

use crate::{
    Broken, Predicate, Tell, run,
    scenario::{Rates, Scenario},
};

/// So many runs at most.
const MAX_RUNS: u32 = 1_500;

struct Search {
    predicate: Predicate,
    best: Scenario,
    runs: u32,
}

impl Search {
    fn still_breaks(&self, scenario: &Scenario) -> bool {
        run(scenario, Tell::Nothing).broken.is_some_and(|broken| broken.predicate == self.predicate)
    }

    /// Keeps the candidate when it breaks the same predicate.
    fn attempt(&mut self, candidate: Scenario) -> bool {
        if self.runs >= MAX_RUNS || candidate == self.best {
            return false;
        }
        self.runs += 1;
        let is_good = self.still_breaks(&candidate);
        if is_good {
            self.best = candidate;
        }
        is_good
    }

    /// Takes out runs of happenings, long ones first.
    fn shorten_script(&mut self) -> bool {
        let mut better = false;
        let mut size = self.best.script.len().max(1);
        loop {
            let mut from = 0;
            while from < self.best.script.len() {
                let mut candidate = self.best.clone();
                let to = (from + size).min(candidate.script.len());
                candidate.script.drain(from..to);
                if self.attempt(candidate) {
                    better = true;
                } else {
                    from += size;
                }
            }
            if size == 1 || self.runs >= MAX_RUNS {
                return better;
            }
            size = size.div_ceil(2);
        }
    }

    fn calm_rates(&mut self) -> bool {
        let rates: [fn(&mut Rates) -> &mut u64; 10] = [
            |rates| &mut rates.lose_request,
            |rates| &mut rates.lose_answer,
            |rates| &mut rates.slow_request,
            |rates| &mut rates.server_error,
            |rates| &mut rates.stale_list,
            |rates| &mut rates.lose_event,
            |rates| &mut rates.kill_at_request,
            |rates| &mut rates.kill_at_commit,
            |rates| &mut rates.commit_fails,
            |rates| &mut rates.tear,
        ];
        let mut better = self.attempt(Scenario { rates: Rates::default(), ..self.best.clone() });
        for rate in rates {
            let mut candidate = self.best.clone();
            if std::mem::take(rate(&mut candidate.rates)) > 0 {
                better |= self.attempt(candidate);
            }
        }
        better
    }

    fn fewer_things(&mut self) -> bool {
        let mut better = false;
        for service in self.best.desired.services.keys().cloned().collect::<Vec<_>>() {
            let mut candidate = self.best.clone();
            candidate.desired.services.remove(&service);
            candidate.desired.task_definitions.remove(service.as_str());
            better |= self.attempt(candidate);
        }
        for host in self.best.desired.hosts.keys().cloned().collect::<Vec<_>>() {
            let mut candidate = self.best.clone();
            candidate.desired.hosts.remove(&host);
            candidate.broken_for_ever.remove(&host);
            better |= self.attempt(candidate);
        }
        for service in self.best.desired.services.keys().cloned().collect::<Vec<_>>() {
            for count in [1, 2] {
                let mut candidate = self.best.clone();
                if let Some(manifest) = candidate.desired.services.get_mut(&service)
                    && manifest.spec.desired_count > count
                {
                    manifest.spec.desired_count = count;
                    if self.attempt(candidate) {
                        better = true;
                        break;
                    }
                }
            }
        }
        better |= self.attempt(Scenario { broken_for_ever: Default::default(), ..self.best.clone() });
        better |= self.attempt(Scenario { through_yaml: false, ..self.best.clone() });
        let last_ms = self.best.script.iter().map(|scripted| scripted.at_ms).max().unwrap_or(0);
        better |= self.attempt(Scenario { faults_ms: (last_ms + 1_000).min(self.best.faults_ms), ..self.best.clone() });
        better
    }
}

/// Makes a broken scenario smaller; gives what the smallest breaks, too. `None` when it breaks nothing.
pub fn minimise(scenario: &Scenario) -> Option<(Scenario, Broken)> {
    let broken = run(scenario, Tell::Nothing).broken?;
    let mut search = Search { predicate: broken.predicate, best: scenario.clone(), runs: 0 };
    loop {
        let mut better = search.shorten_script();
        better |= search.calm_rates();
        better |= search.fewer_things();
        if !better || search.runs >= MAX_RUNS {
            break;
        }
    }
    let broken = run(&search.best, Tell::Nothing).broken?;
    Some((search.best, broken))
}
