//! Sessions: one client's statements, one after the other.
//!
//! Owns: settings, the transaction, the position of the last read or write, notices.
//! Not here: what statements do to rows (`query`, `dml`) and to the catalog (`ddl`).
//!
//! Invariants
//! - A read is at or after the session's last write and `evert.after`; of what the server tells of
//!   itself, after the former only.
//! - After an error in a transaction nothing but its end is executed.

mod copy;
mod cursor;
mod difference;
mod explain;
mod read;
mod show;
mod subscribe;
mod write;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::execution::session_state::SessionState;
use evert_model::{Position, PositionToken};
use evert_view::{CatalogError, Name, ViewOptions};
use tokio::sync::watch;

use crate::command::Command;
use crate::ddl::Changed;
use crate::dml::defaults;
use crate::engine::Inner;
use crate::error::{
    ACTIVE_TRANSACTION, IN_FAILED_TRANSACTION, INVALID_PARAMETER_VALUE, NO_ACTIVE_TRANSACTION,
    NO_SAVEPOINT, OBJECT_NOT_READY, QUERY_CANCELED, READ_ONLY_TRANSACTION,
};
use crate::functions::{SessionFacts, SharedSettings, Wishes};
use crate::guard::Guard;
use crate::query::Scope;
use crate::settings::{Settings, duration_ms};
use crate::statement::{Parsed, done};
use crate::transaction::{Savepoint, Transaction};
pub(crate) use difference::verify_response;
pub(crate) use explain::only_grows;

use crate::{
    Description, NewSource, Response, SqlError, Statement, ddl, outlets, schemas, translate,
};

/// Between two looks whether a source that is waited for has failed.
const LOOK_AT_SOURCES_EVERY: Duration = Duration::from_secs(1);

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// No transaction.
    Idle,
    /// Between BEGIN and COMMIT.
    InTransaction,
    /// After an error in a transaction, before its end.
    Failed,
}

/// Stops what its session is executing: the statement ends with 57014.
pub type CancelHandle = Arc<dyn Fn() + Send + Sync>;

/// One client's session.
pub struct Session {
    engine: Arc<Inner>,
    state: SessionState,
    settings: Settings,
    shown: SharedSettings,
    /// What `set_config()` asked for.
    wishes: Wishes,
    /// BEGIN ... COMMIT, and the settings to go back to at ROLLBACK and to keep at COMMIT.
    open: Option<Open>,
    cursors: cursor::Cursors,
    /// COPY FROM STDIN under way.
    copying: Option<Box<copy::CopyIn>>,
    /// Whether the open transaction has met an error; results that are still being read set it.
    failed: Arc<AtomicBool>,
    /// The position of the last read or write.
    last: Position,
    /// Reads are at or after this: the last write.
    floor: Position,
    notices: Vec<String>,
    cancel: Arc<watch::Sender<u64>>,
}

struct Open {
    transaction: Transaction,
    at_rollback: Settings,
    at_commit: Settings,
    /// It has changed the catalog, which takes effect at once and stays.
    changed_catalog: bool,
    /// Each with its name and the settings there; a name given again hides the older one.
    savepoints: Vec<(String, Savepoint, Settings)>,
}

impl Open {
    fn find_savepoint(&self, name: &str) -> Result<usize, SqlError> {
        let found = self.savepoints.iter().rposition(|(other, ..)| other == name);
        found.ok_or_else(|| {
            SqlError::new(NO_SAVEPOINT, format!("savepoint \"{name}\" does not exist"))
        })
    }
}

impl Session {
    pub(crate) fn new(engine: Arc<Inner>, user: &str, database: &str) -> Self {
        let settings = Settings::new(user, engine.config.statement_timeout);
        let (shown, wishes) = (SharedSettings::default(), Wishes::default());
        let facts = SessionFacts {
            user: user.into(),
            database: database.into(),
            settings: Arc::clone(&shown),
            wishes: Arc::clone(&wishes),
        };
        let state = engine.state(&facts);
        let session = Self {
            engine,
            state,
            settings,
            shown,
            wishes,
            open: None,
            cursors: cursor::Cursors::new(),
            copying: None,
            failed: Arc::new(AtomicBool::new(false)),
            last: Position::ZERO,
            floor: Position::ZERO,
            notices: Vec::new(),
            cancel: Arc::new(watch::Sender::new(0)),
        };
        session.show_settings();
        session
    }

