//! The handle on all views: changes of the catalog, pins, status, verification.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use evert_env::Env;
use evert_env::spill::Spilled;
use evert_fold::OperatorState;
use evert_log::{Log, NewCommit, NewPart, NewTopic, Topic};
use evert_model::{
    BatchBuilder, Compression, Offset, PartitionId, Position, PositionToken, RowSchema, TimestampMs,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::catalog::{
    Catalog, CatalogError, Entry, EntryKey, IndexDef, NewRelation, Relation, RelationKind,
    SourceDef, StartedFrom, ViewDef, ViewOptions,
};
use crate::changelog::{self, Changelog};
use crate::checkpoint::CheckpointConfig;
use crate::cohort::{self, Cohort, Cut};
use crate::encode::{self, RowChange};
use crate::follower::{Control, Follower, Start};
use crate::lifecycle::not_paused;
use crate::outlet::Outlets;
use crate::past::{self, REPLAYS_MAX};
use crate::planner::Planner;
use crate::shared::Shared;
use crate::sources::{SourceState, SourceStates};
use crate::status::{self, ViewState, ViewStatus};
use crate::{Name, PinError, errors};

const CATALOG_TOPIC: &str = "__evert_catalog";
const SOURCES_TOPIC: &str = "__evert_sources";
/// Topics that Kafka's protocol has for itself.
const KAFKA_TOPICS: [&str; 2] = ["__consumer_offsets", "__transaction_state"];
/// Schemas that belong to the server.
const RESERVED_SCHEMAS: [&str; 3] = ["evert", "information_schema", "pg_catalog"];

/// How views run.
#[derive(Clone, Debug, Default)]
pub struct ViewsConfig {
    /// Where and how often they are kept; `None`: every start replays the log.
    pub checkpoints: Option<CheckpointConfig>,
    /// When a view is too slow for the others.
    pub isolation: IsolationConfig,
}

/// When a view is too slow to fold with the others.
#[derive(Clone, Copy, Debug)]
pub struct IsolationConfig {
    /// How long one view's fold of a tick may hold the others up, beside what reading the tick's
    /// records took. Then they go on without it.
    pub fold_max: Duration,
    /// How long a view that was sent away stays away at least, the first time.
    pub away_min: Duration,
}

impl Default for IsolationConfig {
    fn default() -> Self {
        Self { fold_max: Duration::from_millis(400), away_min: Duration::from_secs(5) }
    }
}

/// All relations and views of one log. Cheap to clone.
#[derive(Clone)]
pub struct Views(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    planner: Arc<dyn Planner>,
    env: Env,
    opened: Instant,
    /// Held while the catalog changes, so that checks and changes are one step.
    ddl: Mutex<()>,
    control: mpsc::UnboundedSender<Control>,
    /// Ends when the follower has ended.
    ended: Mutex<Option<Receiver<()>>>,
    keyless: AtomicU32,
    catalog_topic: Arc<Topic>,
    /// Places for private folds of the log.
    replays: Arc<Semaphore>,
    changelogs: Mutex<HashMap<Name, Changelog>>,
    outlets: Outlets,
    is_kept: bool,
}

impl Views {
    /// Reads the catalog and starts the follower, which replays the log.
    ///
    /// # Errors
    /// When the catalog's topics cannot be made or read.
    pub fn open(env: Env, log: Log, planner: Arc<dyn Planner>) -> Result<Self, CatalogError> {
        Self::open_with(env, log, planner, ViewsConfig::default())
    }

    /// As [`Views::open`], with checkpoints: the follower replays what comes after the last.
    ///
    /// # Errors
    /// When the catalog's topics cannot be made or read. A checkpoint that cannot be used is
    /// no error.
    pub fn open_with(
        env: Env,
        log: Log,
        planner: Arc<dyn Planner>,
        config: ViewsConfig,
    ) -> Result<Self, CatalogError> {
        crate::merges::begin();
        let catalog_topic = internal_topic(&log, CATALOG_TOPIC)?;
        let sources_topic = internal_topic(&log, SOURCES_TOPIC)?;
        let catalog = read_catalog(&log, &catalog_topic)?;
        let sources = SourceStates::new(sources_topic.id);
        // What can be read before the follower has put the cohort together: nothing.
        let nothing = Cohort::empty(sources).cut();
        let shared = Arc::new(Shared::new(log, sources_topic.id, catalog, nothing));
        let (control, requests) = mpsc::unbounded_channel();
        let is_kept = config.checkpoints.is_some();
        let start = Start { planner: Arc::clone(&planner), config, catalog: shared.catalog() };
        let (follower, ended) =
            Follower::new(Arc::clone(&shared), start, requests, control.clone())?;
        let thread = thread::Builder::new().name("follower".into()).spawn(|| follower.run());
        thread.map_err(|e| CatalogError::Invalid(format!("no thread: {e}")))?;
        let views = Self(Arc::new(Inner {
            shared,
            planner,
            env,
            opened: Instant::now(),
            ddl: Mutex::new(()),
            control,
            ended: Mutex::new(Some(ended)),
            keyless: AtomicU32::new(0),
            catalog_topic,
            replays: Arc::new(Semaphore::new(REPLAYS_MAX)),
            changelogs: Mutex::default(),
            outlets: Outlets::default(),
            is_kept,
        }));
        for def in views.catalog().views.values().filter(|def| def.options.changes) {
            views.start_changelog(&def.name)?;
        }
        Ok(views)
    }

    /// The log under the views.
    pub fn log(&self) -> &Log {
        &self.0.shared.log
    }

    pub(crate) fn planner(&self) -> &Arc<dyn Planner> {
        &self.0.planner
    }

    /// A place among those who fold the log privately, once there is one.
    pub(crate) async fn replay_permit(&self) -> Result<OwnedSemaphorePermit, PinError> {
        let permit = Arc::clone(&self.0.replays).acquire_owned().await;
        permit.map_err(|_| PinError::Stopping)
    }

    pub(crate) fn outlets(&self) -> &Outlets {
        &self.0.outlets
    }

    /// The catalog as it is.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.0.shared.catalog()
    }

    /// Makes a relation, and its topic if there is none of that name. Blocks until it is durable.
    ///
    /// # Errors
    /// When the name is taken or reserved, or the definition makes no sense.
    pub fn create_relation(&self, new: NewRelation) -> Result<Position, CatalogError> {
        let _ddl = self.lock_ddl();
        let mut catalog = Catalog::clone(&self.catalog());
        check_new(&catalog, &new.name)?;
        check_relation(&new)?;
        let topic = self.topic_for(&new)?;
        let relation = Relation {
            name: new.name,
            kind: new.kind,
            schema: new.schema,
            topic: topic.name.clone(),
            topic_id: topic.id,
            format: new.format,
            conflict_is_error: new.conflict_is_error,
            lengths: new.lengths,
            defaults: new.defaults,
            source: new.source,
            started_from: None,
        };
        let name = relation.name.clone();
        let entry = Entry::Relation(relation);
        let position = self.record(&[(entry.key(), Some(&entry))])?;
        catalog.put(entry);
        let relation = Arc::clone(&catalog.relations[&name]);
        self.0.shared.set_catalog(catalog);
        self.tell(Control::AddRelation(relation, topic.created_at));
        Ok(position)
    }

    /// Makes a view. Blocks until its definition is durable, not until it has caught up: readers
    /// wait for that.
    ///
    /// # Errors
    /// When the name is taken or reserved, or the SELECT cannot be a view.
    pub fn create_view(&self, name: Name, sql: String) -> Result<Position, CatalogError> {
        self.create_view_with(name, sql, ViewOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Views::create_view`]; and when its changes cannot have their topic.
    pub fn create_view_with(
        &self,
        name: Name,
        sql: String,
        options: ViewOptions,
    ) -> Result<Position, CatalogError> {
        let _ddl = self.lock_ddl();
        let mut catalog = Catalog::clone(&self.catalog());
        check_new(&catalog, &name)?;
        self.check_start(&options)?;
        let planner = self.0.planner.as_ref();
        let parts = self.parts_of_streams(&sql, &options, &catalog)?;
        for part in &parts {
            catalog.put(Entry::Relation(part.clone()));
        }
        let planned = cohort::plan(&sql, &options, &catalog, planner)?;
        not_paused(&catalog, &planned.inputs)?;
        if options.changes {
            self.make_changes_topic(&name, &planned.inputs, &catalog)?;
        }
        let (schema, inputs) = (planned.schema, planned.inputs);
        let widths = catalog.widths_of(&inputs);
        let def = ViewDef { name: name.clone(), sql, schema, inputs, widths, options };
        let mut entries: Vec<_> = parts.into_iter().map(Entry::Relation).collect();
        entries.push(Entry::View(def));
        let keyed: Vec<_> = entries.iter().map(|entry| (entry.key(), Some(entry))).collect();
        let position = self.record(&keyed)?;
        let mut added = Vec::new();
        for entry in entries {
            if let Entry::Relation(part) = &entry {
                added.push(part.name.clone());
            }
            catalog.put(entry);
        }
        let def = Arc::clone(&catalog.views[&name]);
        let added: Vec<_> = added.iter().map(|part| Arc::clone(&catalog.relations[part])).collect();
        self.0.shared.set_catalog(catalog);
        for part in added {
            let from = part.started_from.as_ref().map_or(Position::ZERO, |from| from.position);
            self.tell(Control::AddRelation(part, from));
        }
        let changes = def.options.changes;
        self.tell(Control::AddView(def, planned.plan));
        if changes {
            self.start_changelog(&name)?;
        }
        Ok(position)
    }

    /// Views begin in the past, as far as the log reaches.
    fn check_start(&self, options: &ViewOptions) -> Result<(), CatalogError> {
        let end = self.log().end();
        match options.start {
            Some(start) if start > end => Err(CatalogError::Invalid(format!(
                "position {start} is in the future: the log ends at {end}"
            ))),
            _ => Ok(()),
        }
    }

    /// The parts of streams that a view with these options needs and that are not there yet.
    fn parts_of_streams(
        &self,
        sql: &str,
        options: &ViewOptions,
        catalog: &Catalog,
    ) -> Result<Vec<Relation>, CatalogError> {
        let Some(position) = options.start else { return Ok(Vec::new()) };
        let planned = self.0.planner.plan_view(sql, catalog)?;
        let mut parts = Vec::new();
        for input in &planned.inputs {
            let name = options.input(catalog, input);
            if name == *input || catalog.contains(&name) {
                continue;
            }
            let stream = catalog.relations[input].as_ref();
            if let Some(topic) = self.log().topic_by_id(stream.topic_id) {
                past::check_reach_after(self.log(), &topic, position)?;
            }
            let from = StartedFrom { stream: input.clone(), position };
            parts.push(Relation { name, started_from: Some(from), ..stream.clone() });
        }
        Ok(parts)
    }

    /// Makes the topic of a view's changes, or takes the one that is there.
    fn make_changes_topic(
        &self,
        view: &Name,
        inputs: &[Name],
        catalog: &Catalog,
    ) -> Result<(), CatalogError> {
        let name = changelog::topic_name(view);
        let read = catalog.closure(inputs);
        let read = read.iter().filter_map(|name| catalog.relations.get(name));
        if let Some(relation) = read.into_iter().find(|relation| relation.topic == name) {
            let what = format!("\"{}\" reads the changes of the view itself", relation.name);
            return Err(CatalogError::Invalid(what));
        }
        match self.log().topic(&name) {
            None => {
                let config = BTreeMap::new();
                self.log().create_topic(NewTopic { name, partitions: 1, config })?;
            }
            Some(topic) if changelog::may_be_changelog(self.log(), &topic)? => {}
            Some(_) => {
                let what = format!("topic \"{name}\" holds something else than a view's changes");
                return Err(CatalogError::Invalid(what));
            }
        }
        Ok(())
    }

    fn start_changelog(&self, view: &Name) -> Result<(), CatalogError> {
        let changelog = Changelog::start(self.clone(), view.clone())?;
        let mut changelogs = self.0.changelogs.lock().unwrap_or_else(PoisonError::into_inner);
        changelogs.insert(view.clone(), changelog);
        Ok(())
    }

    fn stop_changelog(&self, view: &Name) {
        let mut changelogs = self.0.changelogs.lock().unwrap_or_else(PoisonError::into_inner);
        let changelog = changelogs.remove(view);
        drop(changelogs);
        if let Some(changelog) = changelog {
            changelog.stop();
        }
    }

    /// Makes an index over a table's, bag's or view's rows. Blocks until the rows there are have
    /// been indexed and the definition is durable.
    ///
    /// # Errors
    /// When the name is taken, or there are no such rows or columns.
    pub fn create_index(&self, index: IndexDef) -> Result<Position, CatalogError> {
        let _ddl = self.lock_ddl();
        let mut catalog = Catalog::clone(&self.catalog());
        if catalog.indexes.contains_key(&index.name) || catalog.contains(&index.name) {
            return Err(CatalogError::Exists(index.name));
        }
        let on = index.on.clone();
        let Some(schema) = catalog.schema_of(&on) else { return Err(CatalogError::Unknown(on)) };
        if catalog.relations.get(&on).is_some_and(|r| r.kind == RelationKind::Stream) {
            let what = format!("\"{on}\" is a stream: it keeps no rows to be found");
            return Err(CatalogError::Invalid(what));
        }
        for name in &index.columns {
            if !schema.columns.iter().any(|column| column.name == *name) {
                let what = format!("column \"{name}\" of \"{on}\" does not exist");
                return Err(CatalogError::Invalid(what));
            }
        }
        let entry = Entry::Index(index);
        let key = entry.key();
        catalog.put(entry.clone());
        // What is there is indexed here, so that the follower has the news only.
        if let Some(snapshot) = self.0.shared.cut().snapshots.get(&on) {
            for (_, columns) in catalog.indexes_on(&on) {
                snapshot.index(&columns);
            }
        }
        let position = self.record(&[(key, Some(&entry))])?;
        self.0.shared.set_catalog(catalog);
        Ok(position)
    }

    /// Drops an index. Blocks until it is durable.
    ///
    /// # Errors
    /// When there is none.
    pub fn drop_index(&self, name: &Name) -> Result<Position, CatalogError> {
        let _ddl = self.lock_ddl();
        let mut catalog = Catalog::clone(&self.catalog());
        if !catalog.indexes.contains_key(name) {
            return Err(CatalogError::Unknown(name.clone()));
        }
        let key = EntryKey::Index(name.clone());
        let position = self.record(&[(key.clone(), None)])?;
        catalog.remove(&key);
        self.0.shared.set_catalog(catalog);
        Ok(position)
    }

    /// Registers a source. Blocks until it is durable.
    ///
    /// # Errors
    /// When there is a source of that name.
    pub fn create_source(&self, source: SourceDef) -> Result<Position, CatalogError> {
        let _ddl = self.lock_ddl();
        let mut catalog = Catalog::clone(&self.catalog());
        if catalog.sources.contains_key(&source.name) {
            return Err(CatalogError::Exists(Name::public(source.name)));
        }
        let entry = Entry::Source(source);
        let position = self.record(&[(entry.key(), Some(&entry))])?;
        catalog.put(entry);
        self.0.shared.set_catalog(catalog);
        Ok(position)
    }

    /// Drops a relation, view or outlet, and with `cascade` the views and outlets that read it.
    /// Topics stay. Blocks until no later cut holds them.
    ///
    /// # Errors
    /// When there is none, when views read it, or when a source writes it.
    pub fn drop(&self, name: &Name, cascade: bool) -> Result<Position, CatalogError> {
        let _ddl = self.lock_ddl();
        let catalog = self.catalog();
        if catalog.outlets.contains_key(name) {
            return self.drop_outlet(name);
        }
        if !catalog.contains(name) {
            return Err(CatalogError::Unknown(name.clone()));
        }
        let source = catalog.relations.get(name).and_then(|relation| relation.source.as_ref());
        if let Some(source) = source.filter(|source| catalog.sources.contains_key(*source)) {
            let what = format!("\"{name}\" belongs to source \"{source}\": drop the source");
            return Err(CatalogError::Invalid(what));
        }
        self.remove(&catalog, vec![name.clone()], cascade, None)
    }

    /// Drops a source and its relations, and with `cascade` the views that read them. Topics
    /// stay.
    ///
    /// # Errors
    /// When there is none, or when views read its relations.
    pub fn drop_source(&self, name: &str, cascade: bool) -> Result<Position, CatalogError> {
        let _ddl = self.lock_ddl();
        let catalog = self.catalog();
        if !catalog.sources.contains_key(name) {
            return Err(CatalogError::Unknown(Name::public(name)));
        }
        let owned = catalog.relations.values().filter(|r| r.source.as_deref() == Some(name));
        let owned = owned.map(|relation| relation.name.clone()).collect();
        self.remove(&catalog, owned, cascade, Some(EntryKey::Source(name.to_owned())))
    }

    fn remove(
        &self,
        catalog: &Catalog,
        mut names: Vec<Name>,
        cascade: bool,
        more: Option<EntryKey>,
    ) -> Result<Position, CatalogError> {
        for name in names.clone() {
            let mut dependents = catalog.dependents(&name);
            dependents.retain(|dependent| !names.contains(dependent));
            let mut read = dependents.clone();
            read.push(name.clone());
            let outlets = catalog.outlets_on(&read);
            if !(cascade || dependents.is_empty() && outlets.is_empty()) {
                let mut details = catalog.dependencies(&name, &dependents);
                details.extend(outlets.iter().map(|outlet| {
                    let noun = outlet.kind.noun();
                    format!("{noun} {} depends on {}", outlet.name, catalog.describe(&outlet.on))
                }));
                let what = catalog.describe(&name);
                return Err(CatalogError::HasDependents { what, details });
            }
            names.extend(dependents);
        }
        names.extend(unread_parts(catalog, &names));
        names.iter().for_each(|name| self.stop_changelog(name));
        let outlets = catalog.outlets_on(&names);
        outlets.iter().for_each(|outlet| self.outlets().stop(&outlet.name));
        let mut keys: Vec<EntryKey> = names.iter().map(|name| catalog.key_of(name)).collect();
        let over_gone = catalog.indexes.values().filter(|index| names.contains(&index.on));
        keys.extend(over_gone.map(|index| EntryKey::Index(index.name.clone())));
        let paused = names.iter().filter(|name| catalog.paused.contains_key(*name));
        keys.extend(paused.map(|name| EntryKey::Pause(name.clone())));
        keys.extend(more);
        keys.extend(outlets.iter().map(|outlet| EntryKey::Outlet(outlet.name.clone())));
        let records: Vec<_> = keys.iter().map(|key| (key.clone(), None)).collect();
        let position = self.record(&records)?;
        let mut catalog = catalog.clone();
        keys.iter().for_each(|key| catalog.remove(key));
        self.0.shared.set_catalog(catalog);
        let (done, removed) = std::sync::mpsc::channel();
        for name in names.into_iter().rev() {
            self.tell(Control::Remove(name, done.clone()));
        }
        drop(done);
        // Ends when the follower has let go of every sender.
        for () in removed {}
        outlets.iter().for_each(|outlet| self.forget_outlet(outlet));
        Ok(position)
    }

    /// Whether checkpoints are taken.
    pub(crate) fn is_kept(&self) -> bool {
        self.0.is_kept
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// The position that the live cohort has published.
    pub fn position(&self) -> Position {
        self.0.shared.cut().position
    }

    /// The log's end when the server started: no read is answered below it.
    pub fn floor(&self) -> Position {
        self.0.shared.floor
    }

    /// Every cut as it is published; a slow receiver sees the newest only.
    pub fn watch(&self) -> watch::Receiver<Arc<Cut>> {
        self.0.shared.watch_cut()
    }

    /// What a relation or view holds in memory, operator by operator, as measured about once a
    /// second. Published rows are listed after the operators.
    pub fn state_of(&self, name: &Name) -> Vec<OperatorState> {
        self.0.shared.state_of(name)
    }

    /// Commits of the log that were read for views that catch up, each as often as it was read:
    /// views that catch up at the same time share a reading.
    pub fn commits_read_to_catch_up(&self) -> u64 {
        self.0.shared.passes.commits_read()
    }

    /// What of all state lies beyond the memory budget.
    pub fn spilled(&self) -> Spilled {
        evert_env::spill::spilled()
    }

    /// The checkpoint that the replay after the start began at: its position, and what came
    /// back from it. `None` if the replay began at the log's beginning, or has not begun.
    pub fn restored(&self) -> Option<(Position, Vec<Name>)> {
        self.0.shared.restored()
    }

    /// Whether the replay after the start has reached the log's end at the start.
    pub fn replay_state(&self) -> ViewState {
        let shared = &self.0.shared;
        let (position, floor) = (self.position().get(), shared.floor.get());
        if position >= floor {
            return ViewState::Live;
        }
        let elapsed = self.0.opened.elapsed();
        let eta =
            (position > 0).then(|| elapsed.mul_f64((floor - position) as f64 / position as f64));
        ViewState::Rebuilding { percent: (position * 100 / floor).min(99) as u8, eta }
    }

    /// Every view and outlet, by name.
    pub fn status(&self) -> Vec<ViewStatus> {
        let catalog = self.catalog();
        let cut = self.0.shared.cut();
        let views = catalog.views.values().map(|def| status::of(self, &catalog, def, &cut));
        let outlets = catalog.outlets.values();
        let outlets = outlets.map(|def| status::of_outlet(self, &catalog, def, &cut));
        let mut all: Vec<_> = views.chain(outlets).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// How far a source has come, as of the published cut; `None` until its first commit. To see
    /// all that the log holds, `pin` its end first.
    pub fn source_state(&self, source: &str) -> Option<SourceState> {
        self.0.shared.cut().sources.get(source).map(|(state, _)| state.clone())
    }

    /// The part that records a source's state: put it into the same commit as the facts.
    pub fn source_state_part(&self, state: &SourceState) -> NewPart {
        SourceStates::new(self.0.shared.sources_topic).part(state)
    }

    /// The position that a token names. A record or an LSN that is not there yet is waited for.
    ///
    /// # Errors
    /// When the topic, partition or source does not exist, or the wait takes too long.
    pub async fn resolve(
        &self,
        token: &PositionToken,
        timeout: Duration,
    ) -> Result<Position, CatalogError> {
        let mut cuts = self.0.shared.watch_cut();
        let wait = async {
            loop {
                let cut = Arc::clone(&cuts.borrow_and_update());
                if let Some(position) = self.look_up(token, &cut)? {
                    return Ok(position);
                }
                if cuts.changed().await.is_err() || self.0.shared.stopped().is_some() {
                    return Err(CatalogError::Invalid("the server is stopping".into()));
                }
            }
        };
        let late = || CatalogError::Invalid(format!("{token} was not reached in time"));
        tokio::time::timeout(timeout, wait).await.unwrap_or_else(|_| Err(late()))
    }

    fn look_up(&self, token: &PositionToken, cut: &Cut) -> Result<Option<Position>, CatalogError> {
        match token {
            PositionToken::Position(position) => Ok(Some(*position)),
            PositionToken::Record { topic, partition, offset } => {
                let unknown = || evert_log::TopicError::Unknown(topic.clone());
                let topic = self.log().topic(topic).ok_or_else(unknown)?;
                Ok(self.log().position_of(topic.id, *partition, *offset)?)
            }
            PositionToken::Source { source, lsn } => {
                if !self.catalog().sources.contains_key(source) {
                    return Err(CatalogError::Unknown(Name::public(source)));
                }
                let reached = cut.sources.get(source).filter(|(state, _)| state.lsn >= *lsn);
                Ok(reached.map(|(_, position)| *position))
            }
        }
    }

    /// Encodes changes as records of the relation's topic and format: the parts of a commit.
    ///
    /// # Errors
    /// When the relation is written by a source, or is a stream and rows are to leave it.
    pub fn encode(
        &self,
        relation: &Relation,
        changes: &[RowChange],
    ) -> Result<Vec<NewPart>, CatalogError> {
        let topic = self.log().topic_by_id(relation.topic_id);
        let partitions = topic.map_or(1, |topic| topic.partitions);
        let keyless = self.0.keyless.fetch_add(1, Ordering::Relaxed);
        let now = TimestampMs::new(self.0.env.clock.wall_micros().div_euclid(1000));
        encode::encode(relation, partitions, keyless, now, changes)
    }

    /// Stops the follower and waits for it; it takes a last checkpoint.
    pub fn close(&self) {
        let changelogs =
            std::mem::take(&mut *self.0.changelogs.lock().unwrap_or_else(PoisonError::into_inner));
        changelogs.into_values().for_each(Changelog::stop);
        self.outlets().close();
        self.tell(Control::Stop);
        let ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            // Nothing is ever sent: the follower drops its end.
            let _ = ended.recv();
        }
    }

    pub(crate) fn lock_ddl(&self) -> std::sync::MutexGuard<'_, ()> {
        self.0.ddl.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell(&self, control: Control) {
        // After the follower has ended nobody reads the views: there is nobody to tell.
        drop(self.0.control.send(control));
    }

    /// Appends records to the catalog's topic, as one commit, and waits for it.
    pub(crate) fn record(
        &self,
        records: &[(EntryKey, Option<&Entry>)],
    ) -> Result<Position, CatalogError> {
        let mut batch = BatchBuilder::new(Compression::None);
        let now = TimestampMs::new(self.0.env.clock.wall_micros().div_euclid(1000));
        for (key, entry) in records {
            let plain = "catalog entries are plain data";
            let key = serde_json::to_vec(key).expect(plain);
            let value = entry.map(|entry| serde_json::to_vec(entry).expect(plain));
            batch.push(now, Some(&key), value.as_deref(), &[]);
        }
        let (topic, partition) = (self.0.catalog_topic.id, PartitionId::new(0));
        let part = NewPart { topic, partition, batch: batch.build() };
        let receipt = self.log().append(NewCommit { parts: vec![part] })?;
        Ok(receipt.wait()?.position)
    }

    fn topic_for(&self, new: &NewRelation) -> Result<Arc<Topic>, CatalogError> {
        let name = new.topic.clone().unwrap_or_else(|| new.name.to_string());
        if let Some(topic) = self.log().topic(&name) {
            return Ok(topic);
        }
        let config = new.topic_config.clone();
        Ok(self.log().create_topic(NewTopic { name, partitions: new.partitions, config })?)
    }
}

/// The parts of streams that nothing reads any more once `gone` are gone.
fn unread_parts(catalog: &Catalog, gone: &[Name]) -> Vec<Name> {
    let parts = catalog.relations.values().filter(|part| part.started_from.is_some());
    let parts = parts.filter(|part| !gone.contains(&part.name));
    let unread = |part: &&Arc<Relation>| {
        let mut readers = catalog.views.values().filter(|def| def.inputs.contains(&part.name));
        readers.all(|def| gone.contains(&def.name))
    };
    parts.filter(unread).map(|part| part.name.clone()).collect()
}

pub(crate) fn check_new(catalog: &Catalog, name: &Name) -> Result<(), CatalogError> {
    if catalog.contains(name) || catalog.outlets.contains_key(name) {
        return Err(CatalogError::Exists(name.clone()));
    }
    if RESERVED_SCHEMAS.contains(&name.schema.as_str()) {
        let what = format!("schema \"{}\" belongs to the server", name.schema);
        return Err(CatalogError::Invalid(what));
    }
    Ok(())
}

fn check_relation(new: &NewRelation) -> Result<(), CatalogError> {
    let refuse = |what: String| Err(CatalogError::Invalid(format!("\"{}\": {what}", new.name)));
    let RowSchema { columns, key } = &new.schema;
    let topic = new.topic.as_deref().unwrap_or(&new.name.name);
    if topic.starts_with("__evert_") || KAFKA_TOPICS.contains(&topic) {
        return refuse(format!("topic \"{topic}\" is internal"));
    }
    if columns.is_empty() {
        return refuse("a relation has at least one column".into());
    }
    for (index, column) in columns.iter().enumerate() {
        if columns[..index].iter().any(|other| other.name == column.name) {
            return refuse(format!("column \"{}\" is there twice", column.name));
        }
    }
    match (new.kind, key.is_empty()) {
        (RelationKind::Table, true) => refuse("a table needs a PRIMARY KEY".into()),
        (RelationKind::Stream | RelationKind::Bag, false) => {
            refuse("only a table has a PRIMARY KEY".into())
        }
        _ => Ok(()),
    }
}

fn internal_topic(log: &Log, name: &str) -> Result<Arc<Topic>, CatalogError> {
    if let Some(topic) = log.topic(name) {
        return Ok(topic);
    }
    let config = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
    Ok(log.create_topic(NewTopic { name: name.to_owned(), partitions: 1, config })?)
}

fn read_catalog(log: &Log, topic: &Topic) -> Result<Catalog, CatalogError> {
    const FETCH_BYTES: usize = 1 << 20;
    let mut catalog = Catalog::default();
    let partition = PartitionId::new(0);
    let ends = log.partition_ends(topic.id, partition)?;
    let mut next: Offset = ends.log_start;
    while next < ends.high_watermark {
        let fetched = log.fetch(topic.id, partition, next, FETCH_BYTES, false)?;
        for bytes in fetched.into_iter().flat_map(|fetched| fetched.batches) {
            for batch in evert_model::split_batches(bytes) {
                let batch = batch.map_err(|e| CatalogError::Invalid(e.to_string()))?;
                next = batch.header().next_offset();
                catalog.apply(&batch)?;
            }
        }
    }
    Ok(catalog)
}

/// The name of the errors view.
pub fn errors_name() -> Name {
    errors::name()
}
