//! Adapters: the SQL door's trait over the SQL engine, the SQL engine's trait over the sources.
//!
//! The crates on both sides do not know each other, so that doors see no planner and SQL sees no
//! replication; here their twin types are turned into each other.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Schema};
use async_trait::async_trait;
use evert_cdc::SourceError;
use evert_door::{http, pg};
use evert_model::{Position, PositionToken};
use evert_sql::{ForceQuote, NewSource, SourceControl, SourceRow};
use evert_view::{
    CatalogError, Cut, Name, PastError, PastFolds, PinError, SubscribeFrom, Subscription,
    ViewState, ViewStatus,
};
use futures::StreamExt;

use crate::lake::Readers;

/// The SQL engine behind the SQL door.
pub(crate) struct PgBackend(evert_sql::Engine);

impl PgBackend {
    pub(crate) fn new(engine: evert_sql::Engine) -> Self {
        Self(engine)
    }
}

impl pg::Backend for PgBackend {
    fn session(&self, user: &str, database: &str) -> Box<dyn pg::Session> {
        Box::new(PgSession(self.0.session(user, database)))
    }
}

struct PgSession(evert_sql::Session);

/// The engine's statement behind the door's opaque one.
fn statement(opaque: &pg::Statement) -> Result<evert_sql::Statement, pg::SqlError> {
    let foreign = || pg::SqlError::new("XX000", "the statement was parsed by another engine");
    opaque.downcast_ref::<evert_sql::Statement>().cloned().ok_or_else(foreign)
}

fn sql_error(error: evert_sql::SqlError) -> pg::SqlError {
    pg::SqlError {
        sqlstate: error.sqlstate,
        message: error.message,
        detail: error.detail,
        hint: error.hint,
        position: error.position,
        context: error.context,
    }
}

fn copy_form(form: evert_sql::CopyForm, schema: &Schema) -> pg::CopyForm {
    let forced = |name: &String| match &form.force_quote {
        ForceQuote::None => false,
        ForceQuote::All => true,
        ForceQuote::Columns(names) => names.contains(name),
    };
    pg::CopyForm {
        force_quote: schema.fields().iter().map(|field| forced(field.name())).collect(),
        csv: form.csv,
        delimiter: form.delimiter,
        null: form.null,
        quote: form.quote,
        escape: form.escape,
        header: form.header,
    }
}

struct CopyFile(evert_sql::CopyFile);

#[async_trait]
impl pg::CopyFile for CopyFile {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), pg::SqlError> {
        self.0.write(bytes).await.map_err(sql_error)
    }

    async fn finish(self: Box<Self>) -> Result<(), pg::SqlError> {
        self.0.finish().await.map_err(sql_error)
    }
}

#[async_trait]
impl pg::Session for PgSession {
    fn idle_in_transaction_max(&self) -> Option<Duration> {
        self.0.idle_in_transaction_max()
    }

    fn parse(&mut self, sql: &str) -> Result<Vec<pg::Statement>, pg::SqlError> {
        let statements = self.0.parse(sql).map_err(sql_error)?;
        Ok(statements.into_iter().map(|statement| Arc::new(statement) as pg::Statement).collect())
    }

    async fn describe(
        &mut self,
        opaque: &pg::Statement,
        hints: &[Option<DataType>],
    ) -> Result<pg::Description, pg::SqlError> {
        let described = self.0.describe(&statement(opaque)?, hints).await.map_err(sql_error)?;
        let evert_sql::Description { params, oids, columns } = described;
        Ok(pg::Description { params, oids, columns })
    }

    async fn execute(
        &mut self,
        opaque: &pg::Statement,
        params: &[ArrayRef],
    ) -> Result<pg::Response, pg::SqlError> {
        let response = self.0.execute(&statement(opaque)?, params).await.map_err(sql_error)?;
        Ok(match response {
            evert_sql::Response::Rows { schema, batches, tag } => {
                let batches = batches.map(|batch| batch.map_err(sql_error)).boxed();
                pg::Response::Rows { schema, batches, tag }
            }
            evert_sql::Response::CopyOut { schema, batches, form, file, endless } => {
                let form = copy_form(form, &schema);
                let batches = batches.map(|batch| batch.map_err(sql_error)).boxed();
                let file = file.map(|file| Box::new(CopyFile(*file)) as Box<dyn pg::CopyFile>);
                pg::Response::CopyOut { schema, batches, form, file, endless }
            }
            evert_sql::Response::CopyIn { columns } => pg::Response::CopyIn { columns },
            evert_sql::Response::Done { tag } => pg::Response::Done { tag },
            evert_sql::Response::Empty => pg::Response::Empty,
        })
    }

    async fn copy_data(&mut self, data: &[u8]) -> Result<(), pg::SqlError> {
        self.0.copy_data(data).await.map_err(sql_error)
    }

    async fn copy_end(&mut self) -> Result<String, pg::SqlError> {
        self.0.copy_end().await.map_err(sql_error)
    }

    fn copy_abandon(&mut self) {
        self.0.copy_abandon();
    }

