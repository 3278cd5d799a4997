//! How an index follows its relation.
//!
//! Owns: when changes are committed, and what happens when an index cannot go on.
//! Not here: threads, retries and states (`evert-view`'s outlets).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use evert_model::{Position, RowSchema};
use evert_view::{
    Changes, Name, Outlet, OutletContext, OutletDef, OutletError, OutletFactory, OutletVerdict,
    PastError, PinError, PlanError, SubscribeFrom, Subscription,
};
use serde_json::Value;
use tantivy::TantivyError;
use tantivy::collector::TopDocs;
use tantivy::query::TermQuery;
use tantivy::schema::IndexRecordOption;
use tantivy::{Searcher, Term};
use tokio::time::Instant;

use crate::document::{DocumentWriter, row_hash};
use crate::index::{self, Store};
use crate::mapping::{IndexOptions, Mapping};
use crate::registry::{Generation, OpenIndex, SearchIndexes};
use crate::search::stored;

/// From the first change to its commit, at least: changes that come together go in together.
const GATHER: Duration = Duration::from_millis(100);
/// Between two commits, at least and at most; in between, so that commits take a fifth of the time.
const SPACING_MIN: Duration = Duration::from_millis(700);
const SPACING_MAX: Duration = Duration::from_millis(850);
/// What has a meaning of its own at the root of the HTTP door.
const RESERVED: [&str; 7] = ["api", "es", "healthz", "iceberg", "metrics", "readyz", "registry"];
/// How often a position at which nothing has changed is stored.
const IDLE_COMMIT: Duration = Duration::from_secs(30);
/// How often it is looked whether the directory is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// While the first rows come, so many are gathered for a commit.
const FIRST_ROWS: usize = 500_000;
/// Differences that VERIFY lists.
const DIFFERENCES_MAX: usize = 10;

/// Where indexes are kept.
#[derive(Clone, Debug)]
pub struct SearchConfig {
    /// The directory that holds a directory for each index.
    pub dir: PathBuf,
    /// Memory of the changes of one index before they are written, in bytes; at least 15 MB.
    pub heap_bytes: usize,
}

impl SearchConfig {
    /// Indexes under `dir`, with 48 MB for the changes of each.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), heap_bytes: 48 << 20 }
    }
}

/// Makes indexes.
pub struct SearchFactory {
    config: SearchConfig,
    indexes: SearchIndexes,
}

impl SearchFactory {
    /// Makes indexes that can be searched through `indexes`.
    pub fn new(config: SearchConfig, indexes: SearchIndexes) -> Self {
        Self { config, indexes }
    }

    /// A rebuilt index has another id, and so a directory of its own: what the old one's merges
    /// still write does not come between.
    fn dir_of(&self, def: &OutletDef) -> PathBuf {
        self.config.dir.join(format!("{}-{}", dir_name(&def.name), def.id.simple()))
    }

    /// Deletes what earlier indexes of the name have left.
    fn clean(&self, def: &OutletDef) {
        let (own, prefix) = (self.dir_of(def), format!("{}-", dir_name(&def.name)));
        // A directory that cannot be listed is told when the index is opened.
        for entry in std::fs::read_dir(&self.config.dir).into_iter().flatten().flatten() {
            let is_former = entry.file_name().to_string_lossy().starts_with(&prefix);
            if is_former
                && entry.path() != own
                && let Err(error) = index::remove(&entry.path())
            {
                let dir = show(&own).to_string();
                tracing::warn!(%dir, %error, "search: files of a former index stay");
            }
        }
    }
}

/// How an index's directory begins: its name, with all but plain letters written as their bytes.
fn dir_name(name: &Name) -> String {
    let mut dir = String::from("search-");
    for byte in format!("{}.{}", name.schema, name.name).bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' => dir.push(byte.into()),
            byte => dir.push_str(&format!("%{byte:02x}")),
        }
    }
    dir
}

#[async_trait]
impl OutletFactory for SearchFactory {
    fn check(&self, def: &OutletDef, schema: &RowSchema) -> Result<Value, PlanError> {
        check_name(&def.name)?;
        let planned = IndexOptions::plan(&def.options, schema)?;
        let mut options = def.options.clone();
        if !options.is_object() {
            options = Value::Object(Default::default());
        }
        options["fields"] = serde_json::to_value(planned.fields)
            .expect("names and types of columns can be written as JSON");
        Ok(options)
    }

