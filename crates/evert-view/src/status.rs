//! What SHOW VIEWS tells.

use std::time::Duration;

use evert_model::Position;

use crate::catalog::{Catalog, ViewDef};
use crate::cohort::Cut;
use crate::outlet::{OutletDef, OutletKind};
use crate::progress::StageProgress;
use crate::{Name, Views};

/// The state of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViewState {
    /// Catching up: after a start, or because it is new.
    Rebuilding {
        /// How much is done, 0 to 99.
        percent: u8,
        /// What is left at the pace so far.
        eta: Option<Duration>,
    },
    /// Following the log.
    Live,
    /// Following the log apart from the others, and behind them.
    Behind,
    /// Standing still on request: it is read as it was then.
    Paused,
    /// Stopped for a while, and why: it is tried again.
    Retrying(String),
    /// Stopped, and why.
    Failed(String),
}

impl std::fmt::Display for ViewState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rebuilding { percent, eta: None } => write!(f, "rebuilding {percent}%"),
            Self::Rebuilding { percent, eta: Some(eta) } => {
                write!(f, "rebuilding {percent}% eta {}s", eta.as_secs())
            }
            Self::Live => f.write_str("live"),
            Self::Behind => f.write_str("behind"),
            Self::Paused => f.write_str("paused"),
            Self::Retrying(why) => write!(f, "retrying: {why}"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

/// A view as SHOW VIEWS shows it.
#[derive(Clone, Debug)]
pub struct ViewStatus {
    /// The view.
    pub name: Name,
    /// What holds its rows, if not the fold: a search index, an archive, a sink.
    pub outlet: Option<OutletKind>,
    /// Whether it can be read.
    pub state: ViewState,
    /// How it catches up, while it is new or being built anew.
    pub progress: Option<StageProgress>,
    /// The position it has reached.
    pub position: Position,
    /// Records of its relations that it has not folded yet.
    pub lag_records: u64,
    /// How far its position's log time lies back, when records are waiting; zero until it has
    /// folded any.
    pub lag_ms: u64,
    /// Its rows.
    pub rows: usize,
    /// Its state and its rows in memory.
    pub memory_bytes: usize,
}

/// A lane that is less than this behind is as good as live.
const BEHIND_MS: u64 = 1000;

/// The status of one view; `live` is what the live cohort has published.
pub(crate) fn of(views: &Views, catalog: &Catalog, def: &ViewDef, live: &Cut) -> ViewStatus {
    let shared = views.shared();
    let name = &def.name;
    let in_live = live.snapshots.contains_key(name) || live.failed.contains_key(name);
    let face = shared.lane_of(name).filter(|_| !in_live);
    let own = face.as_ref().and_then(|face| face.cut());
    let cut = if in_live { Some(live) } else { own.as_deref() };
    let behind = cut.map_or(live.position, |cut| cut.position) < live.position;
    let lag_records = shared.lag_records(catalog, name, cut);
    // Before the first commit there is no log time to lie back.
    let log_time = cut.map(|cut| cut.log_time.get()).filter(|time| *time > 0);
    let lag = log_time.map_or(0, |time| shared.log.now().get().saturating_sub(time).max(0));
    let lag_ms = if lag_records == 0 && !behind { 0 } else { lag as u64 / 1000 };
    let progress = shared.newcomer(name).or_else(|| shared.building(name));
    let progress = progress.map(|progress| progress.now());
    let paused = face.as_ref().is_some_and(|face| face.tap.paused_at().is_some());
    let state = match (cut, shared.stopped()) {
        (Some(cut), _) if cut.failed.contains_key(name) => {
            ViewState::Failed(cut.failed[name].to_string())
        }
        (_, Some(Some(why))) => ViewState::Failed(why),
        _ if paused => ViewState::Paused,
        (Some(_), _) if in_live => views.replay_state(),
        (Some(_), _) if behind && (log_time.is_none() || lag_ms > BEHIND_MS) => ViewState::Behind,
        (Some(_), _) => ViewState::Live,
        (None, _) => {
            let now = progress.unwrap_or_default();
            ViewState::Rebuilding { percent: now.percent, eta: now.eta }
        }
    };
    let snapshot = cut.and_then(|cut| cut.snapshots.get(name));
    ViewStatus {
        name: name.clone(),
        outlet: None,
        state,
        progress,
        position: cut.map_or(Position::ZERO, |cut| cut.position),
        lag_records,
        lag_ms,
        rows: snapshot.map_or(0, |snapshot| snapshot.len()),
        memory_bytes: shared.state_of(name).iter().map(|held| held.bytes).sum(),
    }
}

/// The status of one outlet; `live` is what the live cohort has published.
pub(crate) fn of_outlet(
    views: &Views,
    catalog: &Catalog,
    def: &OutletDef,
    live: &Cut,
) -> ViewStatus {
    let shared = views.shared();
    let board = views.outlets().board(&def.name);
    let position = board.as_ref().map_or(Position::ZERO, |board| board.reached());
    let state = match &board {
        Some(board) => board.view_state(),
        None => ViewState::Rebuilding { percent: 0, eta: None },
    };
    // After a start the live views may well be behind it.
    let lag_records = match position == live.position {
        true => shared.lag_records(catalog, &def.on, Some(live)),
        false => shared.records_after(catalog, &def.on, position),
    };
    ViewStatus {
        name: def.name.clone(),
        outlet: Some(def.kind),
        state,
        progress: None,
        position,
        lag_records,
        lag_ms: if lag_records == 0 { 0 } else { shared.waiting_ms(position) },
        rows: board.map_or(0, |board| usize::try_from(board.rows()).unwrap_or(usize::MAX)),
        memory_bytes: 0,
    }
}
