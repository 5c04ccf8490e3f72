//! The one loop that decides and writes.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    model::{
        action::Action,
        decision::Decision,
        desired::Desired,
        state::{Change, EventLevel},
        time::Timestamp,
        world::Plan,
    },
    store::{Keep, Store, StoreError},
};

use super::{
    core::{Core, Input},
    execute::{self, Execution},
    fleet::Fleet,
    handle::{Command, CommandEnvelope, Snapshot},
    seams::Clock,
};

/// At most so many inputs are taken in before the next decision.
const BATCH: usize = 256;
/// The loop turns at least this often; it also notices by it that it was stopped itself.
const TICK: Duration = Duration::from_secs(1);
/// Later than this after its tick: we were stopped, and silence meanwhile says nothing about hosts.
const STALL_MS: u64 = 3_000;
/// On the way out, orders under way may end within this.
const LAST_ORDERS: Duration = Duration::from_secs(5);
/// The history is pruned after so many commits.
const PRUNE_EVERY: u32 = 500;

/// Why the controller had to stop.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// What was decided could not be written, so nothing may follow.
    #[error("the database does not take what was decided, so the controller stops before it acts: {0}")]
    Commit(#[from] StoreError),
    /// A defect.
    #[error("the controller's loop died: {0}")]
    Died(String),
}

/// The loop's parts.
pub(super) struct Driver {
    pub(super) core: Core,
    pub(super) store: Arc<Store>,
    pub(super) fleet: Fleet,
    pub(super) clock: Clock,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) waiting_inputs: mpsc::Receiver<Input>,
    pub(super) waiting_commands: mpsc::Receiver<CommandEnvelope>,
    pub(super) rescan: Arc<Notify>,
    pub(super) in_force: watch::Sender<Arc<Desired>>,
    pub(super) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(super) manifests: PathBuf,
    pub(super) started_at: Timestamp,
    pub(super) stop: CancellationToken,
}

/// What woke the loop.
enum Woken {
    Stop,
    Input(Input),
    Command(CommandEnvelope),
    Contacts,
    Alarm,
}

impl Driver {
    /// Runs until told to stop.
    pub(super) async fn run(mut self) -> Result<(), DriverError> {
        let mut alarm: Option<Timestamp> = None;
        let mut commits = 0_u32;
        self.fleet.follow(&self.core.world().state.desired.clone()).await;
        loop {
            let planned_wake = self.wake(alarm);
            let woken = self.wait(planned_wake).await;
            self.forgive_own_stall(planned_wake);
            let (mut changes, replies) = match woken {
                Woken::Stop => break,
                Woken::Input(input) => (self.take_batch(Some(input)), None),
                Woken::Command(envelope) => self.command(envelope),
                Woken::Contacts | Woken::Alarm => (self.take_batch(None), None),
            };
            let now = self.clock.now();
            changes.extend(self.core.take(now, Input::Contacts(self.fleet.contacts.all())));
            let plan = self.core.decide(now);
            alarm = plan.wake_at;
            changes.extend(plan.changes.iter().cloned());
            let decision = self.decision(now, &plan);
            if !changes.is_empty() || decision.is_some() {
                self.store.commit(&changes, decision.as_ref()).await?;
                commits += 1;
            }
            if let Some((reply, answer)) = replies {
                let _ = reply.send(answer);
            }
            log_events(&changes);
            for action in plan.actions {
                self.dispatch(action);
            }
            self.follow_manifests().await;
            self.publish();
            if commits >= PRUNE_EVERY {
                commits = 0;
                self.store.prune(Keep::default()).await?;
            }
        }
        self.finish().await
    }

    fn wake(&self, alarm: Option<Timestamp>) -> Instant {
        let tick = Instant::now() + TICK;
        alarm.map_or(tick, |at| tick.min(Instant::now() + Duration::from_millis(at.since_ms(self.clock.now()))))
    }

