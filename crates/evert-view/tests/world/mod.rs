//! A log, views over it, and a plain evaluation of the same facts.

mod followers;
mod plans;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use evert_env::Env;
use evert_log::{Log, LogConfig, NewCommit, NewPart};
use evert_model::{
    BatchBuilder, Column, ColumnType, Compression, LogTime, PartitionId, Position, RowSchema,
    TimestampMs,
};
use evert_view::{
    CheckpointConfig, Cut, Defaults, Difference, Format, IsolationConfig, Lengths, Name,
    NewRelation, PlantedCheckpointFaults, RelationKind, Views, ViewsConfig, errors_name,
};
use followers::Followers;
use plans::Plans;

const TIMEOUT: Duration = Duration::from_secs(30);
const PARTITIONS: i32 = 2;

/// The relations of this world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Relation {
    Accounts,
    Branches,
    Events,
}

const RELATIONS: [Relation; 3] = [Relation::Accounts, Relation::Branches, Relation::Events];
/// Each view, and what it reads.
const VIEWS: [(&str, &[&str]); 7] = [
    ("by_branch", &["accounts"]),
    ("by_city", &["accounts", "branches"]),
    ("total", &["events"]),
    ("widest", &["by_branch"]),
    // These change by the passing of time too.
    ("fresh", &["accounts"]),
    ("recent", &["events"]),
    ("freshest", &["fresh"]),
];

impl Relation {
    fn name(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Branches => "branches",
            Self::Events => "events",
        }
    }

    fn definition(self) -> NewRelation {
        let column = |name: &str, ty| Column { name: name.into(), ty, nullable: true };
        let (kind, columns) = match self {
            Self::Accounts => (
                RelationKind::Table,
                vec![
                    column("id", ColumnType::Int64),
                    column("branch", ColumnType::Int64),
                    column("balance", ColumnType::Int64),
                    column("until", ColumnType::Int64),
                ],
            ),
            Self::Branches => (
                RelationKind::Table,
                vec![column("id", ColumnType::Int64), column("city", ColumnType::Text)],
            ),
            Self::Events => (
                RelationKind::Stream,
                ["branch", "amount", "at", "until"].map(|n| column(n, ColumnType::Int64)).to_vec(),
            ),
        };
        let key = if kind == RelationKind::Table { vec![0] } else { Vec::new() };
        NewRelation {
            name: Name::public(self.name()),
            kind,
            schema: RowSchema { columns, key },
            topic: None,
            partitions: PARTITIONS,
            topic_config: BTreeMap::new(),
            format: Format::Json,
            conflict_is_error: false,
            lengths: Lengths::new(),
            defaults: Defaults::new(),
            source: None,
        }
    }
}

/// What a record says.
#[derive(Clone, Debug)]
enum Fact {
    Account {
        id: i64,
        /// Branch, balance, and the log time until which the account is fresh.
        row: Option<(i64, i64, i64)>,
    },
    Branch {
        id: i64,
        row: Option<String>,
    },
    Event {
        amount: i64,
        /// The log time from which it is recent, and for how long.
        recent: (i64, i64),
    },
    /// Takes out the row of its key, if it is a table's.
    Bad {
        relation: Relation,
        id: i64,
    },
}

