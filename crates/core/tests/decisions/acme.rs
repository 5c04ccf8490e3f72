//! Certificates of authorities: ordered when they are due, answered by every edge, and not asked for more often than told.

use std::collections::BTreeMap;

use roadstead_core::{
    model::{
        acme::{AcmeNews, AcmeOrder},
        certificate::{CertificateFacts, CertificateRecord, DAY_MS},
        name::CertificateId,
        state::{Change, Event},
        traffic::EdgeSeen,
    },
    plan::{
        acme::standing,
        traffic::{edges, hosts_of},
    },
    turn::Input,
};
use serde_json::{Value, json};

use super::{looks::events, story::Story, traffic::of};

const SHOP: &str = "acme:shop.example";
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
const MINUTE_MS: u64 = 60_000;

fn shop() -> Value {
    json!([{ "domains": ["shop.example"], "issuer": "ACME" }])
}

fn front(certificates: &Value) -> Value {
    json!({ "listeners": [
        { "name": "http", "port": 80 },
        { "name": "https", "port": 443, "protocol": "HTTPS", "tls": { "certificates": certificates } },
    ] })
}

fn ids(orders: &[AcmeOrder]) -> Vec<&str> {
    orders.iter().map(|order| order.id.as_str()).collect()
}

impl Story {
    /// A load balancer on all three hosts.
    fn with_orders(certificates: &Value) -> Self {
        let mut story = Self::begin(super::story::web(0), super::story::one_container());
        story.asks_for(certificates);
        story
    }

    fn asks_for(&mut self, certificates: &Value) {
        self.desired.load_balancers.insert("front".into(), of(front(certificates)));
        self.tell();
    }

    /// These edges show what they should.
    fn edges_show(&mut self, hosts: &[&str]) {
        let pictures = edges(self.state());
        for host in hosts {
            let seen = EdgeSeen {
                at: self.now,
                confirmed: pictures.get(*host).cloned(),
                under_way: None,
                targets: BTreeMap::new(),
                is_there: Some(true),
                problem: None,
            };
            self.core.take(self.now, Input::Edge((*host).into(), seen));
        }
    }

    /// Time passes; the orders that begin.
    fn begun(&mut self, ms: u64) -> Vec<AcmeOrder> {
        let plan = self.decide(ms, &[]);
        let orders = plan.changes.into_iter().filter_map(|change| match change {
            Change::AcmeOrder(order) if order.worked_by.is_some() => Some(order),
            _ => None,
        });
        orders.collect()
    }

    fn told(&mut self, order: &AcmeOrder, news: AcmeNews) -> Vec<Event> {
        events(&self.core.take(self.now, Input::Acme(order.id.clone(), order.begun_at, news)))
    }

    fn is_refused(&mut self, order: &AcmeOrder, why: &str, retry_after_ms: Option<u64>) -> Vec<Event> {
        self.told(order, AcmeNews::Failed { why: why.to_owned(), retry_after_ms })
    }

    fn is_asked(&mut self, order: &AcmeOrder) {
        let challenges = [("token".to_owned(), "token.print".to_owned())].into();
        self.told(order, AcmeNews::Challenges(challenges));
    }

    fn is_given(&mut self, id: &str, names: &[&str], life_ms: u64) -> Vec<Event> {
        let facts = CertificateFacts {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            digest: format!("{id}-{}", self.now.0),
            not_before: self.now,
            not_after: self.now.plus_ms(life_ms),
            ..CertificateFacts::default()
        };
        let record = CertificateRecord { id: id.into(), facts, ..CertificateRecord::default() };
        events(&self.core.take(self.now, Input::Certificate(record)))
    }

    fn answers(&self, host: &str) -> usize {
        edges(self.state())[host].challenges.len()
    }

    fn waits_with(&self, words: &str) -> bool {
        self.core.report().waiting.iter().any(|it| it.reason.contains(words))
    }
}

