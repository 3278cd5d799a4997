//! Views against ad-hoc reads: the fold of random changes must hold what DataFusion answers over
//! the rows that are left.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::util::display::array_value_to_string;
use evert_fold::{Arrangement, Dataflow};
use evert_model::{Column, ColumnType, Delta, LogTime, RowSchema, TopicId};
use evert_view::{
    Catalog, Defaults, Format, Lengths, Name, Planner, Relation, RelationKind, ViewDef,
};
use futures::TryStreamExt;

use super::{STATE, SqlPlanner, plan_text};
use crate::SqlError;
use crate::command::Command;
use crate::parse::parse;
use crate::query::{Scope, conform, plan};
use crate::scan::Rows;

mod folds;

const T: &str = "id bigint PRIMARY KEY, a int, b bigint, f double precision, d numeric(10,2), \
                 s text, ts timestamp, day date, flag boolean, j json";
const U: &str = "id bigint PRIMARY KEY, t_id bigint, city text, w int";

fn relation(name: &str, columns: &str) -> (Name, Arc<Relation>) {
    let text = format!("CREATE TABLE {name} ({columns})");
    let Command::CreateRelation(create) = parse(&text).expect("columns").remove(0) else {
        panic!("a relation")
    };
    let relation = Relation {
        name: create.name.clone(),
        kind: RelationKind::Table,
        schema: create.schema,
        topic: name.into(),
        topic_id: TopicId::new(uuid::Uuid::from_u128(1)),
        format: Format::Json,
        conflict_is_error: false,
        lengths: Lengths::new(),
        defaults: Defaults::new(),
        source: None,
        started_from: None,
    };
    (create.name, Arc::new(relation))
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.relations.extend([relation("t", T), relation("u", U)]);
    let column = |name: &str, ty| Column { name: name.into(), ty, nullable: true };
    let view = ViewDef {
        name: Name::public("cities"),
        sql: "SELECT city, count(*) AS n FROM u GROUP BY city".into(),
        schema: RowSchema {
            columns: vec![column("city", ColumnType::Text), column("n", ColumnType::Int64)],
            key: vec![0],
        },
        inputs: vec![Name::public("u")],
        widths: Vec::new(),
        options: Default::default(),
    };
    catalog.views.insert(view.name.clone(), Arc::new(view));
    catalog
}

/// Random rows of a relation, whose first column counts up.
fn random_rows(rng: &mut fastrand::Rng, schema: &RowSchema, count: usize) -> RecordBatch {
    let arrow = schema.to_arrow();
    let mut columns = Vec::new();
    for (index, column) in schema.columns.iter().enumerate() {
        let cells: arrow::array::StringArray = (0..count)
            .map(|row| {
                if index == 0 {
                    return Some(row.to_string());
                }
                (rng.u8(0..10) > 0).then(|| random_cell(rng, column.ty))
            })
            .collect();
        let array = cast(&cells, &column.ty.arrow_type()).expect("texts of the type");
        columns.push(array);
    }
    RecordBatch::try_new(arrow, columns).expect("columns of the schema")
}

fn random_cell(rng: &mut fastrand::Rng, ty: ColumnType) -> String {
    match ty {
        ColumnType::Boolean => rng.bool().to_string(),
        ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64 => rng.i32(-5..6).to_string(),
        ColumnType::Float32 | ColumnType::Float64 => {
            let pick = ["0.1", "1e16", "-1e16", "2.5", "-0.0", "1e-7", "3", "NaN"];
            rng.choice(pick).expect("one of them").to_owned()
        }
        ColumnType::Decimal { .. } => format!("{}.{:02}", rng.i32(-20..20), rng.u8(0..100)),
        ColumnType::Date => format!("2026-01-{:02}", rng.u8(1..5)),
        ColumnType::Timestamp | ColumnType::TimestampTz => {
            format!("2026-01-{:02}T{:02}:30:00.000001", rng.u8(1..4), rng.u8(0..24))
        }
        ColumnType::Json => format!("{{\"n\":{}}}", rng.u8(0..3)),
        _ => rng.choice(["pune", "Delhi", "goa", "", "x%y"]).expect("one of them").to_owned(),
    }
}

