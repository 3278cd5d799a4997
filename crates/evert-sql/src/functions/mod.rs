//! Functions that Evert adds to DataFusion's or has of its own kind.

mod arithmetic;
mod catalog;
mod exact;
mod sums;

pub(crate) use arithmetic::CheckedArithmetic;
pub(crate) use catalog::{SERVER_VERSION, SessionFacts, catalog_functions};
pub(crate) use sums::{AVG, SUM, aggregate_functions};
