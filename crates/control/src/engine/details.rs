//! Which containers of a list must be inspected. An inspect per container and list would cost more
//! than everything else at rest, so details are kept until the list entry shows a change, an event
//! names the container, or its age says that it was started anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use roadstead_core::model::container::{ContainerState, ContainerView, HealthStatus};
use roadstead_core::model::name::RuntimeId;

/// What the status text of a list entry shows: `Up 3 minutes (healthy)`, `Exited (1) 2 hours ago`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// The text without its time.
    class: String,
    /// How long ago it started or ended; `None` where the text does not say.
    age: Option<Age>,
}

/// At least and less than so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Age {
    at_least: Duration,
    below: Duration,
}

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 60 * MINUTE_S;
const DAY_S: u64 = 24 * HOUR_S;

impl Shown {
    pub(super) fn new(status: &str) -> Self {
        let (mut head, mut groups, mut inside) = (String::new(), Vec::new(), None);
        for c in status.chars().take(200) {
            match (c, inside.as_mut()) {
                ('(', None) => inside = Some(String::new()),
                (')', Some(_)) => groups.extend(inside.take()),
                (c, Some(group)) => group.push(c),
                (c, None) => head.push(c),
            }
        }
        let mut words = head.split_whitespace();
        let first = words.next().unwrap_or_default().to_owned();
        let rest: Vec<&str> = words.filter(|word| *word != "ago").collect();
        let age = age(&rest);
        let class = match age {
            Some(_) => format!("{first} {groups:?}"),
            None => format!("{head} {groups:?}"),
        };
        Self { class, age }
    }

    fn group(&self, text: &str) -> bool {
        self.class.contains(&format!("{text:?}"))
    }

    /// Health, and whether the text tells of a health check.
    pub(super) fn health(&self) -> (HealthStatus, bool) {
        if self.group("healthy") {
            (HealthStatus::Healthy, true)
        } else if self.group("unhealthy") {
            (HealthStatus::Unhealthy, true)
        } else {
            (HealthStatus::Unknown, self.group("health: starting"))
        }
    }

    /// The code in `Exited (137)` and `Restarting (1)`.
    pub(super) fn exit_code(&self) -> Option<i64> {
        let tail = ["Exited [\"", "Restarting [\""].iter().find_map(|begin| self.class.strip_prefix(begin))?;
        tail.split('"').next()?.parse().ok()
    }
}

/// The age in Docker's words. It rounds down but for hours, which it rounds to the nearest.
fn age(words: &[&str]) -> Option<Age> {
    let (number, unit): (u64, &str) = match words {
        ["Less", "than", "a", "second"] => (0, "second"),
        ["About", "a", "minute"] => (1, "minute"),
        ["About", "an", "hour"] => (1, "hour"),
        [number, unit] => (number.parse().ok()?, unit.trim_end_matches('s')),
        _ => return None,
    };
    let unit_s = match unit {
        "second" => 1,
        "minute" => MINUTE_S,
        "hour" => HOUR_S,
        "day" => DAY_S,
        "week" => 7 * DAY_S,
        "month" => 30 * DAY_S,
        "year" => 365 * DAY_S,
        _ => return None,
    };
    let slack_s = if unit_s >= HOUR_S { HOUR_S / 2 } else { 0 };
    let seconds = number.checked_mul(unit_s)?;
    Some(Age {
        at_least: Duration::from_secs(seconds.saturating_sub(slack_s)),
        below: Duration::from_secs(seconds.saturating_add(unit_s)),
    })
}

/// What is known of our containers on one host.
#[derive(Debug, Default)]
pub(super) struct Details {
    known: BTreeMap<RuntimeId, Known>,
    /// Those that could not be inspected last time, as far as they are known.
    silent: BTreeMap<RuntimeId, ContainerView>,
}

#[derive(Debug)]
struct Known {
    shown: Shown,
    /// When the list that showed it was complete.
    seen: Instant,
    view: ContainerView,
}

