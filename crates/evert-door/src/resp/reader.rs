//! Readers: a connection's sight of the views.
//!
//! Owns: which cut answers, and from which position on; layouts that were made before.
//! Not here: what is said about a row (`hash`, `json`).
//!
//! Invariants
//! - Commands that arrive together are answered from one cut, unless one has to wait.
//! - No cut is held while a connection is idle.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use evert_model::{Position, PositionToken};
use evert_view::{Cut, Name, PinError, RowRef, Snapshot, Views};
use tokio::sync::watch;

use super::client::resolve_error;
use super::key;
use super::layout::Layout;

/// Layouts that a connection keeps.
const LAYOUTS_MAX: usize = 256;
/// How long a read waits for a view that is not there yet, where no position was asked for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why there is no row to tell of.
pub(super) enum Miss {
    /// There is nothing of this name.
    Unknown(Name),
    /// The rows cannot be read by key.
    Error(String),
    /// It is to be waited for: see [`Reader::wait`].
    NotReady,
}

/// From which position on reads are answered.
#[derive(Default)]
pub(super) enum After {
    #[default]
    Anything,
    /// It is not known yet which position the token names.
    Unresolved(PositionToken),
    Position(Position),
}

/// A connection's sight of the views.
pub(super) struct Reader {
    pub(super) views: Views,
    cuts: watch::Receiver<Arc<Cut>>,
    /// The live views, while commands are being answered.
    cut: Option<Arc<Cut>>,
    /// What was waited for, while one command is being answered.
    pinned: Option<Arc<Cut>>,
    layouts: HashMap<Box<[u8]>, Layout>,
    after: After,
    /// How long reads wait for the position they were told to be after.
    after_timeout: Duration,
    /// The position of the last read.
    last: Option<Position>,
    room: Vec<u8>,
}

impl Reader {
    pub(super) fn new(views: Views) -> Self {
        Self {
            cuts: views.watch(),
            views,
            cut: None,
            pinned: None,
            layouts: HashMap::new(),
            after: After::Anything,
            after_timeout: Duration::ZERO,
            last: None,
            room: Vec::new(),
        }
    }

    /// From now on reads are at or after what the token names, and wait for it so long.
    pub(super) fn set_after(&mut self, after: After, timeout: Duration) {
        (self.after, self.after_timeout) = (after, timeout);
    }

    /// The position of the last read, or that of the live views.
    pub(super) fn position(&self) -> Position {
        self.last.unwrap_or_else(|| self.views.position())
    }

    /// What the next command is answered from.
    pub(super) fn cut(&mut self) -> Arc<Cut> {
        if let Some(pinned) = &self.pinned {
            return Arc::clone(pinned);
        }
        Arc::clone(self.cut.get_or_insert_with(|| Arc::clone(&self.cuts.borrow_and_update())))
    }

    /// Commands that come later are answered from a later cut.
    pub(super) fn release(&mut self) {
        (self.cut, self.pinned) = (None, None);
    }

    /// The command that was waited for has been answered.
    pub(super) fn unpin(&mut self) {
        self.pinned = None;
    }

    /// The row that a key names; `None` if the relation or view has none of it.
    pub(super) fn find(&mut self, key: &[u8]) -> Result<(&Layout, Option<RowRef<'_>>), Miss> {
        let (name, rest) = key::split(key);
        if self.pinned.is_none() && self.cut.is_none() {
            self.cut = Some(Arc::clone(&self.cuts.borrow_and_update()));
        }
        self.learn(name)?;
        let cut = self.pinned.as_deref().or(self.cut.as_deref()).expect("it was taken just now");
        let layout = &self.layouts[name];
        if self.pinned.is_none() && !self.views.may_read(cut, &layout.name, at_least(&self.after)) {
            return Err(Miss::NotReady);
        }
        self.last = Some(cut.position);
        let snapshot = &cut.snapshots[&layout.name];
        Ok((layout, layout.find(snapshot, rest, &mut self.room)))
    }

