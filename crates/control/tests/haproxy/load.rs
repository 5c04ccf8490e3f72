//! Clients that never cease, and count each answer that is not as it should be.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
};

use crate::lab::{Client, until};

/// What clients may expect: odd while it changes.
#[derive(Default)]
pub struct Picture {
    epoch: AtomicUsize,
    stop: AtomicBool,
    answered: AtomicUsize,
}

/// Two threads with connections that they keep, two with a new one for each request.
pub struct Load {
    picture: Arc<Picture>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// `sides`: by turns, how the names of those begin that may answer.
    pub fn on(port: u16, sides: &'static [&'static str]) -> Self {
        let picture = Arc::new(Picture::default());
        let clients = (0..4).map(|number| {
            let picture = Arc::clone(&picture);
            thread::spawn(move || client(port, number < 2, sides, &picture))
        });
        let load = Self { clients: clients.collect(), picture };
        load.goes_on();
        load
    }

    /// Until each client has very likely had several answers more.
    pub fn goes_on(&self) {
        let before = self.picture.answered.load(SeqCst);
        until("more answers", || {
            assert!(!self.clients.iter().any(JoinHandle::is_finished), "a client ended: see above");
            (self.picture.answered.load(SeqCst) > before + 200).then_some(())
        });
    }

    /// During it both sides may answer; after it only the next one.
    pub fn while_changing(&self, change: impl FnOnce()) {
        self.picture.epoch.fetch_add(1, SeqCst);
        change();
        self.picture.epoch.fetch_add(1, SeqCst);
    }

    pub fn ends(self) {
        self.picture.stop.store(true, SeqCst);
        for client in self.clients {
            client.join().unwrap();
        }
    }
}

fn client(port: u16, keeps: bool, sides: &[&str], picture: &Picture) {
    let mut kept = None;
    while !picture.stop.load(SeqCst) {
        let mut connection = kept.take().unwrap_or_else(|| Client::new(port));
        let before = picture.epoch.load(SeqCst);
        let answer = connection.get("/x");
        let after = picture.epoch.load(SeqCst);
        assert_eq!(answer.status, 200, "{answer:?}");
        if before == after && before.is_multiple_of(2) {
            let side = sides[before / 2 % sides.len()];
            assert!(answer.body.starts_with(side), "{} answers, and it is {side}'s turn", answer.body);
        }
        if keeps && !connection.closes {
            kept = Some(connection);
        }
        picture.answered.fetch_add(1, SeqCst);
    }
}
