//! All archives of a server: how they are opened, and what is known of each to its readers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use evert_env::Env;
use evert_log::Log;
use evert_model::{Offset, PartitionId, Position, RowSchema, TopicId};
use evert_view::{
    Name, Outlet, OutletContext, OutletDef, OutletError, OutletFactory, OutletVerdict, PlanError,
    Relation,
};
use iceberg::spec::TableMetadata;
use object_store::ObjectStore;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::{ArchiveError, Result};
use crate::location::Location;
use crate::mark::Owner;
use crate::options::ArchiveOptions;
use crate::schema;
use crate::store::Store;
use crate::table::{NewTable, Table};
use crate::writer::{Writer, sql};

/// All archives. Cheap to clone.
#[derive(Clone)]
pub struct Archives(Arc<Inner>);

/// Looks a relation up by its name.
type Relations = Box<dyn Fn(&Name) -> Option<Arc<Relation>> + Send + Sync>;

struct Inner {
    env: Env,
    log: Log,
    root: PathBuf,
    relations: Relations,
    /// What readers see, by name; and which archive writes to which location.
    tables: Mutex<BTreeMap<Name, ArchiveTable>>,
}

/// What a reader needs of an archive's table.
#[derive(Clone, Debug)]
pub struct ArchiveTable {
    /// The URL of the newest metadata file.
    pub metadata_url: String,
    /// What it says.
    pub metadata: Arc<TableMetadata>,
    /// Every fact up to here is in the table.
    pub position: Position,
    /// The data files.
    pub files: Arc<Vec<ArchiveFile>>,
    /// What reads the files of a bucket; `None`: they are files of this machine.
    pub objects: Option<Arc<dyn ObjectStore>>,
}

/// A Parquet file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveFile {
    /// Its URL.
    pub url: String,
    /// Its length.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
}

impl Archives {
    /// Archives of a log's relations. Those in directories lie below `root`.
    pub fn new(
        env: Env,
        log: Log,
        root: PathBuf,
        relations: impl Fn(&Name) -> Option<Arc<Relation>> + Send + Sync + 'static,
    ) -> Self {
        let relations = Box::new(relations);
        Self(Arc::new(Inner { env, log, root, relations, tables: Mutex::default() }))
    }

    fn tables(&self) -> MutexGuard<'_, BTreeMap<Name, ArchiveTable>> {
        self.0.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The archives that can be read.
    pub fn names(&self) -> Vec<Name> {
        self.tables().keys().cloned().collect()
    }

    /// An archive's table, as of its newest commit.
    pub fn table(&self, name: &Name) -> Option<ArchiveTable> {
        self.tables().get(name).cloned()
    }

