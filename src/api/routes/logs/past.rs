//! What was printed so far, of several containers in the order of time.

use std::time::Duration;

use futures_util::{StreamExt, future::join_all};
use tokio::{sync::mpsc, time::timeout};

use super::{LogQuery, LogRecord, Source, Wanted, sources};
use crate::api::routes::Api;
use roadstead_control::engine::{EngineStream, LogLine};

/// A host that does not go on for so long is left out.
const STALL: Duration = Duration::from_secs(15);

/// A container's lines, the next one in hand.
struct Head {
    source: Source,
    lines: EngineStream<LogLine>,
    next: LogLine,
}

pub(super) async fn run(api: &Api, wanted: &Wanted, query: &LogQuery, sender: mpsc::Sender<LogRecord>) {
    let sources = sources(&api.handle.snapshot().world.state, wanted, query.container.as_deref());
    let opened = join_all(sources.into_iter().map(|source| open(api, source, query))).await;
    let mut heads = Vec::new();
    for head in opened {
        match head {
            Ok(head) => heads.extend(head),
            // The client is gone when this fails; the next send ends it.
            Err(notice) => drop(sender.send(notice).await),
        }
    }
    // As many as containers: looking through all heads for the earliest line is cheap.
    while let Some(index) = earliest(&heads) {
        let Some(head) = heads.get_mut(index) else { return };
        let following = advance(&head.source, &mut head.lines).await;
        let (line, rest) = match following {
            Ok(Some(next)) => (head.source.record(std::mem::replace(&mut head.next, next)), None),
            Ok(None) => {
                let head = heads.swap_remove(index);
                (head.source.record(head.next), None)
            }
            Err(notice) => {
                let head = heads.swap_remove(index);
                (head.source.record(head.next), Some(notice))
            }
        };
        for record in std::iter::once(line).chain(rest) {
            if sender.send(record).await.is_err() {
                return;
            }
        }
    }
}

fn earliest(heads: &[Head]) -> Option<usize> {
    heads.iter().enumerate().min_by_key(|(_, head)| (head.next.at, &head.source)).map(|(index, _)| index)
}

async fn open(api: &Api, source: Source, query: &LogQuery) -> Result<Option<Head>, LogRecord> {
    let engine = api.handle.engines.borrow().get(&source.host).cloned();
    let Some(engine) = engine else { return Err(source.notice("its host is not connected")) };
    let mut lines = match timeout(STALL, engine.logs(&source.id, query.options())).await {
        Ok(Ok(lines)) => lines,
        Ok(Err(error)) => return Err(source.notice(error.to_string())),
        Err(_) => return Err(source.notice("its host does not answer")),
    };
    let next = advance(&source, &mut lines).await?;
    Ok(next.map(|next| Head { source, lines, next }))
}

async fn advance(source: &Source, lines: &mut EngineStream<LogLine>) -> Result<Option<LogLine>, LogRecord> {
    match timeout(STALL, lines.next()).await {
        Ok(Some(Ok(line))) => Ok(Some(line)),
        Ok(Some(Err(error))) => Err(source.notice(error.to_string())),
        Ok(None) => Ok(None),
        Err(_) => Err(source.notice("its host does not go on")),
    }
}
