//! Errors in Postgres's words.
//!
//! Owns: [`SqlError`] and the SQLSTATEs that Evert uses.
//! Not here: how DataFusion's errors become these (`translate`).

use std::fmt;

/// An error as a SQL client sees it.
#[derive(Clone, Debug)]
pub struct SqlError {
    /// Postgres's five-character code, see its appendix A.
    pub sqlstate: &'static str,
    /// One fact, without a full stop.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// 1-based character in the text given to `parse`.
    pub position: Option<usize>,
    /// Where it came up: `COPY t, line 3`.
    pub context: Option<Box<str>>,
}

impl SqlError {
    /// An error with a code and a message.
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self {
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            context: None,
        }
    }

    /// `0A000`: a construct that is not supported, by name.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::new(FEATURE_NOT_SUPPORTED, format!("{what} is not supported"))
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with a detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same, with where it came up.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into().into_boxed_str());
        self
    }

    /// The same at a character of the text.
    #[must_use]
    pub fn at(mut self, position: Option<usize>) -> Self {
        self.position = position.or(self.position);
        self
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SqlError {}

pub(crate) const FEATURE_NOT_SUPPORTED: &str = "0A000";
pub(crate) const NUMERIC_OUT_OF_RANGE: &str = "22003";
pub(crate) const DATETIME_FORMAT: &str = "22007";
pub(crate) const DIVISION_BY_ZERO: &str = "22012";
pub(crate) const CHARACTER_NOT_IN_REPERTOIRE: &str = "22021";
pub(crate) const INVALID_TEXT: &str = "22P02";
pub(crate) const UNTRANSLATABLE_CHARACTER: &str = "22P05";
pub(crate) const BAD_COPY_FORMAT: &str = "22P04";
pub(crate) const INVALID_PARAMETER_VALUE: &str = "22023";
pub(crate) const CARDINALITY_VIOLATION: &str = "21000";
pub(crate) const NOT_NULL_VIOLATION: &str = "23502";
pub(crate) const UNIQUE_VIOLATION: &str = "23505";
pub(crate) const ACTIVE_TRANSACTION: &str = "25001";
pub(crate) const READ_ONLY_TRANSACTION: &str = "25006";
pub(crate) const NO_ACTIVE_TRANSACTION: &str = "25P01";
pub(crate) const IN_FAILED_TRANSACTION: &str = "25P02";
pub(crate) const NO_SAVEPOINT: &str = "3B001";
pub(crate) const DEPENDENT_OBJECTS: &str = "2BP01";
pub(crate) const SERIALIZATION_FAILURE: &str = "40001";
pub(crate) const STRING_TOO_LONG: &str = "22001";
pub(crate) const SYNTAX_ERROR: &str = "42601";
pub(crate) const UNDEFINED_COLUMN: &str = "42703";
pub(crate) const UNDEFINED_FUNCTION: &str = "42883";
pub(crate) const WINDOWING_ERROR: &str = "42P20";
pub(crate) const UNDEFINED_OBJECT: &str = "42704";
pub(crate) const SYNTAX_OR_ACCESS: &str = "42000";
pub(crate) const UNDEFINED_TABLE: &str = "42P01";
pub(crate) const DUPLICATE_TABLE: &str = "42P07";
pub(crate) const DUPLICATE_COLUMN: &str = "42701";
pub(crate) const AMBIGUOUS_COLUMN: &str = "42702";
pub(crate) const GROUPING_ERROR: &str = "42803";
pub(crate) const DATATYPE_MISMATCH: &str = "42804";
pub(crate) const WRONG_OBJECT_TYPE: &str = "42809";
pub(crate) const INVALID_COLUMN_REFERENCE: &str = "42P10";
pub(crate) const INVALID_TABLE_DEFINITION: &str = "42P16";
pub(crate) const INSUFFICIENT_PRIVILEGE: &str = "42501";
pub(crate) const OUT_OF_MEMORY: &str = "53200";
pub(crate) const PROGRAM_LIMIT: &str = "54000";
pub(crate) const OBJECT_NOT_READY: &str = "55000";
pub(crate) const QUERY_CANCELED: &str = "57014";
pub(crate) const ADMIN_SHUTDOWN: &str = "57P01";
pub(crate) const CANNOT_CONNECT_NOW: &str = "57P03";
pub(crate) const UNDEFINED_FILE: &str = "58P01";
pub(crate) const IO_ERROR: &str = "58030";
pub(crate) const INTERNAL_ERROR: &str = "XX000";