/// The batch answer.
fn batch_answer(
    sql: &str,
    catalog: &Catalog,
    tables: &BTreeMap<Name, RecordBatch>,
) -> Result<RecordBatch, SqlError> {
    let Command::Query(query) = parse(sql)?.remove(0) else { panic!("{sql} is a SELECT") };
    let scope = Scope::new(Arc::new(catalog.clone()));
    let planned = plan(&STATE, &query, sql, &scope, &[])?;
    let rows = |name: &Name| Ok(Rows::Batches(vec![tables[name].clone()]));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let stream = planned.execute(&STATE, &[], &rows).await?;
        let batches: Vec<_> =
            stream.try_collect().await.map_err(|error| crate::translate::planning(&error, sql))?;
        let batches: Vec<_> = batches
            .iter()
            .map(|batch| conform(batch, &planned.schema).expect("the planned schema"))
            .collect();
        Ok(concat_batches(&planned.schema, &batches).expect("one schema"))
    })
}

/// Rows as sorted text, types included.
fn shown(rows: &RecordBatch) -> Vec<String> {
    let mut lines: Vec<String> = (0..rows.num_rows())
        .map(|row| {
            let cells = rows.columns().iter().map(|column| {
                let value = array_value_to_string(column, row).expect("a printable value");
                // The sign of zero is lost in keys, as in Postgres.
                let value = if value == "-0.0" { "0.0".into() } else { value };
                format!("{value}:{}", column.data_type())
            });
            cells.collect::<Vec<_>>().join("|")
        })
        .collect();
    lines.sort();
    lines
}

/// A view that is fed random changes in random ticks, and what it should hold in the end.
fn check(sql: &str, seed: u64) {
    check_against(sql, sql, seed);
}

/// The same where a SELECT beside it says what the view should hold. Whether there was no error.
fn check_against(sql: &str, select: &str, seed: u64) -> bool {
    let catalog = catalog();
    let planned = SqlPlanner::new()
        .plan_view(sql, &catalog)
        .unwrap_or_else(|error| panic!("{sql}: {} {error}", error.sqlstate));
    let mut rng = fastrand::Rng::with_seed(seed);
    let pools: Vec<RecordBatch> = planned
        .inputs
        .iter()
        .map(|name| random_rows(&mut rng, &catalog.relations[name].schema, 40))
        .collect();
    let mut live: Vec<Vec<bool>> = pools.iter().map(|pool| vec![false; pool.num_rows()]).collect();
    let key = planned.plan.key.clone();
    let schema = planned.plan.output_schema().expect("a valid plan");
    assert_eq!(schema, planned.schema.to_arrow(), "{sql}");
    let mut flow = Dataflow::new(planned.plan).expect("a valid plan");
    let mut rows = match key {
        Some(key) => Arrangement::keyed(schema, key),
        None => Arrangement::bag(schema),
    };
    let mut errors = 0i64;
    for _ in 0..rng.usize(1..8) {
        let deltas: Vec<_> = pools
            .iter()
            .zip(&mut live)
            .map(|(pool, live)| vec![random_delta(&mut rng, pool, live)])
            .collect();
        let output = flow.tick(LogTime::default(), &deltas);
        errors += output.errors.iter().map(|error| error.weight).sum::<i64>();
        rows.apply(&output.changes);
    }
    if errors != 0 {
        // A row that cannot be evaluated is left out by the view and refused by the batch.
        return false;
    }
    let tables = planned
        .inputs
        .iter()
        .zip(pools.iter().zip(&live))
        .map(|(name, (pool, live))| {
            let kept = (0u32..).zip(live).filter(|(_, live)| **live).map(|(row, _)| row);
            let kept = UInt32Array::from_iter_values(kept);
            (name.clone(), take_record_batch(pool, &kept).expect("rows"))
        })
        .collect();
    let expected =
        batch_answer(select, &catalog, &tables).unwrap_or_else(|e| panic!("{select}: {e}"));
    let batches: Vec<_> = rows.snapshot().scan(None).collect();
    let held = concat_batches(&planned.schema.to_arrow(), &batches).expect("one schema");
    assert_eq!(shown(&held), shown(&expected), "seed {seed}: {sql}");
    true
}

fn random_delta(rng: &mut fastrand::Rng, pool: &RecordBatch, live: &mut [bool]) -> Delta {
    let mut rows = Vec::new();
    let mut weights = Vec::new();
    for (row, live) in (0u32..).zip(live) {
        if rng.u8(0..3) == 0 {
            weights.push(if *live { -1 } else { 1 });
            rows.push(row);
            *live = !*live;
        }
    }
    let rows = take_record_batch(pool, &UInt32Array::from(rows)).expect("rows");
    Delta::new(rows, Int64Array::from(weights))
}