#[test]
fn one_is_ordered_once_somebody_can_answer_and_all_edges_answer_while_it_is() {
    let mut story = Story::with_orders(&shop());
    assert_eq!(story.begun(1_000), [], "the authority would find nobody");
    story.edges_show(&["a"]);
    let begun = story.begun(1_000);
    let [order] = begun.as_slice() else { panic!("{begun:?}") };
    assert_eq!((order.id.as_str(), order.directory.as_str(), order.tries), (SHOP, DIRECTORY, 1));
    assert_eq!(order.not_before, story.now.plus_ms(MINUTE_MS), "durable before anybody is asked");
    assert_eq!(story.begun(5 * MINUTE_MS), [], "it is under way");
    assert!(story.waits_with("is not answered: it is ordered from https://acme-v02"));

    story.edges_show(&["a", "b", "c"]);
    story.is_asked(order);
    assert_eq!((story.answers("a"), story.answers("c")), (1, 1));
    let id = CertificateId::from(SHOP);
    let hosts = |names: &[&str]| names.iter().map(|name| (*name).into()).collect::<Vec<_>>();
    let stands = standing(story.core.world(), &id);
    assert_eq!((stands.shown, stands.awaited), (hosts(&[]), hosts(&["a", "b", "c"])), "as they were before");
    story.edges_show(&["b"]);
    let stands = standing(story.core.world(), &id);
    assert_eq!((stands.shown, stands.awaited, stands.away), (hosts(&["b"]), hosts(&["a", "c"]), hosts(&[])));
    story.decide(60_000, &["c"]);
    let stands = standing(story.core.world(), &id);
    assert_eq!((stands.shown, stands.awaited, stands.away), (hosts(&["b"]), hosts(&["a"]), hosts(&["c"])));

    let told = story.is_given(SHOP, &["shop.example"], 90 * DAY_MS);
    assert!(matches!(told.as_slice(), [event] if event.reason == "CertificateReady"), "{told:?}");
    assert_eq!(story.answers("a"), 0);
    assert!(story.state().acme_orders.is_empty());
    assert_eq!(story.begun(1_000), []);
    // What a try says that nobody waits for any more.
    assert_eq!(story.is_refused(order, "late", None), []);
    assert!(story.state().acme_orders.is_empty());
}

#[test]
fn who_is_refused_comes_again_ever_later_and_each_reason_is_told_once() {
    let mut story = Story::with_orders(&shop());
    story.edges_show(&["a", "b", "c"]);
    let refusals: [(&str, Option<u64>, u64, usize); 6] = [
        ("no such name, at 10:01", None, 1, 1),
        ("no such name, at 10:02", None, 2, 0),
        ("connection refused", None, 4, 1),
        ("connection refused", Some(5_000), 8, 0),
        ("too many (rateLimited)", Some(3_600_000), 60, 1),
        // Whatever it says, not for ever.
        ("too many (rateLimited)", Some(u64::MAX), 7 * 1_440, 0),
    ];
    let mut begun = story.begun(1_000);
    for (tries, (why, retry_after_ms, minutes, told)) in (1..).zip(refusals) {
        let [order] = begun.as_slice() else { panic!("{why}: {begun:?}") };
        assert_eq!(order.tries, tries);
        story.is_asked(order);
        assert_eq!(story.answers("b"), 1);
        let events = story.is_refused(order, why, retry_after_ms);
        assert_eq!(events.len(), told, "{why}: {events:?}");
        assert!(events.iter().all(|it| it.reason == "CertificateRefused" && it.message.contains("shop.example")));
        assert_eq!(story.answers("b"), 0, "nobody asks any more");
        let pause_ms = minutes * MINUTE_MS;
        assert_eq!(story.begun(pause_ms - 1), [], "{why}");
        assert!(story.waits_with(why));
        begun = story.begun(1);
    }
    assert_eq!(begun.len(), 1);
}

