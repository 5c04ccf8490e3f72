//! Certificates of load balancers: what they say, and where they are shown. Keys are in no view.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use roadstead_control::control::handle::Snapshot;
use roadstead_core::{
    model::{
        certificate::{CertificateRecord, DAY_MS},
        name::CertificateId,
        time::Timestamp,
    },
    plan::{
        acme::tale,
        certificates::{Need, is_on, needs},
    },
};

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateView {
    /// `file:PATH`, or who makes it for which names.
    pub name: String,
    /// FILE, SELF_SIGNED, ACME.
    pub source: String,
    /// ISSUED; PENDING while there is none; FAILED, RENEWAL_FAILED while it was refused last.
    pub status: String,
    /// What an authority is asked just now, or why it refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it is asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_try_at: Option<Timestamp>,
    /// The names and addresses that it is for.
    pub domains: Vec<String>,
    /// Who vouches for it.
    pub issuer: Option<String>,
    /// Its number, hex.
    pub serial: Option<String>,
    /// SHA-1 of it, hex.
    pub fingerprint: Option<String>,
    /// Since when it counts.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub not_before: Option<Timestamp>,
    /// Until when.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub not_after: Option<Timestamp>,
    /// Whole days until then; 0 when it is over.
    pub days_left: Option<u64>,
    /// It ends soon: within 14 days, or the last third of its life if that is shorter.
    pub ending: bool,
    /// The load balancers whose listeners ask for it.
    pub load_balancers: Vec<String>,
    /// The hosts where it was found to be shown.
    pub hosts: Vec<String>,
}

/// The authority that vouches for certificates of the fleet's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityView {
    /// What clients are to trust, PEM.
    pub certificate: String,
    /// Its name.
    pub issuer: String,
    /// Until when it counts.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Timestamp,
}

/// All that load balancers ask for, by name.
pub fn list(snapshot: &Snapshot) -> Vec<CertificateView> {
    let state = &snapshot.world.state;
    needs(state).into_iter().map(|(id, need)| view(snapshot, &id, &need, state.certificates.get(&id))).collect()
}

fn view(snapshot: &Snapshot, id: &CertificateId, need: &Need, record: Option<&CertificateRecord>) -> CertificateView {
    let world = &snapshot.world;
    let wall = world.now.moved_ms(world.wall_ahead_ms);
    let facts = record.map(|record| &record.facts);
    let shows = |record: &CertificateRecord| {
        let edges = world.edges.iter().filter(|(_, seen)| seen.confirmed.as_ref().is_some_and(|it| is_on(it, record)));
        edges.map(|(host, _)| host.to_string()).collect()
    };
    let asks = world.state.desired.load_balancers.iter();
    let asks = asks.filter(|(_, manifest)| manifest.spec.certificates().any(|spec| spec.id() == *id));
    let source = match need {
        Need::File => "FILE",
        Need::SelfSigned(_) => "SELF_SIGNED",
        Need::Ordered(_) => "ACME",
    };
    let order = world.state.acme_orders.get(id);
    let status = match (record.is_some(), order.is_some_and(|order| order.problem.is_some())) {
        (true, true) => "RENEWAL_FAILED",
        (true, false) => "ISSUED",
        (false, true) => "FAILED",
        (false, false) => "PENDING",
    };
    let (reason, next_try_at) = order.map(tale).unzip();
    CertificateView {
        name: id.to_string(),
        source: source.to_owned(),
        status: status.to_owned(),
        reason,
        next_try_at: next_try_at.flatten(),
        domains: facts.map_or_else(|| need.names(), |facts| facts.names.clone()),
        issuer: facts.map(|facts| facts.issuer.clone()),
        serial: facts.map(|facts| facts.serial.clone()),
        fingerprint: facts.map(|facts| facts.sha1.clone()),
        not_before: facts.map(|facts| facts.not_before),
        not_after: facts.map(|facts| facts.not_after),
        days_left: facts.map(|facts| facts.not_after.since_ms(wall) / DAY_MS),
        ending: record.is_some_and(|record| wall >= record.ending_at()),
        load_balancers: asks.map(|(name, _)| name.to_string()).collect(),
        hosts: record.map(shows).unwrap_or_default(),
    }
}

/// The authority, once it was needed.
pub fn authority(snapshot: &Snapshot) -> Option<AuthorityView> {
    let facts = &snapshot.world.state.certificates.get(&CertificateId::authority())?.facts;
    Some(AuthorityView { certificate: facts.chain.clone(), issuer: facts.issuer.clone(), not_after: facts.not_after })
}