    /// The directory below which archives in files lie.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    fn location(&self, options: &ArchiveOptions) -> Result<Location> {
        Location::parse(&options.to, &self.0.root)
    }

    fn owner(&self, relation: &Relation, id: Uuid) -> Owner {
        Owner {
            log_id: self.0.log.id().0.to_string(),
            topic_id: relation.topic_id.to_string(),
            archive_id: id.to_string(),
        }
    }

    fn relation(&self, name: &Name) -> Result<Arc<Relation>> {
        let what = || {
            ArchiveError::Invalid(format!(
                "\"{name}\" is not a stream or table: an archive holds facts, and a view has none"
            ))
        };
        (self.0.relations)(name).ok_or_else(what)
    }

    fn store(&self, location: &Location) -> Result<Store> {
        Store::open(&self.0.env.files, location)
    }

    /// Whether two archives would write to one place.
    fn taken(&self, url: &str, by: &Name) -> Option<Name> {
        let tables = self.tables();
        let mut others = tables.iter().filter(|(name, _)| *name != by);
        others.find(|(_, table)| table.metadata.location() == url).map(|(name, _)| name.clone())
    }

    async fn open_table(&self, def: &OutletDef, relation: &RowSchema) -> Result<Archive> {
        let options = ArchiveOptions::read(&def.options, relation)?;
        let location = self.location(&options)?;
        let (store, url) = (self.store(&location)?, location.url());
        if let Some(other) = self.taken(&url, &def.name) {
            return Err(ArchiveError::Foreign(format!("{url} belongs to archive \"{other}\"")));
        }
        let owner = self.owner(&*self.relation(&def.on)?, def.id);
        let is_rebuilt = options.first_id != Some(def.id);
        let head = match Table::head(store.clone(), url.clone()).await {
            Err(error @ ArchiveError::Damaged { .. }) if is_rebuilt => {
                self.check_log(owner.topic()?, &def.name)?;
                tracing::warn!(archive = %def.name, %error, "a damaged archive is written anew");
                None
            }
            head => head?,
        };
        let mut replaced = false;
        let table = match head {
            None => self.new_table((store, url), owner, relation, &options).await?,
            Some(table) if !table.owner().is_of(&owner) => return Err(foreign(&url)),
            Some(table) if table.owner().archive_id == owner.archive_id => {
                table.with_files().await?
            }
            Some(mut table) if !is_rebuilt => {
                fits(&table, relation, &options)?;
                table.adopt(owner);
                table.with_files().await?
            }
            Some(table) => {
                replaced = true;
                table.emptied(owner, &schema::columns(relation)?).await?
            }
        };
        // Whoever reads the table that was there before goes on for as long as an old snapshot.
        let age = if replaced { options.snapshot_age } else { Duration::ZERO };
        let writer = Writer::new(table, options.clone());
        let (name, archives) = (def.name.clone(), self.clone());
        let clean_at = Instant::now().checked_add(age);
        let mut archive = Archive { name, archives, options, writer, clean_at };
        archive.clean_if_due().await;
        archive.publish(archive.writer.table().mark().position);
        Ok(archive)
    }

    async fn new_table(
        &self,
        place: (Store, String),
        owner: Owner,
        relation: &RowSchema,
        options: &ArchiveOptions,
    ) -> Result<Table> {
        let schema = schema::new_schema(&schema::columns(relation)?)?;
        let spec = schema::partition_spec(&schema, &options.partition_by)?;
        Table::create(place, owner, NewTable { schema, spec }).await
    }

    /// Refuses what is at the place of an archive that is being made, unless it can go on from
    /// there.
    async fn look_at_place(&self, def: &OutletDef, relation: &RowSchema) -> Result<()> {
        let options = ArchiveOptions::read(&def.options, relation)?;
        let location = self.location(&options)?;
        let (store, url) = (self.store(&location)?, location.url());
        let Some(table) = Table::head(store, url.clone()).await? else { return Ok(()) };
        let owner = self.owner(&*self.relation(&def.on)?, def.id);
        match table.owner().is_of(&owner) {
            true => fits(&table, relation, &options),
            false => Err(foreign(&url)),
        }
    }

    /// Refuses when the log no longer holds what an archive does.
    async fn check_rebuild(&self, def: &OutletDef) -> Result<()> {
        let to = def.options.get("to").and_then(Value::as_str).unwrap_or_default();
        let location = Location::parse(to, &self.0.root)?;
        // What is named may be lost: only the newest metadata counts here.
        let topic = match Table::head(self.store(&location)?, location.url()).await {
            Ok(None) => return Ok(()),
            Ok(Some(table)) if table.mark().position == Position::ZERO => return Ok(()),
            Ok(Some(table)) => table.owner().topic()?,
            Err(ArchiveError::Damaged { .. }) => self.relation(&def.on)?.topic_id,
            Err(error) => return Err(error),
        };
        self.check_log(topic, &def.name)
    }

    /// Refuses when the log has forgotten the beginning of a topic.
    fn check_log(&self, topic: TopicId, archive: &Name) -> Result<()> {
        let partitions = self.0.log.topic_by_id(topic).map_or(0, |topic| topic.partitions);
        for partition in (0..partitions).map(PartitionId::new) {
            let ends = self.0.log.partition_ends(topic, partition);
            let start = ends.map_err(|error| ArchiveError::Place(error.to_string()))?.log_start;
            if start > Offset::default() {
                let what = format!(
                    "archive \"{archive}\" holds facts that the log has trimmed (partition \
                     {partition} begins at offset {start}): its files stay as they are"
                );
                return Err(ArchiveError::Invalid(what));
            }
        }
        Ok(())
    }
}