    /// Lets `current_setting()` tell the settings as they are now.
    fn show_settings(&self) {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        *shown = self.settings.all().into_iter().collect();
    }

    /// Splits and parses a text; an empty one gives one empty statement.
    ///
    /// # Errors
    /// Syntax errors, with their place, and statements that are not supported.
    pub fn parse(&mut self, sql: &str) -> Result<Vec<Statement>, SqlError> {
        let parsed = self.engine.statements.parse(sql);
        if parsed.is_err() {
            self.note_failure();
        }
        parsed
    }

    /// Types of parameters (hints first, inferred where `None`) and result.
    ///
    /// # Errors
    /// When the statement cannot be planned.
    pub async fn describe(
        &mut self,
        statement: &Statement,
        hints: &[Option<DataType>],
    ) -> Result<Description, SqlError> {
        self.mark_time();
        let described = self.describe_parsed(&statement.0, hints);
        if described.is_err() {
            self.note_failure();
        }
        described
    }

    /// Executes with one-row arrays as parameters, of the described types.
    ///
    /// # Errors
    /// Whatever the statement meets. In a transaction, only its end can follow.
    pub async fn execute(
        &mut self,
        statement: &Statement,
        params: &[ArrayRef],
    ) -> Result<Response, SqlError> {
        let parsed = Arc::clone(&statement.0);
        self.copying = None;
        self.mark_time();
        let mut result = self.run(&parsed, params).await;
        if let Err(error) = self.grant_wishes() {
            result = Err(error);
        }
        if result.is_err() {
            self.note_failure();
        }
        // Statements that change settings, or put them back.
        if !matches!(parsed.command, Command::Query(_) | Command::Insert(_)) {
            self.show_settings();
        }
        result
    }

    /// Sets what `set_config()` asked for.
    fn grant_wishes(&mut self) -> Result<(), SqlError> {
        let wishes =
            std::mem::take(&mut *self.wishes.lock().unwrap_or_else(PoisonError::into_inner));
        let any = !wishes.is_empty();
        for (name, value, local) in wishes {
            self.set(&name, Some(&value), local)?;
        }
        if any {
            self.show_settings();
        }
        Ok(())
    }

    /// Makes it now: `now()` is when the transaction began, or the statement outside of one.
    fn mark_time(&mut self) {
        if self.open.is_none() {
            self.state.mark_start_execution();
        }
    }

    /// Whether a transaction is open.
    pub fn transaction_status(&self) -> TransactionStatus {
        match (&self.open, self.failed.load(Ordering::Relaxed)) {
            (None, _) => TransactionStatus::Idle,
            (Some(_), false) => TransactionStatus::InTransaction,
            (Some(_), true) => TransactionStatus::Failed,
        }
    }

    /// Cancels what is being executed when it is called, from any thread.
    pub fn cancel_handle(&self) -> CancelHandle {
        let cancel = Arc::clone(&self.cancel);
        Arc::new(move || cancel.send_modify(|count| *count = count.wrapping_add(1)))
    }

    /// How long an open transaction may wait for its client; `None` is for ever.
    pub fn idle_in_transaction_max(&self) -> Option<Duration> {
        let text = self.settings.get("idle_in_transaction_session_timeout").ok()?;
        let limit = Duration::from_millis(duration_ms(&text).ok()?);
        (!limit.is_zero()).then_some(limit)
    }

    /// Settings to report at start and when changed (name, value).
    pub fn parameters(&self) -> Vec<(String, String)> {
        self.settings.reported()
    }

    /// NOTICE messages gathered since the last call.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// The position of the session's last read or write; before any, one that a read would be at
    /// or after.
    pub fn position(&self) -> Position {
        if self.last != Position::ZERO {
            return self.last;
        }
        let views = &self.engine.views;
        self.committed().max(views.position()).max(views.floor())
    }

    /// What any session was told is committed.
    fn committed(&self) -> Position {
        Position::new(self.engine.committed.load(Ordering::Acquire))
    }

    /// An error that the session did not see itself, such as a parameter that cannot be read: an
    /// open transaction has failed.
    pub fn fail_transaction(&mut self) {
        self.note_failure();
    }

