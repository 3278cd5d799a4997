//! Reading statements: SELECT now and AS OF a moment, WAIT FOR POSITION, REFRESH.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, FieldRef, TimestampMicrosecondType};
use datafusion::execution::session_state::SessionState;
use evert_model::{Column, LogTime, Position, PositionToken};
use evert_view::{Catalog, CatalogError, Cut, Name};
use sqlparser::ast::Query;

use super::{Session, token_error};
use crate::command::{AsOf, Command};
use crate::engine::Inner;
use crate::error::{
    INTERNAL_ERROR, INVALID_PARAMETER_VALUE, OBJECT_NOT_READY, SERIALIZATION_FAILURE,
};
use crate::flights::{Boarding, landed};
use crate::guard::{FOREVER, Guard};
use crate::names::unknown_relation;
use crate::query::{Planned, plan};
use crate::scan::Rows;
use crate::search::{AtLeast, ReadsPast};
use crate::statement::{Parsed, done};
use crate::transaction::Transaction;
use crate::{Response, SqlError, archive, system, translate};

/// How long a view that was replaced may take to have rows of its new columns.
const REPLACED_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How a SELECT's rows are taken.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    /// The tag without its count.
    pub(super) tag: &'static str,
    /// The rows may be taken after the statement's time.
    pub(super) lasting: bool,
}

impl Default for Reading {
    fn default() -> Self {
        Self { tag: "SELECT", lasting: false }
    }
}

/// A plan about to run.
struct Run<'a> {
    planned: Arc<Planned>,
    state: &'a SessionState,
    parsed: &'a Parsed,
    params: &'a [ArrayRef],
    reading: Reading,
    /// What it reads, if whoever reads it at the same time gets the same rows.
    cut: Option<Arc<Cut>>,
}

impl Session {
    /// The statement's plan, made now or before.
    pub(super) fn planned(
        &self,
        parsed: &Parsed,
        query: &Query,
        hints: &[Option<DataType>],
    ) -> Result<Arc<Planned>, SqlError> {
        let scope = self.scope();
        if let Some(planned) = parsed.cached(&scope.catalog, hints) {
            return Ok(planned);
        }
        let planned = Arc::new(plan(&self.state, query, &parsed.text, &scope, hints)?);
        if planned.reusable {
            parsed.cache(&scope.catalog, hints, &planned);
        }
        Ok(planned)
    }

    pub(super) async fn query(
        &mut self,
        parsed: &Parsed,
        query: &Query,
        params: &[ArrayRef],
    ) -> Result<Response, SqlError> {
        let response = self.select(parsed, query, params, Reading::default()).await?;
        if !query.locks.is_empty() && self.open.is_some() {
            self.hold(parsed, query, params).await?;
        }
        Ok(response)
    }

    /// A SELECT whose rows are taken by a cursor, whenever it likes.
    pub(super) async fn for_cursor(
        &mut self,
        parsed: &Parsed,
        query: &Query,
        params: &[ArrayRef],
    ) -> Result<Response, SqlError> {
        let reading = Reading { lasting: true, ..Reading::default() };
        self.select(parsed, query, params, reading).await
    }

    pub(super) async fn select(
        &mut self,
        parsed: &Parsed,
        query: &Query,
        params: &[ArrayRef],
        reading: Reading,
    ) -> Result<Response, SqlError> {
        let guard = self.guard();
        let until = Instant::now() + REPLACED_WITHIN;
        loop {
            let found = self.select_once(parsed, query, params, reading, guard.clone()).await?;
            if let Some(response) = found {
                return Ok(response);
            }
            if Instant::now() > until {
                let message = "what it reads was replaced, and the new rows are not there yet";
                return Err(SqlError::new(OBJECT_NOT_READY, message).hint("Try again later."));
            }
            let pause = async {
                tokio::time::sleep(LOOK_EVERY).await;
                Ok(())
            };
            guard.run(pause).await?;
        }
    }

