//! TPC-H's 22 queries as views, while its tables are filled and some orders are deleted again.

use evert_model::ColumnType::{self, Date, Int32, Int64, Text};
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator,
    PartSuppGenerator, RegionGenerator, SupplierGenerator,
};

use crate::replay::{Change, History, Source};

const SCALE: f64 = 0.01;
/// The positions at which views are compared; orders come in all of them.
const STEPS: usize = 6;
const MONEY: ColumnType = ColumnType::Decimal { precision: 15, scale: 2 };

const QUERIES: [(&str, &str); 22] = [
    ("q01", include_str!("../tpch/q01.sql")),
    ("q02", include_str!("../tpch/q02.sql")),
    ("q03", include_str!("../tpch/q03.sql")),
    ("q04", include_str!("../tpch/q04.sql")),
    ("q05", include_str!("../tpch/q05.sql")),
    ("q06", include_str!("../tpch/q06.sql")),
    ("q07", include_str!("../tpch/q07.sql")),
    ("q08", include_str!("../tpch/q08.sql")),
    ("q09", include_str!("../tpch/q09.sql")),
    ("q10", include_str!("../tpch/q10.sql")),
    ("q11", include_str!("../tpch/q11.sql")),
    ("q12", include_str!("../tpch/q12.sql")),
    ("q13", include_str!("../tpch/q13.sql")),
    ("q14", include_str!("../tpch/q14.sql")),
    ("q15", include_str!("../tpch/q15.sql")),
    ("q16", include_str!("../tpch/q16.sql")),
    ("q17", include_str!("../tpch/q17.sql")),
    ("q18", include_str!("../tpch/q18.sql")),
    ("q19", include_str!("../tpch/q19.sql")),
    ("q20", include_str!("../tpch/q20.sql")),
    ("q21", include_str!("../tpch/q21.sql")),
    ("q22", include_str!("../tpch/q22.sql")),
];

/// Rows of the generator's own table format.
fn cells<T: std::fmt::Display>(rows: impl IntoIterator<Item = T>) -> Vec<Vec<String>> {
    let cells = |row: T| {
        let line = row.to_string();
        line.trim_end_matches('|').split('|').map(str::to_owned).collect()
    };
    rows.into_iter().map(cells).collect()
}

fn sources() -> Vec<Source> {
    vec![
        Source::new(
            "region",
            &[("r_regionkey", Int64), ("r_name", Text), ("r_comment", Text)],
            vec![0],
            &cells(RegionGenerator::new(SCALE, 1, 1).iter()),
        ),
        Source::new(
            "nation",
            &[
                ("n_nationkey", Int64),
                ("n_name", Text),
                ("n_regionkey", Int64),
                ("n_comment", Text),
            ],
            vec![0],
            &cells(NationGenerator::new(SCALE, 1, 1).iter()),
        ),
        Source::new(
            "part",
            &[
                ("p_partkey", Int64),
                ("p_name", Text),
                ("p_mfgr", Text),
                ("p_brand", Text),
                ("p_type", Text),
                ("p_size", Int32),
                ("p_container", Text),
                ("p_retailprice", MONEY),
                ("p_comment", Text),
            ],
            vec![0],
            &cells(PartGenerator::new(SCALE, 1, 1).iter()),
        ),
        Source::new(
            "supplier",
            &[
                ("s_suppkey", Int64),
                ("s_name", Text),
                ("s_address", Text),
                ("s_nationkey", Int64),
                ("s_phone", Text),
                ("s_acctbal", MONEY),
                ("s_comment", Text),
            ],
            vec![0],
            &cells(SupplierGenerator::new(SCALE, 1, 1).iter()),
        ),
        Source::new(
            "partsupp",
            &[
                ("ps_partkey", Int64),
                ("ps_suppkey", Int64),
                ("ps_availqty", Int32),
                ("ps_supplycost", MONEY),
                ("ps_comment", Text),
            ],
            vec![0, 1],
            &cells(PartSuppGenerator::new(SCALE, 1, 1).iter()),
        ),
        Source::new(
            "customer",
            &[
                ("c_custkey", Int64),
                ("c_name", Text),
                ("c_address", Text),
                ("c_nationkey", Int64),
                ("c_phone", Text),
                ("c_acctbal", MONEY),
                ("c_mktsegment", Text),
                ("c_comment", Text),
            ],
            vec![0],
            &cells(CustomerGenerator::new(SCALE, 1, 1).iter()),
        ),
        Source::new(
            "orders",
            &[
                ("o_orderkey", Int64),
                ("o_custkey", Int64),
                ("o_orderstatus", Text),
                ("o_totalprice", MONEY),
                ("o_orderdate", Date),
                ("o_orderpriority", Text),
                ("o_clerk", Text),
                ("o_shippriority", Int32),
                ("o_comment", Text),
            ],
            vec![0],
            &cells(OrderGenerator::new(SCALE, 1, 1).iter()),
        ),
        Source::new(
            "lineitem",
            &[
                ("l_orderkey", Int64),
                ("l_partkey", Int64),
                ("l_suppkey", Int64),
                ("l_linenumber", Int32),
                ("l_quantity", MONEY),
                ("l_extendedprice", MONEY),
                ("l_discount", MONEY),
                ("l_tax", MONEY),
                ("l_returnflag", Text),
                ("l_linestatus", Text),
                ("l_shipdate", Date),
                ("l_commitdate", Date),
                ("l_receiptdate", Date),
                ("l_shipinstruct", Text),
                ("l_shipmode", Text),
                ("l_comment", Text),
            ],
            vec![0, 3],
            &cells(LineItemGenerator::new(SCALE, 1, 1).iter()),
        ),
    ]
}

/// In every step a sixth of each table comes; from the third on, one in eight of the orders that
/// came two steps before goes, with its items.
fn history() -> History {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    let sources = sources();
    let keys: Vec<Vec<i64>> = sources
        .iter()
        .map(|source| source.rows.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect();
    let orders = sources.iter().position(|source| source.name == "orders").expect("orders");
    let last = keys[orders].iter().max().copied().unwrap_or(0) + 1;
    // Orders and their items come together; the other tables in equal parts.
    let step_of = |source: usize, row: usize| match source {
        source if source >= orders => (keys[source][row] * STEPS as i64 / last) as usize,
        source => row * STEPS / keys[source].len(),
    };
    let steps = (0..STEPS).map(|step| {
        let mut changes = Vec::new();
        for (source, keys) in keys.iter().enumerate() {
            let rows = (0..keys.len()).filter(|row| step_of(source, *row) == step);
            changes.push(Change { source, rows: rows.map(|row| row as u32).collect(), weight: 1 });
            if step >= 2 && source >= orders {
                let gone =
                    |row: &usize| step_of(source, *row) == step - 2 && (keys[*row] / 4) % 8 == 3;
                let rows = (0..keys.len()).filter(gone).map(|row| row as u32).collect();
                changes.push(Change { source, rows, weight: -1 });
            }
        }
        changes
    });
    let steps = steps.collect();
    History { sources, steps }
}

#[test]
fn tpch_views_equal_the_batch_answer() {
    let history = history();
    let batches = history.batches();
    let mut wrong = Vec::new();
    for (name, sql) in QUERIES {
        let start = std::time::Instant::now();
        match history.check(sql, sql, &batches) {
            Ok(rows) => println!("{name}: {rows} rows, {:.1?}", start.elapsed()),
            Err(what) => {
                println!("{name}: {what}");
                wrong.push(name);
            }
        }
    }
    assert!(wrong.is_empty(), "wrong: {wrong:?}");
}
