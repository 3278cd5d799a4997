//! Reading statements: SELECT, EXPLAIN, WAIT FOR POSITION, REFRESH.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use evert_model::{Position, PositionToken};
use evert_view::Name;
use sqlparser::ast::Query;

use super::{Session, show};
use crate::engine::Inner;
use crate::names::unknown_relation;
use crate::query::{Planned, plan};
use crate::scan::Rows;
use crate::statement::{Parsed, done};
use crate::transaction::Transaction;
use crate::{Response, SqlError, system};

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
        self.select(parsed, query, params, "SELECT").await
    }

    pub(super) async fn select(
        &mut self,
        parsed: &Parsed,
        query: &Query,
        params: &[ArrayRef],
        tag: &'static str,
    ) -> Result<Response, SqlError> {
        let guard = self.guard();
        let hints: Vec<_> = params.iter().map(|param| Some(param.data_type().clone())).collect();
        let planned = self.planned(parsed, query, &hints)?;
        let pinned: Vec<_> =
            planned.relations.iter().filter(|name| system::is_pinned(name)).cloned().collect();
        let engine = Arc::clone(&self.engine);
        let at_least = self.at_least(&guard).await?;
        let mut own = Transaction::default();
        let in_transaction = self.open.is_some();
        let transaction = match &mut self.open {
            Some(open) => &mut open.transaction,
            None => &mut own,
        };
        let position = match pinned.is_empty() {
            true => None,
            false => {
                let pin = transaction.pin(&engine, &pinned, at_least, guard.left());
                Some(guard.run(pin).await?.position)
            }
        };
        let rows = |name: &Name| rows(&engine, transaction, name);
        let schema = Arc::clone(&planned.schema);
        if let Some(found) = planned.evaluate(&self.state, params, &rows, &parsed.text)? {
            self.last = position.unwrap_or(self.last);
            return Ok(Response::rows(schema, vec![found], tag));
        }
        let stream = guard.run(planned.execute(&self.state, params, &rows)).await?;
        self.last = position.unwrap_or(self.last);
        let failed = in_transaction.then(|| Arc::clone(&self.failed));
        let text = Arc::clone(&parsed.text);
        let batches = guard.stream(stream, Arc::clone(&schema), text, failed);
        Ok(Response::Rows { schema, batches, tag })
    }

    pub(super) fn explain(&self, parsed: &Parsed, query: &Query) -> Result<Response, SqlError> {
        let planned = plan(&self.state, query, &parsed.text, &self.scope(), &[])?;
        show::explain(&planned.display())
    }

    pub(super) async fn wait_for(
        &mut self,
        token: &PositionToken,
        timeout: Option<Duration>,
    ) -> Result<Response, SqlError> {
        let guard = match timeout {
            Some(timeout) => crate::guard::Guard::new(timeout, &self.cancel),
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
        self.reach(&engine, std::slice::from_ref(name), end, &guard).await?;
        Ok(done("REFRESH MATERIALIZED VIEW"))
    }

    async fn reach(
        &mut self,
        engine: &Inner,
        names: &[Name],
        position: Position,
        guard: &crate::guard::Guard,
    ) -> Result<(), SqlError> {
        let cut = guard.run(engine.pin(names, position, guard.left())).await?;
        self.last = cut.position;
        if let Some(open) = &mut self.open {
            open.transaction.renew();
        }
        Ok(())
    }
}

/// The rows that a relation has in a transaction that has pinned what it reads.
fn rows(engine: &Inner, transaction: &Transaction, name: &Name) -> Result<Rows, SqlError> {
    match transaction.cut() {
        Some(cut) if system::is_pinned(name) => transaction.rows(engine, cut, name),
        _ => system::rows(engine, name),
    }
}
