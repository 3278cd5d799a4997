//! Served: the same random views, kept by a whole server: a log, relations that are decoded from
//! its records, views that come at random moments and read one another, threads that go apart and
//! come together again, checkpoints, kills and starts.
//!
//! Owns: a server's life and what is compared in it.
//! Not here: what the views should hold (`case` has Postgres's answers).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use evert_env::Env;
use evert_log::{Log, LogConfig, NewCommit, NewPart};
use evert_model::{BatchBuilder, Compression, PartitionId, Position, TimestampMs};
use evert_sql::{Engine, EngineConfig, NoSources, Response, Session, SqlError, SqlPlanner};
use evert_view::{
    CheckpointConfig, Cut, Format, IsolationConfig, Lengths, Name, NewRelation,
    PlantedCheckpointFaults, RelationKind, RowWriter, ViewState, Views, ViewsConfig,
};
use futures::TryStreamExt;

use crate::case::{Setting, Verdict, Wrong, in_order, judge_moment};
use crate::folded::{Moment, Then};
use crate::grammar::Query;
use crate::postgres::Answer;
use crate::rows::{Kind, Row, of_batches, shown};
use crate::world::{Commit, Present, Table};

const PARTITIONS: i32 = 2;
/// How long a server may take to come to a position.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a server has shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shown {
    /// Answers of views that were equal.
    pub(crate) answers: usize,
    /// Those of them that were asked for as of a position of the past.
    pub(crate) past: usize,
    /// Answers to the queries themselves, ad hoc.
    pub(crate) ad_hoc: usize,
    /// Starts that began at a checkpoint.
    pub(crate) restored: usize,
}

impl Shown {
    pub(crate) fn add(&mut self, other: Self) {
        self.answers += other.answers;
        self.past += other.past;
        self.ad_hoc += other.ad_hoc;
        self.restored += other.restored;
    }
}

/// A query that is kept as a view, and what Postgres answers at each compared position.
pub(crate) struct Kept<'a> {
    pub(crate) query: &'a Query,
    pub(crate) answers: Vec<&'a Answer>,
}

/// Lives through a world's history with views of these queries. Gives what was shown, or which of
/// the queries is wrong and how.
pub(crate) async fn serve(
    setting: &Setting,
    seed: u64,
    kept: &[Kept<'_>],
) -> Result<Shown, (usize, Wrong)> {
    let mut life = Life::begin(setting, seed, kept);
    let (mut from, mut compared) = (0, 0);
    for tick in &setting.ticks {
        for commit in &setting.world.commits[from..tick.until] {
            life.append(commit);
            life.create_some();
        }
        from = tick.until;
        if tick.compared {
            life.create_some();
            life.compare(tick.until, compared).await?;
            compared += 1;
        }
        if tick.then == Then::Restart {
            life.restart();
        }
    }
    life.look_back().await?;
    Ok(life.shown)
}

struct Life<'a> {
    setting: &'a Setting,
    kept: &'a [Kept<'a>],
    random: fastrand::Rng,
    dir: tempfile::TempDir,
    server: Option<(Log, Views)>,
    present: Present,
    /// Each table's rows, and what writes them.
    pools: Vec<(RecordBatch, RowWriter)>,
    end: Position,
    /// Which queries are views by now, and how their columns are read.
    created: BTreeMap<usize, Vec<Kind>>,
    /// Each compared position: the commits up to it, and the position.
    compared: Vec<(usize, Position)>,
    shown: Shown,
}

