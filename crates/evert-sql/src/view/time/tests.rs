//! Views by time against ad-hoc reads: after every tick the fold must hold what DataFusion
//! answers over the rows that are there, with the tick's log time as its `now()`.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::util::display::array_value_to_string;
use chrono::DateTime;
use evert_fold::{Arrangement, Dataflow};
use evert_model::{Delta, LogTime, TopicId};
use evert_view::{Catalog, Defaults, Format, Lengths, Name, Planner, Relation, RelationKind};
use futures::TryStreamExt;

use crate::command::Command;
use crate::parse::parse;
use crate::query::{Scope, conform, plan};
use crate::scan::Rows;
use crate::view::{STATE, SqlPlanner};

const E: &str = "id bigint PRIMARY KEY, k int, ts timestamp, tz timestamptz, until timestamptz, \
                 day date";

fn catalog() -> Catalog {
    let text = format!("CREATE TABLE e ({E}); CREATE TABLE f ({E})");
    let mut catalog = Catalog::default();
    for command in parse(&text).expect("columns") {
        let Command::CreateRelation(create) = command else { panic!("a relation") };
        let relation = Relation {
            name: create.name.clone(),
            kind: RelationKind::Table,
            schema: create.schema,
            topic: "e".into(),
            topic_id: TopicId::new(uuid::Uuid::from_u128(1)),
            format: Format::Json,
            conflict_is_error: false,
            lengths: Lengths::new(),
            defaults: Defaults::new(),
            source: None,
            started_from: None,
        };
        catalog.relations.insert(create.name, Arc::new(relation));
    }
    catalog
}

/// 2026-02-26: the end of a short month is near.
const START: i64 = 1_772_064_000_000_000;
const HOUR: i64 = 3_600_000_000;

/// Rows with times around `now`, many of them on the hour and at midnight.
fn random_rows(rng: &mut fastrand::Rng, catalog: &Catalog, count: usize) -> RecordBatch {
    let schema = &catalog.relations[&Name::public("e")].schema;
    let columns = schema.columns.iter().enumerate().map(|(index, column)| {
        let cells: StringArray = (0..count)
            .map(|row| match index {
                0 => Some(row.to_string()),
                _ if rng.u8(0..10) == 0 => None,
                1 => Some(rng.i32(0..3).to_string()),
                _ => {
                    let unit = rng.choice([1, HOUR, 24 * HOUR]).expect("one of them");
                    let span = rng.choice([HOUR, 30 * HOUR, 70 * 24 * HOUR]).expect("one of them");
                    let time = START + rng.i64(-span..2 * span) / unit * unit;
                    let time = DateTime::from_timestamp_micros(time).expect("a time").naive_utc();
                    Some(match index {
                        5 => time.date().to_string(),
                        _ => time.format("%Y-%m-%dT%H:%M:%S%.6f").to_string(),
                    })
                }
            })
            .collect();
        cast(&cells, &column.ty.arrow_type()).expect("texts of the type")
    });
    RecordBatch::try_new(schema.to_arrow(), columns.collect()).expect("columns of the schema")
}

/// What DataFusion answers at `now`, as sorted text.
fn answer(sql: &str, catalog: &Catalog, now: i64, tables: &[(Name, RecordBatch)]) -> Vec<String> {
    let mut state = STATE.clone();
    let start = DateTime::from_timestamp_micros(now);
    state.execution_props_mut().query_execution_start_time = start;
    let Command::Query(query) = parse(sql).expect(sql).remove(0) else { panic!("{sql}") };
    let scope = Scope::new(Arc::new(catalog.clone()));
    let planned = plan(&state, &query, sql, &scope, &[]).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let rows = |name: &Name| {
        let (_, batch) = tables.iter().find(|(table, _)| table == name).expect("a table");
        Ok(Rows::Batches(vec![batch.clone()]))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let stream = planned.execute(&state, &[], &rows).await.expect(sql);
        let batches: Vec<_> = stream.try_collect().await.expect(sql);
        let conformed = batches.iter().map(|batch| conform(batch, &planned.schema).expect(sql));
        shown(&concat_batches(&planned.schema, &conformed.collect::<Vec<_>>()).expect("batches"))
    })
}

fn shown(rows: &RecordBatch) -> Vec<String> {
    let mut lines: Vec<String> = (0..rows.num_rows())
        .map(|row| {
            let cells = rows
                .columns()
                .iter()
                .map(|column| array_value_to_string(column, row).expect("a printable value"));
            cells.collect::<Vec<_>>().join("|")
        })
        .collect();
    lines.sort();
    lines
}

