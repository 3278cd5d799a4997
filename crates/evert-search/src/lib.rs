//! Search: full-text indexes folded from the log.
//!
//! Owns: what an index holds of a relation's rows, Elasticsearch's queries and answers over it,
//! and how an index follows the log.
//! Not here: sockets and HTTP (`evert-door`), SQL's function `search` (`evert-sql`), threads and
//! states of indexes (`evert-view`'s outlets).
//!
//! Invariants
//! - An index is a cache: its directory may be deleted or damaged, and comes back by replay.
//! - What is searched is the fold of the log up to one position, stored in the same commit.
//! - Whatever a client asks for is bounded: depth, clauses, hits, buckets.

mod aggs;
mod analyzer;
mod api;
mod bare;
mod cat;
mod dates;
mod document;
mod error;
mod filter_path;
#[cfg(test)]
mod fixture;
mod glob;
mod highlight;
mod index;
mod known;
mod mapping;
mod outlet;
mod params;
mod query;
mod registry;
mod request;
mod rows;
mod search;
mod sort;
mod source;

pub use api::{Answer, Call, Operation};
pub use bare::{BareDocuments, BareIndex, BareSearcher};
pub use error::EsError;
pub use outlet::{SearchConfig, SearchFactory};
pub use registry::SearchIndexes;
pub use rows::FoundRows;
