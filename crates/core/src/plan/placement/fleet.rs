//! The hosts by number, and what is counted on them.

use std::{borrow::Cow, collections::BTreeMap, net::Ipv4Addr};

use super::{HostInput, Placed, addresses::AddressTable, ports::PortTable, query};
use crate::model::name::HostName;

/// A host's place in the order of names.
pub(super) type HostId = usize;
/// A service's number.
pub(super) type ServiceId = usize;
/// The number of a spread field's grouping.
pub(super) type FieldId = usize;

/// One host.
pub(super) struct Host<'a> {
    pub(super) input: HostInput<'a>,
    pub(super) ports: PortTable,
    pub(super) addresses: AddressTable,
    /// Counted tasks by service; no zeroes.
    pub(super) services: BTreeMap<ServiceId, u32>,
    /// Grows when a service's first task comes or its last one goes.
    pub(super) groups_version: u32,
}

/// What is left on a host; negative where more is reserved than there is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    pub(super) cpu: i64,
    pub(super) memory: i64,
    pub(super) gpus: i64,
    /// All that hold room.
    pub(super) tasks: u32,
}

/// Hosts grouped by an attribute.
pub(super) struct Grouping {
    field: String,
    pub(super) group_of: Vec<usize>,
    pub(super) groups: usize,
    /// The group of hosts that do not have the attribute.
    pub(super) without: Option<usize>,
}

/// All hosts.
pub(super) struct Fleet<'a> {
    pub(super) hosts: Vec<Host<'a>>,
    pub(super) room: Vec<Room>,
    ids: BTreeMap<&'a str, HostId>,
    groupings: Vec<Grouping>,
}

impl<'a> Fleet<'a> {
    pub(super) fn new(hosts: impl IntoIterator<Item = HostInput<'a>>) -> Self {
        let mut inputs: Vec<HostInput<'a>> = hosts.into_iter().collect();
        inputs.sort_by_key(|input| input.name);
        inputs.dedup_by_key(|input| input.name);
        let ids = inputs.iter().enumerate().map(|(id, input)| (input.name.as_str(), id)).collect();
        let room = |input: &HostInput<'_>| Room {
            cpu: input.cpu.into(),
            memory: input.memory.into(),
            gpus: input.gpus.into(),
            tasks: 0,
        };
        let room = inputs.iter().map(room).collect();
        let host = |mut input: HostInput<'a>| {
            let ports = PortTable::new(std::mem::take(&mut input.ports_in_use));
            let addresses = AddressTable::new(std::mem::take(&mut input.slices), input.has_network);
            Host { input, ports, addresses, services: BTreeMap::new(), groups_version: 1 }
        };
        Self { hosts: inputs.into_iter().map(host).collect(), room, ids, groupings: Vec::new() }
    }

    pub(super) fn id(&self, name: &HostName) -> Option<HostId> {
        self.ids.get(name.as_str()).copied()
    }

    /// Takes room; ports are taken by who knows them.
    pub(super) fn take(&mut self, host: HostId, cpu: u32, memory: u32, gpus: u32) {
        let room = &mut self.room[host];
        room.cpu -= i64::from(cpu);
        room.memory -= i64::from(memory);
        room.gpus -= i64::from(gpus);
        room.tasks = room.tasks.saturating_add(1);
    }

    /// Gives room and ports back.
    pub(super) fn give_back(&mut self, host: HostId, placed: &Placed<'_>) {
        let room = &mut self.room[host];
        room.cpu += i64::from(placed.cpu);
        room.memory += i64::from(placed.memory);
        room.gpus += i64::from(placed.gpus);
        room.tasks = room.tasks.saturating_sub(1);
        placed.ports.iter().for_each(|port| self.hosts[host].ports.release(*port));
        if let Some(address) = placed.address {
            self.holders(Some(host), address).for_each(|table| table.release(address));
        }
    }

    /// Where an address that is taken on a host is held: there; or, when the slices were cut anew since, wherever it would be
    /// given out (S4).
    pub(super) fn holders(
        &mut self,
        host: Option<HostId>,
        address: Ipv4Addr,
    ) -> impl Iterator<Item = &mut AddressTable> {
        let own = host.filter(|host| self.hosts[*host].addresses.has(address));
        let hosts = own.map_or(0..self.hosts.len(), |own| own..own + 1);
        let tables = self.hosts[hosts].iter_mut().map(|host| &mut host.addresses);
        tables.filter(move |table| table.has(address))
    }

    /// One task more of a service.
    pub(super) fn count(&mut self, host: HostId, service: ServiceId) {
        let host = &mut self.hosts[host];
        let tasks = host.services.entry(service).or_default();
        *tasks += 1;
        if *tasks == 1 {
            host.groups_version += 1;
        }
    }

    /// One task less of a service. False when it has none there.
    pub(super) fn uncount(&mut self, host: HostId, service: ServiceId) -> bool {
        let host = &mut self.hosts[host];
        let Some(tasks) = host.services.get_mut(&service) else {
            return false;
        };
        *tasks -= 1;
        if *tasks == 0 {
            host.services.remove(&service);
            host.groups_version += 1;
        }
        true
    }

    pub(super) fn grouping(&self, field: FieldId) -> &Grouping {
        &self.groupings[field]
    }

    /// The hosts grouped by an attribute; made when first asked for.
    pub(super) fn group_by(&mut self, field: &str) -> FieldId {
        if let Some(known) = self.groupings.iter().position(|grouping| grouping.field == field) {
            return known;
        }
        let mut numbers: BTreeMap<Option<Cow<'a, str>>, usize> = BTreeMap::new();
        let number = |host: &Host<'a>| {
            let value = query::attribute(host.input.labels, host.input.architecture, field);
            let next = numbers.len();
            *numbers.entry(value).or_insert(next)
        };
        let group_of = self.hosts.iter().map(number).collect();
        self.groupings.push(Grouping {
            field: field.to_owned(),
            group_of,
            groups: numbers.len(),
            without: numbers.get(&None).copied(),
        });
        self.groupings.len() - 1
    }
}

