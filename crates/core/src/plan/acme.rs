//! Certificates of authorities that speak ACME: when one is ordered, what is answered meanwhile, and which edges show that.
//!
//! One order at a time for each directory. That a try begins is durable before the authority hears of it, and so is how long
//! the pause after it is: a controller that dies every time asks no more often than one that is refused.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    acme::{AcmeNews, AcmeOrder, Challenges},
    certificate::CertificateRecord,
    desired::Manifest,
    name::{CertificateId, HostName, LoadBalancerName},
    spec::LoadBalancerSpec,
    state::{Change, Event, EventLevel, EventSubject, State},
    time::Timestamp,
    world::{Subject, World},
};

use super::{
    certificates::{Need, needs},
    draft::Draft,
    host_status, takes_orders, traffic,
};

/// Pause after the first try: doubles from here …
const FIRST_PAUSE_MS: u64 = 60_000;
/// … to here.
const LAST_PAUSE_MS: u64 = 12 * 3_600_000;
/// An authority can ask for a longer one, up to this.
const LONGEST_PAUSE_MS: u64 = 7 * 86_400_000;

/// What is asked of an authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The names.
    pub names: Vec<String>,
    /// Its directory.
    pub directory: String,
    /// Whom it may write to.
    pub email: Option<String>,
    /// What vouches for the directory: a file of the manifests' folder.
    pub ca_file: Option<String>,
}

/// Which edges of a certificate's load balancers answer what is asked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// They do.
    pub shown: Vec<HostName>,
    /// They do not yet.
    pub awaited: Vec<HostName>,
    /// They cannot be asked.
    pub away: Vec<HostName>,
}

/// How the edges of a certificate's load balancers stand.
pub fn standing(world: &World, id: &CertificateId) -> Standing {
    let state = &world.state;
    let challenges = state.acme_orders.get(id).map(|order| &order.challenges);
    let balancers: Vec<_> = asking(state, id).collect();
    let hosts: BTreeSet<&HostName> =
        balancers.iter().flat_map(|(_, manifest)| traffic::hosts_of(&state.desired, &manifest.spec)).collect();
    let mut standing = Standing::default();
    for host in hosts {
        let edge = world.edges.get(host).and_then(|seen| seen.confirmed.as_ref());
        let shows = edge.is_some_and(|edge| {
            let here =
                balancers.iter().filter(|(_, it)| traffic::hosts_of(&state.desired, &it.spec).any(|at| at == host));
            here.into_iter().all(|(name, manifest)| edge.balancers.get(*name) == Some(&manifest.spec))
                && challenges.into_iter().flatten().all(|(token, answer)| edge.challenges.get(token) == Some(answer))
        });
        let list = match takes_orders(world, host, host_status(world, host)) {
            false => &mut standing.away,
            true if shows => &mut standing.shown,
            true => &mut standing.awaited,
        };
        list.push(host.clone());
    }
    standing
}

/// The load balancers whose listeners ask for a certificate.
fn asking<'a>(
    state: &'a State,
    id: &'a CertificateId,
) -> impl Iterator<Item = (&'a LoadBalancerName, &'a Manifest<LoadBalancerSpec>)> {
    let balancers = state.desired.load_balancers.iter();
    balancers.filter(move |(_, manifest)| manifest.spec.certificates().any(|spec| spec.id() == *id))
}

/// What an edge with these load balancers answers.
pub(super) fn challenges<'a>(state: &State, balancers: impl IntoIterator<Item = &'a LoadBalancerSpec>) -> Challenges {
    if state.acme_orders.is_empty() {
        return Challenges::new();
    }
    let ids: BTreeSet<CertificateId> = balancers
        .into_iter()
        .flat_map(LoadBalancerSpec::certificates)
        .map(crate::model::spec::tls::Certificate::id)
        .collect();
    let orders = ids.iter().filter_map(|id| state.acme_orders.get(id));
    orders.flat_map(|order| order.challenges.clone()).collect()
}

/// What is told of a certificate that is not there or due, and when it is tried again.
pub fn tale(order: &AcmeOrder) -> (String, Option<Timestamp>) {
    match (&order.problem, order.worked_by) {
        (None, Some(_)) => (format!("it is ordered from {}", order.directory), None),
        (Some(why), Some(_)) => (format!("it is ordered again; before, {why}"), None),
        (Some(why), None) => (format!("try {}: {why}", order.tries), Some(order.not_before)),
        (None, None) => ("the controller ended while it was ordered".to_owned(), Some(order.not_before)),
    }
}