    fn note_failure(&self) {
        if self.open.is_some() {
            self.failed.store(true, Ordering::Relaxed);
        }
    }

    fn scope(&self) -> Scope {
        Scope::new(self.engine.views.catalog())
    }

    fn guard(&self) -> Guard {
        Guard::new(self.settings.statement_timeout, &self.cancel)
    }

    fn describe_parsed(
        &self,
        parsed: &Parsed,
        hints: &[Option<DataType>],
    ) -> Result<Description, SqlError> {
        let rows = |columns| Ok(Description::of_columns(columns));
        match &parsed.command {
            Command::Query(query) | Command::QueryAsOf { query, .. } => {
                let planned = self.planned(parsed, query, hints)?;
                let columns = Some(Arc::clone(&planned.schema));
                let (params, oids) = (planned.params.clone(), planned.oids.clone());
                Ok(Description { params, oids, columns })
            }
            Command::Insert(_) | Command::Update(_) | Command::Delete(_) => {
                crate::dml::describe(&self.state, parsed, &self.scope(), hints)
            }
            Command::Fetch(fetch) => {
                let columns = self.fetch_schema(fetch)?;
                Ok(Description::of_columns(columns))
            }
            Command::Show(name) => match crate::system::show(name) {
                Some(sql) => {
                    let statement = self.own_statement(sql)?;
                    self.describe_parsed(&statement.0, &[])
                }
                None => rows(Some(show::setting_schema(name))),
            },
            Command::ShowPosition => rows(Some(show::position_schema())),
            Command::Explain(_) => rows(Some(show::explain_schema())),
            Command::VerifyView(_) => rows(Some(difference::verify_schema())),
            Command::CreateView(create) if create.dry_run => {
                rows(Some(difference::dry_run_schema()))
            }
            _ => rows(None),
        }
    }

    /// A statement of the server's own.
    fn own_statement(&self, sql: &str) -> Result<Statement, SqlError> {
        let statement = self.engine.statements.parse(sql)?.pop();
        Ok(statement.expect("a text that is not empty gives a statement"))
    }