    /// Nothing if what it reads was replaced or altered between planning and reading.
    async fn select_once(
        &mut self,
        parsed: &Parsed,
        query: &Query,
        params: &[ArrayRef],
        reading: Reading,
        guard: Guard,
    ) -> Result<Option<Response>, SqlError> {
        let hints: Vec<_> = params.iter().map(|param| Some(param.data_type().clone())).collect();
        let catalog = self.engine.views.catalog();
        let planned = self.planned(parsed, query, &hints)?;
        let pinned = &planned.pinned;
        let engine = Arc::clone(&self.engine);
        // Whoever waits in vain for `evert.after` can find out why.
        let tells_of_itself = pinned.is_empty()
            && !planned.relations.is_empty()
            && planned.relations.iter().all(system::exists);
        let at_least = match tells_of_itself {
            true => self.floor.max(self.committed()),
            false => self.at_least(&guard).await?,
        };
        if self.settings.after.is_some() && !tells_of_itself {
            self.wait_for_archives(&planned.relations, &catalog, at_least, &guard).await?;
        }
        let mut own = Transaction::default();
        let transaction = match &mut self.open {
            Some(open) => &mut open.transaction,
            None => &mut own,
        };
        let cut = match pinned.is_empty() {
            true => None,
            false => {
                let pin = transaction.pin(&engine, pinned, at_least, guard.left());
                Some(guard.run(pin).await?)
            }
        };
        let position = cut.as_ref().map(|cut| cut.position);
        let transaction = self.open.as_ref().map_or(&own, |open| &open.transaction);
        if !fits(transaction.cut(), &catalog, &engine.views.catalog(), pinned) {
            if self.open.is_some() {
                let message = "what it reads was changed since this transaction began";
                return Err(SqlError::new(SERIALIZATION_FAILURE, message));
            }
            return Ok(None);
        }
        if let Some(notice) = paused(&catalog, pinned, position) {
            if self.settings.after.is_some() && position.is_some_and(|at| at < at_least) {
                let message = format!("{notice}, before position {at_least}");
                return Err(SqlError::new(OBJECT_NOT_READY, message).hint("RESUME VIEW first."));
            }
            self.notices.push(notice);
        }
        self.state.config_mut().set_extension(Arc::new(AtLeast(at_least)));
        let transaction = self.open.as_ref().map_or(&own, |open| &open.transaction);
        let rows = |name: &Name| rows(&engine, transaction, &planned, name);
        // What a transaction has written is its own, and what the server tells of itself is of
        // another moment each time.
        let alike = planned.reusable
            && !reading.lasting
            && self.open.is_none()
            && pinned.len() == planned.relations.len();
        let cut = cut.filter(|_| alike);
        let (state, planned) = (&self.state, Arc::clone(&planned));
        let run = Run { planned, state, parsed, params, reading, cut };
        let response = self.run_plan(run, &rows, guard).await?;
        self.last = position.unwrap_or(self.last);
        Ok(Some(response))
    }

    /// Waits until the archives among `names` hold everything up to a position.
    async fn wait_for_archives(
        &self,
        names: &[Name],
        catalog: &Catalog,
        position: Position,
        guard: &Guard,
    ) -> Result<(), SqlError> {
        for name in names.iter().filter(|name| archive::schema(catalog, name).is_some()) {
            let reached = self.engine.views.outlet_reached(name);
            let mut reached = reached.ok_or_else(|| archive::not_ready(name))?;
            let wait = async {
                let there = reached.wait_for(|reached| *reached >= position).await;
                there.map(drop).map_err(|_| archive::not_ready(name))
            };
            guard.run(wait).await?;
        }
        Ok(())
    }

    /// A SELECT over everything as it was at a moment; `now()` is the log's time then.
    pub(super) async fn query_as_of(
        &mut self,
        parsed: &Parsed,
        query: &Query,
        as_of: &AsOf,
        params: &[ArrayRef],
    ) -> Result<Response, SqlError> {
        let guard = self.guard();
        let position = self.moment(as_of, &guard).await?;
        let hints: Vec<_> = params.iter().map(|param| Some(param.data_type().clone())).collect();
        let mut planned = self.planned(parsed, query, &hints)?;
        let engine = Arc::clone(&self.engine);
        let catalog = engine.views.catalog();
        let is_archive = |name: &&Name| archive::schema(&catalog, name).is_some();
        if let Some(name) = planned.relations.iter().find(is_archive) {
            return Err(SqlError::unsupported(format!("AS OF for archive \"{name}\""))
                .hint("Compare its column evert_position with the position."));
        }
        let names = planned.pinned.clone();
        let past = async {
            let cut = engine.views.cut_at(&names, position).await;
            cut.map_err(|error| translate::past(&error))
        };
        let cut = guard.run(past).await?;
        let mut state = self.state.clone();
        state.execution_props_mut().query_execution_start_time =
            chrono::DateTime::from_timestamp_micros(cut.log_time.get());
        state.config_mut().set_extension(Arc::new(ReadsPast));
        if !planned.reusable {
            planned = Arc::new(plan(&state, query, &parsed.text, &self.scope(), &hints)?);
        }
        let then = Transaction::at(cut);
        let rows = |name: &Name| rows(&engine, &then, &planned, name);
        let reading = Reading::default();
        let planned = Arc::clone(&planned);
        let run = Run { planned, state: &state, parsed, params, reading, cut: None };
        let response = self.run_plan(run, &rows, guard).await?;
        self.last = position;
        Ok(response)
    }

