//! The Kafka door over real sockets, spoken to byte by byte.

#![allow(missing_docs, unreachable_pub)]

mod client;
mod connections;
mod data;
mod groups;
mod requests;
mod topics;
mod versions;