    async fn open(
        &self,
        def: &OutletDef,
        schema: &RowSchema,
    ) -> Result<Box<dyn Outlet>, OutletError> {
        let unfit = |why: String| OutletError::Failed(why);
        let options: IndexOptions = serde_json::from_value(def.options.clone())
            .map_err(|error| unfit(format!("its definition cannot be read: {error}")))?;
        let Some(mapping) = Mapping::new(&options, schema) else {
            return Err(unfit(format!("\"{}\" has other columns now", def.on)));
        };
        let dir = self.dir_of(def);
        self.clean(def);
        let id = def.id.to_string();
        let store = Store::open(&dir, &id, mapping, self.config.heap_bytes).map_err(retry)?;
        let current =
            store.position().map(|position| Generation { searcher: store.searcher(), position });
        let open = OpenIndex::new(def.name.clone(), Arc::clone(&store.mapping), current);
        let open = Arc::new(open);
        self.indexes.put(Arc::clone(&open));
        Ok(Box::new(SearchOutlet { store, open }))
    }

    async fn remove(&self, def: &OutletDef) -> Result<(), OutletError> {
        self.indexes.take_out(&def.name);
        let dir = self.dir_of(def);
        index::remove(&dir)
            .map_err(|error| OutletError::Retry(format!("cannot remove {}: {error}", show(&dir))))
    }
}

fn show(path: &Path) -> std::path::Display<'_> {
    path.display()
}

fn retry(error: TantivyError) -> OutletError {
    OutletError::Retry(error.to_string())
}

struct SearchOutlet {
    store: Store,
    open: Arc<OpenIndex>,
}

/// Why following paused.
enum Pause {
    Stopped,
    /// All is to be read again.
    Anew,
}

/// Where the changes taken so far stand.
struct Progress {
    /// All up to here was taken.
    at: Option<Position>,
    /// When the first change that waits for a commit came.
    first: Option<Instant>,
    committed: Instant,
    spacing: Duration,
    looked: Instant,
}

impl Progress {
    /// When the changes that wait are due to be committed.
    fn due(&self) -> Option<Instant> {
        let first = self.first.filter(|_| self.at.is_some())?;
        Some((first + GATHER).max(self.committed + self.spacing))
    }
}

impl SearchOutlet {
    async fn follow_on(&mut self, context: &OutletContext) -> Result<Pause, OutletError> {
        let after = self.store.position();
        if after.is_none() {
            self.open.publish(None);
            self.store.clear().map_err(retry)?;
        }
        let from = SubscribeFrom { snapshot: after.is_none(), after, upto: None };
        let subscribed = tokio::select! {
            () = context.stopping() => return Ok(Pause::Stopped),
            subscribed = context.views().subscribe(context.on(), from) => subscribed,
        };
        let mut changes = match subscribed {
            Ok(changes) => changes,
            Err(error) => return self.lost(error),
        };
        let now = Instant::now();
        let mut progress = Progress {
            at: after,
            first: None,
            committed: now,
            spacing: Duration::ZERO,
            looked: now,
        };
        if let Some(position) = after {
            self.report(context, position);
        }
        loop {
            match self.step(context, &mut changes, &mut progress).await {
                Ok(true) => {}
                Ok(false) => return Ok(Pause::Stopped),
                Err(Trouble::Past(error)) => return self.lost(error),
                Err(Trouble::Outlet(error)) => return Err(error),
            }
        }
    }

    /// What an index does that cannot go on where it is: a cache is made again.
    fn lost(&mut self, error: PastError) -> Result<Pause, OutletError> {
        match error {
            PastError::Pin(PinError::Stopping) => Ok(Pause::Stopped),
            PastError::Forgotten { .. } | PastError::Future { .. } | PastError::BeforeBeginning
                if self.store.position().is_some() =>
            {
                tracing::warn!(index = %self.open.name, %error, "search: an index is built anew");
                self.open.publish(None);
                self.store.clear().map_err(retry)?;
                Ok(Pause::Anew)
            }
            error => Err(error.into()),
        }
    }