    async fn run_plan(
        &self,
        run: Run<'_>,
        rows: &(dyn Fn(&Name) -> Result<Rows, SqlError> + Sync),
        guard: Guard,
    ) -> Result<Response, SqlError> {
        let Run { planned, state, parsed, params, reading, cut } = run;
        let (schema, tag) = (Arc::clone(&planned.schema), reading.tag);
        if let Some(found) = planned.evaluate(state, params, rows, &parsed.text)? {
            return Ok(Response::rows(schema, vec![found], tag));
        }
        let mut pilot = None;
        if let Some(cut) = &cut {
            match self.engine.flights.board(&planned, cut, params) {
                Boarding::Pilot(first) => pilot = Some(first),
                Boarding::Passenger(landing) => {
                    let landed = guard.run(async { Ok(landed(landing).await) }).await?;
                    if let Some(rows) = landed {
                        self.engine.flights.note_joined();
                        return Ok(Response::rows(schema, rows.to_vec(), tag));
                    }
                }
            }
        }
        let stream = guard.run(planned.execute(state, params, rows)).await?;
        let failed = self.open.is_some().then(|| Arc::clone(&self.failed));
        let text = Arc::clone(&parsed.text);
        let guard = match reading.lasting {
            true => Guard::new(FOREVER, &self.cancel),
            false => guard,
        };
        let batches = guard.stream(stream, Arc::clone(&schema), text, failed, pilot);
        Ok(Response::Rows { schema, batches, tag })
    }

    /// The position that a moment is.
    pub(super) async fn moment(
        &mut self,
        as_of: &AsOf,
        guard: &Guard,
    ) -> Result<Position, SqlError> {
        let expr = match as_of {
            AsOf::Position(token) => return self.position_of(token).await,
            AsOf::Time(expr) => expr,
        };
        let time = self.instant(expr)?;
        if time > self.engine.log.now() {
            return Err(SqlError::new(INVALID_PARAMETER_VALUE, "that time is in the future"));
        }
        let engine = Arc::clone(&self.engine);
        let find = tokio::task::spawn_blocking(move || engine.views.position_at(time));
        let found = async {
            match find.await {
                Ok(found) => found.map_err(|error| translate::past(&error)),
                Err(error) => Err(SqlError::new(INTERNAL_ERROR, error.to_string())),
            }
        };
        guard.run(found).await
    }

    /// The position of a place in the past: nothing is waited for.
    async fn position_of(&self, token: &PositionToken) -> Result<Position, SqlError> {
        let resolved = self.engine.views.resolve(token, Duration::ZERO).await;
        resolved.map_err(|error| match &error {
            // The only thing that can be invalid about a known token is its time.
            CatalogError::Invalid(_) => {
                SqlError::new(INVALID_PARAMETER_VALUE, format!("{token} is in the future"))
            }
            other => token_error(other),
        })
    }

