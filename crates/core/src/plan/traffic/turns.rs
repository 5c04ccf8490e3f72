//! Two target groups that take turns: a deployment starts its revision on the side that clients are not sent to, turns their
//! requests to it, and until it has cleaned up can take that back in one step.
//!
//! Rule: "Amazon ECS blue/green deployments", its lifecycle stages; "linear" and "canary" there. Any failure before CLEAN_UP
//! gives the requests back to the revision in service, and so does a newer deployment.

use std::collections::BTreeSet;

use crate::model::{
    deployment::percent,
    name::HostName,
    spec::{load_balancer::WeightedGroup, service::ServiceSpec},
    state::{Deployment, EventLevel, EventSubject, LifecycleStage, RolloutState, ServiceRecord, Stage},
    task::StopCode,
    time::Timestamp,
    traffic::{Edge, RuleRef, Shift, Side},
    world::Subject,
};

use super::{
    hooks, hosts_of, is_given_up,
    picture::{Rules, shares},
};
use crate::plan::{
    draft::{Draft, ServiceNo, TaskNo},
    replica, rollout,
    service::{self, Runs, Subjected},
};

/// Reconciles a REPLICA service: what is in service, and beside it what a deployment brings or an earlier one left.
pub(in crate::plan) fn reconcile(draft: &mut Draft<'_>, service: &Subjected<'_>) {
    let live = shift(draft, service.no).live;
    let (here, beside): (Vec<TaskNo>, Vec<TaskNo>) = service.live.iter().partition(|no| draft.task(**no).side == live);
    match stage(draft, service.no) {
        Some(stage) if stage.name < LifecycleStage::CleanUp => turn(draft, service, &here, &beside),
        Some(_) | None => {
            replica::reconcile(draft, &service.pool(draft, live, &here, Runs::Target));
            if take_back(draft, service, &here, &beside) {
                retire(draft, service, &beside, &beside);
            }
        }
    }
}

fn shift(draft: &Draft<'_>, no: ServiceNo) -> Shift {
    draft.services[no].record().and_then(|record| record.shift).unwrap_or_default()
}

fn primary<'d>(draft: &'d Draft<'_>, no: ServiceNo) -> Option<&'d Deployment> {
    draft.services[no].record().and_then(ServiceRecord::primary)
}

fn stage(draft: &Draft<'_>, no: ServiceNo) -> Option<Stage> {
    primary(draft, no)?.stage
}

fn healthy(draft: &Draft<'_>, service: &Subjected<'_>, tasks: &[TaskNo]) -> usize {
    tasks.iter().filter(|no| service.healthy(draft, **no)).count()
}

/// Whether somebody can answer, as far as anybody knows: load balancers may reach a host that we cannot.
fn can_answer(draft: &Draft<'_>, service: &Subjected<'_>, tasks: &[TaskNo]) -> bool {
    tasks.iter().any(|no| service.serves(draft, *no))
}

/// A deployment whose revision takes its turn.
fn turn(draft: &mut Draft<'_>, service: &Subjected<'_>, blue: &[TaskNo], green: &[TaskNo]) {
    let Some((record, primary)) = draft.services[service.no].record().and_then(|it| Some((it, it.primary()?))) else {
        return;
    };
    let (live, id, failed) = (shift(draft, service.no).live, primary.id, primary.rollout_state == RolloutState::Failed);
    let paused = primary.paused_at.is_some();
    let (at, in_service) = (primary.stage.map(|stage| stage.name), record.in_service.clone());
    // What is in service is kept as it is, whatever becomes of the other.
    let in_service = in_service.unwrap_or_else(|| service.target.clone());
    let old = service.pool(draft, live, blue, Runs::InService(&in_service));
    replica::reconcile(draft, &old);
    if old.placed_now(draft) > 0 {
        // The next pass knows these, too.
        return;
    }
    let is_new = |no: &TaskNo| {
        let task = draft.task(*no);
        task.revision == service.target && task.deployment >= id
    };
    let (new, mut left): (Vec<TaskNo>, Vec<TaskNo>) = green.iter().partition(|no| is_new(no));
    // What nobody can see ends holds nothing up.
    let known: BTreeSet<TaskNo> = service.known_live(draft).map(|(no, _)| no).collect();
    left.retain(|no| known.contains(no));
    if at == Some(LifecycleStage::ReconcileService) || failed {
        if take_back(draft, service, blue, green) {
            // What failed stays to be looked at, and is no longer healed.
            retire(draft, service, &left, green);
        }
        if failed {
            return;
        }
    }
    let mut pool = service.pool(draft, live.other(), &new, Runs::Target);
    if at >= Some(LifecycleStage::ScaleUp) {
        if paused && at == Some(LifecycleStage::ScaleUp) {
            pool.starts = None;
        }
        replica::reconcile(draft, &pool);
    }
    if draft.braked() || paused {
        return;
    }
    let bench = Bench { service, pool: &pool, old: can_answer(draft, service, blue), left: left.len() };
    while bench.advance(draft) {}
}

