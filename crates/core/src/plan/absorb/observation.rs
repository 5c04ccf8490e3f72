//! A complete look at a host → changes of its tasks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::model::{
    container::{ContainerState, ContainerView, HealthStatus},
    image::ResolvedImage,
    name::{ContainerName, RevisionId, ServiceName, TaskId},
    network::SANDBOX,
    observed::{EngineIdentity, HostObservation},
    ownership::{Claim, Owner},
    state::{Change, Event, EventLevel, EventSubject, HostRecord, ServiceRecord, State},
    task::{DesiredStatus, LastStatus, Launch, StopCode, Task, TaskContainer},
    time::Timestamp,
};
use crate::plan::{breaker, health, launch, network, throttle};

use super::{
    adopt::adopt,
    death::{clearer_words, ended, exit_words},
};

/// After an order of unknown outcome, its containers may still appear for this long.
const LATE_CONTAINER_MS: u64 = 10_000;

/// What a look led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Absorbed {
    /// To be committed.
    pub changes: Vec<Change>,
    /// The host is not who it says it is: nothing of the look was believed.
    pub untrusted: Option<String>,
    /// Another controller drives this fleet: containers carry a higher epoch than ours (S7).
    pub fenced: Option<String>,
}

/// Takes in a complete look.
///
/// `launching`: tasks whose launch is under way right now: more of them may appear at any moment.
pub fn observation(state: &State, look: &Arc<HostObservation>, launching: &BTreeSet<&TaskId>) -> Absorbed {
    if let Some(reason) = identity_problem(state, look) {
        return Absorbed { untrusted: Some(reason), ..Absorbed::default() };
    }
    if shows_nothing_new(state, look, launching) {
        return Absorbed::default();
    }
    taken_in(state, look, launching, state.observations.get(&look.host).map(Arc::as_ref))
}

/// Without any shortcut.
#[cfg(test)]
pub(super) fn in_full(state: &State, look: &Arc<HostObservation>, launching: &BTreeSet<&TaskId>) -> Absorbed {
    taken_in(state, look, launching, None)
}

/// `known`: an earlier look; of a task that it showed as this one does, and that is at rest, nothing is read again.
fn taken_in(
    state: &State,
    look: &Arc<HostObservation>,
    launching: &BTreeSet<&TaskId>,
    known: Option<&HostObservation>,
) -> Absorbed {
    let mut absorbed = Absorbed::default();
    let claims = look.containers.values().filter_map(|container| Some((container.owner.ours()?, container)));
    let mut by_task: BTreeMap<&TaskId, Vec<(&Claim, &ContainerView)>> = BTreeMap::new();
    for (claim, container) in claims {
        if claim.epoch > state.fleet.epoch {
            absorbed.fenced = Some(format!(
                "container {} on {} was made by a controller with epoch {}, and ours is {}: another controller drives this fleet",
                container.name, look.host, claim.epoch, state.fleet.epoch
            ));
        }
        by_task.entry(&claim.task).or_default().push((claim, container));
    }
    if absorbed.fenced.is_some() {
        return absorbed;
    }

    remember_host(state, look, &mut absorbed.changes);
    let mut records: BTreeMap<&ServiceName, ServiceRecord> = BTreeMap::new();
    for task in state.tasks.values().filter(|task| task.host == look.host) {
        let seen = by_task.remove(&task.id).unwrap_or_default();
        if task.last_status == LastStatus::Stopped
            && seen.is_empty()
            && task.containers.values().all(|row| row.runtime_id.is_none())
        {
            continue;
        }
        let shows_the_same = |known: &HostObservation| {
            seen.iter().all(|(_, view)| known.containers.get(&view.id) == Some(*view))
                && task.strays.iter().all(|id| look.containers.contains_key(id))
                && is_at_rest(state, task, known, look)
                && !launching.contains(&task.id)
        };
        if known.is_some_and(shows_the_same) {
            continue;
        }
        let mut update = Update {
            state,
            look,
            task: (**task).clone(),
            launching: launching.contains(&task.id),
            events: Vec::new(),
            failure: None,
            vanished: None,
        };
        update.containers(&seen);
        update.judge();
        if let Some(after) = update.failure {
            let known = records.get(&task.service).or_else(|| state.services.get(&task.service));
            records.insert(&task.service, after(known, task, look.finished_at));
        }
        if update.task != **task {
            absorbed.changes.push(Change::Task(Arc::new(update.task)));
        }
        absorbed.changes.extend(update.events.into_iter().map(Change::Event));
    }
    let told = records.into_values().flat_map(|record| breaker::told(state, record, look.finished_at));
    absorbed.changes.extend(told);
    adopt(state, look, by_task, launching, &mut absorbed.changes);
    report_strangers(state, look, &mut absorbed.changes);
    absorbed
}

