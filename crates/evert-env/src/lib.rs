//! The world as Evert sees it: files, clock and randomness.
//!
//! Owns: the traits through which everything durable and everything non-deterministic is
//! reached, the real world behind them ([`Env::real`]), and a simulated one that tears, loses
//! and fails ([`Env::simulated`]).
//! Not here: what is written into the files.

mod forgetful;
mod priority;
mod real;
mod sim;
pub mod spill;
mod wanted;
mod world;

pub use forgetful::Forgets;
pub use priority::give_way;
pub use sim::{Call, Mishap, SimWorld};
pub use wanted::{WorksUnless, is_unwanted, works_unless};
pub use world::{Clock, Env, File, Files, OpenMode, Random};
