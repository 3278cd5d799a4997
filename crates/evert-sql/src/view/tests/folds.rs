//! Custom folds against the SELECTs that say the same.

use super::*;

/// A fold's definition, and a SELECT that is equal.
const FOLDS: &[(&str, &str)] = &[
    (
        "(s text, n bigint, total bigint) ON t KEY (s) ORDER BY (id) LANGUAGE javascript AS $$
         ({ init: () => ({ n: 0, total: null }),
            step: (s, row) => {
              s.n++;
              if (row.b !== null) s.total += row.b;
              return s;
            },
            row: (s) => s }) $$",
        "SELECT s, count(*) AS n, sum(b)::bigint AS total FROM t GROUP BY s",
    ),
    // The longest run of rows with a positive `a`, in the order of `id`; none, no row.
    (
        "(longest bigint, s text) ON t KEY (s) ORDER BY id LANGUAGE javascript AS $$
         ({ init: () => ({ longest: 0, run: 0 }),
            step: (s, row) => {
              s.run = row.a > 0 ? s.run + 1 : 0;
              s.longest = Math.max(s.longest, s.run);
              return s;
            },
            row: (s) => s.longest ? { longest: s.longest } : null }) $$",
        "SELECT max(run) AS longest, s FROM (SELECT s, island, count(*) AS run FROM \
         (SELECT s, coalesce(a > 0, false) AS hit, row_number() OVER (PARTITION BY s ORDER BY id) \
          - row_number() OVER (PARTITION BY s, coalesce(a > 0, false) ORDER BY id) AS island \
          FROM t) x WHERE hit GROUP BY s, island) y GROUP BY s",
    ),
    // Each type there and back.
    (
        "(s text, id bigint, a int, f double precision, d numeric(10,2), ts timestamp, day date,
          j json, flag boolean)
         ON t KEY (s, flag) ORDER BY (day DESC NULLS LAST, ts, id DESC) LANGUAGE javascript AS $$
         ({ init: () => null, step: (s, row) => row,
            row: ({ id, a, f, d, ts, day, j }) => ({ id, a, f, d, ts, day, j }) }) $$",
        "SELECT s, id, a, f, d, ts, day, j, flag FROM (SELECT *, row_number() OVER \
         (PARTITION BY s, flag ORDER BY day ASC NULLS FIRST, ts DESC, id) AS place FROM t) x \
         WHERE place = 1",
    ),
    // Without a key, of a query; rows that are equal count as often as they come.
    (
        "(n bigint) ON (SELECT city, t.a FROM u JOIN t ON t.id = u.t_id WHERE w > 0) \
         ORDER BY (city, a) LANGUAGE js AS $$
         ({ init: () => 0, step: (s, row) => s + 1, row: (n) => ({ n }) }) $$",
        "SELECT count(*) AS n FROM u JOIN t ON t.id = u.t_id WHERE w > 0",
    ),
    // Over groups, which change as they grow; NULLs first.
    (
        "(n bigint, cities text) ON (SELECT city, count(*) AS n FROM u GROUP BY city) KEY (n) ORDER BY (city DESC) \
         LANGUAGE javascript AS 'const all = (s, row) => s === null ? row.city : row.city === null
           ? s : s + '','' + row.city;
         return { init: () => null, step: all, row: (s) => ({ cities: s }) };'",
        "SELECT n, string_agg(city, ',' ORDER BY city DESC) AS cities FROM \
         (SELECT city, count(*) AS n FROM u GROUP BY city) c GROUP BY n",
    ),
];

#[test]
fn folds_hold_what_selects_answer() {
    for (definition, select) in FOLDS {
        for seed in 0..8 {
            assert!(check_against(definition, select, seed), "{definition} has errors");
        }
    }
}

