//! The witness: views against answers that others compute.
//!
//! `differential`: random views over random facts, against Postgres; some of them kept by a whole
//! server (`served`). `tpch`, `nexmark`: the
//! benchmarks' queries as views, against stock DataFusion.

mod batch;
mod case;
mod caught;
mod choices;
mod differential;
mod folded;
mod grammar;
mod nexmark;
mod postgres;
mod replay;
mod rows;
mod served;
mod tpch;
mod world;