/// Gives all requests back to what is in service, unless nobody there could answer them and somebody on the other side can;
/// whether that is so.
fn take_back(draft: &mut Draft<'_>, service: &Subjected<'_>, here: &[TaskNo], beside: &[TaskNo]) -> bool {
    let now = shift(draft, service.no);
    let back = Shift { live: now.live, ..Shift::default() };
    if now == back {
        return true;
    }
    if now.per_mille > 0 && !can_answer(draft, service, here) && can_answer(draft, service, beside) {
        let reason = "the requests go back once a task that they go back to is healthy: none is yet";
        draft.waiting(Subject::Service(service.name.clone()), reason, "one is healthy", None);
        return false;
    }
    draft.services[service.no].change(|record| record.shift = Some(back));
    if now.per_mille > 0 {
        say(draft, service, "TrafficShifted", "all requests go back to what was in service before".to_owned());
    }
    true
}

/// Stops what requests are no longer sent to, once every edge was seen to send none.
fn retire(draft: &mut Draft<'_>, service: &Subjected<'_>, tasks: &[TaskNo], side: &[TaskNo]) {
    let wanted: Vec<TaskNo> = tasks.iter().copied().filter(|no| draft.task(*no).is_wanted()).collect();
    if wanted.is_empty() || draft.braked() {
        return;
    }
    // Where nobody is healthy no answer is lost.
    if can_answer(draft, service, side)
        && let Some(words) = unshown(draft, service)
    {
        let reason = format!("{} tasks beside those in service stay: {words}", wanted.len());
        draft.waiting(Subject::Service(service.name.clone()), reason, "every load balancer host confirms it", None);
        return;
    }
    for no in wanted {
        let reason = format!("{} is not in service", draft.task(no).revision);
        if !replica::is_protected(draft, no, &reason) {
            service::stop(draft, no, StopCode::ServiceSchedulerInitiated, &reason);
        }
    }
}

/// What a deployment under way is judged by.
struct Bench<'b> {
    service: &'b Subjected<'b>,
    /// Its own tasks.
    pool: &'b Subjected<'b>,
    /// Whether what is in service can answer.
    old: bool,
    /// How many of earlier deployments are on its side.
    left: usize,
}

/// What comes of a stage.
pub(super) enum Verdict {
    /// It goes on, for this reason.
    Stays(String, Option<Timestamp>),
    /// It is over.
    Over,
    /// Requests are sent elsewhere, and the stage goes on.
    Shift(Shift),
    /// The deployment failed.
    Fails(String),
}