impl Details {
    /// The details of a container whose list entry tells nothing new; else it must be inspected.
    /// `began` is when the list was asked for.
    pub(super) fn still_good(&self, listed: &ContainerView, shown: &Shown, began: Instant) -> Option<&ContainerView> {
        let known = self.known.get(&listed.id)?;
        let unchanged = known.view.state == listed.state
            && listed.state != ContainerState::Restarting
            && known.shown.class == shown.class
            && known.view.owner == listed.owner;
        let same_start = match (known.shown.age, shown.age) {
            (Some(then), Some(now)) => {
                let elapsed = began.saturating_duration_since(known.seen);
                now.below > then.at_least.saturating_add(elapsed)
            }
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        (unchanged && same_start).then_some(&known.view)
    }

    /// Takes over what one container showed.
    pub(super) fn keep(&mut self, seen: Instant, shown: Shown, view: ContainerView) {
        self.known.insert(view.id.clone(), Known { shown, seen, view });
    }

    /// Takes over what the list that was complete at `seen` showed. What it did not show is forgotten, and of those that
    /// were `silent` nothing is taken for known.
    pub(super) fn replace(
        &mut self,
        seen: Instant,
        ours: impl IntoIterator<Item = (Shown, ContainerView)>,
        silent: impl IntoIterator<Item = ContainerView>,
    ) {
        self.known = ours.into_iter().map(|(shown, view)| (view.id.clone(), Known { shown, seen, view })).collect();
        self.silent = silent.into_iter().map(|view| (view.id.clone(), view)).collect();
    }

    /// Whether a container could not be inspected last time.
    pub(super) fn was_silent(&self, id: &RuntimeId) -> bool {
        self.silent.contains_key(id)
    }

    /// A list entry with what never goes back: restarts as counted last, and whether there is a check at all.
    pub(super) fn remembered(&self, listed: ContainerView) -> ContainerView {
        let known = self.known.get(&listed.id).map(|known| &known.view);
        let Some(view) = known.or_else(|| self.silent.get(&listed.id)) else { return listed };
        ContainerView {
            restart_count: view.restart_count,
            has_health_check: view.has_health_check,
            started_at: view.started_at,
            ..listed
        }
    }
}

/// Containers that an event named since the last list.
#[derive(Debug, Default)]
pub(super) struct Touched {
    ids: BTreeSet<RuntimeId>,
    all: bool,
}

/// Events of more containers than this make us inspect all of ours.
const TOUCHED_MAX: usize = 4096;

impl Touched {
    pub(super) fn add(&mut self, id: &RuntimeId) {
        if self.ids.len() < TOUCHED_MAX {
            self.ids.insert(id.clone());
        } else {
            self.all = true;
        }
    }

    pub(super) fn contains(&self, id: &RuntimeId) -> bool {
        self.all || self.ids.contains(id)
    }