fn foreign(url: &str) -> ArchiveError {
    ArchiveError::Foreign(format!("{url} holds the facts of another relation or log"))
}

/// Refuses to go on with a table whose columns a relation does not have, or that is parted
/// otherwise: its rows would not be the relation's facts.
fn fits(table: &Table, relation: &RowSchema, options: &ArchiveOptions) -> Result<()> {
    let (url, columns) = (table.url(), schema::columns(relation)?);
    let foreign = schema::foreign_columns(&table.shape().iceberg, &columns)?;
    if !foreign.is_empty() {
        let what = format!(
            "{url} holds columns that the relation does not have, or has as another type: {}",
            foreign.join(", ")
        );
        return Err(ArchiveError::Foreign(what));
    }
    let parted_by = table.parted_by();
    if parted_by.is_none_or(|column| column != options.partition_by) {
        let what = format!(
            "{url} is parted by {}, not by {}: say so with partition_by",
            parted_by.unwrap_or("something else"),
            options.partition_by
        );
        return Err(ArchiveError::Foreign(what));
    }
    Ok(())
}

/// One open archive.
pub(crate) struct Archive {
    pub(crate) name: Name,
    archives: Archives,
    pub(crate) options: ArchiveOptions,
    pub(crate) writer: Writer,
    /// When files that no snapshot names are to go.
    clean_at: Option<Instant>,
}

impl Archive {
    /// Deletes files that no snapshot names, once it is time. None of them is being written
    /// meanwhile: files are written and committed by one call.
    pub(crate) async fn clean_if_due(&mut self) {
        if self.clean_at.take_if(|at| *at <= Instant::now()).is_none() {
            return;
        }
        let name = &self.name;
        match self.writer.table().clean().await {
            Ok(0) => {}
            Ok(files) => tracing::info!(archive = %name, files, "deleted files of no snapshot"),
            Err(error) => tracing::warn!(archive = %name, %error, "files of no snapshot stay"),
        }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.archives.0.env.clock.wall_micros().div_euclid(1000)
    }

    /// Reads what is stored again.
    pub(crate) async fn reload(&mut self) -> Result<()> {
        let table = self.writer.table();
        let (store, url) = (table.store().clone(), table.url().to_owned());
        let owner = table.owner().clone();
        let gone = || ArchiveError::damaged(&url, "the table is gone");
        let mut table = Table::load(store, url.clone()).await?.ok_or_else(gone)?;
        if !table.owner().is_of(&owner) {
            return Err(ArchiveError::Foreign(format!("{url}: another table has taken its place")));
        }
        table.adopt(owner);
        self.writer = Writer::new(table, self.options.clone());
        self.publish(self.writer.table().mark().position);
        Ok(())
    }

    /// Takes all rows out, to be written again in more columns.
    pub(crate) async fn begin_anew(&mut self, columns: &SchemaRef) -> Result<()> {
        let table = self.writer.table();
        let (store, url, owner) = (table.store().clone(), table.url().to_owned(), table.owner());
        let (owner, gone) = (owner.clone(), || ArchiveError::damaged(&url, "the table is gone"));
        let table = Table::head(store, url.clone()).await?.ok_or_else(gone)?;
        let table = table.emptied(owner, &sql(columns)?).await?;
        self.writer = Writer::new(table, self.options.clone());
        self.publish(Position::ZERO);
        Ok(())
    }

