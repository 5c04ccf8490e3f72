//! Changes on their way: lost, late, done without an answer, done in another order.

use tokio::sync::oneshot;

use super::{Due, Ground, InFlight, Reach};
use crate::{
    check::data::lends,
    engine::machine::{Answer, EdgeChange, NetworkChange, Request},
    scenario::{Mishap, Point},
};
use roadstead_control::engine::EngineError;
use roadstead_core::model::{name::HostName, ownership::Claim};

/// What became of a request when it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    OnItsWay,
    Refused,
    /// The controller was killed at this very step.
    Killed,
}

impl Ground {
    /// How long an answer takes, in ms.
    pub(crate) fn latency(&mut self, is_list: bool) -> u64 {
        if !is_list {
            return 1;
        }
        let number = self.counters.lists;
        self.counters.lists += 1;
        if let Some(Mishap::Late { by_ms }) = self.mishap(Point::List(number)) {
            return by_ms;
        }
        if self.strikes(self.scenario.rates.stale_list) {
            self.count("stale list");
            return self.within(500, 8_000);
        }
        1
    }

    /// Whether an archive that is read breaks off at this piece.
    pub(crate) fn archive_is_cut_off(&mut self) -> bool {
        let is_cut = self.strikes(self.scenario.rates.server_error);
        if is_cut {
            self.count("archive cut off");
        }
        is_cut
    }

    /// The controller sends a change.
    pub(crate) fn send(
        &mut self,
        host: &HostName,
        request: Request,
        reply: oneshot::Sender<Result<Answer, EngineError>>,
    ) -> Sent {
        let number = self.counters.requests;
        self.counters.requests += 1;
        let mishap = self.mishap(Point::Request(number));
        let rates = self.scenario.rates.clone();
        if mishap == Some(Mishap::KillBefore) || self.strikes(rates.kill_at_request / 3) {
            self.kill("killed before a request");
            return Sent::Killed;
        }
        let Some(found) = self.hosts.get(host) else { return Sent::Refused };
        let reach = found.reach(self.now);
        self.trace.line(self.now, &["send", host.as_str(), verb(&request), target(&request)], || {
            format!("  → {host}: {} {:.16}", verb(&request), target(&request))
        });
        let checked = self.checks.sent(&self.durable, &self.hosts, found, &request, self.now);
        self.breaks(checked);
        if reach == Reach::Refused {
            return Sent::Refused;
        }
        let killed_after = mishap == Some(Mishap::KillAfter) || self.strikes(rates.kill_at_request / 3);
        let kill_at_answer = mishap == Some(Mishap::KillAtAnswer) || self.strikes(rates.kill_at_request / 3);
        let lost = mishap == Some(Mishap::Lost) || self.strikes(rates.lose_request);
        let lose_answer = mishap == Some(Mishap::AnswerLost) || self.strikes(rates.lose_answer);
        let server_error = self.strikes(rates.server_error);
        let slow = self.strikes(rates.slow_request);
        let usual = match request {
            Request::Create(_) => (10, 80),
            Request::Start(_) => (100, 500),
            Request::Stop(_) => (20, 2_500),
            Request::Remove { .. } | Request::RemoveVolume(_) | Request::RemoveImage(_) => (10, 80),
            Request::Pull(_) => (100, 5_000),
            Request::Network(..) => (20, 300),
            Request::Edge(..) => (10, 200),
            Request::Unpack { .. } => (20, 300),
        };
        let torn = matches!(request, Request::Unpack { .. }) && self.strikes(rates.tear);
        let delay_ms = if slow { self.within(1_000, 40_000) } else { self.within(usual.0, usual.1) };
        for (word, is) in [
            ("request lost", lost),
            ("answer lost", lose_answer),
            ("request late", slow),
            ("server error", server_error),
            ("piece of an archive not written", torn),
        ] {
            if is {
                self.count(word);
            }
        }
        if lost {
            self.hosts.entry(host.clone()).and_modify(|host| host.limbo.push(reply));
        } else {
            let (reply, sent_at) = (Some(reply), self.now);
            let in_flight = InFlight { request, reply, lose_answer, kill_at_answer, server_error, torn, sent_at };
            self.push(self.now.plus_ms(delay_ms), Due::Arrive(host.clone(), Box::new(in_flight)));
        }
        if killed_after {
            self.kill("killed after a request");
            return Sent::Killed;
        }
        Sent::OnItsWay
    }