impl<'a> Life<'a> {
    fn begin(setting: &'a Setting, seed: u64, kept: &'a [Kept<'a>]) -> Self {
        let pool = |table: &Table| {
            let schema = table.schema();
            let columns: Vec<usize> = (0..schema.columns.len()).collect();
            (table.batch(), RowWriter::new(&schema, &columns))
        };
        let mut life = Self {
            setting,
            kept,
            random: fastrand::Rng::with_seed(seed),
            dir: tempfile::tempdir().expect("a directory"),
            server: None,
            present: Present::nothing(&setting.world),
            pools: setting.world.tables.iter().map(pool).collect(),
            end: Position::ZERO,
            created: BTreeMap::new(),
            compared: Vec::new(),
            shown: Shown::default(),
        };
        life.open();
        for table in &setting.world.tables {
            life.views().create_relation(definition(table)).expect("a new relation");
        }
        life
    }

    fn views(&self) -> &Views {
        &self.server.as_ref().expect("it is open").1
    }

    fn open(&mut self) {
        let env = Env::real();
        let dir = self.dir.path().join("log");
        let open = || Log::open(env.clone(), dir.clone(), LogConfig::default());
        // A replay that nobody reads any more may hold the directory for a moment.
        let log = (0..200)
            .find_map(|_| open().map_err(|_| std::thread::sleep(Duration::from_millis(20))).ok());
        let log = log.expect("the log opens");
        let mut checkpoints = CheckpointConfig::new(self.dir.path().join("views"), Duration::ZERO);
        checkpoints.planted = PlantedCheckpointFaults {
            position_first: false,
            // As if the process had been killed amid a checkpoint.
            stop_after_writes: self.random.bool().then(|| self.random.u64(..60)),
            table_changes: Some(self.random.usize(..60)),
        };
        // With no time at all to fold in, views go apart by chance, each with a thread of its own.
        let isolation = match self.random.bool() {
            true => IsolationConfig { fold_max: Duration::ZERO, away_min: Duration::ZERO },
            false => IsolationConfig::default(),
        };
        let config = ViewsConfig { checkpoints: Some(checkpoints), isolation };
        let views = Views::open_with(env, log.clone(), Arc::new(SqlPlanner::new()), config);
        self.server = Some((log, views.expect("views open")));
    }

    fn restart(&mut self) {
        self.shown.restored += usize::from(self.views().restored().is_some());
        let (log, views) = self.server.take().expect("it is open");
        views.close();
        log.close();
        drop((views, log));
        self.open();
    }

    /// Makes a view of some queries that are none yet, at times through another view.
    fn create_some(&mut self) {
        let all_at_once = self.random.u8(..3) == 0;
        for index in 0..self.kept.len() {
            if self.created.contains_key(&index) || !(all_at_once || self.random.u8(..3) == 0) {
                continue;
            }
            let sql = self.kept[index].query.ours.clone();
            let name = view(index);
            if self.random.u8(..4) == 0 {
                let below = Name::public(format!("below{index}"));
                let read = format!("SELECT * FROM {}", below.name);
                self.views().create_view(below, sql).expect("it was planned before");
                self.views().create_view(name.clone(), read).expect("a view of all columns");
            } else {
                self.views().create_view(name.clone(), sql).expect("it was planned before");
            }
            let schema = self.views().catalog().views[&name].schema.to_arrow();
            let kinds = schema.fields().iter().map(|field| Kind::of(field.data_type())).collect();
            self.created.insert(index, kinds);
        }
    }

    /// Appends a commit's facts, all at one position.
    fn append(&mut self, commit: &Commit) {
        let world = &self.setting.world;
        let mut batches: BTreeMap<(usize, i32), BatchBuilder> = BTreeMap::new();
        for change in &commit.changes {
            let one = Commit { time: commit.time, changes: vec![*change] };
            let delta = &self.present.apply(world, &one)[change.table];
            let table = &world.tables[change.table];
            // What a row replaces is the relation's to find.
            let Some((row, weight)) = delta.last() else { continue };
            let mut image = String::new();
            let (pool, writer) = &self.pools[change.table];
            writer.write(pool, *row, &mut image);
            let (key, value) = match (table.keyed, *weight > 0) {
                (true, true) => (Some(id(table, *row)), Some(image)),
                (true, false) => (Some(id(table, *row)), None),
                (false, true) => (None, Some(format!("{{\"op\":\"c\",\"after\":{image}}}"))),
                (false, false) => (None, Some(format!("{{\"op\":\"d\",\"before\":{image}}}"))),
            };
            let batch = batches.entry((change.table, partition(table, *row)));
            let batch = batch.or_insert_with(|| BatchBuilder::new(Compression::None));
            let (key, value) = (key.as_deref(), value.as_deref());
            let at = TimestampMs::new(commit.time / 1000);
            batch.push(at, key.map(str::as_bytes), value.map(str::as_bytes), &[]);
        }
        if batches.is_empty() {
            return;
        }
        let (log, _) = self.server.as_ref().expect("it is open");
        let parts = batches.into_iter().map(|((table, partition), batch)| NewPart {
            topic: log.topic(world.tables[table].name).expect("a relation's topic").id,
            partition: PartitionId::new(partition),
            batch: batch.build(),
        });
        let appended = log.append(NewCommit { parts: parts.collect() }).expect("taken").wait();
        self.end = appended.expect("durable").position;
    }

    /// All views at the log's end.
    async fn pinned(&self) -> Result<Arc<Cut>, (usize, Wrong)> {
        let names: Vec<Name> = self.created.keys().map(|index| view(*index)).collect();
        let pinned = self.views().pin(&names, self.end, PATIENCE).await;
        pinned.map_err(|error| self.blame(&error.to_string()))
    }

    /// The view that an error is about, and what is known of it.
    fn blame(&self, error: &str) -> (usize, Wrong) {
        let is_named = |index: &&usize| error.contains(&format!("\"{}\"", view(**index).name));
        let first = self.created.keys().next();
        let blamed = self.created.keys().find(is_named).or(first).copied().unwrap_or(0);
        let failed = self.views().status().into_iter().filter_map(|status| match status.state {
            ViewState::Failed(why) => Some(format!("{}: {why}", status.name)),
            _ => None,
        });
        let failed: Vec<String> = failed.collect();
        (blamed, Wrong::Panicked(format!("{error} {failed:?}")))
    }

    /// Compares what is there at the end.
    async fn compare(&mut self, commits: usize, place: usize) -> Result<(), (usize, Wrong)> {
        self.compared.push((place, self.end));
        let cut = self.pinned().await?;
        let rows: HashMap<usize, _> = self
            .created
            .keys()
            .map(|index| (*index, of_batches(cut.snapshots[&view(*index)].scan(None))))
            .collect();
        for (index, rows) in rows {
            self.judge(index, commits, place, rows)?;
        }
        self.ask(place).await
    }

    /// Asks all queries as they are: a SELECT means the same ad hoc.
    async fn ask(&mut self, place: usize) -> Result<(), (usize, Wrong)> {
        let (log, views) = self.server.as_ref().expect("it is open");
        let config = EngineConfig::default();
        let engine = Engine::new(log.clone(), views.clone(), Arc::new(NoSources), config);
        let mut session = engine.session("witness", "evert");
        for (index, Kept { query, answers }) in self.kept.iter().enumerate() {
            // A row that cannot be evaluated ends a query.
            if query.poisoned {
                continue;
            }
            let wrong = |what: String| (index, Wrong::Panicked(format!("ad hoc: {what}")));
            let (kinds, rows) = match answer(&mut session, &query.ours).await {
                Ok(answer) => answer,
                Err(error) => return Err(wrong(format!("{} {error}", error.sqlstate))),
            };
            let moment = Moment { rows, errors: 0 };
            if let Err(verdict) = judge_moment(query, &kinds, &moment, answers[place]) {
                return Err(wrong(match verdict {
                    Verdict::Wrong(Wrong::Different { ours, theirs, .. }) => {
                        format!("\n{}-- Postgres answers\n{}", shown(&ours), shown(&theirs))
                    }
                    other => format!("{other:?}"),
                }));
            }
            if !in_order(query, &kinds, &moment.rows, answers[place]) {
                return Err(wrong(format!("\n{}-- in another order", shown(&moment.rows))));
            }
            self.shown.ad_hoc += 1;
        }
        Ok(())
    }

    /// Compares views as they were at earlier positions, and one of them with its own replay.
    async fn look_back(&mut self) -> Result<(), (usize, Wrong)> {
        let indexes: Vec<usize> = self.created.keys().copied().collect();
        if indexes.is_empty() {
            return Ok(());
        }
        // After a start, the replay comes first.
        self.pinned().await?;
        for _ in 0..3 {
            let (place, position) = self.compared[self.random.usize(..self.compared.len())];
            let index = indexes[self.random.usize(..indexes.len())];
            let names = [view(index)];
            let cut = self.views().cut_at(&names, position).await;
            let cut = cut.map_err(|error| self.blame(&error.to_string()))?;
            let rows = of_batches(cut.snapshots[&names[0]].scan(None));
            let commits = self.setting.compared().nth(place).expect("it was compared").until;
            self.judge(index, commits, place, rows)?;
            self.shown.past += 1;
        }
        let index = indexes[self.random.usize(..indexes.len())];
        match self.views().verify(&view(index)) {
            Ok(report) if report.equal => Ok(()),
            Ok(report) => Err((index, Wrong::Panicked(format!("not its replay: {report:?}")))),
            Err(error) => Err(self.blame(&error.to_string())),
        }
    }

    fn judge(
        &mut self,
        index: usize,
        commits: usize,
        place: usize,
        rows: Vec<Row>,
    ) -> Result<(), (usize, Wrong)> {
        let Kept { query, answers } = &self.kept[index];
        let moment = Moment { rows, errors: 0 };
        match judge_moment(query, &self.created[&index], &moment, answers[place]) {
            Ok(_) => {
                self.shown.answers += 1;
                Ok(())
            }
            Err(Verdict::Wrong(Wrong::Different { ours, theirs, .. })) => {
                Err((index, Wrong::Different { commits, ours, theirs }))
            }
            Err(other) => Err((index, Wrong::Panicked(format!("{other:?}")))),
        }
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        if let Some((log, views)) = self.server.take() {
            views.close();
            log.close();
        }
    }
}

/// A query's answer, and how its columns are read.
async fn answer(session: &mut Session, sql: &str) -> Result<(Vec<Kind>, Vec<Row>), SqlError> {
    let statement = session.parse(sql)?.pop().expect("one statement");
    match session.execute(&statement, &[]).await? {
        Response::Rows { schema, batches, .. } => {
            let kinds = schema.fields().iter().map(|field| Kind::of(field.data_type())).collect();
            Ok((kinds, of_batches(batches.try_collect::<Vec<_>>().await?)))
        }
        _ => unreachable!("a SELECT gives rows"),
    }
}

fn view(index: usize) -> Name {
    Name::public(format!("view{index}"))
}

fn id(table: &Table, row: usize) -> String {
    table.rows[row][0].clone().expect("rows have an id")
}

/// Equal rows and rows of one key are in one partition, where their order is that of the facts.
fn partition(table: &Table, row: usize) -> i32 {
    let id: i32 = id(table, row).parse().expect("a small number");
    id % PARTITIONS
}

fn definition(table: &Table) -> NewRelation {
    let (kind, format) = match table.keyed {
        true => (RelationKind::Table, Format::Json),
        false => (RelationKind::Bag, Format::Debezium),
    };
    NewRelation {
        name: Name::public(table.name),
        kind,
        schema: table.schema(),
        topic: None,
        partitions: PARTITIONS,
        topic_config: BTreeMap::new(),
        format,
        conflict_is_error: false,
        lengths: Lengths::new(),
        defaults: Default::default(),
        source: None,
    }
}
