//! A view's life after its creation: replaced, rebuilt, paused, resumed.
//!
//! Owns: what is built for a statement, when it becomes the catalog's.
//! Not here: the building and the swap (`builds`, `lane`).
//!
//! Invariants
//! - Until the new views have caught up nothing has changed, for readers and on disk.
//! - A statement that is given up leaves everything as it was.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use evert_fold::Plan;
use evert_model::Position;

use crate::builds::{BuildOrder, Marked, Material, News};
use crate::catalog::{Catalog, CatalogError, Entry, EntryKey, Pause, ViewDef};
use crate::cohort::Cohort;
use crate::difference::{Difference, difference};
use crate::face::{Awaited, Face};
use crate::follower::Control;
use crate::sources::SourceStates;
use crate::{Name, Views};

/// How often a statement looks whether it was given up.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Before it is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// What is to be built.
struct Blueprint {
    /// The catalog that it was drawn over.
    before: Arc<Catalog>,
    /// Each after those it reads. Those whose definition stays are the catalog's own.
    views: Vec<(Arc<ViewDef>, Plan)>,
    names: BTreeSet<Name>,
}

impl Blueprint {
    /// Whether what was drawn is still what is to be built.
    fn fits(&self, now: &Catalog) -> bool {
        let view_stays = |name: &Name| match (self.before.views.get(name), now.views.get(name)) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            _ => false,
        };
        let stays = |name: &Name| {
            let (old, new) = (self.before.relations.get(name), now.relations.get(name));
            match (old, new) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                _ => view_stays(name),
            }
        };
        let inputs = self.views.iter().flat_map(|(def, _)| &def.inputs);
        let mut outside = inputs.filter(|input| !self.names.contains(*input));
        let dependents = || self.names.iter().flat_map(|name| now.dependents(name));
        self.names.iter().all(view_stays)
            && outside.all(stays)
            && dependents().all(|name| self.names.contains(&name))
            && now.paused_closure().is_disjoint(&self.names)
    }
}

/// A build that has caught up.
struct Built {
    face: Arc<Face>,
}

impl Views {
    /// Gives a view another SELECT. The new one is built beside the old, with all views that read
    /// it; then readers see all of them at once. Blocks until then. `given_up` ends it early, with
    /// everything as it was.
    ///
    /// # Errors
    /// When there is no such view, when the SELECT cannot be a view or one that reads the view
    /// cannot be planned over its new columns, when the new view fails, or when it is given up.
    pub fn replace_view(
        &self,
        name: &Name,
        sql: &str,
        given_up: &AtomicBool,
    ) -> Result<Position, CatalogError> {
        loop {
            let plan = self.draw(name, Some(sql))?;
            let Some(built) = self.build(&plan, given_up)? else { continue };
            let _ddl = self.lock_ddl();
            if !plan.fits(&self.catalog()) {
                self.tell(Control::Abandon(built.face));
                continue;
            }
            return self.put_in_place(plan, built);
        }
    }

    /// What replacing a view would change: in it, and in the views that read it.
    ///
    /// # Errors
    /// As [`Views::replace_view`].
    pub fn dry_run(
        &self,
        name: &Name,
        sql: &str,
        given_up: &AtomicBool,
    ) -> Result<(Position, Vec<Difference>), CatalogError> {
        loop {
            let plan = self.draw(name, Some(sql))?;
            let Some(built) = self.build(&plan, given_up)? else { continue };
            let compared = self.compare(&plan, &built, given_up);
            self.tell(Control::Abandon(built.face));
            if let Some(compared) = compared? {
                return Ok(compared);
            }
        }
    }

    /// Folds views again from the log's beginning, beside the old, in one reading; and with them
    /// the views that read them. Then readers see the new ones. Outlets among `names` forget what
    /// they have stored and begin again. Blocks until then.
    ///
    /// # Errors
    /// When there is no such view, when it fails, or when it is given up.
    pub fn rebuild_views(
        &self,
        names: &[Name],
        given_up: &AtomicBool,
    ) -> Result<Position, CatalogError> {
        let outlets = self.catalog();
        let (outlets, names): (Vec<_>, Vec<_>) =
            names.iter().cloned().partition(|name| outlets.outlets.contains_key(name));
        let mut position = match names.is_empty() {
            true => self.position(),
            false => self.rebuild_folded(&names, given_up)?,
        };
        for name in outlets {
            position = self.rebuild_outlet(&name, given_up)?;
        }
        Ok(position)
    }

