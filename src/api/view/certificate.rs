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
    plan::certificates::{Need, is_on, needs},
};

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateView {
    /// `file:PATH`, or who makes it for which names.
    pub name: String,
    /// FILE, SELF_SIGNED.
    pub source: String,
    /// ISSUED; PENDING while there is none.
    pub status: String,
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
    let (source, domains) = match need {
        Need::File => ("FILE", Vec::new()),
        Need::SelfSigned(names) => ("SELF_SIGNED", names.clone()),
    };
    CertificateView {
        name: id.to_string(),
        source: source.to_owned(),
        status: if record.is_some() { "ISSUED" } else { "PENDING" }.to_owned(),
        domains: facts.map_or(domains, |facts| facts.names.clone()),
        issuer: facts.map(|facts| facts.issuer.clone()),
        serial: facts.map(|facts| facts.serial.clone()),
        fingerprint: facts.map(|facts| facts.sha1.clone()),
        not_before: facts.map(|facts| facts.not_before),
        not_after: facts.map(|facts| facts.not_after),
        days_left: facts.map(|facts| facts.not_after.since_ms(wall) / DAY_MS),
        ending: facts.is_some_and(|facts| wall >= facts.ending_at()),
        load_balancers: asks.map(|(name, _)| name.to_string()).collect(),
        hosts: record.map(shows).unwrap_or_default(),
    }
}

/// The authority, once it was needed.
pub fn authority(snapshot: &Snapshot) -> Option<AuthorityView> {
    let facts = &snapshot.world.state.certificates.get(&CertificateId::authority())?.facts;
    Some(AuthorityView { certificate: facts.chain.clone(), issuer: facts.issuer.clone(), not_after: facts.not_after })
}