/// Why the host is not believed (S21): it changed, or it is the same machine as another one.
fn identity_problem(state: &State, look: &HostObservation) -> Option<String> {
    let now = &look.identity;
    if let Some(known) = state.hosts.get(&look.host).and_then(|record| record.identity.as_ref())
        && differs(known, now)
    {
        return Some(format!(
            "it is another machine than before (engine {} instead of {}): reinstalled? Then: roadstead host repin {}",
            short(&now.engine_id),
            short(&known.engine_id),
            look.host
        ));
    }
    let twin = state.hosts.values().filter(|other| other.name != look.host).find(|other| {
        let Some(identity) = &other.identity else { return false };
        let same_engine = !now.engine_id.is_empty() && identity.engine_id == now.engine_id;
        let same_machine = now.machine_id.is_some() && identity.machine_id == now.machine_id;
        (same_engine || same_machine) && state.desired.hosts.contains_key(&other.name)
    })?;
    Some(format!(
        "it has the identity of host {}: the same machine under two names, or a clone (make /etc/docker/key.json and /etc/machine-id its own, restart Docker)",
        twin.name
    ))
}

fn differs(known: &EngineIdentity, now: &EngineIdentity) -> bool {
    let machine_changed = known.machine_id.is_some() && now.machine_id.is_some() && known.machine_id != now.machine_id;
    known.engine_id != now.engine_id || machine_changed
}

fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

fn remember_host(state: &State, look: &Arc<HostObservation>, changes: &mut Vec<Change>) {
    let before = state.hosts.get(&look.host);
    let mut record = before.cloned().unwrap_or_else(|| HostRecord { name: look.host.clone(), ..HostRecord::default() });
    let machine_id = look
        .identity
        .machine_id
        .clone()
        .or_else(|| record.identity.as_ref().and_then(|identity| identity.machine_id.clone()));
    record.identity = Some(EngineIdentity { machine_id, ..look.identity.clone() });
    if before != Some(&record) {
        changes.push(Change::Host(record));
    }
    // The time of a look is kept in memory; only what it showed is durable.
    if state.observations.get(&look.host).is_none_or(|known| !shows_the_same(known, look)) {
        changes.push(Change::Observation(Arc::clone(look)));
    }
}

fn shows_the_same(known: &HostObservation, look: &HostObservation) -> bool {
    known.identity == look.identity && known.containers == look.containers
}

/// Whether taking the look in would change nothing: told without going into it, since nearly every look is like this.
/// `false` is always right, and only slower.
///
/// It shows what an earlier one showed, and every task of the host has been at rest since before that one.
pub(super) fn shows_nothing_new(state: &State, look: &HostObservation, launching: &BTreeSet<&TaskId>) -> bool {
    let known = state.observations.get(&look.host).filter(|known| shows_the_same(known, look));
    let record = state.hosts.get(&look.host);
    let (Some(known), Some(record)) = (known, record) else { return false };
    let is_at_rest = |task: &Task| is_at_rest(state, task, known, look) && !launching.contains(&task.id);
    let is_over = |task: &Task| {
        task.last_status == LastStatus::Stopped && task.containers.values().all(|row| row.runtime_id.is_none())
    };
    let is_known = |claim: &Claim| {
        claim.epoch <= state.fleet.epoch
            && state.tasks.get(&claim.task).is_some_and(|task| task.host == look.host && is_at_rest(task))
    };
    record.identity.as_ref() == Some(&look.identity)
        && look.containers.values().filter_map(|container| container.owner.ours()).all(is_known)
        && state.tasks.values().filter(|task| task.host == look.host).all(|task| is_at_rest(task) || is_over(task))
}