    async fn run(&mut self, parsed: &Parsed, params: &[ArrayRef]) -> Result<Response, SqlError> {
        let ends = matches!(
            parsed.command,
            Command::Commit | Command::Rollback | Command::RollbackTo(_) | Command::Empty
        );
        if self.transaction_status() == TransactionStatus::Failed && !ends {
            return Err(SqlError::new(
                IN_FAILED_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        self.check_catalog_change(&parsed.command)?;
        match &parsed.command {
            Command::Empty => Ok(Response::Empty),
            Command::Query(query) => self.query(parsed, query, params).await,
            Command::QueryAsOf { query, as_of } => {
                self.query_as_of(parsed, query, as_of, params).await
            }
            Command::Subscribe(subscribe) => self.copy_changes(subscribe).await,
            Command::Copy(copy) => self.copy(parsed, copy, params).await,
            Command::Declare(declare) => self.declare(parsed, declare, params).await,
            Command::Fetch(fetch) => self.fetch(fetch).await,
            Command::CloseCursor(name) => self.close_cursor(name.as_deref()),
            Command::Explain(explain) if explain.analyze => {
                self.explain_analyze(parsed, explain, params).await
            }
            Command::Explain(explain) => self.explain(parsed, explain),
            Command::Insert(_) | Command::Update(_) | Command::Delete(_) => {
                self.change(parsed, params).await
            }
            Command::Begin { read_only } => Ok(self.begin(*read_only)),
            Command::Commit => self.commit().await,
            Command::Rollback => Ok(self.rollback()),
            Command::Savepoint(name) => self.savepoint(name),
            Command::ReleaseSavepoint(name) => self.release(name),
            Command::RollbackTo(name) => self.rollback_to(name),
            Command::CreateRelation(create) => {
                defaults::check(&self.state, &self.scope(), &create.schema, &create.defaults)?;
                let changed = ddl::create_relation(&self.engine, create).await?;
                let stream = create.kind == evert_view::RelationKind::Stream;
                Ok(self.changed(changed, if stream { "CREATE STREAM" } else { "CREATE TABLE" }))
            }
            Command::Alter(alter) => {
                let changed = self.guard().run(ddl::alter(&self.engine, alter)).await?;
                let stream = alter.kind == evert_view::RelationKind::Stream;
                Ok(self.changed(changed, if stream { "ALTER STREAM" } else { "ALTER TABLE" }))
            }
            Command::CreateView(create) if create.dry_run => {
                self.dry_run(create, &parsed.text).await
            }
            Command::CreateView(create) => {
                let guard = self.guard();
                let start = match &create.options.start {
                    Some(start) => Some(self.moment(start, &guard).await?),
                    None => None,
                };
                let options = ViewOptions { changes: create.options.changes, start };
                let created = ddl::create_view(&self.engine, create, options, &parsed.text);
                let changed = guard.run(created).await?;
                Ok(self.changed(changed, "CREATE MATERIALIZED VIEW"))
            }
            Command::CreateIndex(create) => {
                let changed = ddl::create_index(&self.engine, create).await?;
                Ok(self.changed(changed, "CREATE INDEX"))
            }
            Command::CreateOutlet(create) => {
                let changed = outlets::create(&self.engine, create).await?;
                let tag = format!("CREATE {}", create.kind.noun().to_uppercase());
                Ok(self.changed(changed, &tag))
            }
            Command::CreateSource(new) => self.create_source(new.clone()).await,
            Command::Drop(drop) => {
                let changed = ddl::drop(&self.engine, drop).await?;
                Ok(self.changed(changed, &format!("DROP {}", drop.kind.words())))
            }
            Command::CreateSchema(create) => {
                let changed = schemas::create(&self.engine, create)?;
                Ok(self.changed(changed, "CREATE SCHEMA"))
            }
            Command::DropSchema(drop) => {
                let changed = schemas::drop(&self.engine, drop)?;
                Ok(self.changed(changed, "DROP SCHEMA"))
            }
            Command::Set { name, value, local } => self.set(name, value.as_deref(), *local),
            Command::SetTransaction { read_only } => Ok(self.set_transaction(*read_only)),
            Command::ResetAll => {
                self.settings.reset_all();
                Ok(done("RESET"))
            }
            Command::Show(name) => self.show(name).await,
            Command::ShowPosition => show::position(self.position()),
            Command::WaitForPosition { token, timeout_ms } => {
                self.wait_for(token, timeout_ms.map(Duration::from_millis)).await
            }
            Command::RefreshView(name) => self.refresh(name).await,
            Command::VerifyView(name) => self.verify(name).await,
            Command::RebuildViews(names) => {
                // A view that has failed is folded again from what the session has written.
                let guard = self.guard();
                self.reach_own(&guard).await?;
                let changed = guard.run(ddl::rebuild(&self.engine, names)).await?;
                Ok(self.changed(changed, &self.tag("REBUILD", names.first())))
            }
            Command::PauseView(name) => {
                // It stands still with what the session has written.
                let guard = self.guard();
                self.reach_own(&guard).await?;
                let changed = ddl::pause(&self.engine, name).await?;
                Ok(self.changed(changed, &self.tag("PAUSE", Some(name))))
            }
            Command::ResumeView(name) => {
                let changed = ddl::resume(&self.engine, name).await?;
                Ok(self.changed(changed, &self.tag("RESUME", Some(name))))
            }
            Command::DiscardAll => self.discard(),
            Command::Nothing { tag } => Ok(done(*tag)),
        }
    }

    /// Statements that change the catalog take effect at once. After rows were written in the same
    /// transaction block they would come before them: refused.
    fn check_catalog_change(&self, command: &Command) -> Result<(), SqlError> {
        let changes = matches!(
            command,
            Command::CreateRelation(_)
                | Command::Alter(_)
                | Command::CreateView(_)
                | Command::CreateIndex(_)
                | Command::CreateSource(_)
                | Command::Drop(_)
                | Command::RebuildViews(_)
                | Command::PauseView(_)
                | Command::ResumeView(_)
        );
        match &self.open {
            Some(open) if changes && open.transaction.read_only => Err(SqlError::new(
                READ_ONLY_TRANSACTION,
                "cannot change the catalog in a read-only transaction",
            )),
            Some(open) if changes && open.transaction.has_written() => Err(SqlError::new(
                ACTIVE_TRANSACTION,
                "the catalog cannot be changed in a transaction block that has written rows",
            )
            .detail("Such statements take effect at once, before the block's rows are committed.")
            .hint("COMMIT first.")),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, read_only: bool) -> Response {
        if self.open.is_some() {
            self.notices.push("there is already a transaction in progress".into());
            return done("BEGIN");
        }
        let by_default = self.settings.get("default_transaction_read_only");
        let read_only = read_only || by_default.is_ok_and(|value| value == "on");
        let mut transaction = Transaction::default();
        transaction.read_only = read_only;
        self.failed = Arc::new(AtomicBool::new(false));
        self.open = Some(Open {
            transaction,
            at_rollback: self.settings.clone(),
            at_commit: self.settings.clone(),
            changed_catalog: false,
            savepoints: Vec::new(),
        });
        done("BEGIN")
    }

    async fn commit(&mut self) -> Result<Response, SqlError> {
        if self.failed.load(Ordering::Relaxed) && self.open.is_some() {
            return Ok(self.rollback());
        }
        let Some(open) = self.open.take() else {
            self.notices.push("there is no transaction in progress".into());
            return Ok(done("COMMIT"));
        };
        self.end_cursors();
        self.settings = open.at_rollback;
        let timeout = self.guard().left();
        if let Some(position) = open.transaction.commit(&self.engine, timeout).await? {
            self.wrote(position);
        }
        self.settings = open.at_commit;
        Ok(done("COMMIT"))
    }

    fn rollback(&mut self) -> Response {
        self.end_cursors();
        match self.open.take() {
            Some(open) => {
                self.settings = open.at_rollback;
                if open.changed_catalog {
                    let notice = "what this transaction did to the catalog took effect at once \
                                  and stays";
                    self.notices.push(notice.into());
                }
            }
            None => self.notices.push("there is no transaction in progress".into()),
        }
        done("ROLLBACK")
    }

    fn in_transaction(&mut self, what: &str) -> Result<&mut Open, SqlError> {
        let message = format!("{what} can only be used in transaction blocks");
        self.open.as_mut().ok_or_else(|| SqlError::new(NO_ACTIVE_TRANSACTION, message))
    }

    fn savepoint(&mut self, name: &str) -> Result<Response, SqlError> {
        let settings = self.settings.clone();
        let open = self.in_transaction("SAVEPOINT")?;
        open.savepoints.push((name.to_owned(), open.transaction.savepoint(), settings));
        Ok(done("SAVEPOINT"))
    }

    fn release(&mut self, name: &str) -> Result<Response, SqlError> {
        let open = self.in_transaction("RELEASE SAVEPOINT")?;
        let at = open.find_savepoint(name)?;
        open.savepoints.truncate(at);
        Ok(done("RELEASE"))
    }

    fn rollback_to(&mut self, name: &str) -> Result<Response, SqlError> {
        let open = self.in_transaction("ROLLBACK TO SAVEPOINT")?;
        let at = open.find_savepoint(name)?;
        let (_, savepoint, settings) = &open.savepoints[at];
        open.transaction.return_to(savepoint);
        let settings = settings.clone();
        open.savepoints.truncate(at + 1);
        self.settings = settings;
        self.failed.store(false, Ordering::Relaxed);
        Ok(done("ROLLBACK"))
    }

    fn wrote(&mut self, position: Position) {
        self.last = position;
        self.floor = self.floor.max(position);
        self.engine.committed.fetch_max(position.get(), Ordering::AcqRel);
    }

    /// `PAUSE VIEW`, `PAUSE ARCHIVE`: by what the name is.
    fn tag(&self, verb: &str, name: Option<&Name>) -> String {
        let catalog = self.engine.views.catalog();
        let outlet = name.and_then(|name| catalog.outlets.get(name));
        let noun = outlet.map_or("VIEW".to_owned(), |outlet| outlet.kind.noun().to_uppercase());
        format!("{verb} {noun}")
    }

    /// After a change of the catalog, which takes effect at once.
    fn changed(&mut self, changed: Changed, tag: &str) -> Response {
        self.notices.extend(changed.notices);
        if let Some(position) = changed.position {
            self.wrote(position);
        }
        if let Some(open) = &mut self.open {
            open.changed_catalog |= changed.position.is_some();
            open.transaction.renew();
        }
        done(tag)
    }

    async fn create_source(&mut self, new: NewSource) -> Result<Response, SqlError> {
        let control = Arc::clone(&self.engine.sources);
        let notices = self.guard().run(async move { control.create(new).await }).await?;
        let position = Some(self.engine.log.end());
        Ok(self.changed(Changed { position, notices }, "CREATE SOURCE"))
    }

    fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<Response, SqlError> {
        if name.eq_ignore_ascii_case("evert.after")
            && let Some(Ok(PositionToken::Source { source, .. })) =
                value.map(str::parse::<PositionToken>)
            && !self.engine.views.catalog().sources.contains_key(&source)
        {
            return Err(token_error(&CatalogError::Unknown(Name::public(&source))));
        }
        self.settings.set(name, value)?;
        match &mut self.open {
            Some(open) if !local => open.at_commit.set(name, value)?,
            None if local => {
                self.settings.set(name, None)?;
                self.notices.push("SET LOCAL can only be used in transaction blocks".into());
            }
            _ => {}
        }
        Ok(done(if value.is_some() { "SET" } else { "RESET" }))
    }

    fn set_transaction(&mut self, read_only: Option<bool>) -> Response {
        match (&mut self.open, read_only) {
            (Some(open), Some(read_only)) => open.transaction.read_only = read_only,
            (Some(_), None) => {}
            (None, _) => {
                self.notices.push("SET TRANSACTION can only be used in transaction blocks".into());
            }
        }
        done("SET")
    }

    fn discard(&mut self) -> Result<Response, SqlError> {
        if self.open.is_some() {
            return Err(SqlError::new(
                ACTIVE_TRANSACTION,
                "DISCARD ALL cannot run inside a transaction block",
            ));
        }
        self.settings.reset_all();
        self.cursors.clear();
        Ok(done("DISCARD ALL"))
    }

    /// The position that reads must have reached.
    async fn at_least(&self, guard: &Guard) -> Result<Position, SqlError> {
        // What any session's COMMIT was acknowledged for is there for all.
        let floor = self.floor.max(self.committed());
        match &self.settings.after {
            Some(token) => Ok(floor.max(self.resolve(token, guard).await?)),
            None => Ok(floor),
        }
    }

    async fn resolve(&self, token: &PositionToken, guard: &Guard) -> Result<Position, SqlError> {
        let resolved = self.engine.views.resolve(token, guard.left());
        let reached = async {
            resolved.await.map_err(|error| match &error {
                // The only thing that can be invalid about a known token is its time.
                CatalogError::Invalid(why) => SqlError::new(QUERY_CANCELED, why),
                other => token_error(other),
            })
        };
        guard
            .run(async {
                tokio::select! {
                    // What a source has reached is there, whatever became of it since.
                    biased;
                    position = reached => position,
                    error = self.source_fails(token) => Err(error),
                }
            })
            .await
    }

    /// Waits until the source that a token names has failed: it does not come to the token then.
    async fn source_fails(&self, token: &PositionToken) -> SqlError {
        let PositionToken::Source { source, .. } = token else {
            return std::future::pending().await;
        };
        loop {
            let sources = self.engine.sources.status();
            let failed = sources.iter().find(|row| row.name == *source && row.state == "failed");
            if let Some(row) = failed {
                let why = row.detail.as_deref().unwrap_or("SHOW SOURCES tells more");
                let message = format!("source \"{source}\" has failed: {why}");
                return SqlError::new(OBJECT_NOT_READY, message);
            }
            tokio::time::sleep(LOOK_AT_SOURCES_EVERY).await;
        }
    }
}

/// Why a token names no position.
fn token_error(error: &CatalogError) -> SqlError {
    match error {
        CatalogError::Unknown(name) => {
            SqlError::new(INVALID_PARAMETER_VALUE, format!("there is no source \"{name}\""))
        }
        CatalogError::Topic(_) | CatalogError::Read(_) => {
            SqlError::new(INVALID_PARAMETER_VALUE, error.to_string())
        }
        other => translate::catalog(other),
    }
}

#[cfg(test)]
mod tests;