    fn rebuild_folded(
        &self,
        names: &[Name],
        given_up: &AtomicBool,
    ) -> Result<Position, CatalogError> {
        loop {
            let plan = self.draw_all(names, None)?;
            let sources = SourceStates::new(self.shared().sources_topic);
            let wanted: Vec<Name> = plan.names.iter().cloned().collect();
            let mut cohort =
                Cohort::of_names(&plan.before, &wanted, self.planner().as_ref(), sources);
            if self.is_kept() {
                cohort.track_views();
            }
            // Aggregates without groups have a row before the first commit already.
            cohort.fold();
            let material = Material::Log(Box::new(cohort));
            let Some(built) = self.build_of(&plan, material, given_up)? else { continue };
            let _ddl = self.lock_ddl();
            if !plan.fits(&self.catalog()) {
                self.tell(Control::Abandon(built.face));
                continue;
            }
            return self.put_in_place(plan, built);
        }
    }

    /// Stops a view where it is, and with it those that read it; it stays so over restarts.
    ///
    /// # Errors
    /// When there is no such view.
    pub fn pause_view(&self, name: &Name) -> Result<Position, CatalogError> {
        if self.catalog().outlets.contains_key(name) {
            return self.set_outlet_paused(name, true);
        }
        let _ddl = self.lock_ddl();
        let mut catalog = Catalog::clone(&self.catalog());
        check_view(&catalog, name)?;
        if let Some(position) = catalog.paused.get(name) {
            return Ok(*position);
        }
        let (reply, paused) = channel();
        self.tell(Control::Pause(name.clone(), reply));
        let position = paused.recv().map_err(|_| stopping())?;
        let entry = Entry::Pause(Pause { name: name.clone(), position });
        if let Err(error) = self.record(&[(entry.key(), Some(&entry))]) {
            self.let_go_on(name);
            return Err(error);
        }
        catalog.put(entry);
        self.shared().set_catalog(catalog);
        Ok(position)
    }

    /// Lets a paused view go on.
    ///
    /// # Errors
    /// When there is no such view, when it is not paused, or reads one that is.
    pub fn resume_view(&self, name: &Name) -> Result<Position, CatalogError> {
        if self.catalog().outlets.contains_key(name) {
            return self.set_outlet_paused(name, false);
        }
        let _ddl = self.lock_ddl();
        let mut catalog = Catalog::clone(&self.catalog());
        check_view(&catalog, name)?;
        if !catalog.paused.contains_key(name) {
            let why = match catalog.pauser_of(name) {
                Some(other) => format!("view \"{name}\" is paused because \"{other}\" is"),
                None => format!("view \"{name}\" is not paused"),
            };
            return Err(CatalogError::NotReady(why));
        }
        let key = EntryKey::Pause(name.clone());
        let position = self.record(&[(key.clone(), None)])?;
        catalog.remove(&key);
        let above = catalog.pauser_of(name).cloned();
        self.shared().set_catalog(catalog);
        if above.is_none() {
            self.let_go_on(name);
        }
        Ok(position)
    }

    fn let_go_on(&self, name: &Name) {
        let (done, gone_on) = channel::<()>();
        self.tell(Control::Resume(name.clone(), done));
        // Nothing is sent: the follower lets go of the sender when it is done.
        let _ = gone_on.recv();
    }

    fn draw(&self, name: &Name, sql: Option<&str>) -> Result<Blueprint, CatalogError> {
        self.draw_all(std::slice::from_ref(name), sql)
    }

    /// Plans the views of `names`, the first by another SELECT if given, and all that must be
    /// built with them.
    fn draw_all(&self, names: &[Name], sql: Option<&str>) -> Result<Blueprint, CatalogError> {
        let before = self.catalog();
        let mut after = Catalog::clone(&before);
        let mut wanted = BTreeSet::new();
        for name in names {
            check_view(&before, name)?;
            wanted.extend(before.dependents(name));
            wanted.insert(name.clone());
        }
        if let (Some(sql), [name]) = (sql, names) {
            let planned = self.planner().plan_view(sql, &before)?;
            if let Some(own) = planned.inputs.iter().find(|input| wanted.contains(*input)) {
                let why = format!("view \"{name}\" cannot read \"{own}\", which depends on it");
                return Err(CatalogError::Invalid(why));
            }
            let old = ViewDef::clone(&before.views[name]);
            let (schema, inputs) = (planned.schema, planned.inputs);
            let inputs = read_parts(&old, &before, inputs);
            let widths = before.widths_of(&inputs);
            let sql = sql.to_owned();
            after.put(Entry::View(ViewDef { sql, schema, inputs, widths, ..old }));
        }
        self.widen(&before, &after, &mut wanted)?;
        let mut views = Vec::new();
        for def in after.views_in_order() {
            if !wanted.contains(&def.name) {
                continue;
            }
            let seen = after.seen_by(&def);
            let planned = self.planner().plan_view(&def.sql, &seen).map_err(|why| {
                if names.contains(&def.name) {
                    return CatalogError::Plan(why);
                }
                let (name, dependent) = (names[0].clone(), def.name.clone());
                CatalogError::Dependent { name, dependent, why: Box::new(why) }
            })?;
            let (schema, inputs) = (planned.schema, read_parts(&def, &after, planned.inputs));
            let new = ViewDef { schema, inputs, ..ViewDef::clone(&def) };
            let def = match before.views.get(&def.name) {
                Some(old) if **old == new => Arc::clone(old),
                _ => Arc::new(new),
            };
            after.views.insert(def.name.clone(), Arc::clone(&def));
            views.push((def, planned.plan));
        }
        Ok(Blueprint { before, views, names: wanted })
    }