    /// Shows readers the table as it is.
    pub(crate) fn publish(&self, position: Position) {
        let table = self.writer.table();
        let mut tables = self.archives.tables();
        if let Some(shown) = tables.get_mut(&self.name)
            && shown.metadata_url == table.metadata_url()
        {
            shown.position = position;
            return;
        }
        let files = table.files().iter().map(|live| ArchiveFile {
            url: live.file.file_path().to_owned(),
            bytes: live.file.file_size_in_bytes(),
            rows: live.file.record_count(),
        });
        let shown = ArchiveTable {
            metadata_url: table.metadata_url(),
            metadata: Arc::clone(table.metadata()),
            position,
            files: Arc::new(files.collect()),
            objects: table.store().objects().cloned(),
        };
        tables.insert(self.name.clone(), shown);
    }

    /// Writes what waits; says whether there was something.
    pub(crate) async fn flush(&mut self) -> Result<bool> {
        let now = self.now_ms();
        self.writer.flush(now).await
    }

    /// Merges small files. An error here loses nothing, and the next commit finds out what has
    /// become of the table.
    pub(crate) async fn compact(&mut self) -> Result<()> {
        let now = self.now_ms();
        while self.writer.compact(now).await? {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

#[async_trait]
impl Outlet for Archive {
    fn position(&self) -> Option<Position> {
        Some(self.writer.table().mark().position).filter(|position| *position > Position::ZERO)
    }

    fn rows(&self) -> u64 {
        self.stored_rows()
    }

    async fn follow(&mut self, context: &OutletContext) -> std::result::Result<(), OutletError> {
        self.follow_log(context).await
    }

    async fn verify(
        &mut self,
        context: &OutletContext,
    ) -> std::result::Result<OutletVerdict, OutletError> {
        self.verify_rows(context).await
    }
}

#[async_trait]
impl OutletFactory for Archives {
    fn check(
        &self,
        def: &OutletDef,
        relation: &RowSchema,
    ) -> std::result::Result<Value, PlanError> {
        let options = ArchiveOptions::read(&def.options, relation).map_err(refused)?;
        let location = self.location(&options).map_err(refused)?;
        self.relation(&def.on).map_err(refused)?;
        schema::columns(relation).map_err(refused)?;
        // A bucket without a region or endpoint is told now.
        self.store(&location).map_err(refused)?;
        let mut kept = def.options.clone();
        kept["to"] = json!(location.url());
        kept["first_id"] = json!(def.id);
        Ok(kept)
    }

    fn check_columns(
        &self,
        _: &OutletDef,
        relation: &RowSchema,
    ) -> std::result::Result<(), PlanError> {
        schema::columns(relation).map(drop).map_err(refused)
    }

    async fn look(
        &self,
        def: &OutletDef,
        relation: &RowSchema,
    ) -> std::result::Result<(), OutletError> {
        self.look_at_place(def, relation).await.map_err(outlet_error)
    }

    fn place<'a>(&self, options: &'a Value) -> Option<&'a str> {
        options["to"].as_str()
    }

    async fn open(
        &self,
        def: &OutletDef,
        relation: &RowSchema,
    ) -> std::result::Result<Box<dyn Outlet>, OutletError> {
        let archive = self.open_table(def, relation).await.map_err(outlet_error)?;
        Ok(Box::new(archive))
    }

    /// The new table takes the old one's place when it is opened.
    async fn begin_anew(&self, def: &OutletDef) -> std::result::Result<(), OutletError> {
        self.check_rebuild(def).await.map_err(outlet_error)
    }

    /// A dropped archive's files stay: they may be all that is left of the facts.
    async fn remove(&self, def: &OutletDef) -> std::result::Result<(), OutletError> {
        self.tables().remove(&def.name);
        Ok(())
    }
}

fn refused(error: ArchiveError) -> PlanError {
    PlanError { sqlstate: "22023", message: error.to_string(), hint: None }
}

pub(crate) fn outlet_error(error: ArchiveError) -> OutletError {
    match error {
        ArchiveError::Place(_) | ArchiveError::Overtaken(_) => {
            OutletError::Retry(error.to_string())
        }
        other => OutletError::Failed(other.to_string()),
    }
}