/// A recursion is the same whatever its reader reads of it.
#[test]
fn a_recursion_keeps_the_columns_that_it_needs_itself() {
    let paths = "WITH RECURSIVE r(n, d) AS (SELECT a, 0 FROM t WHERE a > 2 \
                 UNION SELECT u.w, d + 1 FROM r JOIN u ON r.n = u.t_id WHERE d < 3)";
    let all = format!("{paths} SELECT n, d FROM r");
    for (read, of_all) in [
        ("SELECT n FROM r", "SELECT n FROM ({all}) x"),
        ("SELECT d FROM r", "SELECT d FROM ({all}) x"),
        ("SELECT count(*) FROM r", "SELECT count(*) FROM ({all}) x"),
        ("SELECT max(d) FROM r WHERE n > 0", "SELECT max(d) FROM ({all}) x WHERE n > 0"),
    ] {
        let sql = format!("{paths} {read}");
        for seed in 0..4 {
            let catalog = catalog();
            let mut rng = fastrand::Rng::with_seed(seed);
            let tables: BTreeMap<Name, RecordBatch> = ["t", "u"]
                .map(|name| {
                    let schema = &catalog.relations[&Name::public(name)].schema;
                    (Name::public(name), random_rows(&mut rng, schema, 30))
                })
                .into();
            // OFFSET 0 stands between the recursion and its reader.
            let whole = of_all.replace("{all}", &format!("{all} OFFSET 0"));
            let answer = |sql: &str| {
                shown(
                    &batch_answer(sql, &catalog, &tables).unwrap_or_else(|e| panic!("{sql}: {e}")),
                )
            };
            assert_eq!(answer(&sql), answer(&whole), "seed {seed}: {sql}");
            check(&sql, seed);
        }
    }
}

