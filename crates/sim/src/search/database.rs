//! A real database beside the one in memory: it takes every commit that a run made, and holds the same whenever a controller
//! begins, also after one that was killed, a loss, and a copy put back.

use std::{fs, io, path::Path};

use roadstead_control::store::{Store, StoreError};
use roadstead_core::model::state::State;

use crate::{
    check::{Broken, Predicate},
    fleet::Durable,
    run::run_recorded,
    scenario::Scenario,
};

/// Replays what became of the database in a run of this scenario on a real one.
///
/// # Errors
/// What broke in the run, else what the real database refused, or how it differs.
pub fn database_breaks(scenario: &Scenario) -> Result<(), Broken> {
    let (outcome, history) = run_recorded(scenario);
    if let Some(broken) = outcome.broken {
        return Err(broken);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Err(differs(0, format!("no runtime: {error}"))),
    };
    let folder = tempfile::tempdir().map_err(|error| differs(0, format!("no folder: {error}")))?;
    runtime.block_on(replay(folder.path(), &history))
}

fn differs(step: usize, words: impl Into<String>) -> Broken {
    Broken::new(Predicate::S8, format!("database, step {step}: {}", words.into()))
}

async fn replay(folder: &Path, history: &[Durable]) -> Result<(), Broken> {
    let (data, copy) = (folder.join("data"), folder.join("copy"));
    let (mut memory, mut backup) = (State::default(), State::default());
    let mut store: Option<Store> = None;
    for (step, durable) in history.iter().enumerate() {
        let refused = |error: StoreError| differs(step, error.to_string());
        let unwritten = |error: io::Error| differs(step, error.to_string());
        match durable {
            Durable::Committed(changes) => {
                let Some(open) = &store else { return Err(differs(step, "a commit before anybody read it")) };
                open.commit(changes, None).await.map_err(refused)?;
                changes.iter().for_each(|change| memory.apply(change));
            }
            Durable::Read => {
                // The controller before was killed: nothing is closed in order.
                drop(store.take());
                let open = Store::open(&data).await.map_err(refused)?;
                same(&open, &memory, step).await?;
                store = Some(open);
            }
            Durable::BackedUp => {
                if let Some(open) = store.take() {
                    open.close().await.map_err(refused)?;
                    replace(&data, &copy).map_err(unwritten)?;
                    store = Some(Store::open(&data).await.map_err(refused)?);
                }
                backup = memory.clone();
            }
            Durable::Lost => {
                drop(store.take());
                fs::remove_dir_all(&data).map_err(unwritten)?;
                memory = State::default();
            }
            Durable::PutBack => {
                drop(store.take());
                match copy.exists() {
                    true => replace(&copy, &data).map_err(unwritten)?,
                    false => fs::remove_dir_all(&data).map_err(unwritten)?,
                }
                memory = backup.clone();
            }
        }
    }
    match &store {
        Some(open) => same(open, &memory, history.len()).await,
        None => Ok(()),
    }
}

/// Whether the database holds what memory does.
async fn same(store: &Store, memory: &State, step: usize) -> Result<(), Broken> {
    let loaded = store.load().await.map_err(|error| differs(step, error.to_string()))?;
    if loaded == *memory {
        return Ok(());
    }
    let (loaded, memory) = (format!("{loaded:#?}"), format!("{memory:#?}"));
    let first = loaded.lines().zip(memory.lines()).find(|(loaded, memory)| loaded != memory);
    let (loaded, memory) = first.unwrap_or(("more or fewer lines", ""));
    Err(differs(step, format!("it holds {} where memory has {}", loaded.trim(), memory.trim())))
}

/// One folder of files in another's place.
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
