//! The tasks of a draft, by number: each of the world's is read once, and what a plan asks of it again is noted there.

use std::sync::Arc;

use super::roster::{HostNo, ServiceNo};
use crate::model::{
    container::ContainerState,
    task::{DesiredStatus, LastStatus, Launch, Task},
};

/// A task's number in a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::plan) struct TaskNo(usize);

/// What is asked of a task again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::plan) struct Traits {
    /// [`Task::is_live`].
    pub(in crate::plan) live: bool,
    /// Untouched, healthy, and as its service wants it.
    pub(in crate::plan) kept: bool,
    /// Something may be left to order.
    pub(in crate::plan) busy: bool,
    /// Untouched, STOPPED, and no container of it is left.
    pub(in crate::plan) over: bool,
}

/// A service's live tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::plan) struct Counts {
    pub(in crate::plan) live: usize,
    pub(in crate::plan) kept: usize,
}

/// One task.
struct Row<'w> {
    task: Standing<'w>,
    service: Option<ServiceNo>,
    host: Option<HostNo>,
    traits: Traits,
}

impl Row<'_> {
    /// Live, and not standalone.
    fn is_of_a_service(&self) -> bool {
        self.traits.live && (self.service.is_some() || !self.task.get().is_standalone())
    }
}

enum Standing<'w> {
    /// As the world has it.
    Known(&'w Arc<Task>),
    /// Changed or added by this draft.
    Edited(Arc<Task>),
}

/// All tasks: the world's by id, then those added in the order in which they were.
#[derive(Default)]
pub(in crate::plan) struct Tasks<'w> {
    rows: Vec<Row<'w>>,
    edits: u64,
}

/// Live tasks by service, in the order of their numbers.
pub(in crate::plan) struct Members {
    order: Vec<TaskNo>,
    /// Where each service's begin; then where those of undeclared services do, and the end.
    begins: Vec<usize>,
}

impl Members {
    /// Those of a service.
    pub(in crate::plan) fn of(&self, service: ServiceNo) -> &[TaskNo] {
        let range = self.begins.get(service).copied()..self.begins.get(service + 1).copied();
        match (range.start, range.end) {
            (Some(start), Some(end)) => self.order.get(start..end).unwrap_or_default(),
            (_, None) | (None, _) => &[],
        }
    }
}

impl<'w> Tasks<'w> {
    pub(super) fn with_capacity(tasks: usize) -> Self {
        Self { rows: Vec::with_capacity(tasks), edits: 0 }
    }

    pub(super) fn know(&mut self, task: &'w Arc<Task>, service: Option<ServiceNo>, host: Option<HostNo>, kept: bool) {
        let over = task.last_status == LastStatus::Stopped && holds_nothing(task);
        let traits = Traits { kept, over, ..traits(task) };
        self.rows.push(Row { task: Standing::Known(task), service, host, traits });
    }

    /// Adds a task.
    pub(super) fn add(&mut self, task: Task, service: Option<ServiceNo>, host: Option<HostNo>) {
        self.edits += 1;
        let traits = traits(&task);
        self.rows.push(Row { task: Standing::Edited(Arc::new(task)), service, host, traits });
    }

    /// Changes a task.
    pub(in crate::plan) fn change(&mut self, no: TaskNo, change: impl FnOnce(&mut Task)) {
        let row = &mut self.rows[no.0];
        match &mut row.task {
            Standing::Known(before) => {
                let mut after = Task::clone(before);
                change(&mut after);
                if after == ***before {
                    return;
                }
                row.task = Standing::Edited(Arc::new(after));
            }
            Standing::Edited(task) => change(Arc::make_mut(task)),
        }
        self.edits += 1;
        row.traits = traits(row.task.get());
    }

    /// How often a task was changed or added so far.
    pub(in crate::plan) fn edits(&self) -> u64 {
        self.edits
    }

    /// Something else changed on which the tasks' standing depends: it counts like a change of theirs.
    pub(in crate::plan) fn look_again(&mut self) {
        self.edits += 1;
    }

    /// A task as it stands.
    pub(in crate::plan) fn get(&self, no: TaskNo) -> &Task {
        self.rows[no.0].task.get()
    }

