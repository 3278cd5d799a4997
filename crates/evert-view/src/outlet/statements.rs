//! Statements about outlets: made, dropped, paused, rebuilt, verified.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use evert_model::Position;
use tokio::sync::{oneshot, watch};

use super::board::Doing;
use super::runner::Order;
use super::{OutletDef, OutletError, OutletFactory, OutletKind, OutletVerdict};
use crate::catalog::{Catalog, CatalogError, Entry, PlanError, Relation};
use crate::lifecycle::not_paused;
use crate::status::ViewState;
use crate::views::check_new;
use crate::{Name, Views};

/// How long CREATE waits for what may be there already.
const LOOK_WITHIN: Duration = Duration::from_secs(10);
/// How often a statement looks whether it was given up, or is done.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Views {
    /// Says what serves the kinds of outlets, and starts the outlets that there are. Once, after
    /// the views were opened.
    ///
    /// # Errors
    /// When there is no thread for one of them.
    pub fn serve_outlets(
        &self,
        kinds: impl IntoIterator<Item = (OutletKind, Arc<dyn OutletFactory>)>,
    ) -> Result<(), CatalogError> {
        let _ddl = self.lock_ddl();
        for (kind, factory) in kinds {
            self.outlets().register(kind, factory);
        }
        let catalog = self.catalog();
        catalog
            .outlets
            .values()
            .filter(|def| self.outlets().board(&def.name).is_none())
            .try_for_each(|def| self.outlets().start(self, Arc::clone(def)))
    }

    /// Makes an outlet. Blocks until its definition is durable, not until it has caught up.
    ///
    /// # Errors
    /// When the name is taken or reserved, there is nothing to read, or the kind's crate refuses
    /// the columns or options.
    pub fn create_outlet(&self, mut def: OutletDef) -> Result<Position, CatalogError> {
        self.look_at_place(&def)?;
        let _ddl = self.lock_ddl();
        let mut catalog = Catalog::clone(&self.catalog());
        check_new(&catalog, &def.name)?;
        let factory = self.factory(def.kind)?;
        let Some(schema) = catalog.schema_of(&def.on) else {
            return Err(CatalogError::Unknown(def.on));
        };
        not_paused(&catalog, [&def.on])?;
        def.options = factory.check(&def, schema)?;
        if let Some(place) = factory.place(&def.options) {
            check_place(&catalog, &def, (factory.as_ref(), place))?;
        }
        let name = def.name.clone();
        let entry = Entry::Outlet(def);
        let position = self.record(&[(entry.key(), Some(&entry))])?;
        catalog.put(entry);
        let def = Arc::clone(&catalog.outlets[&name]);
        self.shared().set_catalog(catalog);
        self.outlets().start(self, def)?;
        Ok(position)
    }

    /// Looks at what is where an outlet is to be, while other statements go on.
    fn look_at_place(&self, def: &OutletDef) -> Result<(), CatalogError> {
        let catalog = self.catalog();
        let factory = self.factory(def.kind)?;
        let Some(schema) = catalog.schema_of(&def.on).cloned() else {
            return Err(CatalogError::Unknown(def.on.clone()));
        };
        check_new(&catalog, &def.name)?;
        let options = factory.check(def, &schema)?;
        let def = OutletDef { options, ..def.clone() };
        if let Some(place) = factory.place(&def.options) {
            check_place(&catalog, &def, (factory.as_ref(), place))?;
        }
        let look = async move {
            let look = tokio::time::timeout(LOOK_WITHIN, factory.look(&def, &schema));
            look.await.unwrap_or(Ok(()))
        };
        match apart(look) {
            Ok(()) | Err(OutletError::Retry(_)) => Ok(()),
            Err(OutletError::Failed(message)) => {
                let (sqlstate, hint) = ("55000", None);
                Err(PlanError { sqlstate, message, hint }.into())
            }
        }
    }

    /// Refuses columns that an outlet over a relation could not hold.
    pub(crate) fn check_outlets(
        &self,
        catalog: &Catalog,
        relation: &Relation,
    ) -> Result<(), CatalogError> {
        let over = catalog.outlets.values().filter(|def| def.on == relation.name);
        for def in over {
            if let Some(factory) = self.outlets().factory(def.kind) {
                factory.check_columns(def, &relation.schema).map_err(|error| {
                    let message = format!("{} reads \"{}\": {error}", def.describe(), def.on);
                    PlanError { message, ..error }
                })?;
            }
        }
        Ok(())
    }

    /// Where an outlet's readers are; nothing if there is no such outlet. The sender is gone when
    /// the outlet was dropped or started anew: look again then.
    pub fn outlet_reached(&self, name: &Name) -> Option<watch::Receiver<Position>> {
        self.outlets().board(name).map(|board| board.watch())
    }

    /// How an outlet is doing; nothing if there is no such outlet.
    pub fn outlet_state(&self, name: &Name) -> Option<ViewState> {
        self.outlets().board(name).map(|board| board.view_state())
    }

    /// Compares what an outlet has stored with what it ought to have. Blocks. The outlet does not
    /// follow meanwhile. `given_up` ends it early.
    ///
    /// # Errors
    /// When there is no such outlet, it is not open now, or one of the sides cannot be read.
    pub fn verify_outlet(
        &self,
        name: &Name,
        given_up: &AtomicBool,
    ) -> Result<OutletVerdict, CatalogError> {
        let (reply, mut verdict) = oneshot::channel();
        if !self.catalog().outlets.contains_key(name) {
            return Err(CatalogError::Unknown(name.clone()));
        }
        self.outlets().ask(name, Order::Verify(reply));
        loop {
            match verdict.try_recv() {
                Ok(Ok(verdict)) => return Ok(verdict),
                Ok(Err(OutletError::Retry(why))) => return Err(CatalogError::NotReady(why)),
                Ok(Err(OutletError::Failed(why))) => return Err(CatalogError::Failed(why)),
                Err(oneshot::error::TryRecvError::Closed) => {
                    let why = format!("\"{name}\" was dropped or stopped meanwhile");
                    return Err(CatalogError::NotReady(why));
                }
                Err(_) if given_up.load(Ordering::Relaxed) => return Err(was_given_up()),
                Err(_) => thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Forgets what an outlet has stored and begins again. Blocks until it has caught up.
    pub(crate) fn rebuild_outlet(
        &self,
        name: &Name,
        given_up: &AtomicBool,
    ) -> Result<Position, CatalogError> {
        {
            let _ddl = self.lock_ddl();
            let old = self.outlet(name)?;
            if old.paused {
                let why = format!("{} is paused: resume it first", old.describe());
                return Err(CatalogError::NotReady(why));
            }
            not_paused(&self.catalog(), [&old.on])?;
            let factory = self.factory(old.kind)?;
            self.outlets().stop(name);
            let anew = Arc::clone(&old);
            if let Err(error) = apart(async move { factory.begin_anew(&anew).await }) {
                self.outlets().start(self, Arc::clone(&old))?;
                return Err(match error {
                    OutletError::Retry(why) => CatalogError::NotReady(why),
                    OutletError::Failed(why) => CatalogError::Failed(why),
                });
            }
            self.put_outlet(old.anew())?;
        }
        self.wait_for_outlet(name, given_up)
    }

    fn wait_for_outlet(
        &self,
        name: &Name,
        given_up: &AtomicBool,
    ) -> Result<Position, CatalogError> {
        loop {
            let Some(board) = self.outlets().board(name) else {
                return Err(CatalogError::Unknown(name.clone()));
            };
            match board.doing() {
                Doing::Following | Doing::Paused => return Ok(board.reached()),
                Doing::Failed(why) => {
                    return Err(CatalogError::Failed(format!("\"{name}\" failed: {why}")));
                }
                _ if given_up.load(Ordering::Relaxed) => return Err(was_given_up()),
                _ => thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Stops an outlet where it is, or lets it go on; it stays so over restarts.
    pub(crate) fn set_outlet_paused(
        &self,
        name: &Name,
        paused: bool,
    ) -> Result<Position, CatalogError> {
        let _ddl = self.lock_ddl();
        let old = self.outlet(name)?;
        if old.paused == paused {
            let why = format!("{} is not paused", old.describe());
            return if paused {
                Ok(self.outlet_position(name))
            } else {
                Err(CatalogError::NotReady(why))
            };
        }
        let before = self.outlets().board(name);
        self.outlets().stop(name);
        let stood = before.as_ref().filter(|_| paused).map(|board| board.standing());
        let position = self.put_outlet(OutletDef { paused, stood, ..OutletDef::clone(&old) })?;
        if let (Some(before), Some(board)) = (&before, self.outlets().board(name)) {
            board.take_over(before);
        }
        Ok(before.filter(|_| paused).map_or(position, |board| board.reached()))
    }

    fn outlet_position(&self, name: &Name) -> Position {
        self.outlets().board(name).map_or(Position::ZERO, |board| board.reached())
    }

    /// Records another definition of an outlet that is stopped, and starts it.
    fn put_outlet(&self, def: OutletDef) -> Result<Position, CatalogError> {
        let mut catalog = Catalog::clone(&self.catalog());
        let name = def.name.clone();
        let entry = Entry::Outlet(def);
        let recorded = self.record(&[(entry.key(), Some(&entry))]);
        if recorded.is_ok() {
            catalog.put(entry);
        }
        let def = Arc::clone(&catalog.outlets[&name]);
        self.shared().set_catalog(catalog);
        self.outlets().start(self, def)?;
        recorded
    }

    /// Lets the outlets over some views begin anew, as the catalog has them now.
    pub(crate) fn start_outlets_anew(&self, names: &[Name]) -> Result<(), CatalogError> {
        for def in self.catalog().outlets_on(names) {
            self.outlets().stop(&def.name);
            self.outlets().start(self, def)?;
        }
        Ok(())
    }

    /// Drops an outlet. What it has stored is forgotten as far as it can be reached now.
    pub(crate) fn drop_outlet(&self, name: &Name) -> Result<Position, CatalogError> {
        let def = self.outlet(name)?;
        let mut catalog = Catalog::clone(&self.catalog());
        let key = Entry::Outlet(OutletDef::clone(&def)).key();
        self.outlets().stop(name);
        let position = match self.record(&[(key.clone(), None)]) {
            Ok(position) => position,
            Err(error) => {
                self.outlets().start(self, def)?;
                return Err(error);
            }
        };
        catalog.remove(&key);
        self.shared().set_catalog(catalog);
        self.forget_outlet(&def);
        Ok(position)
    }

    /// Lets the kind's crate forget what a dropped outlet has stored.
    pub(crate) fn forget_outlet(&self, def: &OutletDef) {
        let Some(factory) = self.outlets().factory(def.kind) else { return };
        let gone = def.clone();
        if let Err(error) = apart(async move { factory.remove(&gone).await }) {
            tracing::warn!(outlet = %def.name, %error, "dropped, but its data is still there");
        }
    }

    fn outlet(&self, name: &Name) -> Result<Arc<OutletDef>, CatalogError> {
        let catalog = self.catalog();
        let def = catalog.outlets.get(name).map(Arc::clone);
        def.ok_or_else(|| CatalogError::Unknown(name.clone()))
    }

    fn factory(&self, kind: OutletKind) -> Result<Arc<dyn OutletFactory>, CatalogError> {
        let missing = || CatalogError::Invalid(format!("there is no {} here", kind.noun()));
        self.outlets().factory(kind).ok_or_else(missing)
    }
}

fn was_given_up() -> CatalogError {
    CatalogError::NotReady("the statement was given up".into())
}

/// Runs a call of a kind's crate on a thread of its own: the caller may be one that must not block
/// on a runtime.
fn apart(
    call: impl Future<Output = Result<(), OutletError>> + Send + 'static,
) -> Result<(), OutletError> {
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| OutletError::Retry(format!("no runtime: {e}")))?;
        runtime.block_on(call)
    };
    let ended = thread::spawn(work).join();
    ended.unwrap_or_else(|_| Err(OutletError::Failed("it ended in a panic".into())))
}

/// Refuses a place that another outlet has, or that lies in or around another's.
fn check_place(
    catalog: &Catalog,
    def: &OutletDef,
    (factory, place): (&dyn OutletFactory, &str),
) -> Result<(), CatalogError> {
    let lies_in = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    for other in catalog.outlets.values().filter(|other| other.kind == def.kind) {
        let taken = factory.place(&other.options);
        if let Some(taken) = taken.filter(|taken| lies_in(place, taken) || lies_in(taken, place)) {
            let (noun, name) = (other.kind.noun(), &other.name);
            let what = format!("{place} belongs to {noun} \"{name}\", which is at {taken}");
            return Err(CatalogError::Invalid(what));
        }
    }
    Ok(())
}
