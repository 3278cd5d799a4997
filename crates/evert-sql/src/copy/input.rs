//! Lines become rows: fields are matched with columns, and texts become values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringViewBuilder};
use evert_model::{Column, ColumnType};
use evert_view::Relation;

use super::fields::{Fields, Lines, text};
use super::{Format, Header, Options, mistakes};
use crate::SqlError;
use crate::dml::defaults::Filling;
use crate::dml::values;
use crate::error::{BAD_COPY_FORMAT, NOT_NULL_VIOLATION, UNDEFINED_COLUMN};

/// Rows of a batch, and the bytes of text that close one sooner.
const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: usize = 4 << 20;
/// How much of a line or value an error shows, in characters.
const SHOWN_MAX: usize = 100;

/// A relation's rows from text or csv.
pub(crate) struct Input {
    relation: Arc<Relation>,
    /// The columns that fields are for.
    columns: Vec<usize>,
    /// NOT NULL columns that get no field.
    missing: Option<usize>,
    filling: Filling,
    /// By field: what FORCE_NOT_NULL and FORCE_NULL say.
    force_not_null: Vec<bool>,
    force_null: Vec<bool>,
    header: Header,
    lines: Lines,
    fields: Fields,
    texts: Vec<StringViewBuilder>,
    /// Each row's line.
    numbers: Vec<u64>,
    bytes: usize,
}

impl Input {
    /// For these columns of a relation.
    ///
    /// # Errors
    /// When an option names another column.
    pub(crate) fn new(
        relation: &Arc<Relation>,
        columns: &[usize],
        filling: Filling,
        options: &Options,
    ) -> Result<Self, SqlError> {
        debug_assert!(options.format != Format::Parquet, "Parquet holds no lines");
        let schema = &relation.schema;
        let forced = |names: &[String], what: &str| {
            let mut forced = vec![false; columns.len()];
            for name in names {
                let at = columns.iter().position(|&column| schema.columns[column].name == *name);
                let at = at.ok_or_else(|| {
                    let message = format!("{what} column \"{name}\" not referenced by COPY");
                    SqlError::new(UNDEFINED_COLUMN, message)
                })?;
                forced[at] = true;
            }
            Ok::<_, SqlError>(forced)
        };
        let missing = (0..schema.columns.len()).find(|&index| {
            !schema.columns[index].nullable && !columns.contains(&index) && !filling.fills(index)
        });
        Ok(Self {
            relation: Arc::clone(relation),
            columns: columns.to_vec(),
            missing,
            filling,
            force_not_null: forced(&options.force_not_null, "FORCE_NOT_NULL")?,
            force_null: forced(&options.force_null, "FORCE_NULL")?,
            header: options.header,
            lines: Lines::new(options.form.clone()),
            fields: Fields::default(),
            texts: columns.iter().map(|_| StringViewBuilder::new()).collect(),
            numbers: Vec::new(),
            bytes: 0,
        })
    }

    /// The rows that more bytes complete, in batches. With `last` they are the end.
    ///
    /// # Errors
    /// At the first line that is no row of the relation, naming it.
    pub(crate) fn take(&mut self, bytes: &[u8], last: bool) -> Result<Vec<RecordBatch>, SqlError> {
        self.lines.push(bytes);
        let mut batches = Vec::new();
        while self.line(last)? {
            if self.numbers.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES {
                batches.push(self.batch()?);
            }
        }
        if last && !self.numbers.is_empty() {
            batches.push(self.batch()?);
        }
        Ok(batches)
    }

    /// Takes one line; `false` when there is none.
    fn line(&mut self, last: bool) -> Result<bool, SqlError> {
        let cut = self.lines.next(&mut self.fields, last);
        let place = Place { relation: &self.relation, line: self.lines.number };
        let line = match cut {
            Ok(Some(line)) => self.lines.text(line),
            Ok(None) => return Ok(false),
            Err(error) => return Err(place.bare(error)),
        };
        match self.header {
            Header::No => {}
            header => {
                if header == Header::Match {
                    self.check_header().map_err(|error| place.whole(error, line))?;
                }
                self.header = Header::No;
                return Ok(true);
            }
        }
        let given = self.fields.len();
        if given > self.columns.len() {
            let error = SqlError::new(BAD_COPY_FORMAT, "extra data after last expected column");
            return Err(place.whole(error, line));
        }
        let schema = &self.relation.schema;
        if let Some(&column) = self.columns.get(given) {
            let name = &schema.columns[column].name;
            let error =
                SqlError::new(BAD_COPY_FORMAT, format!("missing data for column \"{name}\""));
            return Err(place.whole(error, line));
        }
        if let Some(missing) = self.missing {
            return Err(place.whole(null(&self.relation, missing), line));
        }
        for (index, &column) in self.columns.iter().enumerate() {
            let (bytes, quoted, null_text) = self.fields.get(index);
            let is_null = null_text
                && if quoted { self.force_null[index] } else { !self.force_not_null[index] };
            if is_null {
                if !schema.columns[column].nullable {
                    return Err(place.whole(null(&self.relation, column), line));
                }
                self.texts[index].append_null();
                continue;
            }
            let value = text(bytes).map_err(|error| place.whole(error, line))?;
            let ty = schema.columns[column].ty;
            let value = match ty {
                ColumnType::Text | ColumnType::Bytes | ColumnType::Json => value,
                _ => value.trim_ascii(),
            };
            self.texts[index].append_value(value);
            self.bytes += value.len() + 16;
        }
        self.numbers.push(self.lines.number);
        Ok(true)
    }

