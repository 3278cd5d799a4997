//! Incremental operators over deltas.
//!
//! Owns: the plan that views are made of, the operators that run it, their state, and the rows
//! they publish.
//! Not here: SQL text (`evert-sql`), the log and its ticks (`evert-view`), any clock, any
//! randomness that shows.
//!
//! Invariants
//! - What is published after the same facts is the same, however they were cut into ticks and
//!   batches.
//! - A row that cannot be evaluated is reported and left out; it stops nothing.
//! - Sums are exact: neither order nor retraction shows in them.

mod arrangement;
mod background;
mod consolidate;
mod dataflow;
mod exact;
mod join;
mod journal;
pub mod key_bytes;
mod key_index;
mod keys;
mod matches;
mod multiset;
mod ordered_rows;
mod packed;
mod plan;
mod project;
mod recursion;
mod reduce;
mod row_text;
mod rows;
mod session;
mod set_op;
mod sets;
mod slots;
mod state;
mod temporal;
mod topk;
mod unnest;
mod unsaved;
mod upsert;
mod window;

pub use arrangement::{Arrangement, BagInput, RowRef, Snapshot};
pub use background::{Work, lend_threads};
pub use consolidate::net_change;
pub use dataflow::{Dataflow, RowError, TickOutput};
pub use exact::{ExactFloatSum, ExactIntegerSum, ExactMoments, OutOfRange};
pub use plan::{
    Aggregate, AggregateFunction, FoldError, GeneralAggregate, JoinKind, Node, NodeId, Plan, SetOp,
    SortKey, Spread, column,
};
pub use state::{OperatorState, StateError, StateSink};
pub use upsert::{Upsert, UpsertBatch};