#[test]
fn a_controller_that_ends_in_the_middle_leaves_no_answer_and_does_not_ask_more_often() {
    let mut story = Story::with_orders(&shop());
    story.edges_show(&["a", "b", "c"]);
    for tries in 1..5_u32 {
        let begun = story.begun(0);
        let [order] = begun.as_slice() else { panic!("{begun:?}") };
        assert_eq!(order.tries, tries);
        story.is_asked(order);
        story.now = story.now.plus_ms(1_000);
        story.go_on_with(|_| {});
        story.decide(1_000, &[]);
        assert_eq!(story.answers("a"), 0, "nobody waits for it");
        assert_eq!(story.is_refused(order, "said to the controller before", None), []);
        story.edges_show(&["a", "b", "c"]);
        let pause_ms = MINUTE_MS << (tries - 1);
        assert_eq!(story.begun(pause_ms - 2_001), [], "{tries}");
        assert!(story.waits_with("the controller ended"));
        story.now = story.now.plus_ms(1);
    }
}

#[test]
fn they_are_renewed_between_two_thirds_and_five_sixths_of_their_life() {
    let mut days = BTreeMap::new();
    for number in 0..64 {
        let record = CertificateRecord {
            id: format!("acme:{number}.example").into(),
            facts: CertificateFacts { not_after: super::Timestamp(90 * DAY_MS), ..CertificateFacts::default() },
            ..CertificateRecord::default()
        };
        let at = record.renew_at();
        assert!((60 * DAY_MS..=75 * DAY_MS).contains(&at.0), "{at}");
        for life in [90, 6] {
            let mut record = record.clone();
            record.facts.not_after = super::Timestamp(life * DAY_MS);
            assert!(record.ending_at() > record.renew_at(), "it is told of only when that did not work");
        }
        *days.entry(at.0 / DAY_MS).or_insert(0) += 1;
    }
    assert!(days.len() > 8 && days.values().all(|count| *count < 16), "not all at once: {days:?}");

    let mut story = Story::with_orders(&shop());
    story.edges_show(&["a", "b", "c"]);
    story.begun(1_000);
    story.is_given(SHOP, &["shop.example"], 90 * DAY_MS);
    let first = story.state().certificates[SHOP].clone();
    story.now = first.renew_at();
    story.now.0 -= 2;
    assert_eq!(story.begun(1), []);
    story.edges_show(&["a", "b", "c"]);
    let begun = story.begun(1);
    let [order] = begun.as_slice() else { panic!("{begun:?}") };
    story.is_refused(order, "not today", None);
    assert_eq!(edges(story.state())["a"].certificates[SHOP].digest, first.facts.digest, "it is shown still");
    story.decide(1_000, &[]);
    assert!(story.waits_with("is not renewed yet: try 1: not today"));
    assert!(!story.waits_with("is not answered"));
    assert_eq!(story.begun(MINUTE_MS).len(), 1);
    let told = story.is_given(SHOP, &["shop.example"], 90 * DAY_MS);
    assert!(matches!(told.as_slice(), [event] if event.reason == "CertificateRenewed"), "{told:?}");
}

#[test]
fn what_comes_and_is_due_at_once_is_not_asked_for_at_once() {
    let mut story = Story::with_orders(&shop());
    story.edges_show(&["a", "b", "c"]);
    for minutes in [1, 2, 4] {
        assert_eq!(story.begun(0).len(), 1);
        story.is_given(SHOP, &["shop.example"], 0);
        assert_eq!(story.begun(minutes * MINUTE_MS - 1), []);
        assert!(story.waits_with("is the controller's clock right?"));
        story.now = story.now.plus_ms(1);
    }
}

#[test]
fn of_one_authority_one_is_ordered_at_a_time_and_who_has_none_goes_first() {
    let own = json!({ "directory": "https://ca.lan/" });
    let mut certificates = shop();
    let more = [
        json!({ "domains": ["a.example"], "issuer": "ACME" }),
        json!({ "domains": ["b.lan"], "issuer": "ACME", "acme": own }),
    ];
    certificates.as_array_mut().unwrap().extend(more);
    let mut story = Story::with_orders(&certificates);
    story.edges_show(&["a", "b", "c"]);
    let begun = story.begun(1_000);
    assert_eq!(ids(&begun), ["acme:a.example", "acme:b.lan@https://ca.lan/"]);
    assert_eq!(story.begun(1_000), []);
    story.is_given("acme:a.example", &["a.example"], 3_600_000);
    assert_eq!(ids(&story.begun(1_000)), [SHOP]);
    story.is_refused(&story.state().acme_orders[SHOP].clone(), "no", Some(600_000));
    let again = story.state().acme_orders[SHOP].not_before;
    assert_eq!(story.decide(1_000, &[]).wake_at, Some(again));
    assert_eq!(ids(&story.begun(again.since_ms(story.now))), [SHOP]);
    story.is_refused(&story.state().acme_orders[SHOP].clone(), "no", Some(2 * 3_600_000));
    // By now both are due.
    assert_eq!(ids(&story.begun(2 * 3_600_000)), [SHOP]);
}

