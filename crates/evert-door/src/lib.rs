//! The doors: servers that speak the protocols people's clients already speak.

pub mod http;
pub mod kafka;
pub mod pg;
pub mod resp;