fn random_delta(rng: &mut fastrand::Rng, pool: &RecordBatch, live: &mut [bool]) -> Delta {
    let (mut rows, mut weights) = (Vec::new(), Vec::new());
    for (row, live) in (0u32..).zip(live) {
        if rng.u8(0..4) == 0 {
            weights.push(if *live { -1 } else { 1 });
            rows.push(row);
            *live = !*live;
        }
    }
    let rows = take_record_batch(pool, &UInt32Array::from(rows)).expect("rows");
    Delta::new(rows, Int64Array::from(weights))
}

/// Folds random changes at random times and compares after each. Says how often the answer
/// changed by the passing of time alone.
fn check(sql: &str, seed: u64) -> usize {
    let catalog = catalog();
    let planned = SqlPlanner::new()
        .plan_view(sql, &catalog)
        .unwrap_or_else(|error| panic!("{sql}: {error} ({:?})", error.hint));
    let mut rng = fastrand::Rng::with_seed(seed);
    let pool = random_rows(&mut rng, &catalog, 40);
    let mut live = vec![vec![false; pool.num_rows()]; planned.inputs.len()];
    let schema = planned.schema.to_arrow();
    let mut rows = match planned.plan.key.clone() {
        Some(key) => Arrangement::keyed(Arc::clone(&schema), key),
        None => Arrangement::bag(Arc::clone(&schema)),
    };
    let mut flow = Dataflow::new(planned.plan).expect("a valid plan");
    let (mut now, mut moved) = (START - 40 * 24 * HOUR, 0);
    for _ in 0..40 {
        let by = rng.choice([0, 1, HOUR, 24 * HOUR, 5 * 24 * HOUR]).expect("one of them");
        now += rng.i64(0..=by);
        // Often exactly when something is due, or just before.
        if let Some(due) = flow.due().filter(|_| rng.bool()) {
            now = due.get().max(now + 1) - i64::from(rng.bool());
        }
        let is_quiet = rng.u8(0..3) > 0;
        let deltas: Vec<_> = live
            .iter_mut()
            .map(|live| match is_quiet {
                true => Vec::new(),
                false => vec![random_delta(&mut rng, &pool, live)],
            })
            .collect();
        let output = flow.tick(LogTime::new(now), &deltas);
        assert!(output.errors.is_empty(), "{sql}: {:?}", output.errors);
        moved += usize::from(is_quiet && !output.changes.is_empty());
        rows.apply(&output.changes);
        let tables: Vec<_> = planned
            .inputs
            .iter()
            .zip(&live)
            .map(|(name, live)| {
                let kept = (0u32..).zip(live).filter(|(_, live)| **live).map(|(row, _)| row);
                let kept = UInt32Array::from_iter_values(kept);
                (name.clone(), take_record_batch(&pool, &kept).expect("rows"))
            })
            .collect();
        let batches: Vec<_> = rows.snapshot().scan(None).collect();
        let held = shown(&concat_batches(&schema, &batches).expect("one schema"));
        let time = DateTime::from_timestamp_micros(now).expect("a time");
        assert_eq!(held, answer(sql, &catalog, now, &tables), "seed {seed} at {time}: {sql}");
    }
    moved
}