pub(crate) struct World {
    pub(crate) random: fastrand::Rng,
    dir: tempfile::TempDir,
    log: Option<Log>,
    views: Option<Views>,
    facts: Vec<(Position, Fact)>,
    relations: BTreeSet<&'static str>,
    live: BTreeSet<&'static str>,
    /// The SELECT of each view that was replaced.
    replaced: BTreeMap<&'static str, &'static str>,
    paused: BTreeMap<&'static str, Position>,
    /// Checkpoints write the position before the state, and stop after this many batches.
    torn_after: Option<u64>,
    /// No start is followed by a kill in the midst of a checkpoint.
    pub(crate) lives_on: bool,
    /// Starts that began at a checkpoint.
    pub(crate) restored: usize,
    /// Looks back that were folded on from a checkpoint.
    pub(crate) from_checkpoint: u64,
    /// Views that came back from one.
    pub(crate) restored_views: usize,
    followers: Followers,
    runtime: tokio::runtime::Runtime,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_fault(seed, None)
    }

    /// With checkpoints that write the position before the state and are torn after some writes.
    pub(crate) fn with_fault(seed: u64, torn_after: Option<u64>) -> Self {
        let mut world = Self {
            random: fastrand::Rng::with_seed(seed),
            dir: tempfile::tempdir().expect("a directory"),
            log: None,
            views: None,
            facts: Vec::new(),
            relations: BTreeSet::new(),
            live: BTreeSet::new(),
            replaced: BTreeMap::new(),
            paused: BTreeMap::new(),
            torn_after,
            lives_on: false,
            restored: 0,
            restored_views: 0,
            from_checkpoint: 0,
            followers: Followers::default(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("starts"),
        };
        world.open();
        // The topics are there before the relations, so that relations find history.
        for relation in RELATIONS {
            let (name, config) = (relation.name().to_owned(), BTreeMap::new());
            let new = evert_log::NewTopic { name, partitions: PARTITIONS, config };
            world.log().create_topic(new).expect("a new topic");
        }
        world
    }

    fn open(&mut self) {
        let env = Env::real();
        let dir = self.dir.path().join("data");
        let open = || Log::open(env.clone(), dir.clone(), LogConfig::default());
        // A replay that nobody reads any more may hold the directory for a moment.
        let log = (0..100)
            .find_map(|_| open().map_err(|_| std::thread::sleep(Duration::from_millis(20))).ok());
        let log = log.expect("opens");
        let views = Views::open_with(env, log.clone(), Arc::new(Plans), self.config());
        self.views = Some(views.expect("opens"));
        self.log = Some(log);
    }

    /// Checkpoints at every turn, until the process is killed in the midst of one.
    fn config(&mut self) -> ViewsConfig {
        let dir = self.dir.path().join("views");
        let mut checkpoints = CheckpointConfig::new(dir, Duration::ZERO);
        let random = &mut self.random;
        let killed = !self.lives_on && random.bool();
        checkpoints.planted = PlantedCheckpointFaults {
            position_first: self.torn_after.is_some(),
            stop_after_writes: self.torn_after.or(killed.then(|| random.u64(..40))),
            // Tables appear whole: nothing tears them.
            table_changes: self.torn_after.is_none().then(|| random.usize(..60)),
        };
        // Folds that take no time at all are too slow by chance: views go apart and come back.
        let isolation = match self.random.bool() {
            true => IsolationConfig { fold_max: Duration::ZERO, away_min: Duration::ZERO },
            false => IsolationConfig::default(),
        };
        ViewsConfig { checkpoints: Some(checkpoints), isolation }
    }

    fn log(&self) -> &Log {
        self.log.as_ref().expect("open")
    }

    fn views(&self) -> &Views {
        self.views.as_ref().expect("open")
    }

    pub(crate) fn reopen(&mut self) {
        self.note_restored();
        self.from_checkpoint += self.views().past_folds().from_checkpoint;
        self.followers.let_go();
        self.views.take().expect("open").close();
        self.log.take().expect("open").close();
        self.open();
    }

    /// Where the replay began, and whether every relation and view was there at once.
    pub(crate) fn began_whole_at(&self) -> Option<Position> {
        let (position, names) = self.views().restored()?;
        let all = self.live.iter().chain(&self.relations).map(|name| Name::public(*name));
        all.into_iter().all(|name| names.contains(&name)).then_some(position)
    }

    /// The position of the last fact.
    pub(crate) fn last_fact(&self) -> Position {
        self.facts.last().map_or(Position::ZERO, |(position, _)| *position)
    }

    /// Counts what came back from a checkpoint.
    fn note_restored(&mut self) {
        let Some((position, names)) = self.views().restored() else { return };
        assert!(position <= self.log().end());
        self.restored += 1;
        self.restored_views += names.iter().filter(|name| self.live.contains(&*name.name)).count();
    }

    pub(crate) fn create_all(&mut self) {
        for relation in RELATIONS {
            self.create_relation(relation);
        }
        for (view, _) in VIEWS {
            self.create_view(view);
        }
    }

    pub(crate) fn create_something(&mut self) {
        if self.random.bool() {
            let relation = RELATIONS[self.random.usize(..RELATIONS.len())];
            if !self.relations.contains(relation.name()) {
                self.create_relation(relation);
            }
            return;
        }
        let (view, inputs) = VIEWS[self.random.usize(..VIEWS.len())];
        let there = |name: &&str| self.relations.contains(name) || self.live.contains(name);
        let is_paused = |name: &&str| self.is_paused(name);
        // Nothing is built over a paused view.
        if !self.live.contains(view) && inputs.iter().all(there) && !inputs.iter().any(is_paused) {
            self.create_view(view);
        }
    }

    fn create_relation(&mut self, relation: Relation) {
        self.views().create_relation(relation.definition()).expect("a new relation");
        self.relations.insert(relation.name());
    }

    fn create_view(&mut self, view: &'static str) {
        self.views().create_view(Name::public(view), view.to_owned()).expect("a new view");
        self.live.insert(view);
        self.replaced.remove(view);
    }

    /// What a view's rows are: those of the view that its SELECT, and those below, mean.
    fn meaning(&self, view: &'static str) -> &'static str {
        let sql = |view: &'static str| self.replaced.get(view).copied().unwrap_or(view);
        match view {
            "widest" if sql("by_branch") == "fresh" => "freshest",
            "freshest" if sql("fresh") == "by_branch" => "widest",
            view => sql(view),
        }
    }

    fn is_paused(&self, view: &str) -> bool {
        let closure = self.views().catalog().paused_closure();
        closure.contains(&Name::public(view))
    }

    /// Gives a view the SELECT of another one of its columns, after a dry run that must tell how
    /// many rows that changes.
    pub(crate) fn replace_something(&mut self) {
        let pairs = [("by_branch", "fresh"), ("fresh", "by_branch"), ("total", "recent")];
        let (view, other) = pairs[self.random.usize(..pairs.len())];
        if !self.live.contains(view) {
            return;
        }
        let sql = if self.meaning(view) == view { other } else { view };
        let (name, go_on) = (Name::public(view), AtomicBool::new(false));
        if self.is_paused(view) {
            let refused = self.views().replace_view(&name, sql, &go_on);
            assert!(refused.is_err(), "a paused view is not replaced");
            return;
        }
        if self.random.bool() {
            let (position, found) = self.views().dry_run(&name, sql, &go_on).expect("tells");
            self.check_dry_run(view, sql, position, &found);
        }
        if self.views().replace_view(&name, sql, &go_on).is_ok() {
            self.replaced.insert(view, sql);
            self.forget_followers(view);
        } else {
            // What reads it may be paused.
            let dependents = self.views().catalog().dependents(&name);
            assert!(dependents.iter().any(|name| self.is_paused(&name.name)));
        }
    }

    /// The log time at a position is in no cut by now, so views by time are left out.
    fn check_dry_run(&self, view: &str, sql: &str, at: Position, found: &[Difference]) {
        let Some(own) = found.iter().find(|found| found.name == Name::public(view)) else {
            panic!("{view} itself is missing");
        };
        assert!(own.columns_added.is_empty() && own.columns_removed.is_empty());
        assert!(at <= self.log().end());
        let by_time = |sql: &str| sql == "fresh" || sql == "recent";
        for (sql, rows) in [(self.meaning_of(view), own.rows_before), (sql, own.rows_after)] {
            if !by_time(sql) {
                let oracle = Oracle::new(&self.facts, at, LogTime::default());
                assert_eq!(rows, oracle.view(sql).len(), "{view} as {sql} at {at}");
            }
        }
    }

    fn meaning_of(&self, view: &str) -> &'static str {
        let (view, _) = VIEWS.iter().find(|(name, _)| *name == view).expect("one of ours");
        self.meaning(view)
    }

    pub(crate) fn rebuild_something(&mut self) {
        let views: Vec<&str> = self.live.iter().copied().filter(|v| !self.is_paused(v)).collect();
        if views.is_empty() {
            return;
        }
        let count = self.random.usize(1..=views.len());
        let names: Vec<Name> = views[..count].iter().map(|view| Name::public(*view)).collect();
        let rebuilt = self.views().rebuild_views(&names, &AtomicBool::new(false));
        if rebuilt.is_err() {
            let catalog = self.views().catalog();
            let mut dependents = names.iter().flat_map(|name| catalog.dependents(name));
            assert!(dependents.any(|name| self.is_paused(&name.name)), "{rebuilt:?}");
        }
    }

    pub(crate) fn pause_or_resume(&mut self) {
        let views: Vec<&'static str> = self.live.iter().copied().collect();
        if views.is_empty() {
            return;
        }
        let view = views[self.random.usize(..views.len())];
        let name = Name::public(view);
        if self.paused.contains_key(view) {
            self.views().resume_view(&name).expect("it is paused");
            self.paused.remove(view);
        } else if !self.is_paused(view) {
            let position = self.views().pause_view(&name).expect("there is one");
            self.paused.insert(view, position);
            self.forget_followers(view);
        }
    }

    /// Nobody follows a view any further that stands still or is another one now.
    fn forget_followers(&mut self, view: &str) {
        let name = Name::public(view);
        for gone in self.views().catalog().dependents(&name).iter().chain([&name]) {
            self.followers.forget(gone);
        }
    }

    /// What is paused is read where it was paused, and with it all that stands there too.
    fn look_at_paused(&self) {
        for (view, position) in &self.paused {
            let name = Name::public(*view);
            let pinned = self.runtime.block_on(self.views().pin(&[name], Position::ZERO, TIMEOUT));
            let cut = pinned.expect("stands still");
            assert_eq!(cut.position, *position, "{view}");
            let oracle = Oracle::new(&self.facts, cut.position, cut.log_time);
            let rows = rows(cut.snapshots[&Name::public(*view)].scan(None));
            assert_eq!(rows, oracle.view(self.meaning(view)), "{view} paused at {position}");
        }
    }

    pub(crate) fn drop_something(&mut self) {
        let all: Vec<&str> = self.live.iter().chain(&self.relations).copied().collect();
        if all.is_empty() {
            return;
        }
        let name = Name::public(all[self.random.usize(..all.len())]);
        let dependents = self.views().catalog().dependents(&name);
        if self.views().drop(&name, false).is_err() {
            assert!(!dependents.is_empty());
            self.views().drop(&name, true).expect("with all that read it");
        }
        for gone in dependents.iter().chain([&name]) {
            self.followers.forget(gone);
            self.live.retain(|view| *view != gone.name);
            self.paused.retain(|view, _| *view != gone.name);
            self.relations.retain(|relation| *relation != gone.name);
        }
    }

    pub(crate) fn append_random(&mut self) {
        let count = self.random.usize(1..8);
        let facts = (0..count).map(|_| self.random_fact()).collect();
        self.append(facts);
    }

    /// One fact for each of two relations, in one commit.
    pub(crate) fn append_both(&mut self, first: Relation, second: Relation, id: i64) {
        let facts = [first, second].map(|relation| match relation {
            Relation::Accounts => Fact::Account { id, row: Some((1, 10, id)) },
            Relation::Branches => Fact::Branch { id, row: Some("Pune".into()) },
            Relation::Events => Fact::Event { amount: 10, recent: (id, id) },
        });
        self.append(facts.to_vec());
    }

    /// Time passes, and somebody may say so.
    pub(crate) fn pass_time(&mut self) {
        std::thread::sleep(Duration::from_micros(self.random.u64(..3_000)));
        if self.random.bool() {
            self.log().append_time_tick().expect("taken").wait().expect("durable");
        }
    }

    /// Appends an account for each of some spans of milliseconds: so long it is fresh.
    pub(crate) fn append_lasting(&mut self, spans_ms: &[i64]) {
        let now = self.log().now().get();
        let accounts = spans_ms
            .iter()
            .zip(0..)
            .map(|(span, id)| Fact::Account { id, row: Some((1, 10, now + span * 1000)) });
        self.append(accounts.collect());
    }

    pub(crate) fn end(&self) -> Position {
        self.log().end()
    }

    /// For how long the oldest change that time should have brought has not been published.
    pub(crate) fn overdue(&self) -> Duration {
        let now = self.log().now().get();
        let published = self.views().watch().borrow().log_time.get();
        let moments = self.facts.iter().filter_map(|(_, fact)| match fact {
            Fact::Account { row: Some((_, _, until)), .. } => Some(*until),
            _ => None,
        });
        let missed = moments.filter(|until| (published + 1..=now).contains(until)).min();
        Duration::from_micros(missed.map_or(0, |until| (now - until) as u64))
    }

    fn random_fact(&mut self) -> Fact {
        // Some moments are past when their fact is appended: late facts.
        let moment = self.log().now().get() + self.random.i64(-30_000..30_000);
        let random = &mut self.random;
        match random.u32(..20) {
            0..10 => {
                let is_there = random.u32(..5) > 0;
                let row = is_there.then(|| (random.i64(..4), random.i64(-50..50), moment));
                Fact::Account { id: random.i64(..20), row }
            }
            10..13 => {
                let city = ["Pune", "Delhi"][random.usize(..2)].to_owned();
                let row = (random.u32(..4) > 0).then_some(city);
                Fact::Branch { id: random.i64(..4), row }
            }
            13..19 => {
                let recent = (moment, random.i64(0..30_000));
                Fact::Event { amount: random.i64(-5..100), recent }
            }
            _ => {
                let relation = RELATIONS[random.usize(..RELATIONS.len())];
                Fact::Bad { relation, id: random.i64(..20) }
            }
        }
    }

    fn append(&mut self, facts: Vec<Fact>) {
        let mut batches: BTreeMap<(Relation, i32), BatchBuilder> = BTreeMap::new();
        for fact in &facts {
            let (relation, key, value) = fact.record();
            // A key stays in its partition, as a partitioner would have it.
            let partition = key.as_deref().and_then(|key| key.parse::<i32>().ok()).unwrap_or(0);
            let batch = batches.entry((relation, partition % PARTITIONS));
            let batch = batch.or_insert_with(|| BatchBuilder::new(Compression::Lz4));
            let (key, value) = (key.as_deref(), value.as_deref());
            batch.push(TimestampMs::new(1), key.map(str::as_bytes), value.map(str::as_bytes), &[]);
        }
        let parts = batches.into_iter().map(|((relation, partition), batch)| NewPart {
            topic: self.log().topic(relation.name()).expect("made at the start").id,
            partition: PartitionId::new(partition),
            batch: batch.build(),
        });
        let commit = NewCommit { parts: parts.collect() };
        let appended = self.log().append(commit).expect("taken").wait().expect("durable");
        self.facts.extend(facts.into_iter().map(|fact| (appended.position, fact)));
    }

    /// Pins everything at the log's end and compares it, and compares what is published now.
    pub(crate) fn look(&mut self) {
        let moving = self.live.iter().filter(|view| !self.is_paused(view));
        let names: Vec<Name> =
            moving.chain(&self.relations).map(|name| Name::public(*name)).collect();
        self.look_at_paused();
        let published = Arc::clone(&self.views().watch().borrow());
        self.compare(&published, false);
        let end = self.facts.last().map_or(Position::ZERO, |(position, _)| *position);
        let pinned = self.runtime.block_on(self.views().pin(&names, end, TIMEOUT));
        self.compare(&pinned.expect("reaches the end"), true);
        self.follow_upto(end);
        self.look_back();
    }

    /// Begins to follow some view: from now, or from some position of the past.
    pub(crate) fn follow_something(&mut self) {
        let live: Vec<_> = self.live.iter().copied().filter(|v| !self.is_paused(v)).collect();
        if live.is_empty() {
            return;
        }
        let view = live[self.random.usize(..live.len())];
        let after = self.random.bool().then(|| self.some_position());
        let views = self.views.as_ref().expect("open");
        self.runtime.block_on(self.followers.begin(views, view, after));
    }

    fn some_position(&mut self) -> Position {
        if self.facts.is_empty() {
            return Position::ZERO;
        }
        self.facts[self.random.usize(..self.facts.len())].0
    }

    /// What followers have gathered is what the views hold.
    fn follow_upto(&mut self, end: Position) {
        let views = self.views.as_ref().expect("open");
        self.runtime.block_on(self.followers.advance(views, end));
        for (view, (at, log_time), rows) in self.followers.rows() {
            let oracle = Oracle::new(&self.facts, at, log_time);
            assert_eq!(rows, oracle.view(self.meaning(view)), "{view}, followed to {at}");
        }
    }

    /// A view as it was at some position of the past.
    fn look_back(&mut self) {
        let live: Vec<_> = self.live.iter().copied().collect();
        if live.is_empty() {
            return;
        }
        let view = live[self.random.usize(..live.len())];
        let names = [Name::public(view)];
        // Of late there are checkpoints, and cuts while they are kept.
        let position = if self.random.bool() && !self.facts.is_empty() {
            self.views().forget_cuts();
            let recent = self.random.usize(..self.facts.len().min(10));
            self.facts[self.facts.len() - 1 - recent].0
        } else {
            self.some_position()
        };
        let cut = self.runtime.block_on(self.views().cut_at(&names, position));
        let cut = cut.expect("the log holds all");
        assert_eq!(cut.position, position);
        let rows = rows(cut.snapshots[&names[0]].scan(None));
        let oracle = Oracle::new(&self.facts, position, cut.log_time);
        assert_eq!(rows, oracle.view(self.meaning(view)), "{view} at {position}");
    }

    fn compare(&self, cut: &Cut, all: bool) {
        let oracle = Oracle::new(&self.facts, cut.position, cut.log_time);
        for view in &self.live {
            let Some(snapshot) = cut.snapshots.get(&Name::public(*view)) else {
                let missing = all && !self.is_paused(view);
                assert!(!missing, "{view} is missing at {}", cut.position);
                continue;
            };
            let rows = rows(snapshot.scan(None));
            let meaning = self.meaning(view);
            assert_eq!(rows, oracle.view(meaning), "{view} at position {}", cut.position);
            assert_eq!(snapshot.len(), rows.len());
        }
        if all {
            let errors = cut.snapshots[&errors_name()].len();
            assert_eq!(errors, oracle.errors(&self.relations), "errors at {}", cut.position);
        }
    }

    pub(crate) fn verify_all(&mut self) {
        for name in self.live.iter().chain(&self.relations) {
            if *name == Relation::Events.name() {
                continue;
            }
            let report = self.views().verify(&Name::public(*name)).expect("replays");
            assert!(report.equal, "{report:?}");
        }
    }
}

