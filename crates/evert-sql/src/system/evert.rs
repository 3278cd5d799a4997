//! `evert.*`: views, relations, topics, partitions and sources.

use evert_model::PartitionId;
use evert_view::{RelationKind, ViewState};

use super::SystemTable;
use super::rows::{Builder, Kind::BigInt, Kind::Bool, Kind::Int, Kind::Text};
use crate::engine::Inner;
use crate::outlets;

pub(super) const TABLES: &[SystemTable] = &[
    SystemTable {
        schema: "evert",
        name: "views",
        columns: &[
            ("name", Text),
            ("kind", Text),
            ("state", Text),
            ("stage", Text),
            ("percent", Int),
            ("rate", BigInt),
            ("eta_ms", BigInt),
            ("position", BigInt),
            ("lag_records", BigInt),
            ("lag_ms", BigInt),
            ("rows", BigInt),
            ("memory_bytes", BigInt),
            ("definition", Text),
        ],
        fill: views,
    },
    SystemTable {
        schema: "evert",
        name: "view_state",
        columns: &[
            ("view", Text),
            ("operator_id", BigInt),
            ("operator", Text),
            ("rows", BigInt),
            ("bytes", BigInt),
        ],
        fill: view_state,
    },
    SystemTable {
        schema: "evert",
        name: "spilled",
        columns: &[("bytes", BigInt), ("disk_bytes", BigInt), ("refused_bytes", BigInt)],
        fill: spilled,
    },
    SystemTable {
        schema: "evert",
        name: "relations",
        columns: &[
            ("name", Text),
            ("kind", Text),
            ("topic", Text),
            ("format", Text),
            ("source", Text),
        ],
        fill: relations,
    },
    SystemTable {
        schema: "evert",
        name: "topics",
        columns: &[
            ("name", Text),
            ("id", Text),
            ("partitions", Int),
            ("records", BigInt),
            ("internal", Bool),
            ("relation", Text),
            ("created_at", BigInt),
            ("config", Text),
        ],
        fill: topics,
    },
    SystemTable {
        schema: "evert",
        name: "partitions",
        columns: &[
            ("topic", Text),
            ("partition", Int),
            ("log_start", BigInt),
            ("high_watermark", BigInt),
        ],
        fill: partitions,
    },
    SystemTable {
        schema: "evert",
        name: "sources",
        columns: &[
            ("name", Text),
            ("state", Text),
            ("detail", Text),
            ("url", Text),
            ("publication", Text),
            ("slot", Text),
            ("tables", Text),
            ("lsn", Text),
            ("position", BigInt),
            ("retained_wal_bytes", BigInt),
            ("lag_ms", BigInt),
        ],
        fill: sources,
    },
];

fn views(engine: &Inner, rows: &mut Builder) {
    let catalog = engine.views.catalog();
    for view in engine.views.status() {
        let state = match &view.state {
            ViewState::Live => "live".to_owned(),
            other => other.to_string(),
        };
        let progress = view.progress;
        let outlet = catalog.outlets.get(&view.name).map(|def| outlets::definition(def));
        let definition = catalog.views.get(&view.name).map(|def| def.sql.clone()).or(outlet);
        rows.push(vec![
            view.name.to_string().into(),
            view.outlet.map_or("table", |kind| kind.word()).into(),
            state.into(),
            progress.map(|progress| progress.stage.to_string()).into(),
            progress.map(|progress| i32::from(progress.percent)).into(),
            progress.and_then(|progress| progress.rate).into(),
            progress.and_then(|progress| progress.eta).map(|eta| eta.as_millis() as u64).into(),
            view.position.get().into(),
            view.lag_records.into(),
            view.lag_ms.into(),
            view.rows.into(),
            view.memory_bytes.into(),
            definition.into(),
        ]);
    }
}

/// What each relation and view holds in memory, as last measured.
fn view_state(engine: &Inner, rows: &mut Builder) {
    let catalog = engine.views.catalog();
    for name in catalog.relations.keys().chain(catalog.views.keys()) {
        for held in engine.views.state_of(name) {
            rows.push(vec![
                name.to_string().into(),
                held.node.into(),
                held.operator.to_owned().into(),
                held.rows.into(),
                held.bytes.into(),
            ]);
        }
    }
}

/// What of all state lies beyond the memory budget: one row.
fn spilled(engine: &Inner, rows: &mut Builder) {
    let spilled = engine.views.spilled();
    rows.push(vec![spilled.bytes.into(), spilled.disk_bytes.into(), spilled.refused_bytes.into()]);
}

fn relations(engine: &Inner, rows: &mut Builder) {
    let catalog = engine.views.catalog();
    for relation in catalog.named_relations() {
        let kind = match relation.kind {
            RelationKind::Stream => "stream",
            RelationKind::Table => "table",
            RelationKind::Bag => "bag",
        };
        let format = match relation.format {
            evert_view::Format::Json => "json",
            evert_view::Format::Debezium => "debezium",
        };
        rows.push(vec![
            relation.name.to_string().into(),
            kind.into(),
            relation.topic.clone().into(),
            format.into(),
            relation.source.clone().into(),
        ]);
    }
}

fn topics(engine: &Inner, rows: &mut Builder) {
    let catalog = engine.views.catalog();
    for topic in engine.log.topics() {
        let records = engine.records_in(&topic);
        let relation = catalog.named_relations().find(|relation| relation.topic_id == topic.id);
        let config: Vec<_> =
            topic.config.iter().map(|(key, value)| format!("{key}={value}")).collect();
        rows.push(vec![
            topic.name.clone().into(),
            topic.id.to_string().into(),
            topic.partitions.into(),
            records.into(),
            topic.name.starts_with("__").into(),
            relation.map(|relation| relation.name.to_string()).into(),
            topic.created_at.get().into(),
            config.join(",").into(),
        ]);
    }
}

fn partitions(engine: &Inner, rows: &mut Builder) {
    for topic in engine.log.topics() {
        for partition in 0..topic.partitions {
            let ends = engine.log.partition_ends(topic.id, PartitionId::new(partition));
            let Ok(ends) = ends else { continue };
            rows.push(vec![
                topic.name.clone().into(),
                partition.into(),
                ends.log_start.get().into(),
                ends.high_watermark.get().into(),
            ]);
        }
    }
}

fn sources(engine: &Inner, rows: &mut Builder) {
    for source in engine.sources.status() {
        rows.push(vec![
            source.name.into(),
            source.state.into(),
            source.detail.into(),
            source.url.into(),
            source.publication.into(),
            source.slot.into(),
            source.tables.join(",").into(),
            source.lsn.map(evert_model::Lsn::to_postgres).into(),
            source.position.map(evert_model::Position::get).into(),
            source.retained_wal_bytes.into(),
            source.lag_ms.into(),
        ]);
    }
}
