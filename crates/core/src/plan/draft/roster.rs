//! The declared hosts and services of a draft, by number, each with its record.

use crate::model::{
    desired::Manifest,
    name::{HostName, RevisionId, ServiceName},
    spec::{HostSpec, ServiceSpec},
    state::{HostRecord, ServiceRecord},
    world::{HostStatus, World},
};
use crate::plan::hosts::{self, Silence};

/// A host's place in the order of names.
pub(in crate::plan) type HostNo = usize;
/// A service's place in the order of names.
pub(in crate::plan) type ServiceNo = usize;

/// A declared host.
pub(in crate::plan) struct Host<'w> {
    pub(in crate::plan) name: &'w HostName,
    pub(in crate::plan) manifest: &'w Manifest<HostSpec>,
    pub(in crate::plan) silence: Silence,
    pub(in crate::plan) status: HostStatus,
    /// It answers and was looked at not long ago: orders can be sent.
    pub(in crate::plan) heard: bool,
    known: Option<&'w HostRecord>,
    changed: Option<HostRecord>,
}

/// A declared service.
pub(in crate::plan) struct Service<'w> {
    pub(in crate::plan) name: &'w ServiceName,
    pub(in crate::plan) manifest: &'w Manifest<ServiceSpec>,
    /// What the manifests ask for, or why that is not known; set once revisions are numbered.
    pub(in crate::plan) wanted: Option<Result<RevisionId, String>>,
    /// What its tasks shall run: as wanted, unless it was taken back.
    pub(in crate::plan) target: Option<Result<RevisionId, String>>,
    /// Nothing is to be done for it, whatever else this draft does.
    pub(in crate::plan) steady: bool,
    /// How many tasks of it this draft placed.
    pub(in crate::plan) placed: u64,
    known: Option<&'w ServiceRecord>,
    changed: Option<ServiceRecord>,
}

impl<'w> Host<'w> {
    pub(super) fn new(world: &'w World, name: &'w HostName, manifest: &'w Manifest<HostSpec>) -> Self {
        let known = world.state.hosts.get(name);
        let silence = hosts::silence(world, name);
        let status = hosts::status(silence, known);
        let heard = hosts::takes_orders(world, name, status);
        Self { name, manifest, silence, status, heard, known, changed: None }
    }

    /// Its availability zone.
    pub(in crate::plan) fn zone(&self) -> Option<&'w str> {
        self.manifest.labels.get(hosts::ZONE_LABEL).map(String::as_str)
    }

    /// Its record in the world, if there is one.
    pub(in crate::plan) fn known(&self) -> Option<&'w HostRecord> {
        self.known
    }

    /// Its record as it stands, if there is one.
    pub(in crate::plan) fn record(&self) -> Option<&HostRecord> {
        self.changed.as_ref().or(self.known)
    }

    /// Changes its record.
    pub(in crate::plan) fn change(&mut self, change: impl FnOnce(&mut HostRecord)) {
        let (name, known) = (self.name, self.known);
        let new = || known.cloned().unwrap_or_else(|| HostRecord { name: name.clone(), ..HostRecord::default() });
        change(self.changed.get_or_insert_with(new));
    }

    pub(super) fn into_changed(self) -> Option<HostRecord> {
        self.changed.filter(|record| self.known != Some(record))
    }
}

impl<'w> Service<'w> {
    pub(super) fn new(world: &'w World, name: &'w ServiceName, manifest: &'w Manifest<ServiceSpec>) -> Self {
        let known = world.state.services.get(name);
        Self { name, manifest, wanted: None, target: None, steady: false, placed: 0, known, changed: None }
    }

    /// Its record as it stands, if there is one.
    pub(in crate::plan) fn record(&self) -> Option<&ServiceRecord> {
        self.changed.as_ref().or(self.known)
    }

    /// Whether this draft left its record as it was.
    pub(in crate::plan) fn is_untouched(&self) -> bool {
        self.changed.is_none()
    }

    /// Changes its record.
    pub(in crate::plan) fn change(&mut self, change: impl FnOnce(&mut ServiceRecord)) {
        let (name, known) = (self.name, self.known);
        let new = || known.cloned().unwrap_or_else(|| ServiceRecord { name: name.clone(), ..ServiceRecord::default() });
        change(self.changed.get_or_insert_with(new));
    }

    /// Its record in the world, if there is one.
    pub(in crate::plan) fn known(&self) -> Option<&'w ServiceRecord> {
        self.known
    }

    pub(super) fn into_changed(self) -> Option<ServiceRecord> {
        self.changed.filter(|record| self.known != Some(record))
    }
}
