//! Decoded payments and merchants, the same from the same seed.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringViewArray};
use evert_model::{Column, ColumnType, RowSchema, TopicId};
use evert_view::{Catalog, Format, Lengths, Name, NewRelation, Relation, RelationKind, Views};

/// Rows of a batch, as the follower decodes them.
pub(super) const BATCH_ROWS: usize = 8192;
pub(super) const MERCHANTS: i64 = 10_000;
/// Keys of the state that ticks of 100 rows meet.
pub(super) const PAYMENTS: i64 = 1_000_000;

const CITIES: [&str; 6] = ["Bengaluru", "Mumbai", "Delhi", "Chennai", "Pune", "Kolkata"];
const STATUSES: [&str; 4] = ["captured", "captured", "failed", "refunded"];

/// The relations that views are planned over.
pub(super) fn catalog() -> Catalog {
    let text = ColumnType::Text;
    let payments = [
        ("payment_id", ColumnType::Int64),
        ("merchant_id", ColumnType::Int64),
        ("amount", ColumnType::Decimal { precision: 12, scale: 2 }),
        ("status", text),
    ];
    let merchants = [("merchant_id", ColumnType::Int64), ("city", text)];
    let relations = [relation("payments", &payments), relation("merchants", &merchants)];
    let relations: BTreeMap<Name, Arc<Relation>> =
        relations.into_iter().map(|relation| (relation.name.clone(), Arc::new(relation))).collect();
    Catalog { relations, ..Catalog::default() }
}

/// One of them, to be made in a server.
pub(super) fn new_relation(relation: &Relation) -> NewRelation {
    NewRelation {
        name: relation.name.clone(),
        kind: relation.kind,
        schema: relation.schema.clone(),
        topic: None,
        partitions: 1,
        topic_config: BTreeMap::new(),
        format: relation.format,
        conflict_is_error: false,
        lengths: Lengths::new(),
        defaults: Default::default(),
        source: None,
    }
}

fn relation(name: &str, columns: &[(&str, ColumnType)]) -> Relation {
    let columns =
        columns.iter().map(|&(name, ty)| Column { name: name.to_owned(), ty, nullable: false });
    Relation {
        name: Name::public(name),
        kind: RelationKind::Table,
        schema: RowSchema { columns: columns.collect(), key: vec![0] },
        topic: name.to_owned(),
        topic_id: TopicId::new(uuid::Uuid::nil()),
        format: Format::Json,
        conflict_is_error: false,
        lengths: Lengths::new(),
        defaults: Default::default(),
        source: None,
        started_from: None,
    }
}

/// Makes the table of payments on a server.
pub(super) fn create(views: &Views, catalog: &Catalog) -> Result<Arc<Relation>> {
    create_as(views, catalog, "payments", RelationKind::Table)
}

/// Makes one of them on a server, as a table or as a stream.
pub(super) fn create_as(
    views: &Views,
    catalog: &Catalog,
    name: &str,
    kind: RelationKind,
) -> Result<Arc<Relation>> {
    let mut new = new_relation(&catalog.relations[&Name::public(name)]);
    new.kind = kind;
    if kind == RelationKind::Stream {
        new.schema.key.clear();
    }
    let name = new.name.clone();
    views.create_relation(new)?;
    views.catalog().relations.get(&name).cloned().context("the relation was made")
}

/// Makes payments.
pub(super) struct Payments {
    random: fastrand::Rng,
    next_id: i64,
    schema: RowSchema,
}

/// Which payments a batch is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ids {
    /// New ones.
    New,
    /// Any of the first million.
    Known,
    /// Any of the first so many.
    Among(i64),
}

impl Payments {
    pub(super) fn new(catalog: &Catalog) -> Self {
        let schema = catalog.relations[&Name::public("payments")].schema.clone();
        Self { random: fastrand::Rng::with_seed(7), next_id: 0, schema }
    }

    pub(super) fn batch(&mut self, rows: usize, ids: Ids) -> RecordBatch {
        let random = &mut self.random;
        let ids: Int64Array = match ids {
            Ids::New => (self.next_id..self.next_id + rows as i64).collect(),
            Ids::Known => (0..rows).map(|_| random.i64(0..PAYMENTS)).collect(),
            Ids::Among(count) => (0..rows).map(|_| random.i64(0..count)).collect(),
        };
        self.next_id += rows as i64;
        let merchants: Int64Array = (0..rows).map(|_| random.i64(0..MERCHANTS)).collect();
        let amounts: Decimal128Array = (0..rows).map(|_| random.i128(100..1_000_000)).collect();
        let amounts = amounts.with_precision_and_scale(12, 2).expect("a legal scale");
        let statuses: StringViewArray = (0..rows).map(|_| random.choice(STATUSES)).collect();
        let columns: Vec<ArrayRef> =
            vec![Arc::new(ids), Arc::new(merchants), Arc::new(amounts), Arc::new(statuses)];
        RecordBatch::try_new(self.schema.to_arrow(), columns).expect("the columns fit")
    }

    pub(super) fn batches(&mut self, rows: usize, ids: Ids) -> Vec<RecordBatch> {
        (0..rows.div_ceil(BATCH_ROWS)).map(|_| self.batch(BATCH_ROWS, ids)).collect()
    }
}

/// All merchants.
pub(super) fn merchants(catalog: &Catalog) -> RecordBatch {
    let schema = catalog.relations[&Name::public("merchants")].schema.to_arrow();
    let ids: Int64Array = (0..MERCHANTS).collect();
    let cities: StringViewArray =
        (0..MERCHANTS).map(|id| Some(CITIES[id as usize % CITIES.len()])).collect();
    RecordBatch::try_new(schema, vec![Arc::new(ids), Arc::new(cities)]).expect("the columns fit")
}
