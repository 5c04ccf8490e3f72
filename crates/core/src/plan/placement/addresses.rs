//! The addresses that a host has for tasks: each held by one at most (S4).

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;

use super::rank::Hash;
use crate::model::{name::SubnetName, network::task_addresses};

/// A host's slice of a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The subnet.
    pub subnet: SubnetName,
    /// Its addresses.
    pub cidr: Ipv4Net,
}

/// Why a host has no address for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressLack {
    /// All are held.
    Exhausted,
    /// Its part of the task network is not ready.
    NotReady,
    /// It has no part of these subnets.
    NoSlice,
}

#[derive(Clone, Debug, Default)]
pub(super) struct AddressTable {
    slices: Vec<Slice>,
    is_ready: bool,
    /// By how many: with an old database two tasks may claim one.
    held: BTreeMap<u32, u32>,
}

impl AddressTable {
    pub(super) fn new(slices: Vec<Slice>, is_ready: bool) -> Self {
        Self { slices, is_ready, held: BTreeMap::new() }
    }

    /// Whether an address is in one of its slices.
    pub(super) fn has(&self, address: Ipv4Addr) -> bool {
        self.slices.iter().any(|slice| slice.cidr.contains(&address))
    }

    pub(super) fn hold(&mut self, address: Ipv4Addr) {
        *self.held.entry(address.into()).or_default() += 1;
    }

    pub(super) fn release(&mut self, address: Ipv4Addr) {
        if let Some(holders) = self.held.get_mut(&address.into()) {
            *holders -= 1;
            if *holders == 0 {
                self.held.remove(&address.into());
            }
        }
    }

    fn slices_of<'t>(&'t self, subnets: &'t [SubnetName]) -> impl DoubleEndedIterator<Item = &'t Slice> {
        self.slices.iter().filter(|slice| subnets.contains(&slice.subnet))
    }

    pub(super) fn lacks(&self, subnets: &[SubnetName]) -> Option<AddressLack> {
        let mut slices = self.slices_of(subnets).peekable();
        if slices.peek().is_none() {
            return Some(AddressLack::NoSlice);
        }
        if !self.is_ready {
            return Some(AddressLack::NotReady);
        }
        slices.all(|slice| self.free(slice) == 0).then_some(AddressLack::Exhausted)
    }

    /// How many addresses of a slice nobody holds.
    fn free(&self, slice: &Slice) -> usize {
        let (first, last) = task_addresses(slice.cidr);
        (first..=last).count().saturating_sub(self.held.range(first..=last).count())
    }

    /// Holds a free one: of the slice that has most of them, and not the one that was just given back, since others may
    /// still take it for its last holder.
    pub(super) fn take(&mut self, subnets: &[SubnetName], hash: Hash) -> Option<(SubnetName, Ipv4Addr)> {
        // Of equals the first.
        let slice = self.slices_of(subnets).rev().max_by_key(|slice| self.free(slice))?.clone();
        let (first, last) = task_addresses(slice.cidr);
        let start = first + u32::try_from(hash.value() % (first..=last).count() as u64).unwrap_or(0);
        let address = (start..=last).chain(first..start).find(|address| !self.held.contains_key(address))?;
        self.hold(address.into());
        Some((slice.subnet, address.into()))
    }
}
