//! Launches under way: each goes on only while its order stands.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use roadstead_core::model::{
    name::TaskId,
    task::{DesiredStatus, Launch},
    time::Timestamp,
    world::World,
};

/// The launches that were sent and not answered, as far as is known.
#[derive(Default)]
pub(super) struct Launches(BTreeMap<TaskId, Underway>);

struct Underway {
    ordered_at: Timestamp,
    overtaken: CancellationToken,
}

impl Launches {
    /// A launch is sent now; the token is cancelled once its order does not stand any more.
    pub(super) fn begin(&mut self, task: &TaskId, world: &World) -> CancellationToken {
        let overtaken = CancellationToken::new();
        if let Some(ordered_at) = ordered_at(task, world) {
            self.0.insert(task.clone(), Underway { ordered_at, overtaken: overtaken.clone() });
        } else {
            overtaken.cancel();
        }
        overtaken
    }

    /// Takes back what was overtaken: its task was ordered to stop or given up, its host is taken for another machine, or a
    /// later launch follows.
    pub(super) fn review(&mut self, world: &World) {
        self.0.retain(|task, launch| {
            let stands = ordered_at(task, world) == Some(launch.ordered_at);
            if !stands {
                launch.overtaken.cancel();
            }
            stands
        });
    }
}

/// When the launch was ordered that a task is waiting for.
fn ordered_at(task: &TaskId, world: &World) -> Option<Timestamp> {
    let task = world.state.tasks.get(task).filter(|task| task.desired_status == DesiredStatus::Running)?;
    let untrusted = world.contacts.get(&task.host).is_some_and(|contact| contact.untrusted.is_some());
    match task.launch {
        Launch::Issued { at } if !untrusted => Some(at),
        Launch::Issued { .. } | Launch::NotIssued | Launch::Answered { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use roadstead_core::model::{
        observed::HostContact,
        spec::service::LaunchType,
        state::Change,
        task::{NewTask, StopCode, Task},
    };

    use super::*;

    #[test]
    fn a_launch_stands_until_its_order_is_overtaken() {
        let mut task = Task::new(NewTask {
            id: "t".into(),
            cluster: "default".into(),
            service: "web".into(),
            slot: 1,
            revision: "web:1".parse().unwrap(),
            host: "a".into(),
            launch_type: LaunchType::Ec2,
            cpu: 0,
            memory: 0,
            containers: [].into(),
            epoch: 1,
            created_at: Timestamp(5),
        });
        task.launch = Launch::Issued { at: Timestamp(7) };
        let later = Timestamp(task.created_at.0 + 60_000);
        let changed = |change: &dyn Fn(&mut World, &mut Task)| {
            let (mut world, mut task) = (World::default(), task.clone());
            world.state.apply(&Change::Task(Arc::new(task.clone())));
            let mut launches = Launches::default();
            let overtaken = launches.begin(&task.id, &world);
            launches.review(&world);
            assert!(!overtaken.is_cancelled(), "nothing happened");
            change(&mut world, &mut task);
            world.state.apply(&Change::Task(Arc::new(task)));
            launches.review(&world);
            assert_eq!(launches.0.is_empty(), overtaken.is_cancelled(), "what was taken back is forgotten");
            overtaken.is_cancelled()
        };
        assert!(!changed(&|_, task| task.restarts.push(later)));
        assert!(changed(&|_, task| task.order_stop(later, StopCode::UserInitiated, "so")));
        assert!(changed(&|_, task| task.launch = Launch::Issued { at: later }));
        assert!(
            changed(&|_, task| task.launch = Launch::Answered { at: later }),
            "its host was taken for a new machine"
        );
        assert!(changed(&|world, task| {
            let contact = HostContact { untrusted: Some("another machine".into()), ..HostContact::default() };
            world.contacts.insert(task.host.clone(), contact);
        }));
    }
}
