//! How long texts may be in columns that were declared VARCHAR(n) or CHAR(n).
//!
//! Statements check it (`evert-sql`); records of other writers are taken as they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The lengths of a relation's columns, by name. Columns that are not in it have none.
pub type Lengths = BTreeMap<String, TextLength>;

/// How long a text may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextLength {
    /// Characters.
    pub chars: u32,
    /// CHAR(n): blanks at the end are no part of a text.
    #[serde(default)]
    pub blank: bool,
}