impl Bench<'_> {
    /// One step; whether there may be another.
    fn advance(&self, draft: &mut Draft<'_>) -> bool {
        let no = self.service.no;
        let Some(stage) = stage(draft, no).filter(|stage| stage.name < LifecycleStage::CleanUp) else { return false };
        let now = draft.now();
        let verdict = match self.judge(draft, stage) {
            Verdict::Over => hooks::judge(draft, self.service, stage.name).unwrap_or(Verdict::Over),
            other => other,
        };
        match verdict {
            Verdict::Stays(words, until) => {
                let reason = format!("{}: {words}", stage.name.word());
                draft.waiting(Subject::Service(self.service.name.clone()), reason, "it is so", until);
                false
            }
            Verdict::Shift(to) => {
                draft.services[no].change(|record| {
                    record.shift = Some(to);
                    set_stage(record, Stage { shown_at: None, ..stage }, now);
                });
                if to.per_mille > 0 {
                    let words = format!("{} of the requests go to {}", percent(to.per_mille), self.service.target);
                    say(draft, self.service, "TrafficShifted", words);
                }
                true
            }
            Verdict::Fails(why) => {
                fail(draft, self.service, &why);
                draft.tasks.look_again();
                false
            }
            Verdict::Over => {
                let Some(next) = stage.name.next() else { return false };
                draft.services[no].change(|record| {
                    set_stage(record, Stage::begin(next, now), now);
                    if next == LifecycleStage::CleanUp {
                        let live = record.shift.unwrap_or_default().live.other();
                        record.shift = Some(Shift { live, ..Shift::default() });
                        record.in_service = record.primary().map(|primary| primary.revision.clone());
                    }
                });
                let id = primary(draft, no).map_or(0, |primary| primary.id);
                say(draft, self.service, "LifecycleStage", format!("deployment {id}: {}", next.word()));
                draft.tasks.look_again();
                true
            }
        }
    }

    fn judge(&self, draft: &mut Draft<'_>, stage: Stage) -> Verdict {
        let (service, shift) = (self.service, shift(draft, self.service.no));
        let desired = service.spec.desired_count as usize;
        let healthy = healthy(draft, self.pool, self.pool.live);
        if shift.per_mille > 0 && self.old && !can_answer(draft, service, self.pool.live) {
            return Verdict::Fails("none of its tasks is healthy any more".to_owned());
        }
        // What cannot carry its share gets no more.
        let lacks = || {
            let floor = replica::bounds(desired, &service.spec.deployment_configuration, 100, 200).floor;
            let words = format!("{healthy} of {desired} tasks of {} are healthy", service.target);
            (healthy < floor).then_some(Verdict::Stays(words, None))
        };
        match stage.name {
            LifecycleStage::ReconcileService if self.left > 0 => {
                Verdict::Stays(format!("{} tasks of an earlier deployment end first", self.left), None)
            }
            LifecycleStage::ReconcileService if shift.per_mille > 0 || shift.test => {
                Verdict::Stays("the requests of an earlier deployment are given back first".to_owned(), None)
            }
            LifecycleStage::ScaleUp if healthy < desired || self.pool.placed_now(draft) > 0 => {
                Verdict::Stays(format!("{healthy} of {desired} tasks of {} are healthy", service.target), None)
            }
            LifecycleStage::TestTrafficShift if !shift.test && has_test_rule(service.spec) => {
                lacks().unwrap_or(Verdict::Shift(Shift { test: true, ..shift }))
            }
            LifecycleStage::TestTrafficShift => match unshown(draft, service) {
                Some(words) => Verdict::Stays(words, None),
                None => Verdict::Over,
            },
            LifecycleStage::ProductionTrafficShift => self.shift(draft, stage, shift, lacks),
            LifecycleStage::BakeTime => {
                let until = stage.since.plus_ms(service.spec.deployment_configuration.bake_time().as_ms());
                match until > draft.now() {
                    true => {
                        Verdict::Stays(format!("{} could be back at once", in_service(draft, service)), Some(until))
                    }
                    false => lacks().unwrap_or(Verdict::Over),
                }
            }
            LifecycleStage::ReconcileService
            | LifecycleStage::PreScaleUp
            | LifecycleStage::ScaleUp
            | LifecycleStage::PostScaleUp
            | LifecycleStage::PostTestTrafficShift
            | LifecycleStage::PostProductionTrafficShift => Verdict::Over,
            LifecycleStage::CleanUp => Verdict::Stays(String::new(), None),
        }
    }

    /// The next share of the requests, once the present one is in force everywhere and was for long enough.
    fn shift(
        &self,
        draft: &mut Draft<'_>,
        stage: Stage,
        shift: Shift,
        lacks: impl FnOnce() -> Option<Verdict>,
    ) -> Verdict {
        let spec = self.service.spec;
        let next = || Shift { per_mille: spec.next_share(shift.per_mille), ..shift };
        if shift.per_mille == 0 {
            return lacks().unwrap_or(Verdict::Shift(next()));
        }
        if let Some(words) = unshown(draft, self.service) {
            return Verdict::Stays(words, None);
        }
        if shift.per_mille >= 1_000 {
            return Verdict::Over;
        }
        if !self.old {
            // Nobody else could answer.
            return lacks().unwrap_or(Verdict::Shift(Shift { per_mille: 1_000, ..shift }));
        }
        let now = draft.now();
        let shown_at = stage.shown_at.unwrap_or(now);
        if stage.shown_at.is_none() {
            let stage = Stage { shown_at: Some(now), ..stage };
            draft.services[self.service.no].change(|record| set_stage(record, stage, now));
        }
        let until = shown_at.plus_ms(spec.step_bake_time().as_ms());
        match until > now {
            true => Verdict::Stays(
                format!("{} of the requests go to {}", percent(shift.per_mille), self.service.target),
                Some(until),
            ),
            false => lacks().unwrap_or(Verdict::Shift(next())),
        }
    }
}

