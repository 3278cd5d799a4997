//! Worlds: random relations, random rows, and the commits that put them there and take them away.
//!
//! Invariants
//! - A commit can be applied whatever commits before it are left out, so that histories shrink.
//! - Sums of a world's floats have no rounding: they are multiples of a quarter.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use evert_model::{Column, ColumnType, Delta, RowSchema};
use evert_view::{Catalog, Name, RelationKind};

use crate::choices::Choices;
use crate::replay::relation;

/// A type that columns and expressions have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Ty {
    Int,
    Big,
    Text,
    Numeric,
    Double,
    Bool,
    Date,
    Timestamp,
    Json,
}

impl Ty {
    /// The SQL name, the same in Evert and in Postgres.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Big => "bigint",
            Self::Text => "text",
            Self::Numeric => "numeric(12,2)",
            Self::Double => "double precision",
            Self::Bool => "boolean",
            Self::Date => "date",
            Self::Timestamp => "timestamp",
            Self::Json => "json",
        }
    }

    pub(crate) fn column(self) -> ColumnType {
        match self {
            Self::Int => ColumnType::Int32,
            Self::Big => ColumnType::Int64,
            Self::Text => ColumnType::Text,
            Self::Numeric => ColumnType::Decimal { precision: 12, scale: 2 },
            Self::Double => ColumnType::Float64,
            Self::Bool => ColumnType::Boolean,
            Self::Date => ColumnType::Date,
            Self::Timestamp => ColumnType::Timestamp,
            Self::Json => ColumnType::Json,
        }
    }

    pub(crate) fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Big | Self::Numeric | Self::Double)
    }
}

/// A relation and the rows that it may hold.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// A primary key on `id`; otherwise a bag, whose rows may be there several times.
    pub(crate) keyed: bool,
    pub(crate) columns: Vec<(String, Ty)>,
    /// Each cell as text that both databases read.
    pub(crate) rows: Vec<Vec<Option<String>>>,
}

/// A change of one relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) table: usize,
    pub(crate) row: usize,
    /// The row comes (and, in a table, replaces the one of its id); otherwise one such row goes.
    pub(crate) put: bool,
}

/// Changes at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    /// Microseconds since the epoch; they never go back.
    pub(crate) time: i64,
    pub(crate) changes: Vec<Change>,
}

/// Relations and what happens to them.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) tables: Vec<Table>,
    pub(crate) commits: Vec<Commit>,
    /// Whether numbers may be the greatest of their type, and floats infinite or NaN.
    pub(crate) extreme: bool,
}

const NAMES: [&str; 3] = ["t", "u", "w"];
const TYPES: [Ty; 9] = [
    Ty::Int,
    Ty::Text,
    Ty::Big,
    Ty::Numeric,
    Ty::Double,
    Ty::Bool,
    Ty::Date,
    Ty::Timestamp,
    Ty::Json,
];
/// 2026-01-02 00:00:00, amid the timestamps of rows.
const START: i64 = 1_767_312_000_000_000;
const MINUTE: i64 = 60_000_000;

impl World {
    pub(crate) fn random(choices: &mut Choices) -> Self {
        let extreme = choices.one_in(3);
        let tables: Vec<_> = NAMES
            .iter()
            .map(|name| {
                let keyed = !choices.one_in(3);
                let mut columns =
                    vec![("id".to_owned(), Ty::Big), ("a".into(), Ty::Int), ("s".into(), Ty::Text)];
                for index in 0..choices.below(6) {
                    columns.push((format!("c{index}"), choices.pick(&TYPES)));
                }
                let count = 4 + choices.below(24);
                let rows = (0..count).map(|_| random_row(choices, &columns, count, extreme));
                Table { name, keyed, rows: rows.collect(), columns }
            })
            .collect();
        let mut time = START;
        let commits = (0..2 + choices.below(14))
            .map(|_| {
                // Up to an hour, at times a day.
                time += MINUTE * choices.below(60) as i64 + choices.below(3) as i64;
                time += if choices.one_in(8) { 24 * 60 * MINUTE } else { 0 };
                let count = choices.pick(&[0, 8, 3, 1, 20, 40]);
                let changes = (0..count).map(|_| random_change(choices, &tables)).collect();
                Commit { time, changes }
            })
            .collect();
        Self { tables, commits, extreme }
    }

    /// The relations as Evert's catalog holds them.
    pub(crate) fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::default();
        for table in &self.tables {
            let kind = if table.keyed { RelationKind::Table } else { RelationKind::Bag };
            let relation = relation(table.name, kind, &table.schema());
            catalog.relations.insert(Name::public(table.name), Arc::new(relation));
        }
        catalog
    }

    /// The statements that make the relations in Postgres.
    pub(crate) fn create(&self) -> String {
        let tables = self.tables.iter().map(|table| {
            let columns = table.columns.iter().map(|(name, ty)| format!("{name} {}", ty.sql()));
            let columns = columns.collect::<Vec<_>>().join(", ");
            let key = if table.keyed { ", PRIMARY KEY (id)" } else { "" };
            format!("CREATE TABLE {} ({columns}{key});\n", table.name)
        });
        tables.collect()
    }
}

impl Table {
    pub(crate) fn schema(&self) -> RowSchema {
        let columns = self.columns.iter().map(|(name, ty)| Column {
            name: name.clone(),
            ty: ty.column(),
            nullable: true,
        });
        RowSchema { columns: columns.collect(), key: if self.keyed { vec![0] } else { vec![] } }
    }

