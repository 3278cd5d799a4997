//! Riders of one pass: each gets every row once, and the log is read once for all.

use std::collections::BTreeMap;

use arrow::array::{Int64Array, RecordBatch};
use evert_env::Env;
use evert_log::{LogConfig, NewCommit};
use evert_model::{Column, ColumnType, RowSchema};

use super::*;
use crate::Views;
use crate::catalog::{Catalog, Format, NewRelation, PlanError};
use crate::encode::RowChange;
use crate::planner::{PlannedView, Planner};
use crate::{Defaults, Lengths};

const COMMITS: i64 = 200;

struct NoPlans;

impl Planner for NoPlans {
    fn plan_view(&self, sql: &str, _: &Catalog) -> Result<PlannedView, PlanError> {
        Err(PlanError { sqlstate: "0A000", message: format!("no plan for {sql}"), hint: None })
    }
}

fn stream() -> NewRelation {
    let column = Column { name: "n".into(), ty: ColumnType::Int64, nullable: false };
    NewRelation {
        name: Name::public("facts"),
        kind: RelationKind::Stream,
        schema: RowSchema { columns: vec![column], key: Vec::new() },
        topic: None,
        partitions: 1,
        topic_config: BTreeMap::new(),
        format: Format::Json,
        conflict_is_error: false,
        lengths: Lengths::new(),
        defaults: Defaults::new(),
        source: None,
    }
}

fn rows_of(ride: &Ride) -> usize {
    let mut rows = 0;
    while let Some(tick) = ride.next().expect("the log can be read") {
        rows += tick.values().flatten().map(evert_model::Delta::len).sum::<usize>();
    }
    rows
}

#[test]
fn the_log_is_read_once_for_all_who_board_together() {
    let dir = tempfile::tempdir().expect("a directory");
    let env = Env::real();
    let log = Log::open(env.clone(), dir.path().join("log"), LogConfig::default()).expect("a log");
    let views = Views::open(env, log.clone(), Arc::new(NoPlans)).expect("views");
    views.create_relation(stream()).expect("a stream");
    let relation = Arc::clone(&views.catalog().relations[&Name::public("facts")]);
    for n in 0..COMMITS {
        let rows: Arc<Int64Array> = Arc::new(vec![n, n + 1].into());
        let rows = RecordBatch::try_new(relation.schema.to_arrow(), vec![rows]).expect("rows");
        let parts = views.encode(&relation, &[RowChange::Put(rows)]).expect("records");
        log.append(NewCommit { parts }).expect("an append").wait().expect("it is durable");
    }
    let passes = Arc::clone(&views.shared().passes);
    let all = 2 * COMMITS as usize;

    let mut reader = Reader::new(&log, Position::ZERO).expect("a reader");
    let mut commits = 0;
    while reader.next_upto(log.end()).expect("the log can be read").is_some() {
        commits += 1;
    }
    let (riders, rides): (Vec<_>, Vec<_>) =
        (0..5).map(|_| rider(vec![Arc::clone(&relation)], log.end())).unzip();
    *passes.lock() = Some(riders);
    passes.start(true, Vec::new());
    let threads = rides.into_iter().map(|ride| thread::spawn(move || rows_of(&ride)));
    for thread in threads.collect::<Vec<_>>() {
        assert_eq!(thread.join().expect("no panic"), all);
    }
    assert_eq!(passes.commits_read(), commits, "five riders, one reading");
    // Who comes when all is over is read to alone.
    assert_eq!(rows_of(&passes.ride(vec![relation], log.end())), all);
    assert_eq!(passes.commits_read(), 2 * commits);
    views.close();
    log.close();
}