fn set_stage(record: &mut ServiceRecord, stage: Stage, now: Timestamp) {
    if let Some(primary) = record.deployments.first_mut() {
        primary.stage = Some(stage);
        primary.updated_at = now;
    }
}

fn in_service(draft: &Draft<'_>, service: &Subjected<'_>) -> String {
    let record = draft.services[service.no].record();
    record.and_then(|record| record.in_service.as_ref()).map_or_else(String::new, ToString::to_string)
}

fn say(draft: &mut Draft<'_>, service: &Subjected<'_>, reason: &str, words: String) {
    draft.event(EventSubject::Service(service.name.clone()), EventLevel::Normal, reason, words);
}

fn fail(draft: &mut Draft<'_>, service: &Subjected<'_>, why: &str) {
    let Some(Ok(wanted)) = draft.services[service.no].wanted.clone() else { return };
    rollout::fail(draft, service.no, &wanted, why);
}

fn has_test_rule(spec: &ServiceSpec) -> bool {
    spec.load_balancers.iter().any(|own| own.test_listener_rule.is_some())
}

/// Which edge is not known to send requests where the service wants them by now, in words.
fn unshown(draft: &Draft<'_>, service: &Subjected<'_>) -> Option<String> {
    let desired = &draft.world.state.desired;
    let shift = shift(draft, service.no);
    let of_rule = |(rule, shares): &(RuleRef, Vec<WeightedGroup>)| {
        let manifest = desired.load_balancers.get(rule.balancer())?;
        let has_rule = manifest.spec.forwards().any(|(listener, it, _)| {
            RuleRef::new(&rule.balancer().into(), &listener.name, it.map(|it| it.name.as_str())) == *rule
        });
        let shows = |edge: &Edge| edge.forwards.get(rule) == Some(shares);
        let is_behind = |host: &&HostName| {
            let seen = draft.world.edges.get(*host);
            let shows_it = seen.is_some_and(|seen| {
                seen.confirmed.as_deref().is_some_and(shows) && seen.under_way.as_deref().is_none_or(shows)
            });
            has_rule && !shows_it && !is_given_up(draft, host)
        };
        hosts_of(desired, &manifest.spec).find(is_behind)
    };
    let rules = service.spec.load_balancers.iter().flat_map(|own| {
        let Rules { production, test } = shares(own, shift);
        [production, test].into_iter().flatten().collect::<Vec<_>>()
    });
    let host = rules.collect::<Vec<_>>().iter().find_map(of_rule)?.clone();
    Some(match draft.host_no(&host).is_some_and(|host| draft.hosts[host].heard) {
        true => format!("load balancer host {host} does not show it yet"),
        false => format!("load balancer host {host} does not answer; `roadstead host cordon {host}` if it is down"),
    })
}

/// The side that new tasks of a service without turns are on.
pub(in crate::plan) fn live_side(draft: &Draft<'_>, no: ServiceNo) -> Side {
    shift(draft, no).live
}