const VIEWS: &[&str] = &[
    "SELECT id FROM e WHERE ts > now() - INTERVAL '60 minutes'",
    "SELECT id, ts FROM e WHERE tz >= now() - INTERVAL '1 day 3 hours' AND k = 1",
    "SELECT id FROM e WHERE now() < until",
    "SELECT id FROM e WHERE until <= now()",
    "SELECT id FROM e WHERE current_timestamp >= tz + INTERVAL '90 minutes'",
    "SELECT id FROM e WHERE ts BETWEEN now() - INTERVAL '2 hours' AND now()",
    "SELECT id FROM e WHERE ts NOT BETWEEN now() - INTERVAL '2 hours' AND now()",
    "SELECT id FROM e WHERE tz <= now() AND (until IS NULL OR until > now())",
    "SELECT id FROM e WHERE k = 0 OR ts > now() - INTERVAL '1 day' OR until < now()",
    "SELECT id FROM e WHERE NOT (ts > now() - INTERVAL '1 day' AND k = 1)",
    "SELECT id FROM e WHERE (ts > now() - INTERVAL '1 day') IS NOT TRUE",
    "SELECT id FROM e WHERE ts::date = current_date",
    "SELECT id FROM e WHERE ts::date <> current_date",
    "SELECT id FROM e WHERE day = current_date",
    "SELECT id FROM e WHERE day IN (current_date, current_date - 1)",
    "SELECT id FROM e WHERE day NOT IN (current_date, current_date - 1)",
    "SELECT id FROM e WHERE day > current_date - 7",
    "SELECT id FROM e WHERE day >= current_date - INTERVAL '1 month'",
    "SELECT id FROM e WHERE day < current_date + INTERVAL '1 month' - INTERVAL '1 day'",
    "SELECT id FROM e WHERE ts >= date_trunc('day', now())",
    "SELECT id FROM e WHERE tz >= date_trunc('month', now()) - INTERVAL '1 month'",
    "SELECT id FROM e WHERE date_trunc('week', ts) = date_trunc('week', now())",
    "SELECT id FROM e WHERE ts >= date_trunc('hour', localtimestamp) - INTERVAL '90 minutes'",
    "SELECT id FROM e WHERE ts < localtimestamp AND ts >= localtimestamp - INTERVAL '1 week'",
    "SELECT id FROM e WHERE now() - tz < INTERVAL '90 minutes'",
    "SELECT id FROM e WHERE now() - tz < INTERVAL '2 days'",
    "SELECT id FROM e WHERE INTERVAL '2 days' <= until - now()",
    "SELECT id FROM e WHERE (ts + INTERVAL '1 day') > now() - INTERVAL '1 hour'",
    "SELECT id FROM e WHERE day > current_date - INTERVAL '36 hours'",
    "SELECT id, window_start, window_end FROM TUMBLE(TABLE e, DESCRIPTOR(ts), INTERVAL '1' DAY)",
    "SELECT window_start, count(*) AS n, sum(k) AS s \
     FROM TABLE(TUMBLE(TABLE e, DESCRIPTOR(tz), INTERVAL '7' HOURS, INTERVAL '30' MINUTES)) \
     GROUP BY window_start, window_end",
    "SELECT tumble(ts, INTERVAL '1 day') AS w, tumble_end(ts, INTERVAL '1 day') AS e, count(*) \
     FROM e GROUP BY 1, 2",
    "SELECT id, window_start, window_end \
     FROM HOP(TABLE e, DESCRIPTOR(ts), INTERVAL '5' HOURS, INTERVAL '12' HOURS)",
    "SELECT h.window_end, count(*) AS n FROM HOP(DATA => TABLE e, TIMECOL => DESCRIPTOR(tz), \
     SLIDE => INTERVAL '1 day', SIZE => INTERVAL '2 days') AS h WHERE h.k > 0 GROUP BY 1",
    "SELECT id, k, window_start, window_end \
     FROM SESSION(TABLE e PARTITION BY k, DESCRIPTOR(ts), INTERVAL '3' HOURS)",
    "SELECT k, window_start, count(*) AS n FROM \
     SESSION(TABLE e, DESCRIPTOR(tz), DESCRIPTOR(k), INTERVAL '26' HOURS) GROUP BY k, window_start",
    "SELECT window_start, window_end, count(*) AS n, max(id) AS m \
     FROM SESSION(TABLE (SELECT * FROM e WHERE k > 0), DESCRIPTOR(ts), INTERVAL '1' HOUR) \
     GROUP BY window_start, window_end",
    "SELECT id, session_end(tz, INTERVAL '1 hour') OVER (PARTITION BY k + 1 ORDER BY tz) AS e \
     FROM e WHERE tz IS NOT NULL",
    "SELECT e.id, f.id AS other FROM TUMBLE(TABLE e, DESCRIPTOR(ts), INTERVAL '1' DAY) \
     JOIN TUMBLE(TABLE f, DESCRIPTOR(ts), INTERVAL '1' DAY) \
     ON e.window_start = f.window_start AND e.k = f.k \
     WHERE e.window_end > now() - INTERVAL '1 day'",
    "SELECT k, count(*) AS n, max(ts) AS m FROM e WHERE ts > now() - INTERVAL '1 day' GROUP BY k",
    "SELECT count(*) AS n, sum(k) AS s FROM e WHERE ts > now() - INTERVAL '1 day'",
    "SELECT k, max(ts) AS m FROM e GROUP BY k HAVING max(ts) > now() - INTERVAL '3 days'",
    "SELECT e.id, f.id AS other FROM e JOIN f ON e.k = f.k AND e.ts + INTERVAL '1 day' > now() \
     WHERE f.until > now()",
    "SELECT e.id, f.id AS other FROM e JOIN f ON e.k = f.k \
     WHERE e.ts + (f.ts - e.ts) > now() - INTERVAL '1 day'",
    "SELECT id FROM e WHERE EXISTS (SELECT 1 FROM f WHERE f.k = e.k AND f.until > now())",
    "WITH r AS (SELECT * FROM e WHERE ts > now() - INTERVAL '2 days') \
     SELECT r.id, f.id AS other FROM r JOIN f ON r.id = f.id WHERE f.day = current_date",
    "SELECT id FROM (SELECT id, ts, now() - INTERVAL '1 day' AS since FROM e) x WHERE ts > since",
    "SELECT id FROM e WHERE ts > now() - INTERVAL '1 month'",
    "SELECT id FROM e WHERE tz <= now() - INTERVAL '1 month 90 minutes' AND k = 1",
    "SELECT id FROM e WHERE ts NOT BETWEEN now() - INTERVAL '1 month' AND now() + INTERVAL '5 days'",
    "SELECT id FROM e WHERE ts::date = (now() - INTERVAL '1 month')::date",
    "SELECT id FROM e WHERE now() - INTERVAL '1 month' <> tz OR k = 2",
    "SELECT id, until > now() AS open FROM e",
    "SELECT id, CASE WHEN until > now() THEN 'open' WHEN until <= now() THEN 'shut' END AS state, \
     coalesce(day = current_date, false) AS today FROM e WHERE k < 2",
    "SELECT k, count(*) FILTER (WHERE ts > now() - INTERVAL '1 hour') AS h, \
     sum(id) FILTER (WHERE ts > now() - INTERVAL '1 day' OR k = 1) AS d, count(*) AS n, \
     max(until) AS u FROM e GROUP BY k",
    "SELECT ts > now() AS future, count(*) AS n FROM e GROUP BY 1",
    "SELECT e.id, f.id AS other FROM e LEFT JOIN f ON e.id = f.id AND f.until > now()",
    "SELECT id FROM e WHERE id NOT IN (SELECT id FROM f WHERE ts > now() - INTERVAL '1 day')",
    "SELECT id, rank() OVER (PARTITION BY k ORDER BY id) AS r FROM e WHERE until > now()",
    "SELECT id FROM e WHERE ts < now() ORDER BY ts DESC NULLS LAST, id LIMIT 3",
    "SELECT k, ts > now() - INTERVAL '1 day' AND until > now() AS x FROM e",
    "SELECT DISTINCT k FROM e WHERE until > current_timestamp",
    "SELECT id FROM e WHERE transaction_timestamp() < until AND k = 1 AND now() > ts",
];

