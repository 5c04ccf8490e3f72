//! What happens to the fleet, by the script; and how all of it ends.

use std::sync::Arc;

use super::{Due, Durable, Ending, Folder, Ground, host::CONNECTION_LASTS_MS};
use crate::{
    engine::machine::Request,
    run::Errand,
    scenario::{Change, Database, FIXED_PORT, Happening, JOB, short},
};
use roadstead_core::model::{
    name::{HostName, TaskId},
    network::NODE_IMAGE,
    spec::{cluster::DEFAULT_CLUSTER, task_definition::Protocol},
    standalone::RunTask,
    state::{Schedulability, State},
    time::Timestamp,
    volume::VolumeId,
};
use roadstead_core::{plan::absorb::VolumeVerb, turn::Command};

impl Ground {
    /// Makes it happen.
    pub(super) fn happen(&mut self, what: &Happening) {
        self.trace.line(self.now, &["happens"], || format!("{what:?}"));
        match what {
            Happening::Cut { host, there, back } => {
                self.count("link cut");
                let now = self.now;
                if let Some(host) = self.hosts.get_mut(host) {
                    host.there &= !there;
                    host.back &= !back;
                    host.cut_at = Some(now);
                }
                self.push(now.plus_ms(CONNECTION_LASTS_MS), Due::ConnectionLost(host.clone(), now));
            }
            Happening::Heal { host } => self.heal_link(host),
            Happening::Hang { host } => {
                self.count("engine hangs");
                if let Some(host) = self.hosts.get_mut(host) {
                    host.hung = true;
                }
            }
            Happening::Resume { host, shuffled } => {
                if let Some(host) = self.hosts.get_mut(host) {
                    host.hung = false;
                }
                self.run_waiting(host, *shuffled);
            }
            Happening::KillEngine { host } => {
                self.count("engine killed");
                self.on(host, |host, clock| {
                    host.forget_requests();
                    host.machine.restart(clock);
                });
            }
            Happening::Reboot { host } => {
                self.count("reboot");
                self.on(host, |host, clock| {
                    host.forget_requests();
                    host.machine.reboot(clock);
                });
                // Those with a policy came up again without an event.
                self.revive(host);
            }
            Happening::Crash { host, nth } => self.strike("crash", host, *nth, |machine, id, clock| {
                machine.end(id, 1, false, clock);
            }),
            Happening::OutOfMemory { host, nth } => self.strike("out of memory", host, *nth, |machine, id, clock| {
                machine.end(id, 137, true, clock);
            }),
            Happening::Kill { host, nth } => self.strike("docker kill", host, *nth, |machine, id, clock| {
                machine.kill(id, clock);
            }),
            Happening::Stop { host, nth } => self.strike("docker stop", host, *nth, |machine, id, clock| {
                let _ = machine.apply(&Request::Stop(id.clone()), clock);
            }),
            Happening::Remove { host, nth } => self.strike("docker rm -f", host, *nth, |machine, id, clock| {
                let _ = machine.apply(&Request::Remove { id: id.clone(), force: true }, clock);
            }),
            Happening::Pause { host, nth } => self.strike("docker pause", host, *nth, |machine, id, clock| {
                machine.set_paused(id, true, clock);
            }),
            Happening::Unpause { host } => {
                self.on(host, |host, clock| {
                    for id in host.ours.keys().cloned().collect::<Vec<_>>() {
                        host.machine.set_paused(&id, false, clock);
                    }
                });
                // Checks that a pause held up go on.
                self.revive(host);
            }
            Happening::Rename { host, nth } => self.strike("docker rename", host, *nth, |machine, id, clock| {
                machine.rename(id, &format!("renamed-{:.8}", id.as_str().get(8..).unwrap_or_default()), clock);
            }),
            Happening::Squat { host } => {
                if let Some(host) = self.hosts.get_mut(host) {
                    host.squat_next = true;
                }
            }
            Happening::Forge { host, nth } => {
                self.count("labels forged");
                self.on(host, |host, clock| {
                    let labels =
                        host.nth(*nth).and_then(|id| host.machine.config(&id)).map(|config| config.labels.clone());
                    if let Some(mut labels) = labels {
                        labels.insert("dev.roadstead.task".into(), "0000000000000000".into());
                        let name = format!("forged-{}", host.strangers);
                        host.add_other(&name, labels, clock);
                    }
                });
            }
            Happening::DiskFull { host } => {
                self.count("disk full");
                self.on(host, |host, _| host.machine.disk_full = true);
            }
            Happening::DiskFree { host } => self.on(host, |host, _| host.machine.disk_full = false),
            Happening::TakePorts { host } => {
                self.count("host port taken by a process");
                self.on(host, |host, _| {
                    host.machine.foreign_ports.insert((FIXED_PORT, Protocol::Tcp));
                    // The first of those that are chosen by us.
                    host.machine.foreign_ports.extend((32_768..32_772).map(|port| (port, Protocol::Tcp)));
                });
            }
            Happening::FreePorts { host } => self.on(host, |host, _| host.machine.foreign_ports.clear()),
            Happening::Reinstall { host } => {
                self.count("machine reinstalled");
                let number = 500 + self.counts.get("machine reinstalled").copied().unwrap_or(0);
                self.struck_all(host);
                self.on(host, |host, clock| host.reinstall(number, clock));
            }
            Happening::Clone { host, of } => {
                self.count("machine cloned");
                let identity = self.hosts.get(of).map(|host| host.machine.identity.clone());
                if let Some(identity) = identity {
                    self.on(host, |host, _| host.machine.identity = identity);
                }
            }
            Happening::KillController { back_after_ms, database, clock_back_ms } => {
                self.count("controller killed");
                self.lose(*database);
                self.ending = Some(Ending::Killed { back_after_ms: *back_after_ms, clock_back_ms: *clock_back_ms });
            }
            Happening::StopController { back_after_ms } => {
                self.count("controller stopped");
                self.ending = Some(Ending::Stopped { back_after_ms: *back_after_ms });
            }
            Happening::Stall { for_ms } => {
                self.count("controller stalled");
                self.ending = Some(Ending::Stalled { for_ms: *for_ms });
            }
            Happening::Manifests { change } => self.change(change),
            Happening::Unreadable { for_ms } => self.spoil(Folder::Unreadable, "manifests unreadable", *for_ms),
            Happening::Empty { for_ms } => self.spoil(Folder::Empty, "manifests gone", *for_ms),
            Happening::BrokenFile { nth, for_ms } => self.spoil(Folder::Broken(*nth), "manifest broken", *for_ms),
            Happening::Operator { host, to } => {
                self.count("operator's word");
                self.orders.push(Command::SetSchedulability { host: host.clone(), to: *to, timeout_s: None });
            }
            Happening::StopTask { nth } => {
                let tasks: Vec<&TaskId> = self.durable.tasks.keys().collect();
                if let Some(task) = tasks.get((*nth as usize) % tasks.len().max(1)) {
                    let task = TaskId::clone(task);
                    self.count("task stopped by a person");
                    self.orders.push(Command::StopTask { task, reason: None });
                }
            }
            Happening::Rollout { service, verb } => {
                self.count("word about a rollout");
                self.orders.push(Command::Rollout { service: service.clone(), verb: verb.clone() });
            }
            Happening::Protect { nth } => {
                let tasks: Vec<&TaskId> = self.durable.tasks.keys().collect();
                if let Some(task) = tasks.get((*nth as usize) % tasks.len().max(1)) {
                    let task = TaskId::clone(task);
                    self.count("task protected");
                    self.orders.push(Command::ProtectTask { task, minutes: Some(1) });
                }
            }
            Happening::Run { number, count } => {
                self.count("standalone tasks");
                self.orders.push(Command::RunTask(Box::new(RunTask {
                    task_definition: JOB.to_owned(),
                    count: *count,
                    cluster: "default".into(),
                    launch_type: Default::default(),
                    overrides: short(),
                    placement_constraints: Vec::new(),
                    placement_strategy: Vec::new(),
                    network_configuration: None,
                    started_by: None,
                    client_token: number.to_string(),
                })));
            }
            Happening::Outage { service, for_ms } => {
                self.count("outage of what a service needs");
                self.outages.insert(service.clone(), self.now.plus_ms(*for_ms));
            }
            Happening::FlushRules { host } => {
                self.count("rules flushed");
                self.on(host, |host, _| host.machine.flush_rules());
            }
            Happening::RemoveNode { host } => {
                self.count("node removed");
                self.on(host, |host, _| host.machine.remove_node());
            }
            Happening::RemoveBalancers { host } => {
                self.count("load balancers removed");
                self.on(host, |host, _| host.machine.remove_balancers());
            }
            Happening::PruneNetworks { host } => {
                self.count("networks pruned");
                self.on(host, |host, _| host.machine.prune_networks());
            }
            Happening::NodeImageGone { host } => {
                self.count("node image gone");
                self.on(host, |host, _| host.machine.lose_node_image(NODE_IMAGE));
            }
            Happening::NodeImageBack { host } => self.on(host, |host, _| host.machine.part.lacks_image = false),
            Happening::Volume { volume, verb } => {
                self.count("word about a volume");
                if matches!(verb, VolumeVerb::Forget) {
                    self.checks.data.gives_up(volume);
                }
                let volume = VolumeId { cluster: DEFAULT_CLUSTER.into(), name: volume.clone() };
                self.orders.push(Command::Volume { volume, verb: verb.clone() });
            }
            Happening::Backup { volume, gone_after_ms } => {
                self.errands.push(Errand::Backup { volume: volume.clone(), gone_after_ms: *gone_after_ms });
            }
            Happening::Restore { volume, cut } => {
                self.errands.push(Errand::Restore { volume: volume.clone(), cut: *cut });
            }
            Happening::Confirm => self.confirm(),
            Happening::Repin { host } => {
                self.checks.repinned(host);
                self.orders.push(Command::Repin { host: host.clone() });
            }
        }
    }

