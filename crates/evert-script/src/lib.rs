//! Custom folds: the rows of a group, in order, through three functions written in JavaScript.
//!
//! Owns: the engine and what it may do (`realm`, `meter`), how rows become JavaScript's values and
//! back (`input`, `output`), and one group's evaluation (`worker`).
//! Not here: SQL, groups, orders, retractions. Whoever calls hands over a group's rows in order.
//!
//! Invariants
//! - The outcome, an error too, depends on the code and the rows: not on what a thread evaluated
//!   before, not on the clock, the machine's time zone or its language.
//!   What the clock stops has no outcome: it fails whoever asked, never the group alone.
//! - No code can stop the process or hold it: steps, memory, stack and, where those say nothing of
//!   the work, time are bounded.

mod driver;
mod input;
mod meter;
mod output;
mod realm;
mod script;
mod worker;

pub use script::{Definition, Failure, Script, ScriptError};

#[cfg(test)]
mod tests;
