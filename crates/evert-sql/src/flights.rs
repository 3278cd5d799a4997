//! Flights: identical queries at one position, under way at the same time, run once.
//!
//! The first to come runs; those that come before it ends get its rows. Only results that fit in
//! what is sent ahead are shared, so that a slow client holds up nobody else.
//!
//! Owns: which queries are the same, who waits for whom.
//! Not here: running them (`query`, `guard`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, ArrayData, ArrayRef, RecordBatch};
use evert_view::Cut;
use tokio::sync::watch;

use crate::query::Planned;

/// Batches of a result that is shared.
pub(crate) const BATCHES_MAX: usize = 2;

/// What became of a flight.
#[derive(Clone)]
pub(crate) enum Landing {
    /// Its rows.
    Rows(Arc<Vec<RecordBatch>>),
    /// It failed, was given up or became too large: others run on their own.
    Apart,
}

/// Queries under way.
#[derive(Default)]
pub(crate) struct Flights {
    /// By plan and cut.
    open: Mutex<HashMap<(usize, usize), Vec<Open>>>,
    joined: AtomicU64,
}

struct Open {
    params: Vec<ArrayData>,
    landing: watch::Receiver<Option<Landing>>,
}

/// The right to run a query that others may wait for.
pub(crate) struct Pilot {
    flights: Arc<Flights>,
    key: (usize, usize),
    landing: watch::Sender<Option<Landing>>,
    /// As long as they are here no other plan and cut have their addresses.
    _same: (Arc<Planned>, Arc<Cut>),
}

/// How a query gets its rows.
pub(crate) enum Boarding {
    /// It runs, and says what came of it.
    Pilot(Pilot),
    /// Another one runs.
    Passenger(watch::Receiver<Option<Landing>>),
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<(usize, usize), Vec<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the query that is the same, or is the first of its kind.
    pub(crate) fn board(
        self: &Arc<Self>,
        planned: &Arc<Planned>,
        cut: &Arc<Cut>,
        params: &[ArrayRef],
    ) -> Boarding {
        let key = (Arc::as_ptr(planned) as usize, Arc::as_ptr(cut) as usize);
        let params: Vec<_> = params.iter().map(|param| param.to_data()).collect();
        let mut open = self.lock();
        let same = open.entry(key).or_default();
        if let Some(found) = same.iter().find(|open| open.params == params) {
            return Boarding::Passenger(found.landing.clone());
        }
        let (landing, landed) = watch::channel(None);
        same.push(Open { params, landing: landed });
        let same = (Arc::clone(planned), Arc::clone(cut));
        Boarding::Pilot(Pilot { flights: Arc::clone(self), key, landing, _same: same })
    }

    /// Counts a query that got the rows of another.
    pub(crate) fn note_joined(&self) {
        self.joined.fetch_add(1, Ordering::Relaxed);
    }

    /// Queries so far that got the rows of another.
    pub(crate) fn joined(&self) -> u64 {
        self.joined.load(Ordering::Relaxed)
    }
}

impl Pilot {
    /// All rows.
    pub(crate) fn land(self, rows: Vec<RecordBatch>) {
        self.landing.send_replace(Some(Landing::Rows(Arc::new(rows))));
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        self.landing.send_if_modified(|landing| {
            let given_up = landing.is_none();
            landing.get_or_insert(Landing::Apart);
            given_up
        });
        let mut open = self.flights.lock();
        if let Some(same) = open.get_mut(&self.key) {
            same.retain(|open| !open.landing.same_channel(&self.landing.subscribe()));
            if same.is_empty() {
                open.remove(&self.key);
            }
        }
    }
}

/// The rows of a flight, once it has landed.
pub(crate) async fn landed(
    mut landing: watch::Receiver<Option<Landing>>,
) -> Option<Arc<Vec<RecordBatch>>> {
    let landed = landing.wait_for(Option::is_some).await.ok()?.clone();
    match landed {
        Some(Landing::Rows(rows)) => Some(rows),
        _ => None,
    }
}
