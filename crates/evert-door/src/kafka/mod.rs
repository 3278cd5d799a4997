//! The Kafka door: producers, consumers and their groups, as Apache Kafka's clients expect.
//!
//! Owns: the protocol, consumer groups, and the answers a client gets.
//! Not here: order, durability, sequences, retention: the log's. Views: nothing here knows
//! them, but for the question whether a relation stands on a topic.
//!
//! A request's way: `connection` reads bytes, `frame` cuts them, `shape` and `wire` turn a frame
//! into a typed request, `broker` hands it to its handler, `wire` writes the response.
//!
//! Invariants
//! - Responses leave in the order of a connection's requests.
//! - A request is acknowledged only when what it wrote is durable.
//! - What a client sends ends in an answer or in a closed connection, never in a panic, and
//!   reserves no more memory than what it sent deserves.

mod broker;
mod cluster;
mod configs;
mod connection;
mod door;
mod epoch;
mod error;
mod fetch;
mod frame;
mod groups;
mod list_offsets;
mod produce;
mod producer_id;
mod shape;
mod topics;
mod wire;

pub use door::{KafkaConfig, KafkaDoor, OpenError, TopicUse};