/// Whether a task runs as it should, and has since before the `known` look.
fn is_at_rest(state: &State, task: &Task, known: &HostObservation, look: &HostObservation) -> bool {
    let is_seen_running = |row: &TaskContainer| {
        let shown = row.runtime_id.as_ref().and_then(|id| look.containers.get(id));
        let shown = shown.filter(|view| view.owner.ours().is_some_and(|claim| claim.task == task.id));
        row.state == Some(ContainerState::Running) && shown.is_some_and(|view| view.state == ContainerState::Running)
    };
    task.desired_status == DesiredStatus::Running
        && task.last_status == LastStatus::Running
        && matches!(task.launch, Launch::Answered { at } if at < known.started_at)
        && task.containers.values().all(is_seen_running)
        && task.health_status == health::task_health(task)
        // An adopted one was never judged.
        && !health::has_lost_its_network(task)
        && network::lost_its_address_to(state, task).is_none()
}

/// What an early end makes of a service's record, by whose doing it was.
type Counted = fn(Option<&ServiceRecord>, &Task, Timestamp) -> ServiceRecord;

/// Why a task is over.
struct Over {
    counted: Counted,
    code: StopCode,
    reason: String,
}

impl Over {
    fn removed(name: &ContainerName) -> Self {
        let reason = format!("container {name} was removed on the host by somebody");
        Self { counted: throttle::after_removal, code: StopCode::EssentialContainerExited, reason }
    }
}

/// One task against one look.
struct Update<'a> {
    state: &'a State,
    look: &'a HostObservation,
    task: Task,
    launching: bool,
    events: Vec<Event>,
    /// It failed early: what that makes of its service's record.
    failure: Option<Counted>,
    /// An essential container that an earlier look showed running, and that is there no more.
    vanished: Option<ContainerName>,
}