    fn transaction_status(&self) -> pg::TransactionStatus {
        match self.0.transaction_status() {
            evert_sql::TransactionStatus::Idle => pg::TransactionStatus::Idle,
            evert_sql::TransactionStatus::InTransaction => pg::TransactionStatus::InTransaction,
            evert_sql::TransactionStatus::Failed => pg::TransactionStatus::Failed,
        }
    }

    fn fail_transaction(&mut self) {
        self.0.fail_transaction();
    }

    fn cancel_handle(&self) -> pg::CancelHandle {
        self.0.cancel_handle()
    }

    fn parameters(&self) -> Vec<(String, String)> {
        self.0.parameters()
    }

    fn take_notices(&mut self) -> Vec<String> {
        self.0.take_notices()
    }
}

/// What the HTTP door shows: the views and the SQL engine.
pub(crate) struct Shown {
    views: evert_view::Views,
    engine: evert_sql::Engine,
    archives: Readers,
}

impl Shown {
    pub(crate) fn new(
        views: evert_view::Views,
        engine: evert_sql::Engine,
        archives: Readers,
    ) -> Self {
        Self { views, engine, archives }
    }
}

#[async_trait]
impl http::Observed for Shown {
    fn position(&self) -> Position {
        self.views.position()
    }

    fn log_end(&self) -> Position {
        self.views.log().end()
    }

    fn replay_state(&self) -> ViewState {
        self.views.replay_state()
    }

    fn views(&self) -> Vec<ViewStatus> {
        self.views.status()
    }

    fn lake(&self) -> Option<&dyn http::Lake> {
        Some(&self.archives)
    }

    fn topics(&self) -> Vec<http::TopicFacts> {
        http::topics_of(self.views.log())
    }

    fn queries_coalesced(&self) -> u64 {
        self.engine.queries_coalesced()
    }

    fn past_folds(&self) -> PastFolds {
        self.views.past_folds()
    }

    async fn subscribe(&self, name: Name, from: SubscribeFrom) -> Result<Subscription, PastError> {
        self.views.subscribe(&name, from).await
    }

    async fn reach(
        &self,
        token: &PositionToken,
        timeout: Duration,
    ) -> Result<Position, http::ReachError> {
        http::ReachError::or_reached(&self.views, token, timeout).await
    }

    async fn pin(
        &self,
        name: &Name,
        at_least: Position,
        timeout: Duration,
    ) -> Result<Arc<Cut>, PinError> {
        self.views.pin(std::slice::from_ref(name), at_least, timeout).await
    }

    fn session(&self) -> Box<dyn pg::Session> {
        Box::new(PgSession(self.engine.session("http", "evert")))
    }
}

/// The sources behind CREATE SOURCE, DROP SOURCE and SHOW SOURCES.
pub(crate) struct Sources(evert_cdc::Sources);

impl Sources {
    pub(crate) fn new(sources: evert_cdc::Sources) -> Self {
        Self(sources)
    }
}

#[async_trait]
impl SourceControl for Sources {
    async fn create(&self, new: NewSource) -> Result<Vec<String>, evert_sql::SqlError> {
        let name = new.name.clone();
        let created = self.0.create(evert_cdc::NewSource {
            name: new.name,
            url: new.url,
            publication: new.publication,
            slot: new.slot,
            tables: new.tables,
        });
        match created.await {
            Err(SourceError::Exists(_)) if new.if_not_exists => {
                Ok(vec![format!("source \"{name}\" already exists, skipping")])
            }
            result => result.map_err(source_error),
        }
    }

    async fn drop(
        &self,
        name: &str,
        if_exists: bool,
        cascade: bool,
    ) -> Result<Vec<String>, evert_sql::SqlError> {
        match self.0.drop(name, cascade).await {
            Err(SourceError::Unknown(_)) if if_exists => {
                Ok(vec![format!("source \"{name}\" does not exist, skipping")])
            }
            result => result.map_err(source_error),
        }
    }

    fn status(&self) -> Vec<SourceRow> {
        let rows = self.0.status().into_iter().map(|status| SourceRow {
            state: status.phase.as_str().to_owned(),
            name: status.name,
            detail: status.detail,
            url: status.url,
            publication: Some(status.publication),
            slot: Some(status.slot),
            tables: status.tables,
            lsn: status.lsn,
            position: status.position,
            retained_wal_bytes: status.retained_wal_bytes,
            lag_ms: status.lag_ms,
        });
        rows.collect()
    }
}

fn source_error(error: SourceError) -> evert_sql::SqlError {
    // Codes of Postgres's appendix A.
    let sqlstate = match &error {
        SourceError::Exists(_) | SourceError::Catalog(CatalogError::Exists(_)) => "42710",
        SourceError::Unknown(_) | SourceError::Catalog(CatalogError::Unknown(_)) => "42704",
        SourceError::Catalog(CatalogError::HasDependents { .. }) => "2BP01",
        SourceError::Refused(_) | SourceError::Catalog(_) => "55000",
        SourceError::Link(_) => "08001",
        SourceError::Log(_) => "58030",
        SourceError::Stopping => "57P01",
    };
    let message = error.to_string();
    match error.hint() {
        Some(hint) => evert_sql::SqlError::new(sqlstate, message).hint(hint),
        None => evert_sql::SqlError::new(sqlstate, message),
    }
}