    /// Makes sure that there is a layout for the name, and that it fits the rows.
    fn learn(&mut self, text: &[u8]) -> Result<(), Miss> {
        let cut = self.pinned.as_deref().or(self.cut.as_deref()).expect("the caller took it");
        if let Some(layout) = self.layouts.get(text)
            && cut.snapshots.get(&layout.name).is_some_and(|snapshot| layout.is_of(snapshot))
        {
            return Ok(());
        }
        let name = key::name(text);
        let Some(name) = name else {
            return Err(Miss::Error("ERR the name before the colon is not UTF-8".to_owned()));
        };
        let Some(snapshot) = cut.snapshots.get(&name) else {
            return Err(self.why_absent(cut, name));
        };
        let Some(layout) = Layout::new(name.clone(), snapshot) else {
            return Err(Miss::Error(no_key(&name)));
        };
        if self.layouts.len() >= LAYOUTS_MAX {
            self.layouts.clear();
        }
        self.layouts.insert(text.into(), layout);
        Ok(())
    }

    fn why_absent(&self, cut: &Cut, name: Name) -> Miss {
        if let Some(why) = cut.failed.get(&name) {
            return Miss::Error(failed(&name, why));
        }
        if cut.streams.contains_key(&name) {
            return Miss::Error(no_key(&name));
        }
        // A view that folds apart, or is new.
        if self.pinned.is_none() && self.views.catalog().contains(&name) {
            return Miss::NotReady;
        }
        Miss::Unknown(name)
    }

    /// Waits until the relations and views that the keys name can be read together; the next
    /// command reads them there.
    pub(super) async fn wait(&mut self, keys: &[&[u8]]) -> Result<(), String> {
        let asked = !matches!(self.after, After::Anything);
        let timeout = if asked { self.after_timeout } else { PATIENCE };
        if let After::Unresolved(token) = &self.after {
            let resolved = self.views.resolve(token, timeout).await;
            self.after = After::Position(resolved.map_err(|error| resolve_error(&error))?);
        }
        let catalog = self.views.catalog();
        let mut names: Vec<_> =
            keys.iter().filter_map(|key| key::name(key::split(key).0)).collect();
        names.retain(|name| catalog.contains(name));
        names.sort_unstable();
        names.dedup();
        let wanted = at_least(&self.after);
        let cut =
            self.views.pin(&names, wanted, timeout).await.map_err(|error| pin_error(&error))?;
        if asked && cut.position < wanted {
            return Err(format!(
                "ERR a view is paused at position {}, before {wanted}",
                cut.position
            ));
        }
        self.last = Some(cut.position);
        self.pinned = Some(cut);
        Ok(())
    }

    /// Whether the live views are where reads want them.
    pub(super) fn is_ready(&mut self) -> bool {
        let wanted = at_least(&self.after);
        let pinned = self.pinned.is_some();
        let cut = self.cut();
        let ready = pinned || self.views.is_current(&cut, wanted);
        if ready {
            self.last = Some(cut.position);
        }
        ready
    }

    /// A view that has published no rows so far.
    pub(super) fn is_to_come(&mut self, name: &Name) -> bool {
        let cut = self.cut();
        let is_here = cut.snapshots.contains_key(name)
            || cut.streams.contains_key(name)
            || cut.failed.contains_key(name);
        !is_here && self.views.catalog().contains(name) && self.views.published(name).is_none()
    }

    /// Everything with a key, in the order of names: the live rows, and of views that fold apart
    /// what they have published.
    pub(super) fn keyed(&mut self) -> Vec<(Name, Snapshot)> {
        let cut = self.cut();
        let catalog = self.views.catalog();
        let names = catalog.relations.keys().chain(catalog.views.keys());
        let found = names.filter_map(|name| {
            let live = cut.snapshots.get(name).cloned();
            let snapshot = live.or_else(|| self.views.published(name))?;
            snapshot.key().is_some().then(|| (name.clone(), snapshot))
        });
        let mut found: Vec<_> = found.collect();
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found
    }
}

fn at_least(after: &After) -> Position {
    match after {
        After::Anything => Position::ZERO,
        After::Position(position) => *position,
        After::Unresolved(_) => Position::new(i64::MAX as u64),
    }
}

fn failed(name: &Name, why: &str) -> String {
    format!("ERR view \"{name}\" failed: {why}")
}

fn no_key(name: &Name) -> String {
    format!("ERR \"{name}\" has no key: tables with a PRIMARY KEY and views with GROUP BY have one")
}

/// A pin that was not had, in this door's words.
pub(super) fn pin_error(error: &PinError) -> String {
    match error {
        PinError::Failed { name, why } => failed(name, why),
        PinError::Starting { .. } => format!("LOADING {error}"),
        PinError::Timeout { .. } => format!("TIMEOUT {error}"),
        PinError::Unknown(_) | PinError::Paused { .. } | PinError::Stopping => {
            format!("ERR {error}")
        }
    }
}
