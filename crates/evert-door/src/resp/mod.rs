//! The key-value door: Redis's protocol, RESP2 and RESP3, over every relation and view with a key.
//!
//! Owns: sockets, framing, commands, keyspace notifications, and how rows are keys and hashes.
//! Not here: the rows (`evert-view`), values in text (`pg::text`).
//!
//! A command's way: `connection` reads bytes, `request` cuts them into commands, `client` looks
//! them up in `commands`, and what reads rows (`hash`, `json`, `keyspace`) finds them by way of
//! `reader` and `layout`; `reply` writes the answer. What changes goes from `feeds` to `outbox`.
//!
//! Invariants
//! - Nothing can be written here: facts go into the log.
//! - Commands that arrive together, and those of a transaction, are answered from one cut.
//! - Nothing a client sends can panic the server, and no length is believed before its bytes are
//!   there.
//!
//! Not supported: TLS and passwords (a door on loopback trusts its clients), clusters, scripts,
//! WATCH, tracking.

mod admin;
mod client;
mod commands;
mod connection;
mod cursors;
mod door;
mod feeds;
mod glob;
mod hash;
mod json;
mod key;
mod keyspace;
mod layout;
mod outbox;
mod pubsub;
mod reader;
mod registry;
mod reply;
mod request;

pub use door::{RespConfig, RespDoor};
pub(crate) use layout::Layout;
