//! The one loop that decides and writes.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    crash_point::{Point, reach},
    store::StoreError,
};
use roadstead_core::model::{
    action::{Action, VerbName},
    decision::Decision,
    desired::Desired,
    state::{Change, EventLevel, State},
    time::Timestamp,
    world::Plan,
};

use super::{
    calls::Calls,
    certificates::{Vault, acme::Orders},
    edges::Edges,
    execute::{self, Execution},
    fleet::Fleet,
    handle::{CommandEnvelope, Snapshot},
    launches::Launches,
    movers::Movers,
    networks::Networks,
    probes::Probes,
    rescan::{Rescan, Waiting},
    seams::{Clock, Ledger, Witness},
};
use roadstead_core::turn::{Command, CommandError, Core, Input};

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
/// Pause after a commit that failed: doubles from here …
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// … to here.
const LAST_PAUSE: Duration = Duration::from_secs(5);

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
    pub(super) movers: Movers,
    pub(super) networks: Networks,
    pub(super) edges: Edges,
    pub(super) probes: Probes,
    pub(super) calls: Calls,
    pub(super) vault: Option<Arc<Vault>>,
    pub(super) orders: Orders,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) fleet: Fleet,
    pub(super) launches: Launches,
    pub(super) clock: Clock,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) waiting_inputs: mpsc::Receiver<Input>,
    pub(super) waiting_commands: mpsc::Receiver<CommandEnvelope>,
    pub(super) rescan: Arc<Rescan>,
    pub(super) readers: Waiting,
    pub(super) in_force: watch::Sender<Arc<Desired>>,
    pub(super) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(super) manifests: PathBuf,
    pub(super) started_at: Timestamp,
    pub(super) witness: Option<Arc<dyn Witness>>,
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

