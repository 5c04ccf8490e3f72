//! Against real files, a real lock and real damage.

mod before;
mod damage;
mod history;
mod lock;
mod rules;
mod same_as_memory;
mod sample;

use super::Store;
use roadstead_core::model::state::{Change, State};

/// What memory says after `changes`.
fn applied(changes: &[Change]) -> State {
    let mut state = State::default();
    changes.iter().for_each(|change| state.apply(change));
    state
}

async fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(dir.path()).await.unwrap()
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}
