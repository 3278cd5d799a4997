//! The thread that merges large runs beside the ticks: one for all views of the process.
//!
//! Owns: the queue of such work.
//! Not here: what is merged, and what if it is not done (`evert_fold`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use evert_fold::{Work, lend_threads};

/// From now on large merges are made beside the ticks, by a thread of their own. Views do so when
/// they are opened; who folds without them may ask for it.
pub fn begin() {
    lend_threads(enqueue);
}

/// Work that finds no thread is dropped: it is done within a tick.
fn enqueue(work: Work) {
    static QUEUE: OnceLock<Option<Sender<Work>>> = OnceLock::new();
    if let Some(queue) = QUEUE.get_or_init(start) {
        drop(queue.send(work));
    }
}

fn start() -> Option<Sender<Work>> {
    let (queue, works) = channel();
    let thread = thread::Builder::new().name("merges".into()).spawn(move || run(&works));
    match thread {
        Ok(_) => Some(queue),
        Err(error) => {
            tracing::error!(%error, "no thread to merge runs with: ticks merge them");
            None
        }
    }
}

fn run(works: &Receiver<Work>) {
    let _spills = evert_env::spill::spills_here();
    for work in works {
        // Whoever waits for it learns of a panic, and does the work again where it can fail by name.
        drop(catch_unwind(AssertUnwindSafe(work)));
    }
}
