//! The SQL door (API draft).
#![allow(missing_docs)]

mod backend;

pub use backend::{
    Backend, CancelHandle, Description, Response, Session, SqlError, Statement, TransactionStatus,
};