impl Update<'_> {
    /// Whether the look began after all that we did to the task: only then is absence real.
    fn is_fresh(&self) -> bool {
        match self.task.launch {
            Launch::NotIssued => true,
            Launch::Issued { .. } => false,
            Launch::Answered { at } => self.look.started_at > at,
        }
    }

    fn containers(&mut self, seen: &[(&Claim, &ContainerView)]) {
        // Of a task that is to end, and of which nothing can appear any more, absence is real whatever became of its launch.
        let is_ending = self.task.desired_status == DesiredStatus::Stopped;
        let fresh = self.is_fresh() || (is_ending && self.nothing_can_appear());
        let spec = self.state.revision(&self.task.revision).and_then(|revision| revision.spec.as_deref());
        let awaited = |name: &ContainerName| spec.is_some_and(|spec| spec.must_end(name.as_str()));
        let is_ours_to_restart = |name: &ContainerName| {
            let mut definitions =
                spec.iter().flat_map(|spec| spec.container_definitions.iter().map(move |it| (spec, it)));
            definitions.any(|(spec, it)| it.name == name.as_str() && launch::by_controller(spec, it))
        };
        let mut restarted = false;
        self.task.strays.clear();
        let mut differing = Vec::new();
        let mut before = Vec::new();
        for (name, row) in self.task.containers.iter_mut() {
            before.push((row.state, row.started_at, row.restart_count));
            let views = || seen.iter().filter(|(claim, _)| claim.container == *name).map(|(_, view)| *view);
            let known = views().find(|view| row.runtime_id.as_ref() == Some(&view.id));
            let view = known.or_else(|| views().find(|view| view.state.is_live())).or_else(|| views().next());
            let others = views().filter(|other| view.is_some_and(|view| view.id != other.id));
            self.task.strays.extend(others.map(|other| other.id.clone()));
            match view {
                // Another one may fail again and again: its engine slows that down, and the task goes on without it.
                Some(view) => {
                    if row.image_digest.is_none() {
                        differing.extend(other_content(self.state, &self.task.revision, row, view));
                    }
                    let probed = spec.is_some_and(|spec| launch::probed(spec, name.as_str()).is_some());
                    let was_started = row.started_at;
                    let by_engine = note_view(row, view, self.look.finished_at, probed);
                    let by_us = was_started.is_some() && row.started_at > was_started && is_ours_to_restart(name);
                    restarted |= (by_engine || by_us) && (row.essential || awaited(name));
                }
                // It had done its work and was tidied away: it is not to be run again.
                None if fresh && !row.essential && row.state == Some(ContainerState::Exited) => row.runtime_id = None,
                // An id comes once: what an earlier look showed running and this one does not is gone, whatever is under way.
                None if fresh || row.state == Some(ContainerState::Running) => {
                    if row.essential && row.state == Some(ContainerState::Running) {
                        self.vanished.get_or_insert_with(|| name.clone());
                    }
                    row.runtime_id = None;
                    row.state = None;
                    row.seen_started_at = None;
                    row.health = HealthStatus::Unknown;
                }
                None => {}
            }
        }
        note_taken_down(&mut self.task, &before);
        for words in differing {
            self.event(
                EventLevel::Warning,
                "ImageDiffers",
                format!("task {} on {}: {words}", self.task.id, self.look.host),
            );
        }
        if restarted {
            self.task.note_restart(self.look.finished_at);
        }
        // All that was asked for exists: the launch of unknown outcome has happened. Of a task that is to end it may yet go
        // on to start them; of a standalone one it must not be said before they started, since they start once.
        let is_waiting = |row: &TaskContainer| row.state == Some(ContainerState::Created);
        let may_start_again = !self.task.is_standalone() || !self.task.containers.values().any(is_waiting);
        if !self.launching
            && !is_ending
            && may_start_again
            && matches!(self.task.launch, Launch::Issued { .. })
            && self.task.containers.values().all(|row| row.runtime_id.is_some())
        {
            self.task.launch = Launch::Answered { at: self.look.started_at };
        }
        self.task.health_status = health::task_health(&self.task);
    }

    fn judge(&mut self) {
        let clearer = self.task.containers.iter().find_map(|(name, row)| clearer_words(&self.task, name, row));
        if let Some(words) = clearer {
            self.task.stopped_reason = Some(words.clone());
            self.event(EventLevel::Warning, "TaskEnded", format!("task {}: {words}", self.task.id));
        }
        let live = self.task.containers.values().any(|row| row.state.is_some_and(ContainerState::is_live));
        match self.task.desired_status {
            DesiredStatus::Running => {
                if let Some(over) = self.ended() {
                    self.fail(over);
                    if !self.task.containers.values().any(|row| row.state.is_some_and(ContainerState::is_live)) {
                        self.task.advance(LastStatus::Deprovisioning);
                    }
                } else if health::all_running(&self.task) {
                    self.note_running();
                } else if live {
                    self.task.advance(LastStatus::Activating);
                }
            }
            DesiredStatus::Stopped if !live && self.nothing_can_live() => self.note_stopped(),
            DesiredStatus::Stopped => {}
        }
        if self.task.last_status == LastStatus::Deprovisioning && !live && self.nothing_can_live() {
            self.note_stopped();
        }
    }

    /// Why the task is over, if it is.
    fn ended(&self) -> Option<Over> {
        if self.task.launch == Launch::NotIssued {
            return None;
        }
        if let Some(name) = &self.vanished {
            return Some(Over::removed(name));
        }
        if health::has_lost_its_network(&self.task) {
            return Some(Over {
                counted: throttle::after_failure,
                code: StopCode::EssentialContainerExited,
                reason: format!("{SANDBOX} was started again, and the network that the others still have is gone"),
            });
        }
        if let Some(other) = network::lost_its_address_to(self.state, &self.task) {
            return Some(Over {
                counted: throttle::after_failure,
                code: StopCode::EssentialContainerExited,
                reason: format!("its address is in a part of the subnet that is host {other}'s by now"),
            });
        }
        let fresh = self.is_fresh();
        let revision = self.state.revision(&self.task.revision).map(|it| launch::of_task(&self.task, it));
        let spec = revision.as_ref().and_then(|revision| revision.spec.as_deref());
        for (name, row) in self.task.containers.iter().filter(|(_, row)| row.essential) {
            let comes_back = spec.is_some_and(|spec| {
                let mut definitions = spec.containers();
                let definition = definitions.find(|definition| definition.name == name.as_str());
                definition.is_some_and(|definition| launch::comes_back(spec, definition, row, self.look.finished_at))
            });
            match row.state {
                Some(ContainerState::Exited) if comes_back => {}
                Some(ContainerState::Exited | ContainerState::Dead) => {
                    let reason = exit_words(name, row.oom_killed, row.exit_code);
                    return Some(Over {
                        counted: throttle::after_failure,
                        code: StopCode::EssentialContainerExited,
                        reason,
                    });
                }
                None if fresh => return Some(Over::removed(name)),
                Some(
                    ContainerState::Created
                    | ContainerState::Running
                    | ContainerState::Paused
                    | ContainerState::Restarting
                    | ContainerState::Removing,
                )
                | None => {}
            }
        }
        let (name, code) = launch::failed_success_dependency(&self.task, spec?)?;
        // What waits for it never started.
        Some(Over {
            counted: throttle::after_failure,
            code: StopCode::TaskFailedToStart,
            reason: format!("container {name} had to end with 0 and ended with {code}"),
        })
    }

    fn fail(&mut self, Over { counted, code, reason }: Over) {
        let at = self.look.finished_at;
        self.failure = throttle::failed_early(&self.task, at).then_some(counted);
        self.task.order_stop(at, code, reason.clone());
        let mut codes = self.task.containers.values().filter(|row| row.essential).map(|row| row.exit_code);
        let well = self.vanished.is_none() && codes.all(|code| code.is_none_or(|code| code == 0));
        self.events.push(ended(&self.task, at, &reason, well));
    }

    fn note_running(&mut self) {
        if self.task.last_status < LastStatus::Running {
            self.task.advance(LastStatus::Running);
            self.task.started_at = Some(self.look.finished_at);
            self.event(EventLevel::Normal, "TaskRunning", format!("task {} runs on {}", self.task.id, self.look.host));
        }
    }

    /// Whether no order of unknown outcome can still bring a container to life.
    fn nothing_can_appear(&self) -> bool {
        match self.task.launch {
            _ if self.launching => false,
            Launch::NotIssued | Launch::Answered { .. } => self.is_fresh(),
            Launch::Issued { at } => self.look.started_at.since_ms(at) > LATE_CONTAINER_MS,
        }
    }

    /// Whether it is over for good: a start of unknown outcome may still be on its way to a container that has ended, or was
    /// never started, so that one has to be gone.
    fn nothing_can_live(&self) -> bool {
        let may_be_started = matches!(self.task.launch, Launch::Issued { .. })
            && self.task.containers.values().any(|row| row.runtime_id.is_some());
        !may_be_started && self.nothing_can_appear()
    }

    fn note_stopped(&mut self) {
        if self.task.last_status < LastStatus::Stopped {
            self.task.advance(LastStatus::Stopped);
            self.task.stopped_at = Some(self.look.finished_at);
            self.event(
                EventLevel::Normal,
                "TaskStopped",
                format!("task {} on {} is over", self.task.id, self.look.host),
            );
        }
    }

    fn event(&mut self, level: EventLevel, reason: &str, message: String) {
        self.events.push(Event::new(self.look.finished_at, self.task.told_in(), level, reason, message));
    }
}

