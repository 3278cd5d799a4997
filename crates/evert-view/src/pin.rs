//! Pins: relations and views read together, at one position.
//!
//! Owns: which cut answers a reader, and why none does.
//! Not here: publishing (`follower`, `lane`).
//!
//! Invariants
//! - All that a pin gives is of one position, at or after the one asked for.
//! - A reader of live views waits for no view in a lane.

use std::sync::Arc;
use std::time::Duration;

use evert_model::Position;
use thiserror::Error;

use crate::cohort::Cut;
use crate::face::{Awaited, Face};
use crate::status::ViewState;
use crate::{Name, Views};

/// Between two looks at lanes that are past what was wanted, or not that far.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Why relations and views cannot be read together.
#[derive(Debug, Error)]
pub enum PinError {
    /// There is nothing of this name.
    #[error("\"{0}\" does not exist")]
    Unknown(Name),
    /// The view stopped.
    #[error("view \"{name}\" failed: {why}")]
    Failed {
        /// The view.
        name: Name,
        /// Why it stopped.
        why: String,
    },
    /// The view is paused where the others cannot be read any more.
    #[error("view \"{name}\" is paused at position {position}, where \"{other}\" is not kept")]
    Paused {
        /// The paused view.
        name: Name,
        /// Where it is paused.
        position: Position,
        /// What is to be read with it.
        other: Name,
    },
    /// The log, or a view, did not get that far in time.
    #[error("position {wanted} was not reached in time: the views are at {reached}")]
    Timeout {
        /// What was asked for.
        wanted: Position,
        /// How far the views are.
        reached: Position,
    },
    /// The views are being replayed after a start, or one of them is new.
    #[error("not ready yet: {percent}% replayed")]
    Starting {
        /// How much is done.
        percent: u8,
        /// What is left at the pace so far.
        eta: Option<Duration>,
    },
    /// The follower ended.
    #[error("the server is stopping")]
    Stopping,
}

/// What a look at the published cuts says.
enum Look {
    Ready(Arc<Cut>),
    /// A later cut may do.
    Wait,
    /// The cut, with what these lanes have at its position.
    Ask(Arc<Cut>, Vec<Arc<Face>>),
}

impl Views {
    /// Waits until all of `names` can be read at one position at or after `at_least`. An empty
    /// `names` waits for the live cohort. Paused views are read where they are paused, whatever
    /// `at_least` says.
    ///
    /// # Errors
    /// See [`PinError`].
    pub async fn pin(
        &self,
        names: &[Name],
        at_least: Position,
        timeout: Duration,
    ) -> Result<Arc<Cut>, PinError> {
        // Most of the time it is there already.
        if let Look::Ready(cut) = self.look(self.shared().cut(), names, at_least)? {
            return Ok(cut);
        }
        let mut cuts = self.shared().watch_cut();
        let wait = async {
            loop {
                let cut = Arc::clone(&cuts.borrow_and_update());
                match self.look(cut, names, at_least)? {
                    Look::Ready(cut) => return Ok(cut),
                    Look::Wait if cuts.changed().await.is_err() => return Err(PinError::Stopping),
                    Look::Wait => {}
                    Look::Ask(cut, faces) => match ask(&cut, &faces, names).await? {
                        Some(cut) => return Ok(cut),
                        None => tokio::time::sleep(LOOK_EVERY).await,
                    },
                }
            }
        };
        match tokio::time::timeout(timeout, wait).await {
            Ok(result) => result,
            Err(_) => Err(self.why_late(names, at_least)),
        }
    }

    fn look(&self, cut: Arc<Cut>, names: &[Name], at_least: Position) -> Result<Look, PinError> {
        let shared = self.shared();
        if let Some(why) = shared.stopped() {
            return Err(match why {
                Some(why) => PinError::Failed { name: Name::new("evert", "log"), why },
                None => PinError::Stopping,
            });
        }
        let mut ready = !shared.is_replacing(names);
        let mut faces: Vec<Arc<Face>> = Vec::new();
        for name in names {
            if let Some(why) = cut.failed.get(name) {
                return Err(PinError::Failed { name: name.clone(), why: why.to_string() });
            }
            if cut.snapshots.contains_key(name) || cut.streams.contains_key(name) {
                continue;
            }
            match shared.lane_of(name) {
                Some(face) if faces.iter().any(|other| Arc::ptr_eq(other, &face)) => {}
                Some(face) => faces.push(face),
                None if !shared.catalog().contains(name) => {
                    return Err(PinError::Unknown(name.clone()));
                }
                None => ready = false,
            }
        }
        let paused =
            faces.iter().filter_map(|face| face.tap.paused_at()).min_by_key(|c| c.position);
        if let Some(paused) = paused.filter(|_| ready) {
            return self.look_back(&paused, faces, names);
        }
        if !ready || cut.position < at_least.max(shared.floor) {
            return Ok(Look::Wait);
        }
        Ok(if faces.is_empty() { Look::Ready(cut) } else { Look::Ask(cut, faces) })
    }