/// Begins what is due, and forgets what nobody waits for.
pub(super) fn review(draft: &mut Draft<'_>, needs: &BTreeMap<CertificateId, Need>) {
    let (world, state) = (draft.world, &draft.world.state);
    let epoch = state.fleet.epoch;
    let mut busy = BTreeSet::new();
    for order in state.acme_orders.values() {
        match order.worked_by {
            _ if !needs.contains_key(&order.id) => draft.remove(Change::AcmeOrderRemoved(order.id.clone())),
            // Who worked at it is gone: nobody asks for its answers any more.
            Some(other) if other != epoch => {
                draft.put_order(AcmeOrder { worked_by: None, challenges: Challenges::new(), ..order.clone() });
            }
            Some(_) => {
                busy.insert(order.directory.as_str());
            }
            None => {}
        }
    }
    let mut due = Vec::new();
    for (id, need) in needs {
        let Need::Ordered(asked) = need else { continue };
        let (record, order) = (state.certificates.get(id), state.acme_orders.get(id));
        if let Some(record) = record.filter(|record| draft.wall() < record.renew_at()) {
            let at = draft.when_wall_is(record.renew_at());
            draft.wake_at(at);
            continue;
        }
        if order.is_some_and(|order| order.worked_by == Some(epoch)) {
            continue;
        }
        let not_before = order.map_or(Timestamp::default(), |order| order.not_before);
        if not_before > draft.now() {
            draft.wake_at(not_before);
            continue;
        }
        due.push((record.is_some(), not_before, id, asked));
    }
    // Who has none goes first, then who waits longest.
    due.sort_by_key(|(has_one, not_before, id, _)| (*has_one, *not_before, *id));
    for (_, _, id, asked) in due {
        // The authority would find nobody.
        if standing(world, id).shown.is_empty() || !busy.insert(asked.directory.as_str()) {
            continue;
        }
        let before = state.acme_orders.get(id);
        let tries = before.map_or(1, |order| order.tries.saturating_add(1));
        let now = draft.now();
        draft.put_order(AcmeOrder {
            id: id.clone(),
            directory: asked.directory.clone(),
            tries,
            begun_at: now,
            worked_by: Some(epoch),
            not_before: now.plus_ms(pause_ms(tries)),
            challenges: Challenges::new(),
            problem: before.and_then(|order| order.problem.clone()),
        });
    }
    told_of_failures(draft, needs);
}

/// Also of those that are shown still, and should have been renewed.
fn told_of_failures(draft: &mut Draft<'_>, needs: &BTreeMap<CertificateId, Need>) {
    let state = &draft.world.state;
    for order in state.acme_orders.values().filter(|order| order.problem.is_some()) {
        let Some(need) = needs.get(&order.id) else { continue };
        let not_yet = if state.certificates.contains_key(&order.id) { "renewed" } else { "there" };
        let (words, at) = tale(order);
        for (name, _) in asking(state, &order.id) {
            draft.waiting(
                Subject::LoadBalancer(name.clone()),
                format!("the certificate for {} is not {not_yet} yet: {words}", need.names().join(", ")),
                "the authority gives one",
                at,
            );
        }
    }
}

/// The pause after so many tries.
fn pause_ms(tries: u32) -> u64 {
    FIRST_PAUSE_MS.saturating_mul(1 << tries.saturating_sub(1).min(20)).min(LAST_PAUSE_MS)
}

/// What came of a try.
pub(crate) fn came(
    state: &State,
    now: Timestamp,
    id: &CertificateId,
    begun_at: Timestamp,
    news: AcmeNews,
) -> Vec<Change> {
    if let AcmeNews::Account(account) = news {
        return vec![Change::AcmeAccount(account)];
    }
    let order = state.acme_orders.get(id);
    let is_this = |order: &&AcmeOrder| order.begun_at == begun_at && order.worked_by == Some(state.fleet.epoch);
    let Some(order) = order.filter(is_this) else { return Vec::new() };
    let (why, retry_after_ms) = match news {
        AcmeNews::Account(_) => return Vec::new(),
        AcmeNews::Challenges(challenges) => {
            return vec![Change::AcmeOrder(AcmeOrder { challenges, ..order.clone() })];
        }
        AcmeNews::Failed { why, retry_after_ms } => (why, retry_after_ms),
    };
    let pause = pause_ms(order.tries).max(retry_after_ms.unwrap_or(0).min(LONGEST_PAUSE_MS));
    let not_before = now.plus_ms(pause);
    let is_news = order.problem.as_ref().is_none_or(|before| !is_the_same(before, &why));
    let names = needs(state).get(id).map(Need::names).unwrap_or_default().join(", ");
    let message =
        format!("no certificate for {names} from {}: {why}; the next try is at {not_before}", order.directory);
    let mut changes = vec![Change::AcmeOrder(AcmeOrder {
        worked_by: None,
        challenges: Challenges::new(),
        not_before,
        problem: Some(why),
        ..order.clone()
    })];
    if is_news {
        let event = Event::new(now, EventSubject::Fleet, EventLevel::Warning, "CertificateRefused", message);
        changes.push(Change::Event(event));
    }
    changes
}

/// What becomes of an order whose certificate came. One that is due again at once does not make us ask again at once.
pub(super) fn ended(order: &AcmeOrder, record: &CertificateRecord, now: Timestamp) -> Change {
    if now < record.renew_at() {
        return Change::AcmeOrderRemoved(order.id.clone());
    }
    Change::AcmeOrder(AcmeOrder {
        worked_by: None,
        challenges: Challenges::new(),
        problem: Some("what came is nearly over already: is the controller's clock right?".to_owned()),
        ..order.clone()
    })
}

/// Whether two failures differ in times and numbers at most.
fn is_the_same(one: &str, other: &str) -> bool {
    let words = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    words(one) == words(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_day() {
        let minutes: Vec<u64> = [1, 2, 3, 10, 11, 40, u32::MAX].map(|tries| pause_ms(tries) / 60_000).into();
        assert_eq!(minutes, [1, 2, 4, 512, 720, 720, 720]);
    }

    #[test]
    fn failures_that_differ_in_times_only_are_one() {
        assert!(is_the_same("too many, retry after 2026-11-24 10:00", "too many, retry after 2026-11-25 11:30"));
        assert!(!is_the_same("no such name", "connection refused"));
    }
}