/// An engine that is stopped in order ends all containers, and brings back those that did not end well or always come back.
/// What ended well with it was not done with its work. `before` is each row's state, start and restarts in the look before.
fn note_taken_down(task: &mut Task, before: &[(Option<ContainerState>, Option<Timestamp>, u32)]) {
    // An engine that begins counts restarts anew; after a crash it counts one more.
    let came_back = task.containers.values().zip(before).any(|(row, (_, started_at, restarts))| {
        row.state == Some(ContainerState::Running)
            && started_at.is_some()
            && row.started_at > *started_at
            && row.restart_count <= *restarts
            && row.revived.is_none_or(|revived| Some(revived.at) < *started_at)
    });
    for (row, (state, _, _)) in task.containers.values_mut().zip(before) {
        row.taken_down = match row.state {
            Some(ContainerState::Exited) => {
                row.taken_down || (came_back && *state == Some(ContainerState::Running) && row.exit_code == Some(0))
            }
            Some(
                ContainerState::Created
                | ContainerState::Running
                | ContainerState::Paused
                | ContainerState::Restarting
                | ContainerState::Removing
                | ContainerState::Dead,
            )
            | None => false,
        };
    }
}

/// Of an image that was loaded by hand: what its tag is here, when it is something else than where it was first asked for.
fn other_content(state: &State, revision: &RevisionId, row: &TaskContainer, view: &ContainerView) -> Option<String> {
    match state.revision(revision)?.images.get(&row.image)? {
        ResolvedImage::Local(first) if *first != view.image_id => Some(format!(
            "it runs {} as {}, and {revision} began with {first}: load the same image on every host, or push it to a registry",
            row.image, view.image_id
        )),
        ResolvedImage::Local(_) | ResolvedImage::Digest(_) => None,
    }
}

