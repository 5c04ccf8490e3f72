//! Certificates: made when they are needed, renewed in time, told of when they end, and forgotten with their listeners.

use roadstead_core::{
    model::{
        certificate::{CertificateFacts, CertificateRecord, DAY_MS},
        name::CertificateId,
        spec::LoadBalancerSpec,
        state::EventLevel,
        time::Timestamp,
    },
    plan::{
        certificates::{Need, due, needs},
        traffic::edges,
    },
    turn::Input,
};
use serde_json::{Value, json};

use super::{looks::events, story::Story, traffic::of};

const OWN: &str = "self-signed:a.lan,b.lan";
const GIVEN: &str = "file:a.pem";

fn listener(certificates: &Value) -> LoadBalancerSpec {
    serde_json::from_value(json!({ "listeners": [
        { "name": "https", "port": 443, "protocol": "HTTPS", "tls": { "certificates": certificates } },
    ] }))
    .unwrap()
}

impl Story {
    fn with_tls() -> Self {
        let mut story = Self::begin(super::story::web(0), super::story::one_container());
        let certificates = json!([
            { "certificateFile": "a.pem", "privateKeyFile": "a.key" },
            { "domains": ["b.lan", "A.lan", "b.lan"], "issuer": "SELF_SIGNED" },
        ]);
        let spec = serde_json::to_value(listener(&certificates)).unwrap();
        story.desired.load_balancers.insert("front".into(), of(spec));
        story.tell();
        story
    }

    fn comes(&mut self, id: &str, digest: &str, life_days: u64) -> Vec<String> {
        let facts = CertificateFacts {
            names: vec![id.to_owned()],
            digest: digest.to_owned(),
            not_before: self.now,
            not_after: self.now.plus_ms(life_days * DAY_MS),
            ..CertificateFacts::default()
        };
        let record = CertificateRecord { id: id.into(), facts, ..CertificateRecord::default() };
        let changes = self.core.take(self.now, Input::Certificate(record));
        events(&changes).into_iter().map(|event| event.reason).collect()
    }

    fn due(&self) -> Vec<CertificateId> {
        due(self.state(), self.now).into_keys().collect()
    }

    fn digests(&self) -> Vec<(String, String)> {
        let edge = &edges(self.state())["a"];
        edge.certificates.iter().map(|(id, shown)| (id.to_string(), shown.digest.clone())).collect()
    }
}

fn pair(id: &str, digest: &str) -> (String, String) {
    (id.to_owned(), digest.to_owned())
}

#[test]
fn they_are_made_shown_and_renewed_at_two_thirds_of_their_life() {
    let mut story = Story::with_tls();
    let own = Need::SelfSigned(vec!["a.lan".to_owned(), "b.lan".to_owned()]);
    assert_eq!(needs(story.state()).into_iter().collect::<Vec<_>>(), [(GIVEN.into(), Need::File), (OWN.into(), own)]);
    assert_eq!(story.due(), [OWN.into()], "who has a file is read, not made");
    story.decide(1_000, &[]);
    let waiting = |story: &Story| {
        let waiting = story.core.report().waiting.iter().map(|it| it.reason.clone());
        waiting.filter(|reason| reason.contains("listener https has no certificate yet")).count()
    };
    assert_eq!(waiting(&story), 1);
    assert_eq!(story.comes(OWN, "one", 90), ["CertificateReady"]);
    story.decide(1_000, &[]);
    assert_eq!(waiting(&story), 0);
    assert_eq!(story.digests(), [pair(OWN, "one")]);
    assert_eq!(story.comes(GIVEN, "two", 30), ["CertificateReady"]);
    assert_eq!(story.comes(GIVEN, "two", 30), Vec::<String>::new(), "no news");
    assert_eq!(story.digests(), [pair(GIVEN, "two"), pair(OWN, "one")]);
    let begun = story.state().certificates[OWN].facts.not_before;
    story.now = begun.plus_ms(60 * DAY_MS - 1);
    assert_eq!(story.due(), []);
    story.now = begun.plus_ms(60 * DAY_MS);
    assert_eq!(story.due(), [OWN.into()]);
    assert_eq!(story.comes(OWN, "three", 90), ["CertificateRenewed"]);
    assert_eq!((story.due(), &story.digests()[1]), (vec![], &pair(OWN, "three")));
}

#[test]
fn one_that_ends_is_told_of_once() {
    // By its life in days: how long before its end.
    for (life, before_ms) in [(90, 14 * DAY_MS), (42, 14 * DAY_MS), (6, 2 * DAY_MS)] {
        let mut story = Story::with_tls();
        story.comes(GIVEN, "one", life);
        let at = Timestamp(story.now.0 + life * DAY_MS - before_ms);
        let warnings = |story: &mut Story, at: Timestamp| {
            let plan = story.decide(at.since_ms(story.now), &[]);
            let told = events(&plan.changes).into_iter().filter(|it| it.level == EventLevel::Warning);
            told.filter(|it| it.reason == "CertificateEnding").map(|it| it.message).collect::<Vec<_>>()
        };
        let early = Timestamp(at.0 - 1_000);
        assert_eq!(warnings(&mut story, early), Vec::<String>::new(), "{life}");
        let told = warnings(&mut story, at);
        assert!(
            matches!(told.as_slice(), [words] if words.contains("put a new one into its file")),
            "{life}: {told:?}"
        );
        assert_eq!(warnings(&mut story, at.plus_ms(DAY_MS)), Vec::<String>::new(), "once");
        assert_eq!(story.comes(GIVEN, "two", life), ["CertificateRenewed"]);
        assert!(!story.state().certificates[GIVEN].told);
    }
}

#[test]
fn what_nobody_needs_is_forgotten_but_for_the_authority() {
    let mut story = Story::with_tls();
    let authority = CertificateId::authority();
    story.comes(authority.as_str(), "ca", 7_000);
    story.comes(OWN, "one", 90);
    story.decide(1_000, &[]);
    assert_eq!(story.state().certificates.len(), 2);
    story.desired.load_balancers.clear();
    story.tell();
    story.decide(1_000, &[]);
    assert_eq!(story.state().certificates.keys().collect::<Vec<_>>(), [&authority]);
}