    /// The value of a constant expression that is a time.
    fn instant(&self, expr: &sqlparser::ast::Expr) -> Result<LogTime, SqlError> {
        let sql = format!("SELECT CAST({expr} AS TIMESTAMP WITH TIME ZONE)");
        let statement = self.own_statement(&sql)?;
        let Command::Query(query) = &statement.0.command else {
            return Err(SqlError::new(INTERNAL_ERROR, "a SELECT is a query"));
        };
        let planned = plan(&self.state, query, &sql, &self.scope(), &[])?;
        let none = |_: &Name| -> Result<Rows, SqlError> {
            Err(SqlError::new(INVALID_PARAMETER_VALUE, "AS OF takes a constant"))
        };
        let row = match planned.relations.is_empty() {
            true => planned.evaluate(&self.state, &[], &none, &sql)?,
            false => None,
        };
        let constant =
            row.ok_or_else(|| SqlError::new(INVALID_PARAMETER_VALUE, "AS OF takes a constant"))?;
        let time = constant.column(0).as_primitive::<TimestampMicrosecondType>();
        match time.is_valid(0) {
            true => Ok(LogTime::new(time.value(0))),
            false => Err(SqlError::new(INVALID_PARAMETER_VALUE, "AS OF takes a time, not NULL")),
        }
    }

    pub(super) async fn wait_for(
        &mut self,
        token: &PositionToken,
        timeout: Option<Duration>,
    ) -> Result<Response, SqlError> {
        let guard = match timeout {
            Some(timeout) => Guard::new(timeout, &self.cancel),
            None => self.guard(),
        };
        let position = self.resolve(token, &guard).await?;
        let engine = Arc::clone(&self.engine);
        self.reach(&engine, &[], position, &guard).await?;
        Ok(done("WAIT"))
    }

    pub(super) async fn refresh(&mut self, name: &Name) -> Result<Response, SqlError> {
        let catalog = self.engine.views.catalog();
        if !catalog.views.contains_key(name) {
            return Err(unknown_relation(name, &catalog));
        }
        let guard = self.guard();
        let engine = Arc::clone(&self.engine);
        let end = engine.log.end();
        let names = std::slice::from_ref(name);
        self.reach(&engine, names, end, &guard).await?;
        if let Some(why) = paused(&catalog, names, Some(self.last)).filter(|_| self.last < end) {
            return Err(SqlError::new(OBJECT_NOT_READY, why).hint("RESUME VIEW first."));
        }
        Ok(done("REFRESH MATERIALIZED VIEW"))
    }

    /// Waits until the live views have what the session has written, or asks for.
    pub(super) async fn reach_own(&mut self, guard: &Guard) -> Result<(), SqlError> {
        let engine = Arc::clone(&self.engine);
        let at_least = self.at_least(guard).await?;
        self.reach(&engine, &[], at_least, guard).await
    }

    async fn reach(
        &mut self,
        engine: &Inner,
        names: &[Name],
        position: Position,
        guard: &Guard,
    ) -> Result<(), SqlError> {
        let cut = guard.run(engine.pin(names, position, guard.left())).await?;
        self.last = cut.position;
        if let Some(open) = &mut self.open {
            open.transaction.renew();
        }
        Ok(())
    }
}

/// Whether what was pinned has the columns that the catalog says.
fn fits(cut: Option<&Cut>, catalog: &Catalog, now: &Catalog, names: &[Name]) -> bool {
    let Some(cut) = cut else { return true };
    names.iter().all(|name| {
        let (Some(schema), Some(rows)) = (catalog.schema_of(name), cut.snapshots.get(name)) else {
            // A stream's rows are read as the catalog says now.
            return catalog.schema_of(name) == now.schema_of(name);
        };
        let fields = rows.schema().fields();
        let columns = &schema.columns;
        let same = |(column, field): (&Column, &FieldRef)| {
            column.name == *field.name() && column.ty.arrow_type() == *field.data_type()
        };
        columns.len() == fields.len() && columns.iter().zip(fields).all(same)
    })
}

/// What a reader of a paused view should know.
fn paused(catalog: &Catalog, names: &[Name], position: Option<Position>) -> Option<String> {
    if catalog.paused.is_empty() {
        return None;
    }
    let paused = catalog.paused_closure();
    let name = names.iter().find(|name| paused.contains(*name))?;
    Some(format!("view \"{name}\" is paused at position {}", position.unwrap_or_default()))
}

/// The rows that a relation has in a transaction that has pinned what it reads.
fn rows(
    engine: &Inner,
    transaction: &Transaction,
    planned: &Planned,
    name: &Name,
) -> Result<Rows, SqlError> {
    match transaction.cut() {
        Some(cut) if planned.pinned.contains(name) => transaction.rows(engine, cut, name),
        _ => system::rows(engine, name),
    }
}