/// How the tasks of one service lie on the hosts.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) on_host: Vec<u32>,
    /// By field, then by group; only of fields that were asked for.
    in_group: BTreeMap<FieldId, Vec<u32>>,
}

impl Tally {
    pub(super) fn new(on_host: Vec<u32>) -> Self {
        Self { on_host, in_group: BTreeMap::new() }
    }

    pub(super) fn of_service(fleet: &Fleet<'_>, service: ServiceId) -> Self {
        Self::new(fleet.hosts.iter().map(|host| host.services.get(&service).copied().unwrap_or(0)).collect())
    }

    /// Counts by this field from now on.
    pub(super) fn count_by(&mut self, fleet: &Fleet<'_>, field: FieldId) {
        let on_host = &self.on_host;
        self.in_group.entry(field).or_insert_with(|| {
            let grouping = fleet.grouping(field);
            let mut counts = vec![0; grouping.groups];
            for (group, tasks) in grouping.group_of.iter().zip(on_host) {
                counts[*group] += tasks;
            }
            counts
        });
    }

    pub(super) fn groups(&self, field: FieldId) -> &[u32] {
        self.in_group.get(&field).map_or(&[], Vec::as_slice)
    }

    pub(super) fn add(&mut self, fleet: &Fleet<'_>, host: HostId) {
        self.change(fleet, host, |count| count.saturating_add(1));
    }

    pub(super) fn remove(&mut self, fleet: &Fleet<'_>, host: HostId) {
        self.change(fleet, host, |count| count.saturating_sub(1));
    }

    fn change(&mut self, fleet: &Fleet<'_>, host: HostId, to: fn(u32) -> u32) {
        self.on_host[host] = to(self.on_host[host]);
        for (field, counts) in &mut self.in_group {
            let group = fleet.grouping(*field).group_of[host];
            counts[group] = to(counts[group]);
        }
    }
}