    /// What is asked of a task again and again.
    pub(in crate::plan) fn traits(&self, no: TaskNo) -> Traits {
        self.rows[no.0].traits
    }

    /// A task's host, if it is declared.
    pub(in crate::plan) fn host(&self, no: TaskNo) -> Option<HostNo> {
        self.rows[no.0].host
    }

    /// A task's service, if it is declared.
    pub(in crate::plan) fn service(&self, no: TaskNo) -> Option<ServiceNo> {
        self.rows[no.0].service
    }

    /// Every task's number.
    pub(in crate::plan) fn numbers(&self) -> impl DoubleEndedIterator<Item = TaskNo> + use<> {
        (0..self.rows.len()).map(TaskNo)
    }

    /// Every task as it stands.
    pub(in crate::plan) fn iter(&self) -> impl Iterator<Item = &Task> {
        self.rows.iter().map(|row| row.task.get())
    }

    /// Every task with these traits.
    pub(in crate::plan) fn with(&self, wanted: impl Fn(Traits) -> bool) -> impl Iterator<Item = (TaskNo, &Task)> {
        let rows = self.rows.iter().enumerate().filter(move |(_, row)| wanted(row.traits));
        rows.map(|(no, row)| (TaskNo(no), row.task.get()))
    }

    /// How many live tasks each of the declared services has, and how many of them are kept; last, those of services that
    /// are not declared.
    pub(in crate::plan) fn counts(&self, services: usize) -> Vec<Counts> {
        let mut counts = vec![Counts::default(); services + 1];
        for row in self.rows.iter().filter(|row| row.is_of_a_service()) {
            let count = &mut counts[row.service.unwrap_or(services)];
            count.live += 1;
            count.kept += usize::from(row.traits.kept);
        }
        counts
    }

    /// Live tasks by service; standalone ones are nobody's.
    pub(in crate::plan) fn members(&self, services: usize) -> Members {
        // Counted, then laid out: what belongs to no declared service comes last.
        let place = |row: &Row<'_>| row.service.unwrap_or(services);
        let mut begins = vec![0; services + 2];
        for row in self.rows.iter().filter(|row| row.is_of_a_service()) {
            begins[place(row) + 1] += 1;
        }
        for index in 1..begins.len() {
            begins[index] += begins[index - 1];
        }
        let mut next = begins.clone();
        let mut order = vec![TaskNo(0); begins[services + 1]];
        for (no, row) in self.rows.iter().enumerate().filter(|(_, row)| row.is_of_a_service()) {
            let slot = &mut next[place(row)];
            order[*slot] = TaskNo(no);
            *slot += 1;
        }
        Members { order, begins }
    }

    /// What changed, in the order of numbers.
    pub(super) fn into_edited(self) -> impl Iterator<Item = Arc<Task>> {
        self.rows.into_iter().filter_map(|row| match row.task {
            Standing::Known(_) => None,
            Standing::Edited(task) => Some(task),
        })
    }
}

impl Standing<'_> {
    fn get(&self) -> &Task {
        match self {
            Self::Known(task) => task,
            Self::Edited(task) => task,
        }
    }
}

/// Those of a task that this draft changed.
fn traits(task: &Task) -> Traits {
    Traits { live: task.is_live(), busy: is_busy(task), kept: false, over: false }
}

/// Whether anything may be left to order: in a steady fleet it is false for every task.
fn is_busy(task: &Task) -> bool {
    if !task.strays.is_empty() {
        return true;
    }
    match task.desired_status {
        DesiredStatus::Running => {
            task.launch == Launch::NotIssued
                || task
                    .containers
                    .values()
                    // What has ended may be to be started again.
                    .any(|container| {
                        matches!(container.state, None | Some(ContainerState::Created | ContainerState::Exited))
                    })
        }
        DesiredStatus::Stopped => task.last_status != LastStatus::Stopped || !holds_nothing(task),
    }
}

fn holds_nothing(task: &Task) -> bool {
    task.strays.is_empty() && task.containers.values().all(|container| container.runtime_id.is_none())
}