    /// All rows that may come, typed.
    pub(crate) fn batch(&self) -> RecordBatch {
        let schema = self.schema().to_arrow();
        let columns = schema.fields().iter().enumerate().map(|(index, field)| {
            let cells: StringArray = self.rows.iter().map(|row| row[index].as_deref()).collect();
            cast(&cells, field.data_type()).expect("texts of the type")
        });
        let columns: Vec<ArrayRef> = columns.collect();
        RecordBatch::try_new(schema, columns).expect("columns of the schema")
    }

    /// A row as SQL's literals.
    pub(crate) fn literals(&self, row: usize) -> String {
        let cells = self.columns.iter().zip(&self.rows[row]).map(|((_, ty), cell)| match cell {
            Some(cell) => format!("'{}'::{}", cell.replace('\'', "''"), ty.sql()),
            None => format!("NULL::{}", ty.sql()),
        });
        format!("({})", cells.collect::<Vec<_>>().join(", "))
    }
}

/// Which rows are there, and how often.
#[derive(Clone, Debug, Default)]
pub(crate) struct Present(pub(crate) Vec<BTreeMap<usize, i64>>);

impl Present {
    pub(crate) fn nothing(world: &World) -> Self {
        Self(vec![BTreeMap::new(); world.tables.len()])
    }

    /// Applies a commit; gives the rows of each table that come and go by it, in order.
    pub(crate) fn apply(&mut self, world: &World, commit: &Commit) -> Vec<Vec<(usize, i64)>> {
        let mut deltas = vec![Vec::new(); world.tables.len()];
        for change in &commit.changes {
            let table = &world.tables[change.table];
            let rows = &mut self.0[change.table];
            let delta = &mut deltas[change.table];
            if change.put {
                if table.keyed {
                    let id = &table.rows[change.row][0];
                    let old = rows.keys().copied().find(|old| table.rows[*old][0] == *id);
                    if let Some(old) = old {
                        rows.remove(&old);
                        delta.push((old, -1));
                    }
                }
                *rows.entry(change.row).or_default() += 1;
                delta.push((change.row, 1));
            } else if let Some(count) = rows.get_mut(&change.row) {
                *count -= 1;
                if *count == 0 {
                    rows.remove(&change.row);
                }
                delta.push((change.row, -1));
            }
        }
        deltas
    }

    /// The rows that are there, each as often as it is.
    pub(crate) fn rows(&self, table: usize) -> impl Iterator<Item = usize> + '_ {
        let rows = self.0[table].iter();
        rows.flat_map(|(row, count)| (0..*count).map(|_| *row))
    }
}

/// Rows of a table's pool with their weights.
pub(crate) fn delta(pool: &RecordBatch, rows: &[(usize, i64)]) -> Delta {
    let indexes = rows.iter().map(|(row, _)| u32::try_from(*row).expect("small tables"));
    let indexes = UInt32Array::from_iter_values(indexes);
    let weights = Int64Array::from_iter_values(rows.iter().map(|(_, weight)| *weight));
    Delta::new(take_record_batch(pool, &indexes).expect("rows of the pool"), weights)
}

fn random_change(choices: &mut Choices, tables: &[Table]) -> Change {
    let table = choices.below(tables.len());
    let row = choices.below(tables[table].rows.len());
    Change { table, row, put: !choices.one_in(3) }
}

fn random_row(
    choices: &mut Choices,
    columns: &[(String, Ty)],
    count: usize,
    extreme: bool,
) -> Vec<Option<String>> {
    let mut row = vec![Some(choices.below(count).to_string())];
    for (_, ty) in &columns[1..] {
        let null = choices.one_in(8);
        row.push((!null).then(|| random_cell(choices, *ty, extreme)));
    }
    row
}

fn random_cell(choices: &mut Choices, ty: Ty, extreme: bool) -> String {
    let extreme = extreme && choices.one_in(10);
    let one = |choices: &mut Choices, from: &[&str]| choices.pick(from).to_owned();
    match ty {
        Ty::Int if extreme => one(choices, &["2147483647", "-2147483648"]),
        Ty::Big if extreme => one(choices, &["9223372036854775807", "-9223372036854775808"]),
        Ty::Int | Ty::Big => choices.pick(&[1, 0, 2, 3, -1, 4, 5, -2, -3]).to_string(),
        Ty::Numeric if extreme => one(choices, &["9999999999.99", "-9999999999.99"]),
        Ty::Numeric => {
            let cents = choices.pick(&["00", "50", "25", "01", "99"]);
            format!("{}{}.{cents}", if choices.one_in(3) { "-" } else { "" }, choices.below(12))
        }
        Ty::Double if extreme => one(choices, &["NaN", "Infinity", "-Infinity"]),
        Ty::Double => one(choices, &["0", "1.5", "-2.25", "-0", "1000.75", "0.25", "3"]),
        Ty::Bool => one(choices, &["false", "true"]),
        Ty::Date if extreme => one(choices, &["0001-01-01", "9999-12-31"]),
        Ty::Date => format!("2026-01-0{}", 1 + choices.below(5)),
        Ty::Timestamp => {
            let (day, hour) = (1 + choices.below(4), choices.below(24));
            let rest = choices.pick(&["00:00", "30:00", "59:59.999999", "00:00.000001"]);
            format!("2026-01-0{day} {hour:02}:{rest}")
        }
        Ty::Text if extreme => "\u{1f980} \u{e9}\u{4e2d}".repeat(20),
        Ty::Text => one(choices, &["a", "", "b", "Pune", "a b", "x%y", "it's", "a,b,c", "\u{e9}"]),
        Ty::Json => {
            let documents = [
                r#"{"n": 1, "k": "x", "l": [1, 2, 3]}"#,
                r#"{"n": 2, "k": "y", "l": []}"#,
                r#"{"n": null, "o": {"p": "q"}}"#,
                r#"{"k": "", "l": ["a", null], "n": 10}"#,
                "{}",
            ];
            one(choices, &documents)
        }
    }
}
