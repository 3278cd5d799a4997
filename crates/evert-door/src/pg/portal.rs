//! Portals: a statement with its parameters, and its result as far as it was taken.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use bytes::{BufMut, BytesMut};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;

use super::backend::{CopyForm, SqlError};
use super::decode;
use super::encode::{Form, Rows};
use super::frontend::Bind;
use super::reply;
use super::statement::Prepared;
use super::wire::{Wire, WireError};

/// Why an answer broke off.
pub(super) enum Failure {
    /// The client is told, and the connection goes on.
    Sql(SqlError),
    /// The connection is over.
    Wire(WireError),
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

/// A bound statement.
pub(super) struct Portal {
    pub(super) prepared: Arc<Prepared>,
    pub(super) params: Vec<ArrayRef>,
    pub(super) forms: Vec<Form>,
    pub(super) state: PortalState,
    /// What the parameters took on the wire.
    pub(super) bytes: usize,
}

pub(super) enum PortalState {
    Bound,
    Rows(Cursor),
    /// It ran to its end; `tag` counts what more there is to take: nothing.
    Finished {
        tag: String,
    },
}

impl Portal {
    pub(super) fn new(prepared: Arc<Prepared>, bind: &Bind) -> Result<Self, SqlError> {
        let expected = prepared.param_types.len();
        if bind.params.len() != expected {
            let message = format!(
                "bind message supplies {} parameters, but the prepared statement requires \
                 {expected}",
                bind.params.len()
            );
            return Err(SqlError::new("08P01", message));
        }
        let param_forms = forms(&bind.param_formats, expected, "parameter")?;
        let columns = prepared.columns.as_ref().map_or(0, |columns| columns.fields().len());
        let forms = forms(&bind.result_formats, columns, "result")?;
        let values = bind.params.iter().zip(&param_forms);
        let types = prepared.param_oids.iter().zip(&prepared.param_types);
        let params = values
            .zip(types)
            .map(|((value, form), (oid, ty))| decode::bound(*oid, *form, value.as_deref(), ty))
            .collect::<Result<Vec<_>, _>>()?;
        let bytes = bind.params.iter().flatten().map(|value| value.len() + 64).sum();
        Ok(Self { prepared, params, forms, state: PortalState::Bound, bytes })
    }
}

/// The forms that format codes name: none for all text, one for all, or one each.
fn forms(codes: &[i16], count: usize, what: &str) -> Result<Vec<Form>, SqlError> {
    match codes {
        [] => Ok(vec![Form::Text; count]),
        [code] => Ok(vec![Form::of_code(*code)?; count]),
        _ if codes.len() == count => codes.iter().map(|code| Form::of_code(*code)).collect(),
        _ => {
            let given = codes.len();
            let message = format!("bind message has {given} {what} formats but {count} {what}s");
            Err(SqlError::new("08P01", message))
        }
    }
}

/// Rows under way.
pub(super) struct Cursor {
    batches: BoxStream<'static, Result<RecordBatch, SqlError>>,
    forms: Vec<Form>,
    /// The batch being sent, and its next row.
    current: Option<(Rows, usize)>,
    sent: u64,
    tag: &'static str,
}

impl Cursor {
    pub(super) fn new(
        batches: BoxStream<'static, Result<RecordBatch, SqlError>>,
        forms: Vec<Form>,
        tag: &'static str,
    ) -> Self {
        Self { batches, forms, current: None, sent: 0, tag }
    }

    /// Sends up to `rows_max` rows; tells whether the result's end was reached.
    pub(super) async fn send(
        &mut self,
        wire: &mut Wire,
        cancelled: &mut watch::Receiver<()>,
        rows_max: Option<u64>,
    ) -> Result<bool, Failure> {
        let mut left = rows_max.unwrap_or(u64::MAX);
        loop {
            let Some((rows, next)) = &mut self.current else {
                match self.next_batch(wire, cancelled).await? {
                    Some(batch) => self.current = Some((Rows::new(&batch, &self.forms)?, 0)),
                    None => return Ok(true),
                }
                continue;
            };
            while *next < rows.len() {
                // Postgres too says "suspended" when the last row was just taken.
                if left == 0 {
                    return Ok(false);
                }
                rows.write(*next, &mut wire.out)?;
                *next += 1;
                self.sent += 1;
                left -= 1;
                wire.flush_if_full().await?;
            }
            self.current = None;
            if left == 0 {
                return Ok(false);
            }
        }
    }

    /// Sends all rows as COPY TO STDOUT does, none later than it is there.
    pub(super) async fn copy_out(
        &mut self,
        wire: &mut Wire,
        form: &CopyForm,
        cancelled: &mut watch::Receiver<()>,
    ) -> Result<(), Failure> {
        loop {
            let batch = match self.batches.next().now_or_never() {
                Some(batch) => batch.transpose()?,
                None => {
                    wire.flush().await?;
                    tokio::select! {
                        biased;
                        _ = cancelled.changed() => return Err(canceled().into()),
                        batch = self.batches.next() => batch.transpose()?,
                        () = wire.left() => return Err(canceled().into()),
                    }
                }
            };
            let Some(batch) = batch else { return Ok(()) };
            let rows = Rows::new(&batch, &self.forms)?;
            for row in 0..rows.len() {
                self.copy_row(&rows, row, form, &mut wire.out)?;
                wire.flush_if_full().await?;
            }
        }
    }

    /// A line in a message of its own.
    fn copy_row(
        &mut self,
        rows: &Rows,
        row: usize,
        form: &CopyForm,
        out: &mut BytesMut,
    ) -> Result<(), SqlError> {
        let begin = out.len();
        out.put_u8(b'd');
        out.put_i32(0);
        let written = rows.write_copy(row, form, out);
        match written {
            Ok(()) => reply::set_length(out, begin + 1, out.len() - begin - 1),
            Err(_) => out.truncate(begin),
        }
        self.sent += 1;
        written
    }

    /// The next rows, all of which the caller takes.
    pub(super) async fn next_rows(
        &mut self,
        wire: &Wire,
        cancelled: &mut watch::Receiver<()>,
    ) -> Result<Option<Rows>, SqlError> {
        let Some(batch) = self.next_batch(wire, cancelled).await? else { return Ok(None) };
        self.sent += batch.num_rows() as u64;
        Rows::new(&batch, &self.forms).map(Some)
    }

    async fn next_batch(
        &mut self,
        wire: &Wire,
        cancelled: &mut watch::Receiver<()>,
    ) -> Result<Option<RecordBatch>, SqlError> {
        tokio::select! {
            biased;
            _ = cancelled.changed() => Err(canceled()),
            batch = self.batches.next() => batch.transpose(),
            () = wire.gone() => Err(canceled()),
        }
    }

    /// The tag of the whole: "SELECT 3".
    pub(super) fn tag(&self) -> String {
        match self.tag {
            // SHOW's tag carries no count.
            "SHOW" => self.tag.to_owned(),
            tag => format!("{tag} {}", self.sent),
        }
    }

    /// The tag of what is left after the end.
    pub(super) fn tag_of_nothing(&self) -> String {
        format!("{} 0", self.tag)
    }
}

pub(super) fn canceled() -> SqlError {
    SqlError::new("57014", "canceling statement due to user request")
}