    /// A build reads live relations and views only: views that fold apart are built with it. What
    /// is paused, or was before, cannot be.
    fn widen(
        &self,
        before: &Catalog,
        after: &Catalog,
        wanted: &mut BTreeSet<Name>,
    ) -> Result<(), CatalogError> {
        loop {
            let defs = wanted.iter().filter_map(|name| after.views.get(name));
            let inputs: BTreeSet<Name> = defs.flat_map(|def| def.inputs.clone()).collect();
            for catalog in [before, after] {
                not_paused(catalog, wanted.iter().chain(&inputs))?;
            }
            let count = wanted.len();
            for input in inputs.iter().filter(|input| after.views.contains_key(*input)) {
                if let Some(face) = self.shared().lane_of(input) {
                    wanted.extend(self.shared().members_of(&face));
                    wanted.extend(after.dependents(input));
                }
            }
            if wanted.len() == count {
                return Ok(());
            }
        }
    }

    fn build(
        &self,
        plan: &Blueprint,
        given_up: &AtomicBool,
    ) -> Result<Option<Built>, CatalogError> {
        self.build_of(plan, Material::Plans(plan.views.clone()), given_up)
    }

    /// Builds and waits until it has caught up; nothing if it has to be drawn again.
    fn build_of(
        &self,
        plan: &Blueprint,
        material: Material,
        given_up: &AtomicBool,
    ) -> Result<Option<Built>, CatalogError> {
        let inputs = plan.views.iter().flat_map(|(def, _)| def.inputs.iter());
        let inputs = inputs.filter(|input| !plan.names.contains(*input)).cloned().collect();
        let face = Face::new(inputs, None);
        let (news, heard) = channel();
        let (order_face, names) = (Arc::clone(&face), plan.names.clone());
        let order = BuildOrder { face: order_face, names, material, news };
        for (def, _) in &plan.views {
            self.shared().set_building(&def.name, &face);
        }
        self.tell(Control::Build(Box::new(order)));
        let outcome = self.hear(&heard, given_up);
        self.shared().end_building(&face);
        match outcome {
            Ok(News::Ready) => Ok(Some(Built { face })),
            Ok(News::Failed(why)) => Err(CatalogError::Failed(why)),
            Ok(News::Restart) => {
                thread::sleep(RETRY_AFTER);
                Ok(None)
            }
            Err(error) => {
                self.tell(Control::Abandon(face));
                Err(error)
            }
        }
    }

    fn hear(&self, news: &Receiver<News>, given_up: &AtomicBool) -> Result<News, CatalogError> {
        loop {
            match news.recv_timeout(LOOK_EVERY) {
                Ok(news) => return Ok(news),
                Err(RecvTimeoutError::Timeout) if given_up.load(Ordering::Relaxed) => {
                    return Err(CatalogError::NotReady("the statement was given up".into()));
                }
                Err(RecvTimeoutError::Timeout) if self.shared().stopped().is_none() => {}
                Err(_) => return Err(stopping()),
            }
        }
    }