    /// Puts back what a failed list did not look at.
    pub(super) fn merge(&mut self, other: Self) {
        self.all |= other.all;
        other.ids.iter().for_each(|id| self.add(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roadstead_core::model::ownership::Owner;

    fn seconds(shown: &Shown) -> Option<(u64, u64)> {
        shown.age.map(|age| (age.at_least.as_secs(), age.below.as_secs()))
    }

    #[test]
    fn status_texts_are_read() {
        for (text, age, exit_code, health) in [
            ("Up Less than a second", Some((0, 1)), None, HealthStatus::Unknown),
            ("Up 1 second", Some((1, 2)), None, HealthStatus::Unknown),
            ("Up 59 seconds (healthy)", Some((59, 60)), None, HealthStatus::Healthy),
            ("Up About a minute (unhealthy)", Some((60, 120)), None, HealthStatus::Unhealthy),
            ("Up 46 minutes (health: starting)", Some((2760, 2820)), None, HealthStatus::Unknown),
            ("Up About an hour", Some((1800, 7200)), None, HealthStatus::Unknown),
            ("Up 2 hours (Paused)", Some((5400, 10800)), None, HealthStatus::Unknown),
            ("Up 2 days", Some((171_000, 259_200)), None, HealthStatus::Unknown),
            ("Exited (137) 2 minutes ago", Some((120, 180)), Some(137), HealthStatus::Unknown),
            ("Restarting (1) 5 seconds ago", Some((5, 6)), Some(1), HealthStatus::Unknown),
            ("Created", None, None, HealthStatus::Unknown),
            ("Removal In Progress", None, None, HealthStatus::Unknown),
            ("", None, None, HealthStatus::Unknown),
            ("Up 99999999999999999999 years", None, None, HealthStatus::Unknown),
            ("Exited (", None, None, HealthStatus::Unknown),
        ] {
            let shown = Shown::new(text);
            assert_eq!(seconds(&shown), age, "{text}");
            assert_eq!(shown.exit_code(), exit_code, "{text}");
            assert_eq!(shown.health().0, health, "{text}");
        }
        assert_eq!(Shown::new("Up 2 seconds").class, Shown::new("Up About a minute").class);
        assert_ne!(Shown::new("Up 2 seconds").class, Shown::new("Up 2 seconds (healthy)").class);
        assert_ne!(Shown::new("Exited (0) 2 seconds ago").class, Shown::new("Exited (1) 2 seconds ago").class);
    }

    fn view(state: ContainerState) -> ContainerView {
        ContainerView {
            id: "a".into(),
            name: "web".into(),
            image: String::new(),
            image_id: String::new(),
            state,
            health: HealthStatus::Unknown,
            has_health_check: false,
            exit_code: None,
            oom_killed: false,
            started_at: None,
            finished_at: None,
            restart_count: 0,
            error: String::new(),
            ports: Vec::new(),
            owner: Owner::Foreign,
        }
    }

    #[test]
    fn details_are_good_until_something_shows() {
        let zero = Instant::now();
        let running = view(ContainerState::Running);
        let good = |before: &str, after: &str, elapsed_s: u64| {
            let mut details = Details::default();
            details.replace(zero, [(Shown::new(before), running.clone())], []);
            let began = zero + Duration::from_secs(elapsed_s);
            details.still_good(&running, &Shown::new(after), began).is_some()
        };
        assert!(good("Up 5 seconds", "Up 10 seconds", 5));
        assert!(good("Up 5 seconds", "Up 9 seconds", 4), "rounding is no restart");
        assert!(good("Up 59 seconds", "Up About a minute", 1));
        assert!(good("Up 59 minutes", "Up About an hour", 60));
        assert!(good("Up 47 hours", "Up 2 days", 3600));
        assert!(!good("Up 5 seconds", "Up 2 seconds", 5), "started anew");
        assert!(!good("Up 10 seconds", "Up 12 seconds", 20), "older than before, yet too young");
        assert!(!good("Up 3 days", "Up 5 hours", 36_000));
        assert!(!good("Up 5 seconds", "Up 10 seconds (unhealthy)", 5));
        assert!(!good("Up 5 seconds", "Up a while", 5), "a text that we cannot read hides nothing");
        let eternity = "Up 18446744073709551615 seconds";
        assert!(!good(eternity, "Up 1 second", 5), "no overflow");
    }

    #[test]
    fn states_that_hide_changes_are_never_trusted() {
        let zero = Instant::now();
        let mut details = Details::default();
        let restarting = view(ContainerState::Restarting);
        let shown = Shown::new("Restarting (1) 1 second ago");
        assert!(details.still_good(&restarting, &shown, zero).is_none(), "never seen");
        details.replace(zero, [(shown.clone(), restarting.clone())], []);
        assert!(details.still_good(&restarting, &shown, zero).is_none(), "it crashes on");
        details.replace(zero, [], []);
        assert!(details.known.is_empty(), "what is gone is forgotten");
    }

    #[test]
    fn too_many_touched_containers_are_all() {
        let mut touched = Touched::default();
        for number in 0..=TOUCHED_MAX {
            touched.add(&number.to_string().into());
        }
        assert!(touched.ids.len() <= TOUCHED_MAX && touched.contains(&"never named".into()));
    }
}
