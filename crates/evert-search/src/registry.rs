//! Which indexes are open, for those who search them.
//!
//! Invariants
//! - A reader gets one generation of an index, and the position it is of.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use evert_model::{Position, PositionToken};
use evert_view::{CatalogError, Name, OutletKind, ViewState, Views};
use tantivy::Searcher;
use tokio::sync::Semaphore;

use crate::error::EsError;
use crate::mapping::Mapping;

/// Searches at a time; others wait for their turn.
const SEARCHES_MAX: usize = 16;

/// How often it is looked whether an index has come far enough, at least.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Before an index that was started anew is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What an index held at one position.
#[derive(Clone)]
pub(crate) struct Generation {
    pub(crate) searcher: Searcher,
    pub(crate) position: Position,
}

/// An open index.
pub(crate) struct OpenIndex {
    pub(crate) name: Name,
    pub(crate) mapping: Arc<Mapping>,
    /// Nothing while its first rows are still coming.
    current: RwLock<Option<Generation>>,
}

impl OpenIndex {
    pub(crate) fn new(name: Name, mapping: Arc<Mapping>, current: Option<Generation>) -> Self {
        Self { name, mapping, current: RwLock::new(current) }
    }

    pub(crate) fn publish(&self, generation: Option<Generation>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = generation;
    }

    pub(crate) fn current(&self) -> Option<Generation> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All search indexes of a server. Cheap to clone.
#[derive(Clone)]
pub struct SearchIndexes(Arc<Inner>);

struct Inner {
    open: RwLock<BTreeMap<Name, Arc<OpenIndex>>>,
    views: OnceLock<Views>,
    turns: Semaphore,
}

impl Default for SearchIndexes {
    fn default() -> Self {
        Self(Arc::new(Inner {
            open: RwLock::default(),
            views: OnceLock::new(),
            turns: Semaphore::new(SEARCHES_MAX),
        }))
    }
}

impl SearchIndexes {
    /// Tells which views the indexes belong to, before the first search.
    pub fn attach(&self, views: Views) {
        // A second call names the same views.
        let _ = self.0.views.set(views);
    }

    pub(crate) fn views(&self) -> Result<&Views, EsError> {
        let starting = || EsError::new(503, "cluster_block_exception", "the server is starting");
        self.0.views.get().ok_or_else(starting)
    }

    pub(crate) fn put(&self, index: Arc<OpenIndex>) {
        let mut open = self.0.open.write().unwrap_or_else(PoisonError::into_inner);
        open.insert(index.name.clone(), index);
    }

    pub(crate) fn take_out(&self, name: &Name) {
        self.0.open.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The names of all indexes of the catalog.
    pub(crate) fn names(&self) -> Result<Vec<Name>, EsError> {
        let catalog = self.views()?.catalog();
        let search = catalog.outlets.values().filter(|def| def.kind == OutletKind::Search);
        Ok(search.map(|def| def.name.clone()).collect())
    }

    /// An index by name.
    ///
    /// # Errors
    /// When there is none, or it is not open yet.
    pub(crate) fn index(&self, name: &Name) -> Result<Arc<OpenIndex>, EsError> {
        let catalog = self.views()?.catalog();
        let def = catalog.outlets.get(name).filter(|def| def.kind == OutletKind::Search);
        if def.is_none() {
            return Err(EsError::no_index(&name.to_string()));
        }
        let open = self.0.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(name).cloned().ok_or_else(|| EsError::unavailable(name, "is being opened"))
    }

    /// Waits until an index has reached a position, and gives what it holds then.
    ///
    /// # Errors
    /// When there is no such index, it has failed, has no rows yet, or does not come so far in time.
    pub(crate) async fn generation(
        &self,
        name: &Name,
        after: Position,
        timeout: Duration,
    ) -> Result<(Arc<OpenIndex>, Generation), EsError> {
        let views = self.views()?;
        let wait = async {
            let mut watched = None;
            loop {
                // What it holds may be rows of another definition.
                self.has_not_failed(name)?;
                // It may be opened, or opened anew, meanwhile.
                match self.index(name) {
                    Ok(index) => {
                        let current = index.current().filter(|it| it.position >= after);
                        if let Some(generation) = current {
                            return Ok((index, generation));
                        }
                    }
                    Err(error) if error.status == 404 => return Err(error),
                    Err(_) => {}
                }
                self.may_come(name)?;
                // While it is started or built anew, nothing of it is watched.
                watched = watched.or_else(|| views.outlet_reached(name));
                let Some(reached) = &mut watched else {
                    tokio::time::sleep(LOOK_AGAIN).await;
                    continue;
                };
                // An index that was built anew may come back to where it was: nobody is told then.
                let told = tokio::time::timeout(LOOK_EVERY, reached.changed()).await;
                if matches!(told, Ok(Err(_))) {
                    watched = None;
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
        };
        let late = || match self.index(name).ok().and_then(|index| index.current()) {
            None => EsError::unavailable(name, "is being built"),
            Some(generation) => EsError::new(
                504,
                "timeout_exception",
                format!(
                    "[{name}] is at position {}: {after} was not reached in time",
                    generation.position
                ),
            ),
        };
        tokio::time::timeout(timeout, wait).await.unwrap_or_else(|_| Err(late()))
    }

    fn has_not_failed(&self, name: &Name) -> Result<(), EsError> {
        match self.views()?.outlet_state(name) {
            Some(ViewState::Failed(why)) => {
                Err(EsError::unavailable(name, &format!("failed: {why}")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses to wait for an index that stands still.
    fn may_come(&self, name: &Name) -> Result<(), EsError> {
        match self.views()?.outlet_state(name) {
            Some(ViewState::Paused) => {
                let at = self.index(name).ok().and_then(|index| index.current());
                let place = at.map_or("before it was built".to_owned(), |generation| {
                    format!("at position {}", generation.position)
                });
                let why = format!("is paused {place}: RESUME SEARCH INDEX lets it go on");
                Err(EsError::unavailable(name, &why))
            }
            _ => Ok(()),
        }
    }

    /// The position of a token such as `41` or `payments/0@17`.
    pub(crate) async fn position_of(
        &self,
        token: &str,
        timeout: Duration,
    ) -> Result<Position, EsError> {
        let token: PositionToken = token
            .parse()
            .map_err(|error: evert_model::TokenError| EsError::argument(error.to_string()))?;
        let resolved = self.views()?.resolve(&token, timeout).await;
        resolved.map_err(|error| match error {
            // The only thing that can be invalid about a known token is its time.
            CatalogError::Invalid(why) => EsError::new(504, "timeout_exception", why),
            error => EsError::argument(error.to_string()),
        })
    }

    /// Runs a search where it may take its time, when it is its turn.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        search: impl FnOnce() -> Result<T, EsError> + Send + 'static,
    ) -> Result<T, EsError> {
        let stopping = || EsError::new(503, "cluster_block_exception", "the server is stopping");
        let _turn = self.0.turns.acquire().await.map_err(|_| stopping())?;
        let done = tokio::task::spawn_blocking(search).await;
        done.unwrap_or_else(|error| {
            tracing::error!(%error, "search: a search broke off");
            Err(EsError::new(500, "search_phase_execution_exception", "the search broke off"))
        })
    }
}