/// A group that cannot be folded is an error's row, and is there again once it can.
#[test]
fn a_group_that_throws_is_alone() {
    let sql = "(s text, n bigint) ON t KEY (s) ORDER BY (id) LANGUAGE javascript AS $$
               ({ init: () => 0,
                  step: (n, row) => { if (row.a === 3) throw new Error(`3 in ${row.s}`); return n + 1 },
                  row: (n) => ({ n }) }) $$";
    let planned = SqlPlanner::new().plan_view(sql, &catalog()).expect("a fold");
    let schema = catalog().relations[&Name::public("t")].schema.to_arrow();
    let rows = |rows: &[(&str, i32)]| {
        let columns = schema.fields().iter().map(|field| match field.name().as_str() {
            "a" => {
                Arc::new(arrow::array::Int32Array::from_iter_values(rows.iter().map(|row| row.1)))
                    as arrow::array::ArrayRef
            }
            "s" => {
                let texts = rows.iter().map(|row| row.0);
                Arc::new(arrow::array::StringViewArray::from_iter_values(texts))
            }
            _ => arrow::array::new_null_array(field.data_type(), rows.len()),
        });
        RecordBatch::try_new(Arc::clone(&schema), columns.collect()).expect("columns of t")
    };
    let mut flow = Dataflow::new(planned.plan).expect("a valid plan");
    let mut tick = |batch: RecordBatch, weight: i64| {
        let weights = Int64Array::from(vec![weight; batch.num_rows()]);
        flow.tick(LogTime::default(), &[vec![Delta::new(batch, weights)]])
    };
    let output = tick(rows(&[("goa", 1), ("pune", 1), ("pune", 3)]), 1);
    let told: Vec<_> =
        output.errors.iter().map(|error| (error.reason.as_str(), error.weight)).collect();
    assert_eq!(told, [("Error: 3 in pune at line 3", 1)]);
    assert!(output.errors[0].row.contains("pune"), "{}", output.errors[0].row);
    assert_eq!(output.changes.iter().map(Delta::len).sum::<usize>(), 1);
    let output = tick(rows(&[("pune", 3)]), -1);
    assert_eq!(output.errors.iter().map(|error| error.weight).collect::<Vec<_>>(), [-1]);
    assert_eq!(output.changes.iter().map(Delta::len).sum::<usize>(), 1);
}

#[test]
fn what_is_no_fold_is_refused_at_its_place() {
    let with = |columns: &str, rest: &str| format!("({columns}) ON t {rest}");
    let code = "LANGUAGE javascript AS $$({ init: () => 0, step: (s) => s, row: () => null })$$";
    for (sql, sqlstate, at) in [
        (with("s text, n int", "KEY (s) LANGUAGE js AS $$$$"), "42601", "LANGUAGE"),
        (with("s text, n int", &format!("KEY (x) ORDER BY id {code}")), "42703", ""),
        (with("s text, n int", &format!("KEY (s) ORDER BY x {code}")), "42703", ""),
        (with("n int", &format!("KEY (s) ORDER BY id {code}")), "42P16", ""),
        (with("s int, n int", &format!("KEY (s) ORDER BY id {code}")), "42804", ""),
        (with("s text", &format!("KEY (s) ORDER BY id {code}")), "42P16", ""),
        (with("n int, n int", &format!("ORDER BY id {code}")), "42701", ""),
        (with("n numeric", &format!("ORDER BY id {code}")), "42P16", "(n"),
        (with("n int primary key", &format!("ORDER BY id {code}")), "0A000", "(n"),
        (
            with("n int", &format!("ORDER BY id {code}")).replace("ON t", "ON nowhere"),
            "42P01",
            "nowhere",
        ),
        (with("n int", "ORDER BY id LANGUAGE python AS $$1$$"), "42704", "python"),
        (with("n int", "ORDER BY id LANGUAGE js AS 1"), "42601", "1"),
        (with("n int", "ORDER BY id LANGUAGE js AS $$42$$"), "42601", "$$"),
        (
            with("n int", "ORDER BY id LANGUAGE js AS $a$({\n init: () => ,\n})$a$"),
            "42601",
            ",\n})",
        ),
        (with("n int", &format!("ORDER BY id {code} AND more")), "42601", "AND"),
    ] {
        let error = plan_text(&sql, &catalog()).expect_err("it is refused");
        assert_eq!(error.sqlstate, sqlstate, "{sql}: {error}");
        let place = (!at.is_empty()).then(|| sql.find(at).expect("it is there") + 1);
        assert_eq!(error.position, place, "{sql}: {error}");
    }
}

/// The code is part of what tells a view's state from another's.
#[test]
fn plans_tell_their_code() {
    let plan = |code: &str| {
        let sql = format!(
            "(n int) ON t ORDER BY id LANGUAGE js AS $$({{ init: () => {code}, step: (s) => s, row: () => null }})$$"
        );
        let planned = SqlPlanner::new().plan_view(&sql, &catalog()).expect("a fold");
        format!("{:?}", planned.plan)
    };
    assert_eq!(plan("1"), plan("1"));
    assert_ne!(plan("1"), plan("2"));
}
