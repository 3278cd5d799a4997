//! An engine with a few words of its own, enough to reach every corner of the protocol.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use tokio::sync::Notify;

use crate::pg::{
    Backend, CancelHandle, CopyForm, Description, Response, Session, SqlError, Statement,
    TransactionStatus,
};

#[derive(Default)]
pub(super) struct TestEngine {
    /// What `TABLE name` gives.
    pub(super) tables: Arc<Mutex<HashMap<String, RecordBatch>>>,
    /// Statements that were cancelled while they slept.
    pub(super) cancelled: Arc<AtomicUsize>,
    /// Statements that ran.
    pub(super) ran: Arc<Mutex<Vec<String>>>,
}

impl Backend for TestEngine {
    fn session(&self, user: &str, database: &str) -> Box<dyn Session> {
        assert_eq!((user, database), ("me", "test"));
        Box::new(TestSession {
            tables: self.tables.clone(),
            cancelled: self.cancelled.clone(),
            ran: self.ran.clone(),
            status: TransactionStatus::Idle,
            settings: vec![
                ("server_version".into(), "16.0".into()),
                ("client_encoding".into(), "UTF8".into()),
            ],
            notices: Vec::new(),
            cancel: Arc::new(Notify::new()),
            copied: Vec::new(),
        })
    }
}

struct TestSession {
    tables: Arc<Mutex<HashMap<String, RecordBatch>>>,
    cancelled: Arc<AtomicUsize>,
    ran: Arc<Mutex<Vec<String>>>,
    status: TransactionStatus,
    settings: Vec<(String, String)>,
    notices: Vec<String>,
    cancel: Arc<Notify>,
    /// What COPYIN was sent.
    copied: Vec<u8>,
}

/// `SERIES n` counts to n, and after it fails if it `BREAKS`.
fn series(n: i64, breaks: bool) -> Response {
    let schema = series_schema();
    let of = schema.clone();
    let starts = (0..n).step_by(1000);
    let batches = stream::iter(starts).map(move |start| {
        let values = Int64Array::from_iter_values(start..n.min(start + 1000));
        Ok(RecordBatch::try_new(of.clone(), vec![Arc::new(values)]).expect("one column"))
    });
    let failure = breaks.then(|| Err(SqlError::new("22012", "division by zero")));
    let batches = batches.chain(stream::iter(failure)).boxed();
    Response::Rows { schema, batches, tag: "SELECT" }
}

fn series_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

fn word(sql: &str, index: usize) -> &str {
    sql.split_whitespace().nth(index).unwrap_or_default()
}

fn rows(batch: RecordBatch) -> Response {
    let schema = batch.schema();
    Response::Rows { schema, batches: stream::iter([Ok(batch)]).boxed(), tag: "SELECT" }
}

impl TestSession {
    fn text_of(statement: &Statement) -> &str {
        statement.downcast_ref::<String>().expect("a statement of this engine")
    }

    fn echo_schema(params: &[DataType]) -> SchemaRef {
        let field =
            |(index, ty): (usize, &DataType)| Field::new(format!("c{index}"), ty.clone(), true);
        Arc::new(Schema::new(params.iter().enumerate().map(field).collect::<Vec<_>>()))
    }

    fn check_transaction(&self, sql: &str) -> Result<(), SqlError> {
        if self.status == TransactionStatus::Failed && word(sql, 0) != "ROLLBACK" {
            return Err(SqlError::new("25P02", "current transaction is aborted"));
        }
        Ok(())
    }

