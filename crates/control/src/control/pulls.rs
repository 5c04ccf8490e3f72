//! Pulls on the hosts: a few at once on each, each image once, and how far they are.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::{Notify, Semaphore};

use crate::engine::PullProgress;
use roadstead_core::model::{name::TaskId, report::Waiting, world::Subject};

/// Pulls at once on one host: more share the same line and the same disk.
const PULLS_PER_HOST: usize = 3;
/// Layers of which progress is kept; an image has at most 127.
const MAX_LAYERS: usize = 256;

/// The pulls of one host.
#[derive(Clone)]
pub struct HostPulls {
    slots: Arc<Semaphore>,
    /// Whoever wants an image that is being pulled waits for that, and holds up no other image.
    images: Arc<Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>>>,
    storage_hint: Arc<Notify>,
}

impl Default for HostPulls {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

/// A place among a host's pulls, until dropped.
pub(super) struct Turn {
    _image: tokio::sync::OwnedMutexGuard<()>,
    _slot: Option<tokio::sync::OwnedSemaphorePermit>,
}

impl HostPulls {
    /// `storage_hint` asks for a look at the host's images.
    pub(super) fn new(storage_hint: Arc<Notify>) -> Self {
        Self { slots: Arc::new(Semaphore::new(PULLS_PER_HOST)), images: Arc::default(), storage_hint }
    }

    /// A pull ended, however.
    pub(super) fn note_end(&self) {
        self.storage_hint.notify_one();
    }

    /// Waits until nobody else pulls this image there, and few pull any.
    pub(super) async fn turn(&self, image: &str) -> Turn {
        let alone = {
            let mut images = lock(&self.images);
            images.retain(|_, waiting| waiting.strong_count() > 0);
            let known = images.get(image).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let alone = Arc::default();
                images.insert(image.to_owned(), Arc::downgrade(&alone));
                alone
            })
        };
        let image = alone.lock_owned().await;
        // Never closed.
        Turn { _image: image, _slot: Arc::clone(&self.slots).acquire_owned().await.ok() }
    }
}

/// What is being pulled, for which task, and how far it is.
#[derive(Clone, Default)]
pub struct PullBoard(Arc<Mutex<BTreeMap<TaskId, Pull>>>);

struct Pull {
    image: String,
    begun: bool,
    /// Bytes of it that are here, and all, by layer.
    layers: BTreeMap<String, (u64, u64)>,
}

/// A pull on the board, until dropped.
pub(super) struct Posted<'a> {
    board: &'a PullBoard,
    task: &'a TaskId,
}

impl PullBoard {
    /// A task waits for its turn to pull an image.
    pub(super) fn post<'a>(&'a self, task: &'a TaskId, image: &str) -> Posted<'a> {
        let pull = Pull { image: image.to_owned(), begun: false, layers: BTreeMap::new() };
        lock(&self.0).insert(task.clone(), pull);
        Posted { board: self, task }
    }

    /// What waits for a pull, in words.
    pub(super) fn waiting(&self) -> Vec<Waiting> {
        let words = |(task, pull): (&TaskId, &Pull)| Waiting {
            subject: Subject::Task(task.clone()),
            reason: pull.words(),
            wakes_when: "the image is there; it is given up when nothing comes for a minute".to_owned(),
            wakes_at: None,
        };
        lock(&self.0).iter().map(words).collect()
    }
}

impl Posted<'_> {
    /// It is its turn.
    pub(super) fn begin(&self) {
        self.change(|pull| pull.begun = true);
    }

    /// It has got on.
    pub(super) fn note(&self, step: &PullProgress) {
        self.change(|pull| pull.note(step));
    }

    fn change(&self, change: impl FnOnce(&mut Pull)) {
        if let Some(pull) = lock(&self.board.0).get_mut(self.task) {
            change(pull);
        }
    }
}

impl Drop for Posted<'_> {
    fn drop(&mut self) {
        lock(&self.board.0).remove(self.task);
    }
}

impl Pull {
    fn note(&mut self, step: &PullProgress) {
        let known = self.layers.len() < MAX_LAYERS || self.layers.contains_key(&step.layer);
        match (step.status.as_str(), step.current_bytes, step.total_bytes) {
            ("Downloading", Some(current), Some(total)) if known => {
                self.layers.insert(step.layer.clone(), (current.min(total), total));
            }
            ("Download complete", _, _) => {
                if let Some((current, total)) = self.layers.get_mut(&step.layer) {
                    *current = *total;
                }
            }
            (_, _, _) => {}
        }
    }

    fn words(&self) -> String {
        if !self.begun {
            return format!("it waits for its turn to pull {}", self.image);
        }
        let sum = |of: fn(&(u64, u64)) -> u64| self.layers.values().map(of).fold(0, u64::saturating_add);
        match (sum(|(current, _)| *current), sum(|(_, total)| *total)) {
            (_, 0) => format!("pulling {}", self.image),
            (current, total) => {
                format!("pulling {}, {} of {} MB", self.image, current / 1_000_000, total.div_ceil(1_000_000))
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(layer: &str, status: &str, bytes: Option<(u64, u64)>) -> PullProgress {
        let (current_bytes, total_bytes) = bytes.unzip();
        PullProgress { layer: layer.to_owned(), status: status.to_owned(), current_bytes, total_bytes }
    }

    #[test]
    fn a_pull_says_how_far_it_is() {
        let (board, task) = (PullBoard::default(), TaskId::from("t"));
        let said = || board.waiting().into_iter().map(|waiting| waiting.reason).collect::<Vec<_>>();
        let posted = board.post(&task, "nginx:1.27");
        assert_eq!(said(), ["it waits for its turn to pull nginx:1.27"]);
        posted.begin();
        assert_eq!(said(), ["pulling nginx:1.27"]);
        posted.note(&step("a", "Downloading", Some((4_000_000, 20_000_000))));
        posted.note(&step("b", "Downloading", Some((30_000_000, 40_500_000))));
        posted.note(&step("c", "Already exists", None));
        assert_eq!(said(), ["pulling nginx:1.27, 34 of 61 MB"]);
        posted.note(&step("a", "Download complete", None));
        posted.note(&step("a", "Extracting", Some((1, 2))));
        assert_eq!(said(), ["pulling nginx:1.27, 50 of 61 MB"]);
        drop(posted);
        assert_eq!(said(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn one_image_is_pulled_once_and_holds_up_no_other() {
        let pulls = HostPulls::default();
        let turn = pulls.turn("a").await;
        let again = futures_util::poll!(Box::pin(pulls.turn("a")));
        assert!(again.is_pending());
        let others = [pulls.turn("b").await, pulls.turn("c").await];
        assert!(futures_util::poll!(Box::pin(pulls.turn("d"))).is_pending(), "too many at once");
        drop(others);
        drop(pulls.turn("d").await);
        drop(turn);
        drop(pulls.turn("a").await);
    }
}
