//! Certificates with their keys: read from files, made, sealed, and opened for the edges that show them.
//!
//! Which ones are needed is decided by the planner; only here are keys more than sealed text.

pub(super) mod acme;
mod issue;
mod seal;

use std::{collections::BTreeMap, sync::Mutex};

use roadstead_core::{
    manifest::{Admission, certificate::Given},
    model::{
        certificate::{CertificateRecord, Hidden},
        name::CertificateId,
        shared::Shared,
        time::Timestamp,
        world::World,
    },
    plan::certificates::{Need, due, needs},
    turn::Input,
};

pub use seal::Seal;

use crate::lb::Bundles;

/// Pause after one that could not be made.
const PAUSE_MS: u64 = 60_000;

/// The certificates and what opens them.
pub struct Vault {
    seal: Seal,
    /// The fleet's name, for the authority's.
    fleet: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the files said when they were last read and good.
    given: BTreeMap<CertificateId, Given>,
    /// What vouches for the directories of authorities, by file.
    authorities: BTreeMap<String, String>,
    records: Shared<BTreeMap<CertificateId, CertificateRecord>>,
    /// Digests of those in `records` whose keys were opened once: that is not tried anew in every turn.
    opened: BTreeMap<CertificateId, String>,
    /// Digests of what was told to the planner, until it is durable.
    told: BTreeMap<CertificateId, String>,
    /// Nothing is made before.
    not_before: Timestamp,
    problem: Option<String>,
}

impl Vault {
    /// Nothing is known yet.
    pub fn new(seal: Seal, fleet: String) -> Self {
        Self { seal, fleet, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What the manifests' folder holds by now.
    pub fn offer(&self, admission: &Admission) {
        let mut state = self.state();
        state.given = admission.certificates.clone();
        state.authorities = admission.authorities.clone();
    }

    /// What vouches for a directory.
    fn authority(&self, file: &str) -> Option<String> {
        self.state().authorities.get(file).cloned()
    }

    /// A certificate as it is kept.
    fn record(&self, id: &CertificateId, given: Given) -> Result<CertificateRecord, String> {
        let sealed_key = self.seal.seal(id, &given.key).map_err(|error| error.to_string())?;
        Ok(CertificateRecord { id: id.clone(), facts: given.facts, sealed_key, told: false })
    }

    /// Certificates that are needed and were read or made: to be told to the planner, which keeps them.
    pub(super) fn follow(&self, world: &World) -> Vec<Input> {
        let mut state = self.state();
        state.records = world.state.certificates.clone();
        let State { given, records, opened, told, not_before, problem, authorities: _ } = &mut *state;
        told.retain(|id, digest| records.get(id).is_none_or(|record| record.facts.digest != *digest));
        let wall = world.now.moved_ms(world.wall_ahead_ms);
        if world.state.desired.load_balancers.is_empty() || world.now < *not_before {
            return Vec::new();
        }
        let mut came = Vec::new();
        for (id, need) in needs(&world.state) {
            let Some(given) = given.get(&id).filter(|_| need == Need::File) else { continue };
            let digest = &given.facts.digest;
            let kept = records.get(&id).filter(|record| record.facts.digest == *digest);
            let is_open = opened.get(&id) == Some(digest);
            let is_kept = kept.is_some_and(|record| is_open || self.seal.open(&id, &record.sealed_key).is_ok());
            if is_kept {
                if !is_open {
                    opened.insert(id, digest.clone());
                }
            } else if told.get(&id) != Some(digest) {
                came.push((id, Ok(given.clone())));
            }
        }
        let due: Vec<_> = due(&world.state, wall).into_iter().filter(|(id, _)| !told.contains_key(id)).collect();
        if !due.is_empty() {
            let authority = CertificateId::authority();
            match records.get(&authority) {
                Some(kept) => {
                    for (id, names) in due {
                        let key = self.seal.open(&authority, &kept.sealed_key);
                        let made = key.and_then(|key| issue::certificate(&kept.facts.chain, &key, &names, wall));
                        came.push((id, made));
                    }
                }
                None if !told.contains_key(&authority) => {
                    came.push((authority, issue::authority(&self.fleet, wall)));
                }
                None => {}
            }
        }
        let mut inputs = Vec::new();
        for (id, made) in came {
            match made.and_then(|given| self.record(&id, given)) {
                Ok(record) => {
                    told.insert(id, record.facts.digest.clone());
                    *problem = None;
                    inputs.push(Input::Certificate(record));
                }
                Err(why) => {
                    *not_before = world.now.plus_ms(PAUSE_MS);
                    let why = format!("certificate {id}: {why}");
                    if problem.as_ref() != Some(&why) {
                        tracing::error!("{why}");
                    }
                    *problem = Some(why);
                }
            }
        }
        inputs
    }
}

impl Bundles for Vault {
    fn bundle(&self, _: &CertificateId, digest: &str) -> Result<Hidden, String> {
        // One may be shown in the place of another that is not there yet.
        let record = self.state().records.values().find(|record| record.facts.digest == digest).cloned();
        let record = record.ok_or("it was replaced a moment ago")?;
        let key = self.seal.open(&record.id, &record.sealed_key)?;
        Ok(Hidden::new(record.facts.chain + key.reveal()))
    }
}