const VIEWS: &[&str] = &[
    "SELECT * FROM t",
    "SELECT a AS x, a AS y, b FROM t WHERE a > 0 AND s LIKE '%u%'",
    "SELECT id, a + b AS p, a - 1 AS q, b * 2 AS r, -a AS s, a % 3 AS t FROM t",
    "SELECT id, CASE WHEN a = 0 THEN 0 ELSE 10 / a END AS q FROM t",
    "SELECT id, coalesce(a, 0), nullif(a, 1), upper(s), s || '!' AS bang, length(s) FROM t",
    "SELECT id, a::text, b::double precision, d::int, s ILIKE 'D%' FROM t",
    "SELECT id, date_trunc('day', ts) AS d, extract(hour from ts) AS h FROM t",
    "SELECT id FROM t WHERE a IN (1, 2, 3) OR b BETWEEN -1 AND 1 OR flag",
    "SELECT id, d * 1.5 AS x, d + 1 AS y, round(d, 1) AS z, abs(f) AS f FROM t",
    "SELECT count(*), count(a) AS c, sum(a), sum(b) AS t, avg(a), min(a), max(a) FROM t",
    "SELECT s, count(*), sum(d), avg(d), min(d), max(ts) FROM t GROUP BY s",
    "SELECT sum(f), avg(f), count(f) FROM t",
    "SELECT s, sum(f) FROM t GROUP BY s",
    "SELECT s, flag, sum(a) FILTER (WHERE b > 0) AS x, count(DISTINCT a) FROM t GROUP BY s, flag",
    "SELECT date_trunc('day', ts) AS d, count(*) FROM t GROUP BY date_trunc('day', ts)",
    "SELECT date_trunc('day', ts) AS d, count(*) FROM t GROUP BY 1 HAVING count(*) > 1",
    "SELECT sum(DISTINCT a), avg(DISTINCT d), count(DISTINCT s) FROM t",
    "SELECT DISTINCT a, s FROM t",
    "SELECT a, b FROM t UNION ALL SELECT w, t_id FROM u",
    "SELECT a FROM t UNION SELECT w FROM u",
    "SELECT t.id, u.city FROM t JOIN u ON t.id = u.t_id",
    "SELECT t.id, u.city FROM t, u WHERE t.id = u.t_id AND t.a > u.w",
    "SELECT t.s, sum(u.w) FROM t JOIN u ON t.id = u.t_id AND t.b <= u.w GROUP BY t.s",
    "SELECT x.id, y.id AS other FROM t x JOIN t y ON x.a = y.b",
    "SELECT t.id, v.id AS v FROM t JOIN u ON t.id = u.t_id JOIN u v ON v.city = u.city",
    "SELECT t.id, u.id AS u FROM t JOIN u ON t.id = u.t_id + 1",
    "SELECT t.id, u.id AS u FROM t CROSS JOIN u WHERE t.a = 1 AND u.w > 2",
    "SELECT id FROM t WHERE id IN (SELECT t_id FROM u WHERE w > 0)",
    "SELECT id FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.t_id = t.id)",
    "SELECT id, a FROM t WHERE a > (SELECT avg(w) FROM u)",
    "SELECT city, n FROM (SELECT city, count(*) AS n FROM u GROUP BY city) x WHERE n > 1",
    "WITH c AS (SELECT city, sum(w) AS w FROM u GROUP BY city) SELECT sum(w), max(city) FROM c",
    "SELECT max(n) FROM (SELECT count(*) AS n FROM t GROUP BY s) x",
    "SELECT s, max(a) - min(a) AS span, sum(a) * 2 AS twice FROM t GROUP BY s",
    "SELECT j, count(*) FROM t GROUP BY j",
    "SELECT s, sum(round(d, 1)), min(f), max(f) FROM t GROUP BY s",
    "SELECT flag, min(day), max(day), min(s) AS x, max(s) AS y FROM t GROUP BY flag",
    // Joins.
    "SELECT t.id, u.city FROM t LEFT JOIN u ON t.id = u.t_id",
    "SELECT t.id, u.city FROM t RIGHT JOIN u ON t.a = u.w AND t.b > u.w",
    "SELECT t.id, t.a, u.id AS u, u.w FROM t FULL JOIN u ON t.a = u.w",
    "SELECT t.id, u.id AS u FROM t JOIN u ON t.a < u.w AND t.b <> u.w",
    "SELECT t.id, u.id AS u FROM t LEFT JOIN u ON t.a < u.w",
    "SELECT t.id, u.id AS u FROM t JOIN u ON t.a IS NOT DISTINCT FROM u.w WHERE t.b = u.t_id",
    "SELECT t.s, count(u.id) AS n, sum(u.w) AS w FROM t LEFT JOIN u ON t.id = u.t_id GROUP BY t.s",
    // Subqueries.
    "SELECT id FROM t WHERE id NOT IN (SELECT t_id FROM u)",
    "SELECT id FROM t WHERE a NOT IN (SELECT w FROM u WHERE u.t_id = t.b)",
    "SELECT id FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.t_id = t.id AND u.w > t.a)",
    "SELECT id, a IN (SELECT w FROM u) AS x, EXISTS (SELECT 1 FROM u WHERE w = b) AS y FROM t",
    "SELECT id FROM t WHERE a > 2 OR a NOT IN (SELECT w FROM u WHERE w > 1)",
    "SELECT id FROM t WHERE a > 2 OR b IN (SELECT w FROM u)",
    "SELECT id, (SELECT count(*) FROM u WHERE u.w = t.a) AS n FROM t",
    "SELECT id, (SELECT sum(w) + count(*) FROM u WHERE u.w > t.a) AS n FROM t",
    "SELECT id FROM t WHERE b = (SELECT max(w) FROM u WHERE u.t_id = t.a)",
    "SELECT id, (SELECT city FROM u WHERE u.w = t.a ORDER BY id LIMIT 1) AS c FROM t",
    "SELECT id FROM t WHERE a > ALL (SELECT w FROM u WHERE t_id < 5)",
    "SELECT id FROM t WHERE a = ANY (SELECT w FROM u WHERE u.t_id > t.b)",
    "SELECT id FROM t x WHERE EXISTS (SELECT 1 FROM u WHERE u.w = x.a AND EXISTS (SELECT 1 FROM t y WHERE y.a = u.t_id AND y.b < x.b))",
    "SELECT t.id, l.n FROM t CROSS JOIN LATERAL (SELECT count(*) AS n FROM u WHERE u.w < t.a) l",
    "SELECT t.id, l.city FROM t LEFT JOIN LATERAL (SELECT city FROM u WHERE u.w = t.a ORDER BY id DESC LIMIT 2) l ON true",
    "SELECT t.id, v.x FROM t CROSS JOIN LATERAL (VALUES (t.a), (t.b)) v(x)",
    // Groups.
    "SELECT s, flag, count(*) AS n, sum(a) AS x FROM t GROUP BY ROLLUP (s, flag)",
    "SELECT s, flag, grouping(s) AS g, grouping(s, flag) AS h, max(a) AS m FROM t GROUP BY CUBE (s, flag)",
    "SELECT s, day, count(*) AS n FROM t GROUP BY GROUPING SETS ((s), (day), (s, day), (s), ())",
    "SELECT s, stddev(f) AS d, var_pop(a) AS v, variance(d) AS w FROM t GROUP BY s",
    "SELECT s, bool_and(flag) AS x, bool_or(a > 1) AS y, every(flag) AS z FROM t GROUP BY s",
    "SELECT flag, string_agg(s, ',' ORDER BY id DESC) AS x, array_to_string(array_agg(a), '-') AS y FROM t GROUP BY flag",
    "SELECT flag, string_agg(DISTINCT s, ',') AS x, array_to_string(array_agg(DISTINCT a ORDER BY a), '-') AS y FROM t GROUP BY flag",
    "SELECT s, first_value(a ORDER BY b) AS x, last_value(a ORDER BY b, id) AS y FROM t GROUP BY s",
    "SELECT flag, median(a) AS m, bit_and(b) AS x, count(DISTINCT s) FILTER (WHERE a > 0) AS n FROM t GROUP BY flag",
    "SELECT corr(a, b) AS c, covar_pop(a, b) AS p, regr_slope(a, b) AS r FROM t",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a) AS p FROM t",
    // Sets.
    "SELECT a FROM t INTERSECT SELECT w FROM u",
    "SELECT a FROM t INTERSECT ALL SELECT w FROM u",
    "SELECT a FROM t EXCEPT SELECT w FROM u",
    "SELECT a FROM t EXCEPT ALL SELECT w FROM u",
    "SELECT a, s FROM t EXCEPT ALL (SELECT w, city FROM u UNION ALL SELECT a, s FROM t WHERE flag)",
    "SELECT DISTINCT ON (s) s, a, id FROM t ORDER BY s, a DESC",
    "SELECT DISTINCT ON (s, flag) s, b FROM t",
    // Orders.
    "SELECT id, a FROM t ORDER BY a",
    "SELECT id, a FROM t ORDER BY a LIMIT 5",
    "SELECT a FROM t ORDER BY b DESC NULLS LAST, a LIMIT 4 OFFSET 2",
    "SELECT s, sum(a) AS x FROM t GROUP BY s ORDER BY 2 DESC LIMIT 2",
    "SELECT * FROM (SELECT id, s, row_number() OVER (PARTITION BY s ORDER BY a DESC) AS r FROM t) x WHERE r <= 2",
    "SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY flag ORDER BY b, id) AS r FROM t) x WHERE r = 1",
    // Windows.
    "SELECT id, row_number() OVER (ORDER BY a) AS r, rank() OVER (ORDER BY a) AS k FROM t",
    "SELECT id, sum(a) OVER (PARTITION BY s ORDER BY id) AS x, avg(f) OVER (PARTITION BY s) AS y FROM t",
    "SELECT id, lag(a) OVER (PARTITION BY s ORDER BY id) AS x, lead(a, 2, 0) OVER (ORDER BY b, id) AS y FROM t",
    "SELECT id, count(*) OVER (PARTITION BY flag, s) AS n, first_value(b) OVER (PARTITION BY s ORDER BY a) AS v FROM t",
    "SELECT id, sum(b) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS x, min(f) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS y FROM t",
    "SELECT id, sum(f) OVER (ORDER BY id ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING) AS x FROM t",
    "SELECT s, sum(sum(a)) OVER (ORDER BY s) AS x FROM t GROUP BY s",
    "SELECT id, ntile(3) OVER (ORDER BY a, id) AS n, dense_rank() OVER (ORDER BY s) AS d, percent_rank() OVER (ORDER BY a) AS p FROM t",
    // The rest.
    "SELECT t.id, v.x FROM t JOIN (VALUES (1, 'one'), (2, 'two')) v(n, x) ON t.a = v.n",
    "WITH RECURSIVE r(id, w) AS (SELECT id, w FROM u WHERE w > 2 UNION SELECT u.id, u.w FROM u JOIN r ON u.t_id = r.id) SELECT * FROM r",
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5) SELECT t.id, n.x FROM t JOIN n ON t.a = n.x",
    "SELECT id, unnest(make_array(a, b)) AS x FROM t",
    "SELECT t.id, x FROM t, unnest(ARRAY[t.a, t.b::int]) AS x WHERE x > 0",
    "SELECT t.id, g.n FROM t LEFT JOIN LATERAL generate_series(1, t.a) AS g(n) ON true",
    "SELECT id, j->'n' AS x, j->>'n' AS y, (j->>'n')::int + 1 AS z FROM t WHERE j @> '{\"n\": 1}'",
    "SELECT j->>'n' AS n, count(*) AS c FROM t WHERE j ? 'n' GROUP BY j->>'n'",
    "SELECT id, jsonb_build_object('a', a, 's', s, 'j', j) AS o, json_build_array(d, flag, ts) AS l FROM t",
    "SELECT id, json_object_keys(j) AS k FROM t",
    "SELECT t.id, e.value->>'x' AS x FROM t, jsonb_array_elements(jsonb_build_array(jsonb_build_object('x', t.a), t.j)) AS e",
    "SELECT id, a FROM t ORDER BY a, id FETCH FIRST 3 ROWS ONLY",
    "SELECT s, json_agg(a ORDER BY id) AS x, jsonb_agg(json_build_object('a', a, 'j', j) ORDER BY id DESC) AS y FROM t GROUP BY s",
    "SELECT id, a FROM t WHERE false",
    "SELECT count(*) FROM t WHERE 1 = 2",
    "SELECT id FROM t LIMIT 0",
    "SELECT x.id AS a, x.a + 1 AS b FROM t x ORDER BY x.id, a LIMIT 3",
    "SELECT DISTINCT ON (x.a) x.a AS o, x.s FROM t x ORDER BY x.a, o",
    "SELECT a, a::bigint AS o, count(*) AS n FROM t GROUP BY a, a::bigint",
    "SELECT x.id, (SELECT count(*) FROM t z) AS n FROM t x JOIN t y ON x.id = y.id WHERE x.id IS NOT DISTINCT FROM x.id AND x.id = x.id",
    "SELECT x.id FROM t x WHERE x.a::bigint IN (SELECT z.a::bigint FROM t z WHERE x.b = z.a)",
    "WITH c AS (SELECT s, count(*) AS n FROM t GROUP BY s) SELECT x.s, y.s AS z FROM c x JOIN c y ON x.n = y.n",
    "SELECT a::text AS o, a::bigint AS p, count(*) AS n FROM t GROUP BY 1, 2",
    "SELECT s, array_to_string(array_agg(a ORDER BY 1, id), ',') AS l FROM t GROUP BY s",
    "SELECT x.o FROM (SELECT a AS o, b AS p FROM t ORDER BY b, o, p LIMIT 3) x",
    "SELECT c.n FROM (SELECT max(id) AS n FROM t) c JOIN u ON c.n = u.id AND NULL::int IS NOT NULL",
    "SELECT r.n FROM (SELECT s, count(*) AS n FROM t GROUP BY ROLLUP (s)) r JOIN u ON r.n = u.id AND 1 = 2",
];

