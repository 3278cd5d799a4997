//! The SQL door: Postgres's frontend/backend protocol 3.0, as psql and drivers speak it.
//!
//! Owns: sockets, framing, the simple and extended protocol, portals, cancel requests, and the
//! outward form of values.
//! Not here: what a statement means. That is a [`Session`]'s, behind a trait, with Arrow in and
//! out.
//!
//! A message's way: `wire` reads bytes, `frontend` cuts and reads them, `client` acts on them
//! with `decode` for parameters and `encode` for rows, `reply` writes the answer.
//!
//! Invariants
//! - Answers leave in the order of a connection's messages. After an error in an extended message
//!   everything up to the next Sync is skipped.
//! - Nothing a client sends can panic the server, and no length is believed before its bytes are
//!   there. (`pgwire`'s reader indexes past the end of a short body, which is why the messages are
//!   read here.)
//! - A result is never held whole: rows go out as they are computed, and a client that does not
//!   read them holds up only itself.
//!
//! Not supported: TLS (SSLRequest is answered `N`), passwords (a door on loopback trusts its
//! clients), COPY in binary, the function-call message. The statements of one simple query each
//! commit on their own; the first error ends the query.

mod backend;
mod cancel;
mod client;
mod connection;
mod copy;
mod datetime;
mod decode;
mod door;
mod encode;
mod frontend;
mod numeric;
mod portal;
mod reply;
mod startup;
mod statement;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod types;
mod wire;

pub use backend::{
    Backend, CancelHandle, CopyFile, CopyForm, Description, Response, Session, SqlError, Statement,
    TransactionStatus,
};
pub use door::{PgConfig, PgDoor};
