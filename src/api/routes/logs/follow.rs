//! What is being printed, also by containers that start later or again.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use super::{LogQuery, LogRecord, Source, Wanted, sources};
use crate::api::routes::Api;
use roadstead_control::engine::LogOptions;
use roadstead_core::model::{name::RuntimeId, task::LastStatus, time::Timestamp};

/// After the end of a container's output, so long until it is asked for again.
const PAUSE: Duration = Duration::from_secs(2);

/// How far the reading of one container is.
struct Progress {
    source: Source,
    reading: bool,
    /// Ended in an error: worth another try although the container did not start again.
    broken: bool,
    last: Option<Timestamp>,
    not_before: Instant,
}

/// How the reading of one container ended.
struct Ended {
    id: RuntimeId,
    last: Option<Timestamp>,
    broken: bool,
}

pub(super) async fn run(api: &Api, wanted: &Wanted, query: &LogQuery, sender: mpsc::Sender<LogRecord>) {
    let mut snapshots = api.handle.snapshots.clone();
    let mut readers: JoinSet<Ended> = JoinSet::new();
    let mut known: BTreeMap<RuntimeId, Progress> = BTreeMap::new();
    let mut tick = tokio::time::interval(PAUSE);
    let mut first = true;
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        let present = sources(&snapshot.world.state, wanted, query.container.as_deref());
        known.retain(|id, progress| progress.reading || present.iter().any(|source| source.id == *id));
        for source in present {
            if due(known.get(&source.id), &source) {
                start(api, &mut readers, &mut known, source, query, first, &sender);
            }
        }
        first = false;
        if readers.is_empty() && is_over(&snapshot.world.state, wanted) {
            return;
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            _ = tick.tick() => {}
            Some(Ok(ended)) = readers.join_next() => {
                if let Some(progress) = known.get_mut(&ended.id) {
                    progress.reading = false;
                    progress.broken = ended.broken;
                    progress.last = ended.last.or(progress.last);
                    progress.not_before = Instant::now() + PAUSE;
                }
            }
        }
    }
}

/// Whether a container is to be read now: it is new, it started again, or its reading broke.
fn due(progress: Option<&Progress>, source: &Source) -> bool {
    let Some(progress) = progress else { return true };
    let again = progress.broken || progress.source.started_at != source.started_at;
    again && !progress.reading && Instant::now() >= progress.not_before
}

fn is_over(state: &roadstead_core::model::state::State, wanted: &Wanted) -> bool {
    match wanted {
        Wanted::Service(_) => false,
        Wanted::Task(id) => state.tasks.get(id).is_none_or(|task| task.last_status == LastStatus::Stopped),
    }
}

fn start(
    api: &Api,
    readers: &mut JoinSet<Ended>,
    known: &mut BTreeMap<RuntimeId, Progress>,
    source: Source,
    query: &LogQuery,
    first: bool,
    sender: &mpsc::Sender<LogRecord>,
) {
    let last = known.get(&source.id).and_then(|progress| progress.last);
    // A container that came later is read from its beginning; one that is read again, from where we were.
    let options = match (first, last) {
        (true, _) => query.options(),
        (false, Some(last)) => LogOptions { follow: true, since: Some(last), tail: None },
        (false, None) => LogOptions { follow: true, since: query.since, tail: None },
    };
    let engine = api.handle.engines.borrow().get(&source.host).cloned();
    let (sender, reading) = (sender.clone(), source.clone());
    readers.spawn(async move {
        let mut ended = Ended { id: reading.id.clone(), last, broken: true };
        let opened = match &engine {
            Some(engine) => engine.logs(&reading.id, options).await.map_err(|error| error.to_string()),
            None => Err("its host is not connected".to_owned()),
        };
        let mut lines = match opened {
            Ok(lines) => lines,
            Err(why) => {
                let _ = sender.send(reading.notice(why)).await;
                return ended;
            }
        };
        while let Some(line) = lines.next().await {
            let record = match line {
                // The engine knows whole seconds only: what was seen already comes again.
                Ok(line) if last.is_some() && line.at <= last => continue,
                Ok(line) => {
                    ended.last = line.at.or(ended.last);
                    reading.record(line)
                }
                Err(error) => {
                    let _ = sender.send(reading.notice(error.to_string())).await;
                    return ended;
                }
            };
            if sender.send(record).await.is_err() {
                return ended;
            }
        }
        ended.broken = false;
        ended
    });
    let progress = Progress { source: source.clone(), reading: true, broken: false, last, not_before: Instant::now() };
    known.insert(source.id, progress);
}