    fn strike(
        &mut self,
        word: &'static str,
        host: &HostName,
        nth: u64,
        act: impl FnOnce(&mut crate::engine::machine::Machine, &roadstead_core::model::name::RuntimeId, Timestamp),
    ) {
        if self.hosts.get(host).is_some_and(|host| host.ours.is_empty()) {
            return;
        }
        self.count(word);
        let struck = self.on(host, |host, clock| {
            let id = host.nth(nth)?;
            act(&mut host.machine, &id, clock);
            host.ours.get(&id).map(|claim| (claim.task.clone(), claim.container.clone()))
        });
        self.checks.struck.extend(struck.map(|container| (container, self.now)));
    }

    /// Health checks and crashes begin anew for what runs, whoever started it.
    fn revive(&mut self, name: &HostName) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        let running: Vec<_> = host
            .ours
            .keys()
            .filter_map(|id| {
                Some((id.clone(), host.machine.times(id).0?, super::life::is_checked(host.machine.config(id)?)))
            })
            .filter(|(id, _, checked)| *checked && host.machine.state(id).is_some_and(|state| state.is_live()))
            .collect();
        for (id, began, _) in running {
            let after_ms = self.within(300, 8_000);
            let due = Due::Life(name.clone(), id, began, super::life::Turn::Healthy);
            self.push(self.now.plus_ms(after_ms), due);
        }
    }

    pub(super) fn connection_lost(&mut self, name: &HostName, since: Timestamp) {
        if let Some(host) = self.hosts.get_mut(name)
            && host.cut_at == Some(since)
            && !(host.there && host.back)
        {
            host.give_up_connection();
        }
    }

    pub(super) fn heal_link(&mut self, name: &HostName) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        (host.there, host.back, host.cut_at) = (true, true, None);
        let held: Vec<_> = std::mem::take(&mut host.held_back);
        for in_flight in held {
            let after_ms = self.within(1, 2_000);
            self.push(self.now.plus_ms(after_ms), Due::Arrive(name.clone(), Box::new(in_flight)));
        }
    }

    fn lose(&mut self, database: Database) {
        match database {
            Database::Kept => {}
            Database::Lost => {
                self.count("database lost");
                self.durable = State::default();
                self.record(Durable::Lost);
                self.checks.database_lost(self.now);
            }
            Database::Old => {
                self.count("database of before");
                self.durable = self.backup.clone();
                self.record(Durable::PutBack);
                self.checks.database_lost(self.now);
            }
        }
    }

    fn change(&mut self, change: &Change) {
        let mut wanted = (*self.wanted).clone();
        change.make(&mut wanted);
        if wanted == *self.wanted {
            return;
        }
        self.count("manifests changed");
        self.version += 1;
        self.wanted = Arc::new(wanted);
        self.versions.insert(self.version, Arc::clone(&self.wanted));
        self.touched = true;
    }

    fn spoil(&mut self, folder: Folder, word: &'static str, for_ms: u64) {
        self.count(word);
        self.set_folder(folder);
        self.push(self.now.plus_ms(for_ms), Due::ManifestsMend(self.folder_life));
    }

    pub(super) fn set_folder(&mut self, folder: Folder) {
        self.folder = folder;
        self.folder_life += 1;
        self.touched = true;
    }

    /// A person says yes to what is held, but not to an empty folder.
    pub(crate) fn confirm(&mut self) {
        if let Some(held) = &self.durable.fleet.held
            && self.folder == Folder::Fine
        {
            let token = held.token.clone();
            self.checks.confirmed(&token);
            self.orders.push(Command::Confirm { token });
        }
    }

    /// Phase two: everything is well again but for what stays broken, and people mend what they did.
    pub(super) fn heal(&mut self) {
        self.trace.line(self.now, &["heal"], || "faults end".to_owned());
        self.calm = true;
        self.outages.clear();
        let names: Vec<HostName> = self.hosts.keys().cloned().collect();
        for name in names {
            if self.scenario.broken_for_ever.contains(&name) {
                self.happen(&Happening::Cut { host: name.clone(), there: true, back: true });
            } else {
                self.heal_link(&name);
                self.happen(&Happening::Resume { host: name.clone(), shuffled: false });
                self.happen(&Happening::Unpause { host: name.clone() });
            }
            self.on(&name, |host, _| {
                host.machine.disk_full = false;
                host.machine.part.lacks_image = false;
                host.machine.foreign_ports.clear();
                host.squat_next = false;
            });
            self.un_clone(&name);
            self.orders.push(Command::SetSchedulability { host: name, to: Schedulability::Active, timeout_s: None });
        }
        self.change(&Change::Cure);
        self.set_folder(Folder::Fine);
        self.take_over = true;
        self.push(self.now.plus_ms(1_000), Due::Look);
    }

    /// Gives a cloned machine an identity of its own again, and has a person accept it.
    /// All containers of a host are about to go with it.
    fn struck_all(&mut self, host: &HostName) {
        self.checks.data.reinstalled(host);
        let ours = self.hosts.get(host).into_iter().flat_map(|host| host.ours.values());
        let gone = ours.map(|claim| ((claim.task.clone(), claim.container.clone()), self.now));
        self.checks.struck.extend(gone);
    }

    pub(crate) fn un_clone(&mut self, name: &HostName) {
        let twin = self.hosts.get(name).map(|host| host.machine.identity.engine_id.clone());
        let has_twin = self
            .hosts
            .iter()
            .any(|(other, host)| other != name && Some(&host.machine.identity.engine_id) == twin.as_ref());
        let number = self.counts.get("machine reinstalled").copied().unwrap_or(0) + 900;
        if has_twin {
            self.count("machine reinstalled");
            self.struck_all(name);
            // Nobody installs a machine whose connections last.
            let now = self.now;
            self.on(name, |host, clock| {
                host.reinstall(number, clock);
                (host.there, host.back, host.cut_at) = (false, false, Some(now));
            });
            self.push(now.plus_ms(15_000), Due::LinkMends(name.clone()));
        }
        let known = self.durable.hosts.get(name).and_then(|record| record.identity.as_ref());
        let now = self.hosts.get(name).map(|host| &host.machine.identity.engine_id);
        if has_twin || known.map(|identity| &identity.engine_id) != now {
            self.checks.repinned(name);
            self.orders.push(Command::Repin { host: name.clone() });
        }
    }
}