#[test]
fn views_hold_the_batch_answer() {
    let mut failed = 0;
    for sql in VIEWS {
        let seeds = || (0..12).for_each(|seed| check(sql, seed));
        failed += usize::from(std::panic::catch_unwind(seeds).is_err());
    }
    assert_eq!(failed, 0, "of {} views", VIEWS.len());
}

/// SELECTs of a small grammar.
fn random_select(rng: &mut fastrand::Rng) -> String {
    let mut pick = |from: &[&str]| rng.choice(from.iter()).expect("one of them").to_string();
    let from = pick(&["t", "t JOIN u ON t.id = u.t_id", "t JOIN u ON t.a = u.w"]);
    let joined = from.len() > 1;
    let numbers: &[&str] =
        if joined { &["t.a", "t.b", "u.w", "t.d", "t.f"] } else { &["a", "b", "d", "f"] };
    let keys: &[&str] = if joined { &["t.s", "u.city", "t.flag"] } else { &["s", "flag", "day"] };
    let mut number = || {
        let (x, y) = (pick(numbers), pick(numbers));
        match pick(&["plain", "plain", "add", "case", "coalesce", "cast"]).as_str() {
            "add" => format!("{x} + {y}"),
            "case" => format!("CASE WHEN {x} > 1 THEN {y} END"),
            "coalesce" => format!("coalesce({x}, 7)"),
            "cast" => format!("({x})::double precision"),
            _ => x,
        }
    };
    let (one, two, three) = (number(), number(), number());
    let (k1, k2) = (pick(keys), pick(keys));
    let condition = match pick(&["none", "cmp", "null", "like"]).as_str() {
        "cmp" => format!(" WHERE {one} < {two}"),
        "null" => format!(" WHERE {one} IS NOT NULL OR {k1} IS NULL"),
        "like" => format!(" WHERE {k1}::text LIKE '%e%'"),
        _ => String::new(),
    };
    match pick(&["plain", "global", "group", "group", "groups", "distinct"]).as_str() {
        "plain" => format!("SELECT {one} AS x, {two} AS y, {k1} AS k FROM {from}{condition}"),
        "distinct" => format!("SELECT DISTINCT {k1} AS k, {three} AS x FROM {from}{condition}"),
        "global" => format!(
            "SELECT sum({one}) AS x, avg({two}) AS y, min({three}) AS z, count(*) AS n \
             FROM {from}{condition}"
        ),
        "group" => format!(
            "SELECT {k1} AS k, sum({two}) AS x, count({three}) AS n, max({one}) AS m \
             FROM {from}{condition} GROUP BY {k1}"
        ),
        _ => format!(
            "SELECT {k1} AS k, {k2} AS l, avg({one}) AS x, count(DISTINCT {two}) AS n \
             FROM {from}{condition} GROUP BY {k1}, {k2} HAVING count(*) > 1"
        ),
    }
}

