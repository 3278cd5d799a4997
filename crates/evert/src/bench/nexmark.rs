//! Nexmark: its queries as views over its own events, decoded, each on one thread.
//!
//! The queries are those that the witness compares with a batch answer
//! (`crates/evert-sql/tests/nexmark`). Beside some of them stands what Feldera has published for
//! one core.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use arrow::array::{
    ArrayRef, Int64Builder, RecordBatch, StringViewBuilder, TimestampMicrosecondBuilder,
};
use evert_fold::{Arrangement, Dataflow};
use evert_model::{Column, ColumnType, Delta, LogTime, RowSchema, TopicId};
use evert_sql::SqlPlanner;
use evert_view::{Catalog, Format, Lengths, Name, Planner, Relation, RelationKind};
use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::Event;

use super::Bench;
use super::report::{Durability, Outcome, Report};
use super::views::reference;

/// Events folded in one tick, as by a follower that is behind.
const TICK_EVENTS: usize = 65_536;
const SIDE_INPUT_ROWS: i64 = 10_000;
/// 2026-01-02 09:59:50, ten seconds before an hour begins.
const BASE_TIME_MS: u64 = 1_767_347_990_000;

macro_rules! query {
    ($name:literal) => {
        query!($name, None)
    };
    ($name:literal, $feldera:expr) => {
        ($name, include_str!(concat!("../../../evert-sql/tests/nexmark/", $name, ".sql")), $feldera)
    };
}

/// Names, texts, and thousands of events a second that Feldera has published for one core.
const QUERIES: [(&str, &str, Option<u32>); 22] = [
    query!("q0", Some(436)),
    query!("q1"),
    query!("q2"),
    query!("q3"),
    query!("q4", Some(265)),
    query!("q5", Some(412)),
    query!("q6"),
    query!("q7", Some(196)),
    query!("q8"),
    query!("q9", Some(57)),
    query!("q10"),
    query!("q11"),
    query!("q13"),
    query!("q14"),
    query!("q15"),
    query!("q16", Some(51)),
    query!("q17"),
    query!("q18"),
    query!("q19"),
    query!("q20", Some(84)),
    query!("q21"),
    query!("q22"),
];

const INT: ColumnType = ColumnType::Int64;
const TEXT: ColumnType = ColumnType::Text;
const TIME: ColumnType = ColumnType::Timestamp;

const PERSON: &[(&str, ColumnType)] = &[
    ("id", INT),
    ("name", TEXT),
    ("email_address", TEXT),
    ("credit_card", TEXT),
    ("city", TEXT),
    ("state", TEXT),
    ("date_time", TIME),
    ("extra", TEXT),
];
const AUCTION: &[(&str, ColumnType)] = &[
    ("id", INT),
    ("item_name", TEXT),
    ("description", TEXT),
    ("initial_bid", INT),
    ("reserve", INT),
    ("date_time", TIME),
    ("expires", TIME),
    ("seller", INT),
    ("category", INT),
    ("extra", TEXT),
];
const BID: &[(&str, ColumnType)] = &[
    ("auction", INT),
    ("bidder", INT),
    ("price", INT),
    ("channel", TEXT),
    ("url", TEXT),
    ("date_time", TIME),
    ("extra", TEXT),
];
const SIDE_INPUT: &[(&str, ColumnType)] = &[("key", INT), ("value", TEXT)];
const SOURCES: [(&str, &[(&str, ColumnType)]); 4] =
    [("person", PERSON), ("auction", AUCTION), ("bid", BID), ("side_input", SIDE_INPUT)];

pub(super) fn items(bench: &Bench, report: &mut Report) -> Result<()> {
    let events = bench.records(1_000_000);
    bench.begin("making Nexmark's events");
    let (ticks, side) = (ticks(events), side_input());
    let catalog = Arc::new(catalog());
    let batches = |source: usize| match source {
        3 => vec![side.clone()],
        _ => ticks.iter().map(|tick| tick[source].clone()).collect(),
    };
    let named = SOURCES.iter().enumerate();
    let tables = named.map(|(source, (name, _))| (Name::public(*name), batches(source))).collect();
    for (name, sql, feldera) in QUERIES {
        let published = feldera.map(|thousands| format!(" (Feldera: {thousands}k)"));
        let title = format!("nexmark {name}{}", published.unwrap_or_default());
        report.item(bench, &title, Durability::Memory, true, || {
            let mut view = View::new(sql)?;
            view.tick(&[(3, &side)]);
            let start = Instant::now();
            for tick in &ticks {
                let rows: Vec<_> = tick.iter().enumerate().collect();
                view.tick(&rows);
            }
            let outcome = Outcome::since(start, events);
            ensure!(!view.published.is_empty(), "{name} shows nothing");
            Ok(outcome)
        })?;
        let name = format!("nexmark {name}");
        reference(bench, report, (&name, events), (sql, &catalog, &tables))?;
    }
    Ok(())
}

fn schema(columns: &[(&str, ColumnType)], key: Vec<usize>) -> RowSchema {
    let columns =
        columns.iter().map(|&(name, ty)| Column { name: name.to_owned(), ty, nullable: true });
    RowSchema { columns: columns.collect(), key }
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    for (name, columns) in SOURCES {
        let table = name == "side_input";
        let relation = Relation {
            name: Name::public(name),
            kind: if table { RelationKind::Table } else { RelationKind::Stream },
            schema: schema(columns, if table { vec![0] } else { Vec::new() }),
            topic: name.to_owned(),
            topic_id: TopicId::new(uuid::Uuid::nil()),
            format: Format::Json,
            conflict_is_error: false,
            lengths: Lengths::new(),
            defaults: Default::default(),
            source: None,
            started_from: None,
        };
        catalog.relations.insert(relation.name.clone(), Arc::new(relation));
    }
    catalog
}