    /// Waits for what comes next; says whether to go on.
    async fn step(
        &mut self,
        context: &OutletContext,
        changes: &mut Subscription,
        progress: &mut Progress,
    ) -> Result<bool, Trouble> {
        let look = progress.looked + LOOK_EVERY;
        let wake = progress.due().map_or(look, |due| due.min(look));
        tokio::select! {
            () = context.stopping() => {
                self.commit(context, progress)?;
                return Ok(false);
            }
            () = tokio::time::sleep_until(wake) => {}
            next = changes.next() => match next {
                Some(Ok(next)) => self.take(context, next, progress)?,
                Some(Err(error)) => return Err(Trouble::Past(error)),
                None => return Err(OutletError::Retry("the changes ended".into()).into()),
            },
        }
        let now = Instant::now();
        if progress.due().is_some_and(|due| due <= now) {
            self.commit(context, progress)?;
        }
        if progress.looked + LOOK_EVERY <= now {
            progress.looked = now;
            if !self.store.is_there() {
                return Err(OutletError::Retry("its directory is gone".into()).into());
            }
            if progress.committed + IDLE_COMMIT <= now && progress.at > self.store.position() {
                self.commit(context, progress)?;
            }
        }
        Ok(true)
    }

    fn take(
        &mut self,
        context: &OutletContext,
        changes: Changes,
        progress: &mut Progress,
    ) -> Result<(), Trouble> {
        self.store.apply(&changes.deltas).map_err(retry)?;
        if self.store.pending() > 0 && progress.first.is_none() {
            progress.first = Some(Instant::now());
        }
        let first_time = progress.at.is_none();
        if changes.complete {
            progress.at = Some(changes.position);
        }
        if first_time {
            if changes.complete {
                self.commit(context, progress)?;
            } else if self.store.pending() >= FIRST_ROWS {
                // Not all rows of a position are there: the commit is of none.
                self.store.commit(None).map_err(retry)?;
            }
        } else if changes.complete && self.store.pending() == 0 {
            // Nothing of this relation has changed.
            self.report(context, changes.position);
        }
        Ok(())
    }

    fn commit(&mut self, context: &OutletContext, progress: &mut Progress) -> Result<(), Trouble> {
        let Some(at) = progress.at else { return Ok(()) };
        if self.store.pending() == 0 && self.store.position() == Some(at) {
            return Ok(());
        }
        if !self.store.is_there() {
            return Err(OutletError::Retry("its directory is gone".into()).into());
        }
        let begin = Instant::now();
        self.store.commit(Some(at)).map_err(retry)?;
        progress.committed = Instant::now();
        progress.spacing = (begin.elapsed() * 5).clamp(SPACING_MIN, SPACING_MAX);
        progress.first = None;
        self.report(context, at);
        Ok(())
    }

    /// Shows readers what is committed, as of a position.
    fn report(&self, context: &OutletContext, position: Position) {
        let searcher = self.store.searcher();
        let rows = searcher.num_docs();
        self.open.publish(Some(Generation { searcher, position }));
        context.report(position, rows);
    }
}

/// Refuses names that could not be asked for over HTTP: words that mean something else at the
/// root, and characters that Elasticsearch allows in no index's name. (Elasticsearch reference,
/// "Create index API", path parameters)
fn check_name(name: &Name) -> Result<(), PlanError> {
    let refuse = |sqlstate, why: String| {
        let message = format!("\"{name}\" cannot be the name of a search index: {why}");
        Err(PlanError { sqlstate, message, hint: None })
    };
    let text = name.to_string();
    if RESERVED.contains(&text.as_str()) {
        return refuse("42939", format!("/{text} is something else over HTTP"));
    }
    if text.starts_with(['_', '-', '+']) {
        return refuse("42602", "it begins with _, - or +".into());
    }
    let bad = |c: char| c.is_whitespace() || c.is_control() || "\\/*?\"<>|,#:".contains(c);
    match text.chars().find(|c| bad(*c)) {
        Some(found) => refuse("42602", format!("it has a {found:?}")),
        None => Ok(()),
    }
}

enum Trouble {
    Past(PastError),
    Outlet(OutletError),
}

impl From<OutletError> for Trouble {
    fn from(error: OutletError) -> Self {
        Self::Outlet(error)
    }
}