/// Writes a container's view into its row; true when the engine restarted it since the last look.
///
/// `probed`: its health is found out from the host, and no look knows it. A new life begins without a verdict.
pub(super) fn note_view(row: &mut TaskContainer, view: &ContainerView, seen_at: Timestamp, probed: bool) -> bool {
    // Also after a pause it is judged anew.
    let runs_on = row.runtime_id.as_ref() == Some(&view.id)
        && row.started_at == view.started_at
        && row.state == Some(ContainerState::Running);
    let restarted =
        row.started_at.is_some() && view.started_at > row.started_at && view.restart_count > row.restart_count;
    row.runtime_id = Some(view.id.clone());
    let comes_back = row.state.is_some_and(|before| !before.is_live()) && view.state.is_live();
    if comes_back && row.ports.is_empty() {
        // An engine tells no ports of what does not run: it was adopted like that.
        row.ports.clone_from(&view.ports);
    }
    row.state = Some(view.state);
    row.health = match view.state {
        // Frozen: whatever its last check said.
        ContainerState::Paused => HealthStatus::Unhealthy,
        // Between two lives: the crash-loop count judges it.
        ContainerState::Restarting => HealthStatus::Unknown,
        ContainerState::Running if probed && runs_on => row.health,
        ContainerState::Created
        | ContainerState::Running
        | ContainerState::Removing
        | ContainerState::Exited
        | ContainerState::Dead => view.health,
    };
    if row.health != HealthStatus::Unhealthy || view.state != ContainerState::Running {
        row.health_reason = None;
    }
    row.has_health_check = view.has_health_check || probed;
    row.exit_code = view.exit_code;
    row.oom_killed = view.oom_killed;
    row.restart_count = view.restart_count;
    row.started_at = view.started_at.or(row.started_at);
    row.seen_started_at = row.seen_started_at.or(view.started_at.map(|_| seen_at));
    row.image_digest.get_or_insert_with(|| view.image_id.clone());
    restarted
}

/// Says once of containers that carry our fleet's name without a right digest: they are never touched.
fn report_strangers(state: &State, look: &HostObservation, changes: &mut Vec<Change>) {
    let known: BTreeSet<_> =
        state.observations.get(&look.host).map(|known| known.containers.keys().collect()).unwrap_or_default();
    for container in look.containers.values().filter(|container| !known.contains(&container.id)) {
        let what = match &container.owner {
            Owner::Forged => "carries our labels without a valid digest".to_owned(),
            Owner::OtherFleet { fleet } => format!(
                "belongs to another fleet ({fleet}); if that was this one, its key is lost: give the old one with --fleet-key"
            ),
            Owner::Ours(_) | Owner::Foreign => continue,
        };
        changes.push(Change::Event(Event::new(
            look.finished_at,
            EventSubject::Host(look.host.clone()),
            EventLevel::Warning,
            "StrangeContainer",
            format!("container {} on {} {what}: it is left alone", container.name, look.host),
        )));
    }
}