    /// A change reaches its host.
    pub(super) fn arrive(&mut self, name: &HostName, mut in_flight: InFlight) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        if !host.there {
            // TCP sends it again when packets pass, if the connection lives or an orphaned socket does.
            host.held_back.push(in_flight);
            return;
        }
        if host.hung {
            host.waiting.push_back(in_flight);
            return;
        }
        let result = if in_flight.server_error {
            Err(EngineError::ServerError { status: 500, message: "context deadline exceeded".into() })
        } else if in_flight.torn {
            Ok(Answer::Done)
        } else {
            self.apply(name, &in_flight.request, in_flight.sent_at)
        };
        let Some(host) = self.hosts.get_mut(name) else { return };
        if in_flight.kill_at_answer && in_flight.reply.is_some() {
            self.kill("killed at an answer");
            return;
        }
        let Some(reply) = in_flight.reply.take() else { return };
        if in_flight.lose_answer || !host.back {
            host.limbo.push(reply);
        } else {
            let _ = reply.send(result);
        }
    }

    /// The engine does it.
    pub(super) fn apply(
        &mut self,
        name: &HostName,
        request: &Request,
        sent_at: roadstead_core::model::time::Timestamp,
    ) -> Result<Answer, EngineError> {
        let Some(host) = self.hosts.get_mut(name) else { return Ok(Answer::Done) };
        let clock = host.clock(self.now);
        if let Request::Create(config) = request
            && !lends(config)
            && std::mem::take(&mut host.squat_next)
        {
            let taken = config.name.clone();
            host.add_stranger(&taken, clock);
            self.count("name taken by a stranger");
        }
        let Some(host) = self.hosts.get_mut(name) else { return Ok(Answer::Done) };
        let before = target_state(host, request);
        let result = host.machine.apply(request, clock);
        match (request, &result) {
            (Request::Create(config), Ok(Answer::Created(created))) => {
                if let Some(claim) = Claim::from_labels(&config.labels) {
                    host.ours.insert(created.id.clone(), claim);
                }
            }
            (Request::Remove { id, .. }, Ok(_)) => {
                host.ours.remove(id);
            }
            (Request::RemoveImage(_), Ok(_)) => self.count("image removed"),
            (Request::Network(..), Ok(_)) => self.count("part of the task network made"),
            (Request::Edge(..), Ok(_)) => self.count("load balancers shown"),
            (
                Request::Create(_)
                | Request::Start(_)
                | Request::Stop(_)
                | Request::Remove { .. }
                | Request::RemoveVolume(_)
                | Request::Unpack { .. }
                | Request::Pull(_),
                Ok(_) | Err(_),
            )
            | (Request::RemoveImage(_) | Request::Network(..) | Request::Edge(..), Err(_)) => {}
        }
        self.trace.line(self.now, &["done", name.as_str(), verb(request), target(request)], || {
            let word = match &result {
                Ok(_) => "done".to_owned(),
                Err(error) => format!("{error}"),
            };
            format!("    {name}: {} {:.16}: {word}", verb(request), target(request))
        });
        let checked =
            self.checks.applied(&self.durable, &self.hosts, name, request, before, &result, (sent_at, self.now));
        self.breaks(checked);
        self.follow(name);
        result
    }

    /// What waited in a hung engine is done now.
    pub(super) fn run_waiting(&mut self, name: &HostName, shuffled: bool) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        let mut waiting: Vec<InFlight> = host.waiting.drain(..).collect();
        while !waiting.is_empty() {
            let index = if shuffled { self.within(0, waiting.len() as u64 - 1) as usize } else { 0 };
            let in_flight = waiting.remove(index);
            self.arrive(name, in_flight);
        }
    }
}

fn target_state(host: &super::FakeHost, request: &Request) -> Option<roadstead_core::model::container::ContainerState> {
    match request {
        Request::Start(id) | Request::Stop(id) | Request::Remove { id, .. } => host.machine.state(id),
        Request::Create(_)
        | Request::RemoveVolume(_)
        | Request::Unpack { .. }
        | Request::Pull(_)
        | Request::RemoveImage(_)
        | Request::Network(..)
        | Request::Edge(..) => None,
    }
}

pub(crate) fn verb(request: &Request) -> &'static str {
    match request {
        Request::Create(_) => "create",
        Request::Start(_) => "start",
        Request::Stop(_) => "stop",
        Request::Remove { .. } => "remove",
        Request::RemoveVolume(_) => "sweep",
        Request::Unpack { .. } => "unpack",
        Request::Pull(_) => "pull",
        Request::RemoveImage(_) => "prune",
        Request::Network(_, NetworkChange::Apply(_)) => "network",
        Request::Network(_, NetworkChange::Clear) => "clear",
        Request::Edge(_, EdgeChange::Apply(_)) => "balance",
        Request::Edge(_, EdgeChange::Clear) => "unbalance",
    }
}

pub(crate) fn target(request: &Request) -> &str {
    match request {
        Request::Create(config) => &config.name,
        Request::Start(id) | Request::Stop(id) | Request::Remove { id, .. } | Request::Unpack { id, .. } => id.as_str(),
        Request::RemoveVolume(name) => name,
        Request::Pull(image) | Request::RemoveImage(image) => image,
        Request::Network(..) | Request::Edge(..) => "",
    }
}