#[test]
fn random_views_hold_the_batch_answer() {
    for seed in 1000..1200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let sql = random_select(&mut rng);
        check(&sql, seed);
    }
}

#[test]
fn keys_are_traced() {
    let key = |sql: &str| SqlPlanner::new().plan_view(sql, &catalog()).expect(sql).schema.key;
    assert_eq!(key("SELECT a, id FROM t WHERE a > 1"), [1]);
    assert_eq!(key("SELECT a FROM t"), [0usize; 0]);
    assert_eq!(key("SELECT count(*) AS n, s FROM t GROUP BY s"), [1]);
    assert_eq!(key("SELECT s, flag, count(*) AS n FROM t GROUP BY flag, s"), [1, 0]);
    assert_eq!(key("SELECT upper(s) AS s, count(*) AS n FROM t GROUP BY s"), [0usize; 0]);
    assert_eq!(key("SELECT n, city FROM cities"), [1]);
    assert_eq!(key("SELECT count(*) FROM t"), [0usize; 0]);
    assert_eq!(key("SELECT DISTINCT s, flag FROM t"), [0, 1]);
    assert_eq!(key("SELECT DISTINCT ON (s) s, id, a FROM t ORDER BY s, a"), [0]);
    assert_eq!(key("SELECT DISTINCT ON (upper(s)) id, a FROM t ORDER BY upper(s)"), [0usize; 0]);
    assert_eq!(key("SELECT a, id FROM t ORDER BY a LIMIT 3"), [1]);
    assert_eq!(key("SELECT t.id, u.city FROM t LEFT JOIN u ON t.a = u.id"), [0]);
    assert_eq!(key("SELECT t.id, u.id AS u FROM t LEFT JOIN u ON t.a = u.w"), [0, 1]);
    assert_eq!(key("SELECT t.id, u.id AS u FROM t FULL JOIN u ON t.a = u.w"), [0usize; 0]);
    assert_eq!(key("SELECT id FROM t WHERE a IN (SELECT w FROM u)"), [0]);
    assert_eq!(key("SELECT id, sum(a) OVER (ORDER BY id) AS x FROM t"), [0]);
    assert_eq!(key("SELECT a FROM t EXCEPT SELECT w FROM u"), [0]);
    assert_eq!(key("SELECT id FROM t UNION ALL SELECT id FROM u"), [0usize; 0]);
}

