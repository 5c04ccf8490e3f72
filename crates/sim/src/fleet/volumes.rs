//! What is in volumes: tasks write, and people keep archives.

use std::collections::BTreeMap;

use super::{Due, Ground};
use crate::{
    check::data,
    engine::machine::{Pieces, writable, written},
    rng::Rng,
};
use roadstead_core::{
    model::{
        container::ContainerState,
        name::{HostName, RuntimeId},
        spec::cluster::DEFAULT_CLUSTER,
        time::Timestamp,
        volume::{VolumeId, stays_on_host, works_alone},
    },
    plan::absorb::VolumeVerb,
    turn::Command,
};

/// Sets when tasks write apart from all else.
const APART: u64 = 0x7772_6974_6573;

impl Ground {
    /// A task that mounts volumes writes when it starts, and now and then while it runs.
    pub(super) fn writes(&mut self, name: &HostName, id: &RuntimeId, began: Timestamp) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        let Some(claim) = host.ours.get(id).cloned() else { return };
        if host.machine.times(id).0 != Some(began) || host.machine.state(id) != Some(ContainerState::Running) {
            return;
        }
        let names: Vec<String> =
            host.machine.config(id).into_iter().flat_map(writable).map(ToOwned::to_owned).collect();
        let mut writes_on = false;
        for volume in names {
            self.counters.writes += 1;
            let content = written(self.counters.writes);
            let checked = self.checks.data.wrote(&self.durable, &self.hosts, (name, &claim), &volume, &content);
            writes_on |= *checked.as_ref().unwrap_or(&false);
            let line = volume.clone();
            self.trace.line(self.now, &["writes", name.as_str(), &volume], || {
                format!("    {name}: {} writes to {line}: {content:?}", claim.created_name)
            });
            self.breaks(checked.map(drop));
            if let Some(host) = self.hosts.get_mut(name) {
                host.machine.write(&volume, self.counters.writes);
            }
        }
        if writes_on {
            let after_ms = Rng::keyed(self.scenario.seed, &[APART, self.counters.writes]).within(300, 9_000);
            self.push(self.now.plus_ms(after_ms), Due::Writes(name.clone(), id.clone(), began));
        }
    }

    /// What is in a volume.
    pub(crate) fn content(&self, host: &HostName, volume: &str) -> Option<Pieces> {
        Some(self.hosts.get(host)?.machine.volumes.get(volume)?.content.clone())
    }

    /// A person has read a volume whole.
    pub(crate) fn keep_backup(&mut self, host: &HostName, volume: &str, before: Option<Pieces>, content: Pieces) {
        self.count("backup");
        let after = self.content(host, volume);
        let checked = data::s4_read_as_it_was(volume, before, after, &content);
        self.breaks(checked);
        self.archives.insert(volume.to_owned(), content);
    }

    /// What a person puts back: the last backup, or else something older than everything.
    pub(crate) fn archive_of(&mut self, volume: &str) -> Pieces {
        if let Some(archive) = self.archives.get(volume) {
            return archive.clone();
        }
        self.counters.writes += 1;
        written(self.counters.writes)
    }

    /// Where nobody but a person can know which of several copies is the right one, a person says so.
    pub(crate) fn pin_volumes(&mut self) {
        let mut copies: BTreeMap<&str, Vec<(&Pieces, &HostName)>> = BTreeMap::new();
        for (host, found) in &self.hosts {
            for (name, volume) in &found.machine.volumes {
                copies.entry(name).or_default().push((&volume.content, host));
            }
        }
        for (service, manifest) in &self.durable.desired.services {
            let definition = self.durable.desired.task_definitions.get(service.as_str());
            let names = definition.into_iter().flat_map(|definition| stays_on_host(&definition.spec));
            for name in names.filter(|_| works_alone(&manifest.spec)) {
                let id = VolumeId { cluster: DEFAULT_CLUSTER.into(), name: name.to_owned() };
                let several = copies.get(name).filter(|several| several.len() > 1);
                // The numbers of writes only grow; what is torn has an older one, too.
                let newest = several.into_iter().flatten().max_by_key(|(content, _)| content.iter().min());
                if let Some((_, host)) = newest
                    && !self.durable.volumes.contains_key(&id)
                {
                    let verb = VolumeVerb::Pin { host: (*host).clone() };
                    self.orders.push(Command::Volume { volume: id, verb });
                }
            }
        }
    }
}