/// A person's order that was carried out in memory; the answer waits until it is durable.
type Reply = (tokio::sync::oneshot::Sender<Result<String, CommandError>>, Result<String, CommandError>);

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
            let before = self.core.clone();
            let (inputs, command) = match woken {
                Woken::Stop => break,
                Woken::Input(input) => (self.batch(Some(input)), None),
                Woken::Command(envelope) => (Vec::new(), Some(envelope)),
                Woken::Contacts | Woken::Alarm => (self.batch(None), None),
            };
            let mut changes = self.take(&inputs);
            inputs.iter().for_each(reach_taken);
            let reply = command.and_then(|envelope| self.command(envelope, &mut changes));
            if reply.is_some() {
                reach(Point::CommandTaken);
            }
            let now = self.clock.now();
            changes.extend(self.core.take(now, Input::Contacts(self.fleet.contacts.all())));
            let plan = self.decide(now);
            changes.extend(plan.changes.iter().cloned());
            let decision = self.decision(now, &plan);
            if !plan.actions.is_empty() {
                reach(Point::OrdersDecided);
            }
            if !changes.is_empty() || decision.is_some() {
                if let Err(error) = self.ledger.commit(&changes, decision.as_ref()).await {
                    if let Some((reply, _)) = reply {
                        let _ = reply.send(Err(CommandError::Unavailable(error.to_string())));
                    }
                    if !self.recover(before, inputs, error).await? {
                        break;
                    }
                    // What was read is in force by now: the next reading goes by it.
                    self.follow_manifests().await;
                    continue;
                }
                commits += 1;
            }
            alarm = plan.wake_at;
            if reply.is_some() {
                reach(Point::CommandCommitted);
            }
            log_events(&changes);
            self.launches.review(self.core.world());
            self.dispatch_all(plan.actions);
            let acts = self.core.fenced().is_none() && !self.core.world().settling;
            if acts {
                self.movers.follow(self.core.world(), &self.fleet);
            }
            self.follow_manifests().await;
            if acts {
                self.networks.follow(self.core.world(), &self.fleet);
                self.certificates();
                self.edges.follow(self.core.world(), &self.fleet);
                self.probes.follow(self.core.world(), &self.fleet);
                self.calls.follow(self.core.world(), &self.fleet);
            }
            self.publish();
            self.readers.answer();
            // What was ordered can be seen by whoever ordered it.
            if let Some((reply, answer)) = reply {
                let _ = reply.send(answer);
            }
            if commits >= PRUNE_EVERY {
                commits = 0;
                if let Err(error) = self.ledger.prune().await {
                    tracing::warn!(%error, "old history stays for now");
                }
            }
        }
        self.finish().await
    }

    fn decide(&mut self, now: Timestamp) -> Plan {
        self.core.note_wall(self.clock.wall_ahead_ms());
        if let Some(until) = self.core.quiet_until(now) {
            self.witness.iter().for_each(|witness| witness.was_quiet(self.core.world()));
            return Plan { wake_at: Some(until), ..Plan::default() };
        }
        let Some(witness) = &self.witness else { return self.core.decide(now) };
        let world = self.core.world_at(now);
        let plan = self.core.decide(now);
        witness.decided(&world, &plan);
        plan
    }

    /// After a commit that failed: memory goes back to what is durable and takes the same inputs in again, until that is
    /// written. Whether to go on; nothing was sent meanwhile.
    async fn recover(&mut self, before: Core, inputs: Vec<Input>, mut error: StoreError) -> Result<bool, DriverError> {
        let mut pause = FIRST_PAUSE;
        loop {
            if !error.may_pass() {
                return Err(error.into());
            }
            tracing::error!(%error, "what was decided cannot be written: nothing is done until it can");
            self.core = before.clone();
            let durable = self.ledger.load().await;
            let state = durable.as_ref().map_or_else(|_| before.world().state.clone(), State::clone);
            self.core.fall_back(state, &error.to_string());
            self.launches.review(self.core.world());
            self.publish();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(false),
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(LAST_PAUSE);
            if let Err(again) = durable {
                error = again;
                continue;
            }
            let changes = self.take(&inputs);
            match self.ledger.commit(&changes, None).await {
                Ok(()) => {
                    tracing::info!("the database takes what is decided again");
                    log_events(&changes);
                    return Ok(true);
                }
                Err(again) => error = again,
            }
        }
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

    fn batch(&mut self, first: Option<Input>) -> Vec<Input> {
        let more = std::iter::from_fn(|| self.waiting_inputs.try_recv().ok());
        first.into_iter().chain(more).take(BATCH).collect()
    }

    fn take(&mut self, inputs: &[Input]) -> Vec<Change> {
        for input in inputs {
            match input {
                Input::ManifestsRead(number) => self.readers.note(*number),
                Input::Look(look) => self.movers.leftovers.note(look),
                Input::Manifests { .. }
                | Input::Died(_)
                | Input::Answer(_)
                | Input::Copied(_)
                | Input::Contacts(_)
                | Input::Volumes(..)
                | Input::Storage(..)
                | Input::Network(..)
                | Input::Edge(..)
                | Input::Certificate(_)
                | Input::Acme(..)
                | Input::Called(..)
                | Input::Probed(_) => {}
            }
        }
        inputs.iter().flat_map(|input| self.core.take(self.clock.now(), input.clone())).collect()
    }

    fn command(&mut self, (command, reply): CommandEnvelope, changes: &mut Vec<Change>) -> Option<Reply> {
        tracing::info!(?command, "order of a person");
        if command == Command::Rescan {
            self.readers.ask(&self.rescan, reply);
            return None;
        }
        match self.core.command(self.clock.now(), command) {
            Ok((words, more)) => {
                changes.extend(more);
                Some((reply, Ok(words)))
            }
            Err(error) => Some((reply, Err(error))),
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
            report: plan.report.clone(),
            actions: plan.actions.clone(),
        })
    }

    fn dispatch_all(&mut self, actions: Vec<Action>) {
        if actions.is_empty() {
            return;
        }
        reach(Point::OrdersCommitted);
        for action in actions {
            self.dispatch(action);
        }
        reach(Point::OrdersSent);
    }

    /// Sends an order; its answer comes back as an input.
    fn dispatch(&mut self, action: Action) {
        let (inputs, clock) = (self.inputs.clone(), self.clock.clone());
        let hint = match action.verb.name() {
            VerbName::Prune => self.fleet.storage_hint(&action.host),
            VerbName::Resolve
            | VerbName::Launch
            | VerbName::Stop
            | VerbName::Remove
            | VerbName::Tidy
            | VerbName::Sweep => self.fleet.hint(&action.host),
        };
        let record = self.core.world().state.hosts.get(&action.host);
        let cpus = record.and_then(|record| record.identity.as_ref()).map_or(0, |identity| identity.cpus);
        let Some((engine, slots)) = self.fleet.engine(&action.host, cpus) else {
            let answer = execute::not_connected(&action, &clock);
            self.fleet.tasks.spawn(async move {
                let _ = inputs.send(Input::Answer(answer)).await;
            });
            return;
        };
        let overtaken = match action.verb.name() {
            VerbName::Launch => self.launches.begin(&action.task, self.core.world()),
            VerbName::Resolve
            | VerbName::Stop
            | VerbName::Remove
            | VerbName::Tidy
            | VerbName::Sweep
            | VerbName::Prune => CancellationToken::new(),
        };
        let execution = Execution {
            action: action.clone(),
            engine,
            slots,
            board: self.fleet.board.clone(),
            key: self.fleet.key.clone(),
            clock: clock.clone(),
            overtaken,
        };
        self.fleet.tasks.spawn(async move {
            let answer = match tokio::spawn(execution.run()).await {
                Ok(answer) => answer,
                Err(error) => execute::died(&action, &clock, &error.to_string()),
            };
            reach(Point::Answered);
            let _ = inputs.send(Input::Answer(answer)).await;
            if let Some(hint) = hint {
                hint.notify_one();
            }
        });
    }

    /// Before edges are told: what they show is opened by then.
    fn certificates(&mut self) {
        let Some(vault) = &self.vault else { return };
        self.orders.follow(self.core.world(), &self.fleet, vault);
        for input in vault.follow(self.core.world()) {
            let inputs = self.inputs.clone();
            self.fleet.tasks.spawn(async move {
                let _ = inputs.send(input).await;
            });
        }
    }

    async fn follow_manifests(&mut self) {
        let desired = Arc::clone(&self.core.world().state.desired);
        if !Arc::ptr_eq(&desired, &self.in_force.borrow()) || self.fleet.is_due() {
            self.fleet.follow(&desired).await;
            self.in_force.send_replace(desired);
        }
    }

    fn publish(&self) {
        let mut report = self.core.report().clone();
        let more = [self.fleet.board.waiting(), self.probes.waiting()].concat();
        // To change it is to copy it.
        if !more.is_empty() {
            report.waiting.extend(more);
        }
        self.snapshots.send_replace(Arc::new(Snapshot {
            world: self.core.world().clone(),
            report,
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
                biased;
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
        reach(Point::Stopping);
        self.ledger.commit(&changes, None).await?;
        Ok(())
    }
}

/// What was taken in is in memory, and nowhere else.
fn reach_taken(input: &Input) {
    match input {
        Input::Manifests { .. } => reach(Point::ManifestsTaken),
        Input::Look(_) => reach(Point::LookTaken),
        Input::Died(_) => reach(Point::DeathTaken),
        Input::Answer(_) | Input::Copied(_) => reach(Point::AnswerTaken),
        // Nothing of them is durable, or what is comes again by itself.
        Input::Contacts(_)
        | Input::ManifestsRead(_)
        | Input::Volumes(..)
        | Input::Storage(..)
        | Input::Network(..)
        | Input::Edge(..)
        | Input::Certificate(_)
        | Input::Acme(..)
        | Input::Called(..)
        | Input::Probed(_) => {}
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