    fn check_header(&self) -> Result<(), SqlError> {
        let (given, wanted) = (self.fields.len(), self.columns.len());
        if given != wanted {
            let message =
                format!("wrong number of fields in header line: got {given}, expected {wanted}");
            return Err(SqlError::new(BAD_COPY_FORMAT, message));
        }
        for (index, &column) in self.columns.iter().enumerate() {
            let (bytes, _, null) = self.fields.get(index);
            let (given, name) = (text(bytes)?, &self.relation.schema.columns[column].name);
            if given != name || null {
                let message = format!(
                    "column name mismatch in header line field {}: got \"{given}\", expected \
                     \"{name}\"",
                    index + 1
                );
                return Err(SqlError::new(BAD_COPY_FORMAT, message));
            }
        }
        Ok(())
    }

    /// The rows gathered so far.
    fn batch(&mut self) -> Result<RecordBatch, SqlError> {
        let numbers = std::mem::take(&mut self.numbers);
        self.bytes = 0;
        let texts: Vec<ArrayRef> =
            self.texts.iter_mut().map(|texts| Arc::new(texts.finish()) as ArrayRef).collect();
        let schema = &self.relation.schema;
        let mut arrays: Vec<Option<ArrayRef>> = vec![None; schema.columns.len()];
        for (&column, texts) in self.columns.iter().zip(&texts) {
            let values = values::given(&self.relation, &schema.columns[column], texts)
                .map_err(|error| self.bad_value(&schema.columns[column], texts, &numbers, error))?;
            arrays[column] = Some(values);
        }
        self.filling.fill(&mut arrays, numbers.len())?;
        values::rows(&self.relation, arrays, numbers.len())
    }

    /// The error of the first of some texts that is no value of its column.
    fn bad_value(
        &self,
        column: &Column,
        texts: &ArrayRef,
        numbers: &[u64],
        error: SqlError,
    ) -> SqlError {
        for (row, &line) in numbers.iter().enumerate() {
            if let Err(error) = values::given(&self.relation, column, &texts.slice(row, 1)) {
                let value = texts.as_string_view().value(row);
                let error = mistakes::of_text(column.ty, value, error);
                return Place { relation: &self.relation, line }.value(error, &column.name, value);
            }
        }
        error
    }
}

fn null(relation: &Relation, column: usize) -> SqlError {
    let (name, column) = (&relation.name, &relation.schema.columns[column].name);
    let message = format!(
        "null value in column \"{column}\" of relation \"{name}\" violates not-null constraint"
    );
    SqlError::new(NOT_NULL_VIOLATION, message)
}

/// Where an error is, as Postgres's CONTEXT tells it.
struct Place<'a> {
    relation: &'a Relation,
    line: u64,
}

impl Place<'_> {
    fn bare(&self, error: SqlError) -> SqlError {
        let (name, line) = (&self.relation.name.name, self.line + 1);
        error.context(format!("COPY {name}, line {line}"))
    }

    fn whole(&self, error: SqlError, text: &[u8]) -> SqlError {
        let (name, line) = (&self.relation.name.name, self.line);
        error.context(format!("COPY {name}, line {line}: \"{}\"", shown(text)))
    }

    fn value(&self, error: SqlError, column: &str, value: &str) -> SqlError {
        let (name, line) = (&self.relation.name.name, self.line);
        let value = shown(value.as_bytes());
        error.context(format!("COPY {name}, line {line}, column {column}: \"{value}\""))
    }
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_MAX * 4)]);
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into_owned(),
    }
}