#[test]
fn what_cannot_be_kept_is_named() {
    let refusal = |sql: &str| {
        let error = SqlPlanner::new().plan_view(sql, &catalog()).expect_err(sql);
        (error.sqlstate, error.message)
    };
    for (sql, sqlstate, part) in [
        ("SELECT now() AS x FROM t", "0A000", "now()"),
        ("SELECT a, random() AS x FROM t", "0A000", "random()"),
        ("SELECT 1 AS x", "0A000", "without FROM"),
        (
            "SELECT id, count(*) OVER (ORDER BY id RANGE BETWEEN 2 PRECEDING AND 1 PRECEDING) AS x FROM t",
            "0A000",
            "RANGE frame",
        ),
        ("SELECT a FROM t WHERE a = $1", "0A000", "parameter"),
        ("SELECT id FROM t WHERE ts > 'garbage'", "22007", "\"garbage\""),
        ("SELECT id FROM t WHERE id = 'x'", "22P02", "bigint: \"x\""),
        ("SELECT tumble(ts, INTERVAL '0') AS w FROM t", "22023", "longer than nothing"),
        ("SELECT id, a AS id FROM t", "42701", "id"),
        ("SELECT nope FROM t", "42703", "nope"),
        ("SELECT a FROM tt", "42P01", "tt"),
        ("SELECT nope(a) AS x FROM t", "42883", "nope"),
        ("SELECT a, count(*) FROM t", "42803", "GROUP BY"),
        ("SELECT state FROM evert.views", "0A000", "system relation"),
        ("SELECT ts - ts AS x FROM t", "42P16", "x"),
        ("SELECT string_agg(s, s ORDER BY id) AS x FROM t", "0A000", "delimiter"),
    ] {
        let (code, message) = refusal(sql);
        assert_eq!(code, sqlstate, "{sql}: {message}");
        assert!(message.contains(part), "{sql}: {message}");
    }
}

