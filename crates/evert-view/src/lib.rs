//! Views of the log.
//!
//! Owns: the catalog, the follower that folds the log into relations and views, the snapshots
//! that readers pin, the errors view.
//! Not here: SQL text (`evert-sql` plans it, behind [`Planner`]), operators (`evert-fold`).
//!
//! Invariants
//! - A cut at position P is the fold of the log up to P, whatever the ticks, the hydrations and
//!   the restarts on the way.
//! - No read is answered below the log's end at the start.
//! - A record that cannot be read is a row of `evert.errors`; it stops nothing.

mod builds;
mod calendar;
mod catalog;
mod changelog;
mod checkpoint;
mod cohort;
mod company;
mod decode;
mod difference;
mod encode;
mod errors;
mod face;
mod facts;
mod follower;
mod group;
mod helm;
mod history;
mod hydrate;
mod lane;
mod lengths;
mod lifecycle;
mod live_view;
mod look;
mod merges;
mod name;
mod outlet;
mod pace;
mod pass;
mod past;
mod pin;
mod planner;
mod postgres_text;
mod progress;
mod reader;
mod relation;
mod scan;
mod shared;
mod sources;
mod start;
mod status;
mod subscribe;
mod tap;
mod verify;
mod views;
mod widen;

pub use calendar::{date_of_day, day_of_date};
pub use catalog::{
    Catalog, CatalogError, Defaults, Format, IndexDef, NewRelation, Pause, PlanError, Relation,
    RelationKind, SourceDef, StartedFrom, ViewDef, ViewOptions,
};
pub use checkpoint::{CheckpointConfig, PlantedCheckpointFaults};
pub use cohort::Cut;
pub use decode::{KeyWriter, RowParser};
pub use difference::{Difference, RowDifference};
pub use encode::{RowChange, RowWriter, partition_of, write_text};
pub use errors::errors_schema;
pub use evert_fold::{RowRef, Snapshot, key_bytes};
pub use facts::{FACT_COLUMNS, Facts, FactsBatch, facts_schema};
pub use lengths::{Lengths, TextLength};
pub use merges::begin as merge_beside_ticks;
pub use name::Name;
pub use outlet::{
    Outlet, OutletContext, OutletDef, OutletError, OutletFactory, OutletKind, OutletVerdict,
    Standing, is_secret, without_secrets,
};
pub use past::{PastError, PastFolds};
pub use pin::PinError;
pub use planner::{PlannedView, Planner};
pub use postgres_text::{
    write_clock, write_postgres_date, write_postgres_float, write_postgres_text,
    write_postgres_timestamp,
};
pub use progress::{Stage, StageProgress};
pub use scan::StreamScan;
pub use sources::SourceState;
pub use status::{ViewState, ViewStatus};
pub use subscribe::{Changes, SubscribeFrom, Subscription};
pub use verify::VerifyReport;
pub use views::{IsolationConfig, Views, ViewsConfig, errors_name};

/// Of what relations and views keep in checkpoints: state of another version is not read.
const STATE_FORMAT: &str = concat!(env!("CARGO_PKG_VERSION"), "/1");