/// A view and what it publishes.
struct View {
    dataflow: Dataflow,
    published: Arrangement,
    /// For each source, which of the plan's inputs it is.
    places: [Option<usize>; SOURCES.len()],
    inputs: usize,
}

impl View {
    fn new(sql: &str) -> Result<Self> {
        let planned = SqlPlanner::new().plan_view(sql, &catalog())?;
        let rows = planned.plan.output_schema()?;
        let published = match &planned.plan.key {
            Some(key) => Arrangement::keyed(rows, key.clone()),
            None => Arrangement::bag(rows),
        };
        let place = |name| planned.inputs.iter().position(|input| *input == Name::public(name));
        let places = SOURCES.map(|(name, _)| place(name));
        let inputs = planned.inputs.len();
        Ok(Self { dataflow: Dataflow::new(planned.plan)?, published, places, inputs })
    }

    /// Folds rows of sources, by their number, and publishes what comes of them.
    fn tick(&mut self, rows: &[(usize, &RecordBatch)]) {
        let mut deltas = vec![Vec::new(); self.inputs];
        for (source, rows) in rows {
            if let Some(place) = self.places[*source] {
                deltas[place].push(Delta::inserts((*rows).clone()));
            }
        }
        let output = self.dataflow.tick(LogTime::default(), &deltas);
        self.published.apply(&output.changes);
        std::hint::black_box(self.published.snapshot());
    }
}

/// A source's rows while they are made, column by column.
struct Rows {
    schema: RowSchema,
    columns: Vec<Cells>,
}

enum Cells {
    Int(Int64Builder),
    Text(StringViewBuilder),
    Time(TimestampMicrosecondBuilder),
}

/// One value for a [`Rows`].
enum Cell {
    Int(usize),
    Text(String),
    TimeMs(u64),
}

impl Rows {
    fn new(columns: &[(&str, ColumnType)]) -> Self {
        let cells = columns.iter().map(|(_, ty)| match ty {
            ColumnType::Int64 => Cells::Int(Int64Builder::new()),
            ColumnType::Timestamp => Cells::Time(TimestampMicrosecondBuilder::new()),
            _ => Cells::Text(StringViewBuilder::new()),
        });
        Self { columns: cells.collect(), schema: schema(columns, Vec::new()) }
    }

    fn push(&mut self, row: impl IntoIterator<Item = Cell>) {
        for (cells, cell) in self.columns.iter_mut().zip(row) {
            match (cells, cell) {
                (Cells::Int(cells), Cell::Int(value)) => cells.append_value(value as i64),
                (Cells::Text(cells), Cell::Text(value)) => cells.append_value(value),
                (Cells::Time(cells), Cell::TimeMs(value)) => {
                    cells.append_value(value as i64 * 1000);
                }
                _ => unreachable!("events have their source's columns"),
            }
        }
    }

    fn finish(&mut self) -> RecordBatch {
        let columns = self.columns.iter_mut().map(|cells| -> ArrayRef {
            match cells {
                Cells::Int(cells) => Arc::new(cells.finish()),
                Cells::Text(cells) => Arc::new(cells.finish()),
                Cells::Time(cells) => Arc::new(cells.finish()),
            }
        });
        RecordBatch::try_new(self.schema.to_arrow(), columns.collect()).expect("columns that fit")
    }
}

/// Persons, auctions and bids of each tick.
fn ticks(events: usize) -> Vec<[RecordBatch; 3]> {
    let config = NexmarkConfig { base_time: BASE_TIME_MS, ..NexmarkConfig::default() };
    let mut generator = EventGenerator::new(config).take(events).peekable();
    let mut ticks = Vec::new();
    while generator.peek().is_some() {
        let mut rows = [PERSON, AUCTION, BID].map(Rows::new);
        for event in generator.by_ref().take(TICK_EVENTS) {
            push(&mut rows, event);
        }
        ticks.push(rows.each_mut().map(Rows::finish));
    }
    ticks
}

fn push([people, auctions, bids]: &mut [Rows; 3], event: Event) {
    use Cell::{Int, Text, TimeMs};
    match event {
        Event::Person(p) => people.push([
            Int(p.id),
            Text(p.name),
            Text(p.email_address),
            Text(p.credit_card),
            Text(p.city),
            Text(p.state),
            TimeMs(p.date_time),
            Text(p.extra),
        ]),
        Event::Auction(a) => auctions.push([
            Int(a.id),
            Text(a.item_name),
            Text(a.description),
            Int(a.initial_bid),
            Int(a.reserve),
            TimeMs(a.date_time),
            TimeMs(a.expires),
            Int(a.seller),
            Int(a.category),
            Text(a.extra),
        ]),
        Event::Bid(b) => bids.push([
            Int(b.auction),
            Int(b.bidder),
            Int(b.price),
            Text(b.channel),
            Text(b.url),
            TimeMs(b.date_time),
            Text(b.extra),
        ]),
    }
}

/// What q13 joins bids with.
fn side_input() -> RecordBatch {
    let mut rows = Rows::new(SIDE_INPUT);
    for key in 0..SIDE_INPUT_ROWS {
        rows.push([Cell::Int(key as usize), Cell::Text(format!("value {key}"))]);
    }
    rows.finish()
}
