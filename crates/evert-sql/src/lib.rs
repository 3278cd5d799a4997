//! SQL text to statements, plans and rows.
//!
//! Owns: the dialect, what each statement does, plans of views, ad-hoc reads over snapshots and
//! the system relations. All of DataFusion's planner and execution lives here.
//! Not here: sockets and wire formats (`evert-door`), how views are kept (`evert-view`).
//!
//! Invariants
//! - All relations of a statement, and of a transaction, are read at one position.
//! - A session reads its own writes.
//! - What an ad-hoc read computes, a view of the same SELECT holds.

mod archive;
mod batch;
mod casts;
mod command;
mod context;
mod copy;
mod ddl;
mod depth;
mod direct;
mod dml;
mod engine;
mod error;
mod flights;
mod functions;
mod guard;
mod names;
mod origins;
mod outlets;
mod output_names;
mod overlay;
mod parse;
mod point;
mod query;
mod rephrase;
mod response;
mod rules;
mod scan;
mod schemas;
mod search;
mod session;
mod settings;
mod source;
mod statement;
mod system;
mod text;
mod time_windows;
mod times;
mod transaction;
mod translate;
mod types;
mod unsorted;
mod view;
mod wording;

pub use archive::{ArchiveRows, ArchiveSource};
pub use batch::evaluate_batch;
pub use copy::{CopyFile, CopyForm, ForceQuote};
pub use engine::{Engine, EngineConfig};
pub use error::SqlError;
pub use response::Response;
pub use search::SearchSource;
pub use session::{CancelHandle, Session, TransactionStatus};
pub use source::{NewSource, NoSources, SourceControl, SourceRow};
pub use statement::{Description, Statement};
pub use view::SqlPlanner;