#[test]
fn views_by_time_hold_the_batch_answer_at_every_moment() {
    for sql in VIEWS {
        let moved: usize = (0..3).map(|seed| check(sql, seed)).sum();
        let by_time = sql.contains("now()") || sql.contains("current") || sql.contains("local");
        assert_eq!(moved > 2, by_time, "{sql}: changed by time alone {moved} times");
    }
}

#[test]
fn what_depends_on_time_otherwise_is_named() {
    for (sql, part) in [
        ("SELECT now() AS x FROM e", "this use of now()"),
        ("SELECT current_date - day AS age FROM e", "this use of now()"),
        ("SELECT max(now() - ts) AS age FROM e", "this use of now()"),
        ("SELECT e.id FROM e LEFT JOIN f ON e.id = f.id AND e.until > now()", "this use of now()"),
        (
            "WITH RECURSIVE r AS (SELECT id, k FROM e UNION SELECT r.id, e.k FROM r JOIN e \
             ON r.k = e.id WHERE e.until > now()) SELECT id FROM r",
            "WITH RECURSIVE",
        ),
        (
            "SELECT id FROM e WHERE ts < now() - INTERVAL '1 month' OR ts > now() + INTERVAL \
             '1 month' OR tz < now() - INTERVAL '2 months'",
            "so many cases",
        ),
        (
            "SELECT id FROM e WHERE ts > now() - INTERVAL '1 month' + INTERVAL '2 months'",
            "several intervals of months",
        ),
        ("SELECT id FROM e WHERE now() > now() - INTERVAL '1 day' AND k = 1", "now()"),
        ("SELECT id FROM e WHERE extract(hour FROM now()) = k", "now()"),
        ("SELECT id FROM e WHERE now() > '2026-01-01'", "now() alone"),
        ("SELECT id FROM e WHERE ts::text > now()::text", "now()"),
        ("SELECT id FROM e WHERE ts > clock_timestamp()", "clock_timestamp"),
    ] {
        let error = SqlPlanner::new().plan_view(sql, &catalog()).expect_err(sql);
        assert!(error.message.contains(part), "{sql}: {error} {:?}", error.hint);
    }
}