impl Fact {
    fn record(&self) -> (Relation, Option<String>, Option<String>) {
        match self {
            Self::Account { id, row } => {
                let value = row.map(|(branch, balance, until)| {
                    format!(
                        "{{\"id\":{id},\"branch\":{branch},\"balance\":{balance},\"until\":{until}}}"
                    )
                });
                (Relation::Accounts, Some(id.to_string()), value)
            }
            Self::Branch { id, row } => {
                let value = row.as_ref().map(|city| format!("{{\"id\":{id},\"city\":\"{city}\"}}"));
                (Relation::Branches, Some(id.to_string()), value)
            }
            Self::Event { amount, recent: (at, length) } => {
                let until = at + length;
                let value =
                    format!("{{\"branch\":1,\"amount\":{amount},\"at\":{at},\"until\":{until}}}");
                (Relation::Events, None, Some(value))
            }
            Self::Bad { relation, id } => (*relation, Some(id.to_string()), Some("{oops".into())),
        }
    }
}

/// The facts up to a position, evaluated plainly.
struct Oracle {
    now: i64,
    /// Branch, balance and until when they are fresh.
    accounts: BTreeMap<i64, (i64, i64, i64)>,
    branches: BTreeMap<i64, String>,
    amounts: Vec<i64>,
    /// The amounts of events that are recent.
    recent: Vec<i64>,
    bad: Vec<Relation>,
}