/// What EXPLAIN shows of a view over `t`, a table, and `u`, a stream.
fn explained(sql: &str) -> Vec<String> {
    let planned = SqlPlanner::new().plan_view(sql, &catalog()).expect(sql);
    let inputs: Vec<_> =
        planned.inputs.iter().map(|name| (name.to_string(), name.name == "u")).collect();
    let operators = super::explain::operators(&planned.plan, &inputs, |_| None);
    super::explain::as_text(&operators, planned.plan.output)
}

#[test]
fn explain_tells_what_only_grows() {
    let line_of = |sql: &str, name: &str| {
        let lines = explained(sql);
        let found =
            lines.iter().find(|line| line.trim_start_matches([' ', '-', '>']).starts_with(name));
        found.unwrap_or_else(|| panic!("{name} in {lines:?}")).clone()
    };
    for (sql, name, growth) in [
        ("SELECT city FROM u WHERE w > 1", "Filter", "monotone, append-only"),
        ("SELECT a FROM t WHERE a > 1", "Filter", "monotone, changing"),
        ("SELECT DISTINCT city FROM u", "Distinct", "monotone, append-only"),
        ("SELECT city, count(*) AS n FROM u GROUP BY city", "Reduce", "not monotone, changing"),
        ("SELECT id FROM u ORDER BY id LIMIT 2", "TopK", "not monotone, changing"),
        ("SELECT DISTINCT ON (city) city, id FROM u", "TopK", "not monotone, changing"),
        ("SELECT w FROM u INTERSECT SELECT t_id FROM u", "Intersect", "monotone, append-only"),
        ("SELECT w FROM u EXCEPT SELECT t_id FROM u", "Except", "not monotone, changing"),
    ] {
        let line = line_of(sql, name);
        assert!(line.contains(&format!(", {growth})")), "{sql}: {line}");
    }
    let text =
        explained("SELECT x.city, y.id FROM u x LEFT JOIN u y ON x.id = y.t_id AND x.w < y.w")
            .join("\n");
    for part in ["Left Join  (#", "On: id = t_id", "Condition: w < w", "State: the rows", "Input u"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn a_misspelt_name_is_guessed() {
    let hint = |sql: &str| SqlPlanner::new().plan_view(sql, &catalog()).expect_err(sql).hint;
    assert!(hint("SELECT a FROM citie").expect("a hint").contains("cities"));
    assert!(hint("SELECT cit FROM u").expect("a hint").contains("city"));
}

#[test]
fn types_are_canonical() {
    let sql = "SELECT s, j, count(*) AS n, sum(a) AS i, sum(d) AS d, avg(a) AS f, avg(d) AS e, \
               max(ts) AS ts, 1.5 AS c FROM t GROUP BY s, j";
    let planned = SqlPlanner::new().plan_view(sql, &catalog()).expect(sql);
    let types: Vec<_> = planned.schema.columns.iter().map(|column| column.ty).collect();
    let decimal = |scale| ColumnType::Decimal { precision: 38, scale };
    assert_eq!(
        types,
        [
            ColumnType::Text,
            ColumnType::Json,
            ColumnType::Int64,
            decimal(0),
            decimal(2),
            ColumnType::Float64,
            decimal(16),
            ColumnType::Timestamp,
            ColumnType::Decimal { precision: 2, scale: 1 },
        ]
    );
    assert_eq!(planned.schema.key, [0, 1]);
}