    /// The new definitions become the catalog's, then readers see the new views.
    fn put_in_place(&self, plan: Blueprint, built: Built) -> Result<Position, CatalogError> {
        let changed = plan.views.iter().filter(|(def, _)| {
            plan.before.views.get(&def.name).is_none_or(|old| !Arc::ptr_eq(old, def))
        });
        let changed: Vec<Arc<ViewDef>> = changed.map(|(def, _)| Arc::clone(def)).collect();
        // What outlets have stored of the old ones is nothing to go on from.
        let names: Vec<Name> = changed.iter().map(|def| def.name.clone()).collect();
        let outlets = self.catalog().outlets_on(&names);
        let outlets: Vec<Entry> = outlets.iter().map(|def| Entry::Outlet(def.anew())).collect();
        let views = changed.iter().map(|def| Entry::View(ViewDef::clone(def)));
        let entries: Vec<Entry> = views.chain(outlets.iter().cloned()).collect();
        let records: Vec<_> = entries.iter().map(|entry| (entry.key(), Some(entry))).collect();
        let position = match records.is_empty() {
            true => self.position(),
            false => match self.record(&records) {
                Ok(position) => position,
                Err(error) => {
                    self.tell(Control::Abandon(built.face));
                    return Err(error);
                }
            },
        };
        let mut catalog = Catalog::clone(&self.catalog());
        catalog.views.extend(changed.into_iter().map(|def| (def.name.clone(), def)));
        outlets.into_iter().for_each(|outlet| catalog.put(outlet));
        self.shared().begin_replacing(&plan.names);
        self.shared().set_catalog(catalog);
        let (done, swapped) = channel::<()>();
        self.tell(Control::Swap(built.face, plan.views, done));
        // Nothing is sent: the follower lets go of the sender when it is done.
        let _ = swapped.recv();
        self.shared().end_replacing(&plan.names);
        self.start_outlets_anew(&names)?;
        Ok(position)
    }

    /// The differences at one position; nothing if the build has to be drawn again.
    fn compare(
        &self,
        plan: &Blueprint,
        built: &Built,
        given_up: &AtomicBool,
    ) -> Result<Option<(Position, Vec<Difference>)>, CatalogError> {
        let (reply, marked) = channel();
        self.tell(Control::Mark(Arc::clone(&built.face), reply));
        let Ok(Marked { cut, snapshots, failed }) = marked.recv() else { return Ok(None) };
        if let Some((name, why)) = failed.into_iter().next() {
            return Err(CatalogError::Failed(format!("\"{name}\": {why}")));
        }
        let mut differences = Vec::new();
        for (def, _) in &plan.views {
            let old = match cut.snapshots.get(&def.name) {
                Some(old) => Some(old.clone()),
                None => self.in_lane(&def.name, cut.position, given_up)?,
            };
            let (Some(old), Some(new)) = (old, snapshots.get(&def.name)) else { return Ok(None) };
            differences.push(difference(&def.name, &old, new));
        }
        Ok(Some((cut.position, differences)))
    }

    /// A view's rows in its lane, at a position that the lane has yet to reach.
    fn in_lane(
        &self,
        name: &Name,
        position: Position,
        given_up: &AtomicBool,
    ) -> Result<Option<evert_fold::Snapshot>, CatalogError> {
        let Some(face) = self.shared().lane_of(name) else { return Ok(None) };
        let mut later = match face.at(position) {
            Awaited::Now(cut) => return Ok(cut.snapshots.get(name).cloned()),
            Awaited::Passed => return Ok(None),
            Awaited::Later(later) => later,
        };
        loop {
            match later.try_recv() {
                Ok(cut) => return Ok(cut.snapshots.get(name).cloned()),
                Err(tokio::sync::oneshot::error::TryRecvError::Closed) => return Ok(None),
                Err(_) if given_up.load(Ordering::Relaxed) => {
                    return Err(CatalogError::NotReady("the statement was given up".into()));
                }
                Err(_) => thread::sleep(LOOK_EVERY),
            }
        }
    }
}

/// A view that starts in the past reads parts of streams.
fn read_parts(def: &ViewDef, catalog: &Catalog, inputs: Vec<Name>) -> Vec<Name> {
    inputs.iter().map(|input| def.options.input(catalog, input)).collect()
}

/// Refuses what can only be built once a paused view has gone on.
pub(crate) fn not_paused<'a>(
    catalog: &Catalog,
    names: impl IntoIterator<Item = &'a Name>,
) -> Result<(), CatalogError> {
    let paused = catalog.paused_closure();
    let Some(name) = names.into_iter().find(|name| paused.contains(*name)) else { return Ok(()) };
    let why = match catalog.pauser_of(name) {
        Some(pauser) if pauser != name => {
            format!("view \"{name}\" is paused because \"{pauser}\" is: resume that first")
        }
        _ => format!("view \"{name}\" is paused: resume it first"),
    };
    Err(CatalogError::NotReady(why))
}

fn check_view(catalog: &Catalog, name: &Name) -> Result<(), CatalogError> {
    if catalog.views.contains_key(name) {
        return Ok(());
    }
    if catalog.relations.contains_key(name) {
        return Err(CatalogError::NotAView(name.clone()));
    }
    Err(CatalogError::Unknown(name.clone()))
}

fn stopping() -> CatalogError {
    CatalogError::NotReady("the server is stopping".into())
}
