//! Listening to one host's engine: events are hints to look, and a death for good is told as such.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};

use crate::{
    crash_point::{Point, reach},
    engine::{Engine, EngineEvent, EventAction},
};
use roadstead_core::model::{
    name::{HostName, RuntimeId},
    observed::Death,
    time::Timestamp,
};

use super::seams::Clock;
use roadstead_core::turn::Input;

/// Pause before the event stream is opened again.
const RETRY: Duration = Duration::from_secs(1);
/// So many containers with a signal on its way are remembered; beyond it, looks decide.
const MAX_SIGNALLED: usize = 1_024;

/// Follows one engine's events.
pub(super) struct Listener {
    pub(super) host: HostName,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) clock: Clock,
    pub(super) inputs: mpsc::Sender<Input>,
    /// Asks for a look now.
    pub(super) hint: Arc<Notify>,
    /// Set when the engine may be another one by now.
    pub(super) strange: Arc<AtomicBool>,
}

impl Listener {
    /// Runs until it is aborted.
    pub(super) async fn run(self) {
        loop {
            match self.engine.events(None).await {
                Ok(mut events) => {
                    // Between the last stream and this one anything may have happened: also another machine.
                    self.strange.store(true, Ordering::Relaxed);
                    self.hint.notify_one();
                    let mut deaths = Deaths::default();
                    while let Some(event) = events.next().await {
                        match event {
                            Ok(event) => self.hear(&mut deaths, &event).await,
                            Err(error) => {
                                tracing::debug!(host = %self.host, %error, "the event stream ended");
                                break;
                            }
                        }
                    }
                }
                Err(error) => tracing::debug!(host = %self.host, %error, "no event stream"),
            }
            sleep(RETRY).await;
        }
    }

    async fn hear(&self, deaths: &mut Deaths, event: &EngineEvent) {
        if let Some(death) = deaths.hear(&self.host, event, self.clock.now()) {
            reach(Point::DeathHeard);
            let _ = self.inputs.send(Input::Died(death)).await;
        }
        if matters(&event.action) {
            reach(Point::EventHeard);
            self.hint.notify_one();
        }
    }
}

fn matters(action: &EventAction) -> bool {
    match action {
        EventAction::Create
        | EventAction::Start
        | EventAction::Die { .. }
        | EventAction::Oom
        | EventAction::Stop
        | EventAction::Destroy
        | EventAction::Health => true,
        EventAction::Kill => false,
        // Health checks run as execs, every few seconds in every container.
        EventAction::Other(word) => matches!(word.as_str(), "pause" | "unpause" | "rename" | "update"),
    }
}

/// Which containers somebody sent a signal: that switches their restart policy off, unlike a crash.
#[derive(Default)]
struct Deaths {
    signalled: BTreeSet<RuntimeId>,
}

impl Deaths {
    fn hear(&mut self, host: &HostName, event: &EngineEvent, heard_at: Timestamp) -> Option<Death> {
        match &event.action {
            EventAction::Kill => {
                if self.signalled.len() >= MAX_SIGNALLED {
                    self.signalled.clear();
                }
                self.signalled.insert(event.id.clone());
                None
            }
            EventAction::Die { exit_code } => Some(Death {
                host: host.clone(),
                id: event.id.clone(),
                at: event.at,
                heard_at,
                exit_code: *exit_code,
                for_good: self.signalled.remove(&event.id),
            }),
            EventAction::Start | EventAction::Destroy => {
                self.signalled.remove(&event.id);
                None
            }
            EventAction::Create
            | EventAction::Oom
            | EventAction::Stop
            | EventAction::Health
            | EventAction::Other(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deaths(story: &[(&str, EventAction)]) -> Vec<(String, bool)> {
        let mut deaths = Deaths::default();
        let told = story.iter().filter_map(|(id, action)| {
            let event =
                EngineEvent { id: (*id).into(), name: String::new(), action: action.clone(), at: Timestamp(1_000) };
            deaths.hear(&"a".into(), &event, Timestamp(2_000))
        });
        told.map(|death| (death.id.to_string(), death.for_good)).collect()
    }

    #[test]
    fn only_a_signal_of_this_life_makes_a_death_final() {
        use EventAction::{Destroy, Kill, Start};
        let die = || EventAction::Die { exit_code: Some(137) };
        let told = |id: &str, for_good| (id.to_owned(), for_good);
        assert_eq!(deaths(&[("x", die())]), [told("x", false)], "a crash");
        assert_eq!(deaths(&[("x", Kill), ("x", die())]), [told("x", true)]);
        assert_eq!(deaths(&[("x", Kill), ("y", die())]), [told("y", false)], "another was signalled");
        assert_eq!(
            deaths(&[("x", Kill), ("x", die()), ("x", Start), ("x", die())]),
            [told("x", true), told("x", false)]
        );
        assert_eq!(deaths(&[("x", Kill), ("x", Start), ("x", die())]), [told("x", false)]);
        assert_eq!(deaths(&[("x", Kill), ("x", Destroy)]), []);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut deaths = Deaths::default();
        for number in 0..3 * MAX_SIGNALLED {
            let id = number.to_string().as_str().into();
            let event = EngineEvent { id, name: String::new(), action: EventAction::Kill, at: Timestamp(0) };
            deaths.hear(&"a".into(), &event, Timestamp(0));
        }
        assert!(deaths.signalled.len() <= MAX_SIGNALLED);
    }
}