    async fn wait(&mut self, wake: Instant) -> Woken {
        let contacts = self.fleet.contacts.clone();
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Woken::Stop,
            Some(input) = self.waiting_inputs.recv() => Woken::Input(input),
            Some(envelope) = self.waiting_commands.recv() => Woken::Command(envelope),
            () = contacts.changed() => Woken::Contacts,
            () = sleep_until(wake) => Woken::Alarm,
        }
    }

    fn forgive_own_stall(&self, planned: Instant) {
        let late = Instant::now().saturating_duration_since(planned);
        if u64::try_from(late.as_millis()).unwrap_or(u64::MAX) > STALL_MS {
            tracing::warn!(?late, "the controller itself was stopped for a while: hosts' silence counts anew");
            self.fleet.contacts.forgive(self.clock.now());
        }
    }

    fn take_batch(&mut self, first: Option<Input>) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut next = first.or_else(|| self.waiting_inputs.try_recv().ok());
        for _ in 0..BATCH {
            let Some(input) = next else { break };
            changes.extend(self.core.take(self.clock.now(), input));
            next = self.waiting_inputs.try_recv().ok();
        }
        if let Some(input) = next {
            changes.extend(self.core.take(self.clock.now(), input));
        }
        changes
    }

    #[allow(clippy::type_complexity, reason = "used once, right above")]
    fn command(
        &mut self,
        (command, reply): CommandEnvelope,
    ) -> (
        Vec<Change>,
        Option<(
            tokio::sync::oneshot::Sender<Result<String, super::handle::CommandError>>,
            Result<String, super::handle::CommandError>,
        )>,
    ) {
        tracing::info!(?command, "order of a person");
        if command == Command::Rescan {
            self.rescan.notify_one();
        }
        match self.core.command(self.clock.now(), command) {
            Ok((words, changes)) => (changes, Some((reply, Ok(words)))),
            Err(error) => (Vec::new(), Some((reply, Err(error)))),
        }
    }

    fn decision(&self, at: Timestamp, plan: &Plan) -> Option<Decision> {
        if plan.actions.is_empty() && plan.changes.is_empty() {
            return None;
        }
        Some(Decision {
            id: 0,
            at,
            seed: self.core.world().seed,
            world_hash: String::new(),
            report: plan.report.clone(),
            actions: plan.actions.clone(),
        })
    }

    /// Sends an order; its answer comes back as an input.
    fn dispatch(&self, action: Action) {
        let (inputs, clock) = (self.inputs.clone(), self.clock.clone());
        let hint = self.fleet.hint(&action.host);
        let record = self.core.world().state.hosts.get(&action.host);
        let cpus = record.and_then(|record| record.identity.as_ref()).map_or(0, |identity| identity.cpus);
        let Some((engine, slots)) = self.fleet.engine(&action.host, cpus) else {
            let answer = execute::not_connected(&action, &clock);
            self.fleet.tasks.spawn(async move {
                let _ = inputs.send(Input::Answer(answer)).await;
            });
            return;
        };
        let execution =
            Execution { action: action.clone(), engine, slots, key: self.fleet.key.clone(), clock: clock.clone() };
        self.fleet.tasks.spawn(async move {
            let answer = match tokio::spawn(execution.run()).await {
                Ok(answer) => answer,
                Err(error) => execute::died(&action, &clock, &error.to_string()),
            };
            let _ = inputs.send(Input::Answer(answer)).await;
            if let Some(hint) = hint {
                hint.notify_one();
            }
        });
    }

    async fn follow_manifests(&mut self) {
        let desired = Arc::clone(&self.core.world().state.desired);
        if !Arc::ptr_eq(&desired, &self.in_force.borrow()) || self.fleet.is_due() {
            self.fleet.follow(&desired).await;
            self.in_force.send_replace(desired);
        }
    }

    fn publish(&self) {
        self.snapshots.send_replace(Arc::new(Snapshot {
            world: self.core.world().clone(),
            report: self.core.report().clone(),
            diagnostics: self.core.diagnostics().to_vec(),
            manifests: self.manifests.clone(),
            started_at: self.started_at,
            fenced: self.core.fenced().map(str::to_owned),
        }));
    }

    /// Lets orders under way end, writes their answers, and leaves everything running.
    async fn finish(mut self) -> Result<(), DriverError> {
        tracing::info!("stopping: what runs on the hosts goes on");
        self.fleet.stop.cancel();
        self.fleet.tasks.close();
        drop(self.inputs);
        let tasks = self.fleet.tasks.clone();
        let mut changes = Vec::new();
        let give_up = Instant::now() + LAST_ORDERS;
        loop {
            tokio::select! {
                Some(input) = self.waiting_inputs.recv() => changes.extend(self.core.take(self.clock.now(), input)),
                () = tasks.wait() => break,
                () = sleep_until(give_up) => {
                    tracing::warn!("orders are still under way: their outcome is looked up at the next start");
                    break;
                }
            }
        }
        while let Ok(input) = self.waiting_inputs.try_recv() {
            changes.extend(self.core.take(self.clock.now(), input));
        }
        self.store.commit(&changes, None).await?;
        Ok(())
    }
}

fn log_events(changes: &[Change]) {
    for change in changes {
        if let Change::Event(event) = change {
            match event.level {
                EventLevel::Normal => tracing::info!(reason = %event.reason, "{}", event.message),
                EventLevel::Warning => tracing::warn!(reason = %event.reason, "{}", event.message),
            }
        }
    }
}
