//! What the catalog keeps of a source: everything needed to run it after a restart.

use evert_model::{Column, ColumnType, Lsn, Position, RowSchema};
use evert_view::{Name, SourceDef, SourceState};
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::error::SourceError;

/// The options of a source's catalog entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Definition {
    /// The log's end when the source was made: tells it from earlier sources of its name, whose
    /// states the log still holds.
    pub(crate) born: Position,
    pub(crate) url: Address,
    pub(crate) publication: String,
    /// Whether CREATE SOURCE made the publication, so that DROP SOURCE removes it.
    pub(crate) publication_is_ours: bool,
    pub(crate) slot: String,
    pub(crate) tables: Vec<Table>,
    /// What was said about the tables when the source was made.
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
}

/// A table of the source, as it was when the source was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) columns: Vec<SourceColumn>,
    /// Indexes of the primary key's columns, in key order; empty: the table is a bag.
    pub(crate) key: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceColumn {
    pub(crate) name: String,
    pub(crate) ty: ColumnType,
    /// Postgres's type and modifier, by which a changed column is noticed.
    pub(crate) type_oid: u32,
    pub(crate) type_modifier: i32,
}

impl Definition {
    pub(crate) fn of(source: &SourceDef) -> Result<Self, SourceError> {
        serde_json::from_value(source.options.clone()).map_err(|error| {
            SourceError::invalid(format!("the options of source \"{}\": {error}", source.name))
        })
    }

    pub(crate) fn to_source(&self, name: &str) -> SourceDef {
        let options = serde_json::to_value(self).expect("a definition is plain data");
        SourceDef { name: name.to_owned(), options }
    }
}

/// What the state of a source holds besides its LSN.
#[derive(Serialize, Deserialize)]
struct Detail {
    born: Position,
}

impl Definition {
    /// The state of the source `name` when everything up to `lsn` is in the log.
    pub(crate) fn state(&self, name: &str, lsn: Lsn) -> SourceState {
        let detail = serde_json::to_value(Detail { born: self.born });
        let detail = detail.expect("a number is plain data");
        SourceState { source: name.to_owned(), lsn, detail }
    }

    /// How far this source has come by a state found in the log; `None` if it is another's.
    pub(crate) fn resume(&self, state: &SourceState) -> Option<Lsn> {
        let detail: Detail = serde_json::from_value(state.detail.clone()).ok()?;
        (detail.born == self.born).then_some(state.lsn)
    }
}

impl Table {
    /// The name as its own server writes it.
    pub(crate) fn source_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// The relation that the table becomes.
    pub(crate) fn relation(&self, source: &str) -> Name {
        Name::new(source, &self.name)
    }

    /// The topic of that relation. Kafka allows letters, digits, `.`, `_` and `-` in it.
    pub(crate) fn topic(&self, source: &str) -> String {
        let legal = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        format!("{source}.{}.{}", self.schema, self.name).chars().map(legal).collect()
    }

    pub(crate) fn is_key(&self, column: usize) -> bool {
        self.key.contains(&column)
    }

    /// The relation's schema. Only the key is NOT NULL: the write-ahead log does not tell when a
    /// column's NOT NULL is lifted.
    pub(crate) fn row_schema(&self) -> RowSchema {
        let columns = self.columns.iter().enumerate().map(|(index, column)| Column {
            name: column.name.clone(),
            ty: column.ty,
            nullable: !self.is_key(index),
        });
        RowSchema { columns: columns.collect(), key: self.key.clone() }
    }
}
