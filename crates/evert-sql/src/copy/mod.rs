//! COPY: rows in and out in bulk, from and to the client or files.
//!
//! Owns: the formats' options, cutting text and csv into fields and fields into rows, Parquet
//! files, and which files may be named.
//! Not here: the outward form of values in text and csv (the door's), where rows go (`session`).
//!
//! Invariants
//! - A COPY is one commit: all rows or none.
//! - A bad line is named, by number and column.
//! - No path leads out of the directory that the server was given for files.

mod fields;
mod files;
mod input;
mod mistakes;
mod parquet;

pub use files::CopyFile;
pub(crate) use files::{file_to_read, file_to_write};
pub(crate) use input::Input;
pub(crate) use parquet::{ParquetIn, ParquetOut};

/// How text that COPY sends or takes is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyForm {
    /// CSV rather than Postgres's own text format.
    pub csv: bool,
    /// Between fields.
    pub delimiter: u8,
    /// What stands for NULL.
    pub null: String,
    /// Around fields, in CSV.
    pub quote: u8,
    /// Before a quote within quotes, in CSV.
    pub escape: u8,
    /// A line with the columns' names comes first.
    pub header: bool,
    /// Columns whose values are quoted always, in CSV.
    pub force_quote: ForceQuote,
}

/// FORCE_QUOTE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ForceQuote {
    /// Where a value needs it.
    #[default]
    None,
    /// `*`
    All,
    /// These columns.
    Columns(Vec<String>),
}

impl Default for CopyForm {
    fn default() -> Self {
        Self {
            csv: false,
            delimiter: b'\t',
            null: "\\N".into(),
            quote: b'"',
            escape: b'"',
            header: false,
            force_quote: ForceQuote::None,
        }
    }
}

/// FORMAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Text,
    Csv,
    Parquet,
}

/// HEADER, of what comes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Header {
    #[default]
    No,
    /// The first line is skipped.
    Skip,
    /// The first line must hold the columns' names.
    Match,
}

/// A COPY's options, checked against each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) format: Format,
    pub(crate) form: CopyForm,
    pub(crate) header: Header,
    /// Columns in which the NULL string, unquoted, is text.
    pub(crate) force_not_null: Vec<String>,
    /// Columns in which the NULL string is NULL in quotes too.
    pub(crate) force_null: Vec<String>,
}
