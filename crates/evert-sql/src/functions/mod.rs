//! Functions that Evert adds to DataFusion's or has of its own kind.

mod arithmetic;
mod catalog;
mod exact;
mod extremes;
mod sums;

pub(crate) use arithmetic::CheckedArithmetic;
pub(crate) use catalog::{SERVER_VERSION, SessionFacts, catalog_functions};
pub(crate) use sums::{AVG, SUM};

use std::sync::Arc;

use datafusion::logical_expr::AggregateUDF;

/// Evert's own aggregates, which take the place of DataFusion's.
pub(crate) fn aggregate_functions() -> impl Iterator<Item = &'static Arc<AggregateUDF>> {
    sums::functions().iter().chain(extremes::functions())
}
