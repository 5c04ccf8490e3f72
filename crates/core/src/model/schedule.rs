//! What is remembered of a schedule: how far its times were considered, and what became of the last ones.

use serde::{Deserialize, Serialize};

use super::{
    name::{ScheduleName, TaskId},
    time::Timestamp,
};

/// What is remembered of a schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleRecord {
    /// Its name.
    pub name: ScheduleName,
    /// The schedule and time zone from which `next_at` was worked out.
    pub timing: String,
    /// Whether it was suspended when it was last looked at.
    pub suspended: bool,
    /// No time up to here fires any more: it never goes back.
    pub considered_until: Timestamp,
    /// The next time; once it has come and cannot begin, that one.
    pub next_at: Option<Timestamp>,
    /// Newest first.
    pub fires: Vec<Fire>,
}

/// What became of one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fire {
    /// As scheduled; with the schedule's name it identifies the fire.
    pub scheduled_at: Timestamp,
    /// How it went.
    pub outcome: FireOutcome,
    /// In words, unless all went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When its tasks were decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired_at: Option<Timestamp>,
    /// When the last of them was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// The first exit code of an essential container that is not 0; else 0, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// Its tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskId>,
}

/// How a fire went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FireOutcome {
    /// Its tasks run, or are about to.
    Running,
    /// All ended with 0.
    Succeeded,
    /// One did not, or could not begin.
    Failed,
    /// Its time passed before it could begin.
    Missed,
    /// The one before it still ran.
    Skipped,
    /// The next one took its place.
    Replaced,
}

impl ScheduleRecord {
    /// Forgets the oldest fires beyond these counts; what runs stays.
    pub fn trim(&mut self, succeeded: u32, others: u32) {
        let (mut good, mut bad) = (0, 0);
        self.fires.retain(|fire| match fire.outcome {
            FireOutcome::Running => true,
            FireOutcome::Succeeded => {
                good += 1;
                good <= succeeded
            }
            FireOutcome::Failed | FireOutcome::Missed | FireOutcome::Skipped | FireOutcome::Replaced => {
                bad += 1;
                bad <= others
            }
        });
    }
}
