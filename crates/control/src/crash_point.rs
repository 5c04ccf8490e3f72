//! Places where the real controller can be made to die: around each durable and each remote step.
//!
//! `ROADSTEAD_CRASH_AT=NAME[:N]` kills the process with SIGKILL when it reaches the point for the N-th time. Only a controller
//! of [`crate::control::start`] reads the variable, and only in a build with debug assertions; in any other [`reach`] is nothing.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use rustix::process::{Signal, getpid, kill_process};

/// The variable.
pub const VARIABLE: &str = "ROADSTEAD_CRASH_AT";

/// Makes the enum, its list and its names from one table.
macro_rules! points {
    ($($(#[$words:meta])* $point:ident = $name:literal,)+) => {
        /// Where to die.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Point { $($(#[$words])* $point,)+ }

        impl Point {
            /// Every one, in the order of a controller's life.
            pub const ALL: &[Self] = &[$(Self::$point,)+];

            /// As in the variable.
            pub fn name(self) -> &'static str {
                match self { $(Self::$point => $name,)+ }
            }
        }
    };
}

points! {
    /// The data folder is locked; its database is not opened yet.
    Locked = "locked",
    /// The database is open and sound; its schema is as it was found.
    DatabaseOpened = "database-opened",
    /// The schema is up to date.
    Migrated = "migrated",
    /// A new fleet key is on the disk, not yet under its name.
    KeyWritten = "key-written",
    /// What is durable was read.
    StateLoaded = "state-loaded",
    /// The new epoch is committed; no loop runs yet.
    EpochCommitted = "epoch-committed",
    /// A host is about to be connected.
    Connecting = "connecting",
    /// A host's connection is made; nobody watches it yet.
    Connected = "connected",
    /// New manifests were read.
    ManifestsRead = "manifests-read",
    /// They were admitted; the driver does not know yet.
    ManifestsAdmitted = "manifests-admitted",
    /// A host's engine told who it is; its containers are not listed yet.
    Identified = "identified",
    /// A complete list is here; the driver does not know yet.
    Listed = "listed",
    /// An event was heard that asks for a look.
    EventHeard = "event-heard",
    /// A container's death was heard; the driver does not know yet.
    DeathHeard = "death-heard",
    /// Manifests were taken in; nothing of it is written.
    ManifestsTaken = "manifests-taken",
    /// A look was taken in (with an empty database: its tasks adopted); nothing of it is written.
    LookTaken = "look-taken",
    /// A death was taken in; nothing of it is written.
    DeathTaken = "death-taken",
    /// An order's answer was taken in; nothing of it is written.
    AnswerTaken = "answer-taken",
    /// A person's order was taken in; nothing of it is written.
    CommandTaken = "command-taken",
    /// Orders are decided; nothing of it is written.
    OrdersDecided = "orders-decided",
    /// A decision with all its changes is written inside the transaction, which is not committed.
    DecisionWritten = "decision-written",
    /// A person's order is committed; the person has no answer yet.
    CommandCommitted = "command-committed",
    /// Orders are committed; none is sent.
    OrdersCommitted = "orders-committed",
    /// Orders are handed to their hosts.
    OrdersSent = "orders-sent",
    /// A create is about to be sent.
    BeforeCreate = "before-create",
    /// The engine has not the image; the pull is about to be sent.
    BeforePull = "before-pull",
    /// The image is there; the second create is about to be sent.
    Pulled = "pulled",
    /// The engine refused the name as taken; what bears it is about to be inspected.
    NameTaken = "name-taken",
    /// What bears the name is known; nothing follows from it yet.
    NameInspected = "name-inspected",
    /// A container was created; nobody but the engine knows its id.
    Created = "created",
    /// A start is about to be sent.
    BeforeStart = "before-start",
    /// A container was started.
    Started = "started",
    /// A stop is about to be sent.
    BeforeStop = "before-stop",
    /// A container was stopped.
    Stopped = "stopped",
    /// A removal is about to be sent.
    BeforeRemove = "before-remove",
    /// A container was removed.
    Removed = "removed",
    /// An order has its answer; the driver does not know yet.
    Answered = "answered",
    /// Told to stop, all loops have ended; the last answers are not written.
    Stopping = "stopping",
}

/// A point, and how often it is still passed.
struct Armed {
    point: Point,
    left: AtomicU32,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Reads the variable, once.
///
/// # Errors
/// In words: it names no point.
pub(crate) fn arm() -> Result<(), String> {
    if !cfg!(debug_assertions) {
        return Ok(());
    }
    let armed = match std::env::var_os(VARIABLE) {
        None => None,
        Some(text) => {
            let (point, nth) = parse(&text.to_string_lossy())?;
            tracing::warn!(point = point.name(), nth, "this controller is going to kill itself");
            Some(Armed { point, left: AtomicU32::new(nth) })
        }
    };
    ARMED.get_or_init(|| armed);
    Ok(())
}

fn parse(text: &str) -> Result<(Point, u32), String> {
    let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
    let point = Point::ALL.iter().copied().find(|point| point.name() == name);
    match (point, nth.parse()) {
        (Some(point), Ok(nth)) if nth > 0 => Ok((point, nth)),
        (Some(_), _) => {
            Err(format!("{VARIABLE}={text}: `{nth}` is not how often; NAME or NAME:N is expected, N from 1"))
        }
        (None, _) => {
            let names: Vec<&str> = Point::ALL.iter().map(|point| point.name()).collect();
            Err(format!("{VARIABLE}={text}: there is no crash point `{name}`; there are {}", names.join(", ")))
        }
    }
}

/// Dies here, when this is the point and it is time.
#[inline]
pub(crate) fn reach(point: Point) {
    if cfg!(debug_assertions)
        && let Some(Some(armed)) = ARMED.get()
        && armed.point == point
        && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        die(point);
    }
}

fn die(point: Point) -> ! {
    tracing::warn!(point = point.name(), "crash point reached");
    let _ = kill_process(getpid(), Signal::KILL);
    // Not reached: no process outlives that signal.
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_named_with_how_often_and_anything_else_is_refused() {
        for point in Point::ALL {
            assert_eq!(parse(point.name()), Ok((*point, 1)));
            assert_eq!(parse(&format!("{}:3", point.name())), Ok((*point, 3)));
        }
        for (text, words) in [
            ("created:0", "`0` is not how often"),
            ("created:", "`` is not how often"),
            ("created:twice", "`twice` is not how often"),
            ("creatd", "no crash point `creatd`; there are locked, "),
            ("", "no crash point ``"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn nothing_dies_unarmed() {
        for point in Point::ALL {
            reach(*point);
        }
    }
}