#[async_trait]
impl Outlet for SearchOutlet {
    fn position(&self) -> Option<Position> {
        self.store.position()
    }

    fn rows(&self) -> u64 {
        self.store.searcher().num_docs()
    }

    async fn follow(&mut self, context: &OutletContext) -> Result<(), OutletError> {
        loop {
            match self.follow_on(context).await? {
                Pause::Stopped => return Ok(()),
                Pause::Anew => {}
            }
        }
    }

    async fn verify(&mut self, context: &OutletContext) -> Result<OutletVerdict, OutletError> {
        let Some(position) = self.store.position() else {
            return Err(OutletError::Retry("it has no rows yet".into()));
        };
        let from = SubscribeFrom { snapshot: true, after: Some(position), upto: Some(position) };
        let mut rows = context.views().subscribe(context.on(), from).await?;
        let mut check = Check::new(&self.store, position);
        while let Some(changes) = rows.next().await {
            check.rows(&changes?).map_err(retry)?;
        }
        Ok(check.finish())
    }
}

/// A comparison of what is stored with what ought to be.
struct Check<'a> {
    mapping: &'a Mapping,
    searcher: Searcher,
    documents: DocumentWriter,
    /// How many copies of a row without a key were seen.
    copies: std::collections::HashMap<u128, u64>,
    /// Stored rows that ought to be there.
    right: u64,
    verdict: OutletVerdict,
}

impl<'a> Check<'a> {
    fn new(store: &'a Store, position: Position) -> Self {
        let searcher = store.searcher();
        let rows_stored = searcher.num_docs();
        Self {
            mapping: &store.mapping,
            searcher,
            documents: DocumentWriter::new(&store.mapping),
            copies: std::collections::HashMap::new(),
            right: 0,
            verdict: OutletVerdict { position, rows_stored, ..OutletVerdict::default() },
        }
    }

    fn rows(&mut self, changes: &Changes) -> Result<(), TantivyError> {
        let (mut id, mut source) = (String::new(), String::new());
        for delta in &changes.deltas {
            for row in 0..delta.len() {
                self.documents.source(&delta.rows, row, &mut source);
                for _ in 0..delta.weights.value(row).max(0) {
                    if self.documents.key(&delta.rows, row, &mut id).is_none() {
                        let hash = row_hash(&source);
                        let copies = self.copies.entry(hash).or_default();
                        id = format!("{hash:032x}-{copies}");
                        *copies += 1;
                    }
                    self.row(&id, &source)?;
                }
            }
        }
        Ok(())
    }

    fn row(&mut self, id: &str, expected: &str) -> Result<(), TantivyError> {
        self.verdict.rows_expected += 1;
        let term = Term::from_field_text(self.mapping.id, id);
        let query = TermQuery::new(term, IndexRecordOption::Basic);
        let found = self.searcher.search(&query, &TopDocs::with_limit(2).order_by_score())?;
        let said = match found.as_slice() {
            [] => format!("{id}: missing, ought to be {expected}"),
            [(_, address)] => {
                let stored = stored(&self.searcher, self.mapping, *address)
                    .map_err(|error| TantivyError::InternalError(error.to_string()))?;
                self.right += 1;
                if stored.source == expected {
                    return Ok(());
                }
                format!("{id}: {} ought to be {expected}", stored.source)
            }
            _ => {
                self.right += 1;
                format!("{id}: there more than once")
            }
        };
        self.differs(said);
        Ok(())
    }

    fn differs(&mut self, said: String) {
        self.verdict.rows_differing += 1;
        if self.verdict.differences.len() < DIFFERENCES_MAX {
            self.verdict.differences.push(said);
        }
    }

    fn finish(mut self) -> OutletVerdict {
        let extra = self.verdict.rows_stored.saturating_sub(self.right);
        if extra > 0 {
            self.verdict.rows_differing += extra;
            self.verdict.differences.push(format!("{extra} rows are stored that ought not to be"));
        }
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_make_directories_of_their_own() {
        assert_eq!(dir_name(&Name::public("payments")), "search-public.payments");
        assert_eq!(dir_name(&Name::new("shop", "../A b")), "search-shop...%2f%41%20b");
    }
}