    /// The cut at which a view is paused, if the others can be read at it.
    fn look_back(
        &self,
        paused: &Arc<Cut>,
        mut faces: Vec<Arc<Face>>,
        names: &[Name],
    ) -> Result<Look, PinError> {
        // What is on its way into a paused lane is read there as soon as it has arrived.
        let rests = |name: &&Name| {
            let face = self.shared().lane_of(name);
            face.is_some_and(|face| face.is_paused_at(paused.position))
        };
        let is_kept = |name: &&Name| {
            paused.snapshots.contains_key(*name) || paused.streams.contains_key(*name)
        };
        let Some(other) = names.iter().find(|name| !is_kept(name) && !rests(name)) else {
            // Those that went on since, or are paused later, have left their rows here.
            faces.retain(|face| face.is_paused_at(paused.position));
            return Ok(Look::Ask(Arc::clone(paused), faces));
        };
        let name = names.iter().find(rests).unwrap_or(other).clone();
        Err(PinError::Paused { name, position: paused.position, other: other.clone() })
    }

    /// A cut with what lanes have of `names` at its position; nothing if one is past it.
    pub(crate) async fn with_lanes(
        &self,
        cut: &Arc<Cut>,
        names: &[Name],
    ) -> Result<Option<Arc<Cut>>, PinError> {
        let mut faces: Vec<Arc<Face>> = Vec::new();
        for name in names {
            if cut.snapshots.contains_key(name) || cut.streams.contains_key(name) {
                continue;
            }
            match self.shared().lane_of(name) {
                Some(face) if face.tap.paused_at().is_none_or(|at| at.position >= cut.position) => {
                    faces.push(face);
                }
                _ => return Ok(None),
            }
        }
        ask(cut, &faces, names).await
    }

    fn why_late(&self, names: &[Name], wanted: Position) -> PinError {
        let shared = self.shared();
        match self.replay_state() {
            ViewState::Rebuilding { percent, eta } => PinError::Starting { percent, eta },
            _ => match names.iter().find_map(|name| shared.newcomer(name)) {
                Some(progress) => {
                    let now = progress.now();
                    PinError::Starting { percent: now.percent, eta: now.eta }
                }
                None => {
                    let lanes = names.iter().filter_map(|name| shared.lane_of(name)?.cut());
                    let lanes = lanes.map(|cut| cut.position);
                    let reached = lanes.chain([self.position()]).min().unwrap_or_default();
                    PinError::Timeout { wanted: wanted.max(self.position()), reached }
                }
            },
        }
    }
}

/// The cut with what the lanes have at its position; nothing if they are past it or were closed.
async fn ask(
    cut: &Arc<Cut>,
    faces: &[Arc<Face>],
    names: &[Name],
) -> Result<Option<Arc<Cut>>, PinError> {
    let mut whole = Cut::clone(cut);
    for face in faces {
        let own = match face.at(cut.position) {
            Awaited::Now(own) => own,
            Awaited::Later(later) => match later.await {
                Ok(own) => own,
                Err(_) => return Ok(None),
            },
            Awaited::Passed => return Ok(None),
        };
        whole.snapshots.extend(own.snapshots.clone());
        whole.failed.extend(own.failed.clone());
    }
    for name in names {
        if let Some(why) = whole.failed.get(name) {
            return Err(PinError::Failed { name: name.clone(), why: why.to_string() });
        }
        if !whole.snapshots.contains_key(name) && !whole.streams.contains_key(name) {
            return Ok(None);
        }
    }
    Ok(Some(Arc::new(whole)))
}
