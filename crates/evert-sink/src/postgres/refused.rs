//! What Postgres refuses: which errors are a row's fault, and which row it is.

use std::ops::Range;

use evert_view::{OutletError, write_postgres_text};

use super::{PostgresTarget, told};
use crate::changeset::{Change, Changeset};
use crate::target::WriteError;

/// Classes of SQLSTATE that say what is wrong with rows, and not with the server or the table:
/// cardinality, data, integrity constraints, triggered changes, WITH CHECK OPTION, limits, and what
/// functions of the database raise.
const CLASSES: [&str; 7] = ["21", "22", "23", "27", "44", "54", "P0"];
/// Characters of a value that are shown.
const SHOWN_CHARS: usize = 60;

impl From<tokio_postgres::Error> for WriteError {
    fn from(error: tokio_postgres::Error) -> Self {
        let why = told(&error);
        match error.code().and_then(|code| code.code().get(..2)) {
            Some(class) if CLASSES.contains(&class) => Self::Refused(why),
            _ => Self::Other(OutletError::Retry(why)),
        }
    }
}

impl PostgresTarget {
    /// Halves the changes until the one is left that is refused by itself.
    pub(super) async fn search_refused(
        &self,
        changes: &Changeset,
    ) -> Result<Option<String>, OutletError> {
        let mut range = 0..changes.len();
        while range.len() > 1 {
            let middle = range.start + range.len() / 2;
            let (left, right) = (range.start..middle, middle..range.end);
            range = match self.refuses(changes, left.clone()).await? {
                true => left,
                false if self.refuses(changes, right.clone()).await? => right,
                // Each half is taken: they are in each other's way.
                false => return Ok(None),
            };
        }
        Ok(changes.range(range).next().map(|change| self.name(change)))
    }

    /// Whether some of the changes are refused; none is written.
    async fn refuses(&self, changes: &Changeset, range: Range<usize>) -> Result<bool, OutletError> {
        let tried = self.try_some(changes, range).await;
        self.client.batch_execute("ROLLBACK").await.map_err(super::retry)?;
        match tried {
            Ok(()) => Ok(false),
            Err(WriteError::Refused(_)) => Ok(true),
            Err(WriteError::Other(error)) => Err(error),
        }
    }

    async fn try_some(&self, changes: &Changeset, range: Range<usize>) -> Result<(), WriteError> {
        self.client.batch_execute("BEGIN").await?;
        self.stage(changes.range(range.clone())).await?;
        let sql = self.apply(changes, range) + "SET CONSTRAINTS ALL IMMEDIATE";
        Ok(self.client.batch_execute(&sql).await?)
    }

    /// A row by its key, or by all its columns: `id = 7`.
    fn name(&self, change: Change<'_>) -> String {
        let all: Vec<usize> = (0..self.schema.columns.len()).collect();
        let named = if self.schema.key.is_empty() { &all } else { &self.schema.key };
        let mut value = String::new();
        let pairs = named.iter().map(|&index| {
            let column = &self.schema.columns[index];
            if change.rows.column(index).is_null(change.row) {
                return format!("{} = NULL", column.name);
            }
            value.clear();
            write_postgres_text(change.rows.column(index), column.ty, change.row, &mut value);
            let shown: String = value.escape_debug().take(SHOWN_CHARS).collect();
            format!("{} = {shown}", column.name)
        });
        pairs.collect::<Vec<_>>().join(", ")
    }
}