    async fn run(&mut self, sql: &str, params: &[ArrayRef]) -> Result<Response, SqlError> {
        let done = |tag: &str| Ok(Response::Done { tag: tag.into() });
        match word(sql, 0) {
            "" => Ok(Response::Empty),
            "SERIES" => Ok(series(word(sql, 1).parse().expect("a number"), sql.contains("BREAKS"))),
            "TABLE" => Ok(rows(self.tables.lock().expect("unharmed")[word(sql, 1)].clone())),
            "ECHO" => {
                let types: Vec<_> = params.iter().map(|p| p.data_type().clone()).collect();
                let schema = Self::echo_schema(&types);
                Ok(rows(RecordBatch::try_new(schema, params.to_vec()).expect("one row")))
            }
            "SLEEP" => {
                self.cancel.notified().await;
                self.cancelled.fetch_add(1, Ordering::SeqCst);
                Err(SqlError::new("57014", "canceling statement due to user request"))
            }
            "STALL" => {
                let schema = series_schema();
                Ok(Response::Rows { schema, batches: stream::pending().boxed(), tag: "SELECT" })
            }
            "COPYOUT" => {
                // One batch now, and no more for ever.
                let values = [Some("a\tb\\c"), None, Some("")];
                let values: ArrayRef = Arc::new(StringViewArray::from_iter(values));
                let field = Field::new("v", DataType::Utf8View, true);
                let schema = Arc::new(Schema::new(vec![field.clone(), field]));
                let batch = RecordBatch::try_new(schema.clone(), vec![values.clone(), values]);
                let now = stream::iter([Ok(batch.expect("two columns"))]);
                let batches = match word(sql, 1) {
                    "ENDS" => now.boxed(),
                    _ => now.chain(stream::pending()).boxed(),
                };
                let form = CopyForm {
                    csv: word(sql, 2) == "CSV",
                    delimiter: if word(sql, 2) == "CSV" { b',' } else { b'\t' },
                    null: if word(sql, 2) == "CSV" { String::new() } else { "\\N".into() },
                    quote: b'"',
                    escape: b'"',
                    header: word(sql, 2) == "CSV",
                    force_quote: Vec::new(),
                };
                let endless = word(sql, 1) != "ENDS";
                Ok(Response::CopyOut { schema, batches, form, file: None, endless })
            }
            "COPYIN" => {
                self.copied.clear();
                Ok(Response::CopyIn { columns: 2 })
            }
            "BEGIN" | "START" => {
                self.status = TransactionStatus::InTransaction;
                done("BEGIN")
            }
            "COMMIT" | "ROLLBACK" => {
                self.status = TransactionStatus::Idle;
                done(word(sql, 0))
            }
            "SET" => {
                let (name, value) = (word(sql, 1).to_owned(), word(sql, 3).trim_matches('\''));
                self.settings.retain(|(known, _)| *known != name);
                self.settings.push((name, value.to_owned()));
                done("SET")
            }
            "NOTICE" => {
                self.notices.push("so you know".into());
                done("NOTICE")
            }
            "INSERT" => done("INSERT 0 3"),
            "SHOW" => {
                let of = |(known, _): &&(String, String)| known == word(sql, 1);
                let value = self.settings.iter().find(of).map(|(_, value)| &**value);
                let schema = Schema::new(vec![Field::new("v", DataType::Utf8View, true)]);
                let values = Arc::new(StringViewArray::from(vec![value]));
                Ok(rows(RecordBatch::try_new(Arc::new(schema), vec![values]).expect("one column")))
            }
            _ => Err(SqlError {
                detail: Some("a detail".into()),
                hint: Some("a hint".into()),
                position: Some(7),
                ..SqlError::new("42P01", format!("\"{sql}\" does not exist"))
            }),
        }
    }
}

#[async_trait]
impl Session for TestSession {
    fn parse(&mut self, sql: &str) -> Result<Vec<Statement>, SqlError> {
        if sql.contains("SYNTAX") {
            return Err(SqlError::new("42601", "syntax error"));
        }
        let statements = sql.split(';').map(str::trim).filter(|text| !text.is_empty());
        Ok(statements.map(|text| Arc::new(text.to_owned()) as Statement).collect())
    }

    async fn describe(
        &mut self,
        statement: &Statement,
        hints: &[Option<DataType>],
    ) -> Result<Description, SqlError> {
        let sql = Self::text_of(statement);
        self.check_transaction(sql)?;
        // `ECHO n` takes n parameters; `ECHO n DECIMAL` expects numeric(10,2).
        let count =
            if word(sql, 0) == "ECHO" { word(sql, 1).parse().expect("a number") } else { 0 };
        let default =
            if sql.contains("DECIMAL") { DataType::Decimal128(10, 2) } else { DataType::Utf8View };
        let params: Vec<_> = (0..count)
            .map(|index| hints.get(index).cloned().flatten().unwrap_or(default.clone()))
            .collect();
        let columns = match word(sql, 0) {
            "SERIES" | "STALL" => Some(series_schema()),
            "TABLE" => Some(self.tables.lock().expect("unharmed")[word(sql, 1)].schema()),
            "ECHO" => Some(Self::echo_schema(&params)),
            _ => None,
        };
        Ok(Description { params, oids: Vec::new(), columns })
    }

    async fn execute(
        &mut self,
        statement: &Statement,
        params: &[ArrayRef],
    ) -> Result<Response, SqlError> {
        let sql = Self::text_of(statement).to_owned();
        self.check_transaction(&sql)?;
        self.ran.lock().expect("unharmed").push(sql.clone());
        let result = self.run(&sql, params).await;
        if result.is_err() {
            self.fail_transaction();
        }
        result
    }

    async fn copy_data(&mut self, data: &[u8]) -> Result<(), SqlError> {
        if data.starts_with(b"BAD") {
            return Err(SqlError {
                context: Some("COPY t, line 1".into()),
                ..SqlError::new("22P04", "a bad line")
            });
        }
        self.copied.extend_from_slice(data);
        Ok(())
    }

    async fn copy_end(&mut self) -> Result<String, SqlError> {
        let lines = self.copied.iter().filter(|&&byte| byte == b'\n').count();
        self.ran.lock().expect("unharmed").push("COPY ENDED".into());
        Ok(format!("COPY {lines}"))
    }

    fn copy_abandon(&mut self) {
        self.ran.lock().expect("unharmed").push("COPY ABANDONED".into());
        self.fail_transaction();
    }

    fn transaction_status(&self) -> TransactionStatus {
        self.status
    }

    /// `SET idle_ms TO '50'`
    fn idle_in_transaction_max(&self) -> Option<Duration> {
        let (_, ms) = self.settings.iter().find(|(name, _)| name == "idle_ms")?;
        Some(Duration::from_millis(ms.parse().expect("a number")))
    }

    fn fail_transaction(&mut self) {
        if self.status == TransactionStatus::InTransaction {
            self.status = TransactionStatus::Failed;
        }
    }

    fn cancel_handle(&self) -> CancelHandle {
        let cancel = self.cancel.clone();
        Arc::new(move || cancel.notify_waiters())
    }

    fn parameters(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }

    fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }
}
