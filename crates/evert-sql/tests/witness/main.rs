//! The witness: views against answers that others compute.
//!
//! `differential`: random views over random facts against Postgres.

mod case;
mod choices;
mod differential;
mod folded;
mod grammar;
mod postgres;
mod rows;
mod world;
