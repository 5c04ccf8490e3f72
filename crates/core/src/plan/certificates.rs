//! Certificates: which are needed, which are to be made or renewed, and what people are told of them. Bytes of keys are
//! never here.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    certificate::{CertificateRecord, Shown},
    name::CertificateId,
    spec::{LoadBalancerSpec, load_balancer::ListenerProtocol, tls::Certificate},
    state::{Change, EventLevel, EventSubject, State},
    time::Timestamp,
    traffic::Edge,
    world::Subject,
};

use super::{
    acme::{self, Asked},
    draft::Draft,
};

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// From a file of the manifests' folder.
    File,
    /// It is made for these names, by our own authority.
    SelfSigned(Vec<String>),
    /// It is ordered of an authority.
    Ordered(Asked),
}

impl Need {
    /// The names that it is made for.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::File => Vec::new(),
            Self::SelfSigned(names) | Self::Ordered(Asked { names, .. }) => names.clone(),
        }
    }
}

/// What the manifests in force ask for.
pub fn needs(state: &State) -> BTreeMap<CertificateId, Need> {
    let specs = state.desired.load_balancers.values().flat_map(|manifest| manifest.spec.certificates());
    specs.map(|spec| (spec.id(), need(spec))).collect()
}

fn need(spec: &Certificate) -> Need {
    if spec.is_ordered() {
        let acme = spec.acme.clone().unwrap_or_default();
        let directory = acme.directory().to_owned();
        return Need::Ordered(Asked { names: spec.names(), directory, email: acme.email, ca_file: acme.ca_file });
    }
    match spec.certificate_file {
        Some(_) => Need::File,
        None => Need::SelfSigned(spec.names()),
    }
}

/// Those to make now, since there is none, or the one that there is has lived two thirds of its life: names by certificate.
pub fn due(state: &State, wall: Timestamp) -> BTreeMap<CertificateId, Vec<String>> {
    let is_due = |id: &CertificateId| state.certificates.get(id).is_none_or(|it| wall >= it.renew_at());
    let made = needs(state).into_iter().filter_map(|(id, need)| match need {
        Need::SelfSigned(names) => Some((id, names)),
        Need::File | Need::Ordered(_) => None,
    });
    made.filter(|(id, _)| is_due(id)).collect()
}

/// What an edge with these load balancers shows.
pub fn shown<'a>(
    state: &State,
    balancers: impl IntoIterator<Item = &'a LoadBalancerSpec>,
) -> BTreeMap<CertificateId, Shown> {
    let needs = needs(state);
    let shown = |spec: &Certificate| {
        let facts = &shown_for(state, &needs, spec)?.facts;
        Some((spec.id(), Shown { digest: facts.digest.clone(), sha1: facts.sha1.clone() }))
    };
    balancers.into_iter().flat_map(LoadBalancerSpec::certificates).filter_map(shown).collect()
}

/// The certificate; until an authority gives it, the one that was shown for some of its names before.
fn shown_for<'a>(
    state: &'a State,
    needs: &BTreeMap<CertificateId, Need>,
    spec: &Certificate,
) -> Option<&'a CertificateRecord> {
    let id = spec.id();
    let known = state.certificates.get(&id);
    if known.is_some() || !spec.is_ordered() {
        return known;
    }
    let names = spec.names();
    let shared = |record: &CertificateRecord| record.facts.names.iter().filter(|name| names.contains(name)).count();
    let others = state.certificates.values().filter(|record| !needs.contains_key(&record.id) && shared(record) > 0);
    others.max_by_key(|record| (shared(record), record.facts.not_after, &record.id))
}

/// Whether an edge was found to show just this.
pub fn is_on(edge: &Edge, record: &CertificateRecord) -> bool {
    edge.certificates.get(&record.id).is_some_and(|shown| shown.digest == record.facts.digest)
}

/// Forgets what nobody needs, and tells of what ends or is missing.
pub(super) fn review(draft: &mut Draft<'_>) {
    let state = &draft.world.state;
    if state.certificates.is_empty() && state.acme_orders.is_empty() && state.desired.load_balancers.is_empty() {
        return;
    }
    let needs = needs(state);
    let wall = draft.wall();
    let specs = state.desired.load_balancers.values().flat_map(|manifest| manifest.spec.certificates());
    let stands_in: BTreeSet<&CertificateId> =
        specs.filter_map(|spec| shown_for(state, &needs, spec)).map(|record| &record.id).collect();
    for record in state.certificates.values() {
        let is_authority = record.id == CertificateId::authority();
        if !needs.contains_key(&record.id) && !is_authority && !stands_in.contains(&record.id) {
            // People have put their trust into the authority: it alone stays.
            draft.remove(Change::CertificateRemoved(record.id.clone()));
            continue;
        }
        let facts = &record.facts;
        if wall < record.ending_at() {
            let at = draft.when_wall_is(record.ending_at());
            draft.wake_at(at);
        } else if !record.told {
            draft.put_certificate(CertificateRecord { told: true, ..record.clone() });
            let next = match needs.get(&record.id) {
                Some(Need::File) => "put a new one into its file",
                Some(Need::SelfSigned(_) | Need::Ordered(_)) => {
                    "it should have been renewed by itself: see the controller's log"
                }
                None => "see the controller's log",
            };
            let message = format!("the certificate for {} ends at {}: {next}", facts.names.join(", "), facts.not_after);
            draft.event(EventSubject::Fleet, EventLevel::Warning, "CertificateEnding", message);
        }
    }
    for (name, manifest) in &state.desired.load_balancers {
        for listener in &manifest.spec.listeners {
            let has_one = listener.certificates().iter().any(|spec| shown_for(state, &needs, spec).is_some());
            if listener.protocol == ListenerProtocol::Https && !has_one {
                let orders = listener.certificates().iter().filter_map(|spec| state.acme_orders.get(&spec.id()));
                let (words, at) = orders.map(acme::tale).next().unzip();
                let words = words.map(|words| format!(": {words}")).unwrap_or_default();
                draft.waiting(
                    Subject::LoadBalancer(name.clone()),
                    format!("listener {} has no certificate yet, and is not answered{words}", listener.name),
                    "one of its certificates is there",
                    at.flatten(),
                );
            }
        }
    }
    acme::review(draft, &needs);
}

/// A certificate that came, and what people are told of it.
pub(crate) fn came(state: &State, now: Timestamp, record: CertificateRecord) -> Vec<Change> {
    let before = state.certificates.get(&record.id);
    let is_news = before.is_none_or(|before| before.facts.digest != record.facts.digest);
    let facts = &record.facts;
    let (reason, message) = match before {
        Some(_) => ("CertificateRenewed", "is replaced by one"),
        None => ("CertificateReady", "is there"),
    };
    let message = format!("the certificate for {} {message} until {}", facts.names.join(", "), facts.not_after);
    let event = crate::model::state::Event::new(now, EventSubject::Fleet, EventLevel::Normal, reason, message);
    let ordered = state.acme_orders.get(&record.id).map(|order| acme::ended(order, &record, now));
    let mut changes = vec![Change::Certificate(record)];
    changes.extend(ordered);
    if is_news {
        changes.push(Change::Event(event));
    }
    changes
}