#[test]
fn a_certificate_for_other_names_is_shown_until_the_new_one_is_there() {
    let mut story = Story::with_orders(&shop());
    story.edges_show(&["a", "b", "c"]);
    story.begun(1_000);
    story.is_given(SHOP, &["shop.example"], 90 * DAY_MS);
    let first = story.state().certificates[SHOP].facts.digest.clone();
    story.asks_for(&json!([{ "domains": ["shop.example", "www.example"], "issuer": "ACME" }]));
    let both = "acme:shop.example,www.example";
    let shown = |story: &Story| edges(story.state())["a"].certificates.get(both).map(|shown| shown.digest.clone());
    story.decide(1_000, &[]);
    assert_eq!(shown(&story), Some(first.clone()));
    story.edges_show(&["a", "b", "c"]);
    let begun = story.begun(1_000);
    story.is_refused(&begun[0], "www.example is not ours", None);
    story.decide(1_000, &[]);
    assert_eq!(shown(&story), Some(first.clone()));
    story.is_given(both, &["shop.example", "www.example"], 90 * DAY_MS);
    assert_ne!(shown(&story), Some(first));
    story.decide(1_000, &[]);
    assert_eq!(story.state().certificates.keys().map(|id| id.as_str()).collect::<Vec<_>>(), [both]);

    // One for none of its names is not shown.
    story.asks_for(&json!([{ "domains": ["other.example"], "issuer": "ACME" }]));
    story.decide(1_000, &[]);
    assert!(edges(story.state())["a"].certificates.is_empty() && story.state().certificates.is_empty());
}

#[test]
fn an_order_goes_with_the_listener_that_asked_for_it() {
    let mut story = Story::with_orders(&shop());
    story.edges_show(&["a", "b", "c"]);
    let begun = story.begun(1_000);
    story.is_asked(&begun[0]);
    let spec = story.desired.load_balancers["front"].spec.clone();
    assert_eq!(hosts_of(&story.desired, &spec).count(), 3);
    story.asks_for(&json!([{ "domains": ["shop.example"], "issuer": "SELF_SIGNED" }]));
    story.decide(1_000, &[]);
    assert!(story.state().acme_orders.is_empty());
    assert_eq!(story.answers("a"), 0);

    // The last load balancer goes, and with it all that its certificate could have been told of.
    let mut story = Story::with_orders(&shop());
    story.edges_show(&["a", "b", "c"]);
    let begun = story.begun(1_000);
    story.is_refused(&begun[0], "no", None);
    story.desired.load_balancers.clear();
    story.tell();
    story.decide(1_000, &[]);
    assert!(story.state().acme_orders.is_empty());
}

#[test]
fn one_that_is_missing_beside_others_is_told_of_by_its_load_balancer() {
    let mut certificates = shop();
    certificates.as_array_mut().unwrap().push(json!({ "domains": ["b.lan"], "issuer": "SELF_SIGNED" }));
    let mut story = Story::with_orders(&certificates);
    story.edges_show(&["a", "b", "c"]);
    let begun = story.begun(1_000);
    story.is_given("self-signed:b.lan", &["b.lan"], 90 * DAY_MS);
    story.is_refused(&begun[0], "no such name", None);
    story.decide(1_000, &[]);
    assert!(story.waits_with("the certificate for shop.example is not there yet: try 1: no such name"));
    assert!(!story.waits_with("is not answered"));
}