impl Oracle {
    fn new(facts: &[(Position, Fact)], end: Position, now: LogTime) -> Self {
        let mut oracle = Self {
            now: now.get(),
            accounts: BTreeMap::new(),
            branches: BTreeMap::new(),
            amounts: Vec::new(),
            recent: Vec::new(),
            bad: Vec::new(),
        };
        for (_, fact) in facts.iter().take_while(|(position, _)| *position <= end) {
            match fact {
                Fact::Account { id, row: Some(row) } => drop(oracle.accounts.insert(*id, *row)),
                Fact::Account { id, row: None } => drop(oracle.accounts.remove(id)),
                Fact::Branch { id, row: Some(city) } => {
                    oracle.branches.insert(*id, city.clone());
                }
                Fact::Branch { id, row: None } => drop(oracle.branches.remove(id)),
                Fact::Event { amount, recent: (at, length) } => {
                    oracle.amounts.push(*amount);
                    if (*at..at + length).contains(&oracle.now) {
                        oracle.recent.push(*amount);
                    }
                }
                Fact::Bad { relation, id } => {
                    match relation {
                        Relation::Accounts => drop(oracle.accounts.remove(id)),
                        Relation::Branches => drop(oracle.branches.remove(id)),
                        Relation::Events => {}
                    }
                    oracle.bad.push(*relation);
                }
            }
        }
        oracle
    }

    fn errors(&self, relations: &BTreeSet<&str>) -> usize {
        self.bad.iter().filter(|relation| relations.contains(relation.name())).count()
    }

    fn by_branch(&self, fresh_only: bool) -> BTreeMap<i64, Vec<i64>> {
        let mut groups: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for (branch, balance, until) in self.accounts.values() {
            if !fresh_only || self.now < *until {
                groups.entry(*branch).or_default().push(*balance);
            }
        }
        groups
    }

    fn view(&self, view: &str) -> Vec<String> {
        let mut rows: Vec<String> = match view {
            "by_branch" | "fresh" => {
                let groups = self.by_branch(view == "fresh").into_iter();
                groups
                    .map(|(branch, balances)| {
                        let sum: i64 = balances.iter().sum();
                        let max = balances.iter().max().expect("a group has a row");
                        format!("{branch}|{}|{sum}|{max}", balances.len())
                    })
                    .collect()
            }
            "by_city" => {
                let mut groups: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
                for (branch, balance, _) in self.accounts.values() {
                    if let Some(city) = self.branches.get(branch) {
                        groups.entry(city).or_default().push(*balance);
                    }
                }
                let groups = groups.into_iter();
                groups
                    .map(|(city, balances)| {
                        let min = balances.iter().min().expect("a group has a row");
                        format!("{city}|{}|{min}", balances.len())
                    })
                    .collect()
            }
            "total" | "recent" => {
                let amounts = if view == "recent" { &self.recent } else { &self.amounts };
                let sum: i64 = amounts.iter().sum();
                let sum = if amounts.is_empty() { String::new() } else { sum.to_string() };
                vec![format!("{}|{sum}", amounts.len())]
            }
            "widest" | "freshest" => {
                let groups = self.by_branch(view == "freshest");
                let max = groups.values().map(Vec::len).max();
                vec![format!("{}|{}", groups.len(), max.map_or(String::new(), |m| m.to_string()))]
            }
            other => panic!("no view {other}"),
        };
        rows.sort();
        rows
    }
}

/// Rows as sorted text, NULL as nothing.
fn rows(batches: impl Iterator<Item = RecordBatch>) -> Vec<String> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            rows.push(row_text(&batch, row));
        }
    }
    rows.sort();
    rows
}

fn row_text(batch: &RecordBatch, row: usize) -> String {
    let cells =
        batch.columns().iter().map(|column| array_value_to_string(column, row).expect("prints"));
    cells.collect::<Vec<_>>().join("|")
}
