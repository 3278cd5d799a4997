//! Writing statements: INSERT, UPDATE, DELETE.

use std::sync::Arc;

use arrow::array::ArrayRef;
use sqlparser::ast::Query;

use super::Session;
use crate::command::Command;
use crate::dml::{self, Evaluation, Needs, Outcome};
use crate::error::READ_ONLY_TRANSACTION;
use crate::guard::Guard;
use crate::statement::{Parsed, done};
use crate::transaction::{Check, Transaction};
use crate::{Response, SqlError, archive, system};

impl Session {
    pub(super) async fn change(
        &mut self,
        parsed: &Parsed,
        params: &[ArrayRef],
    ) -> Result<Response, SqlError> {
        let guard = self.guard();
        let hints: Vec<_> = params.iter().map(|param| Some(param.data_type().clone())).collect();
        let mut needs = dml::needs(&self.state, parsed, &self.scope(), &hints)?;
        let catalog = self.engine.views.catalog();
        needs
            .relations
            .retain(|name| system::is_pinned(name) && archive::schema(&catalog, name).is_none());
        let outcome = if self.open.is_some() {
            self.change_in_transaction(parsed, params, &needs, &guard).await?
        } else {
            self.change_at_once(parsed, params, &needs, &guard).await?
        };
        let verb = match &parsed.command {
            Command::Insert(_) => "INSERT 0",
            Command::Update(_) => "UPDATE",
            _ => "DELETE",
        };
        Ok(match outcome.returning {
            Some((schema, rows)) => Response::rows(schema, rows, verb),
            None => done(format!("{verb} {}", outcome.count)),
        })
    }

    async fn change_in_transaction(
        &mut self,
        parsed: &Parsed,
        params: &[ArrayRef],
        needs: &Needs,
        guard: &Guard,
    ) -> Result<Outcome, SqlError> {
        // A transaction that begins with a write reads all that was committed before.
        let at_least = self.at_least(guard).await?.max(self.engine.log.end());
        let scope = self.scope();
        let Some(open) = &mut self.open else {
            unreachable!("the caller has seen the open transaction");
        };
        let transaction = &mut open.transaction;
        refuse_read_only(transaction, parsed)?;
        let engine = &self.engine;
        let pin = transaction.pin(engine, &needs.relations, at_least, guard.left());
        let cut = guard.run(pin).await?;
        self.last = cut.position;
        let evaluation = Evaluation {
            engine,
            state: &self.state,
            parsed,
            params,
            transaction,
            cut: Some(cut),
            check: Check::AtCommit,
            scope,
            own_rows: Default::default(),
        };
        guard.run(dml::run(evaluation)).await
    }

    async fn change_at_once(
        &mut self,
        parsed: &Parsed,
        params: &[ArrayRef],
        needs: &Needs,
        guard: &Guard,
    ) -> Result<Outcome, SqlError> {
        let mut transaction = Transaction::default();
        let by_default = self.settings.get("default_transaction_read_only");
        transaction.read_only = by_default.is_ok_and(|value| value == "on");
        refuse_read_only(&transaction, parsed)?;
        let engine = Arc::clone(&self.engine);
        let (alone, shared);
        let mut at_least = self.at_least(guard).await?;
        if needs.alone {
            // What cannot be read yet is waited for before others are shut out.
            guard.run(engine.pin(&needs.relations, at_least, guard.left())).await?;
            alone = Some(guard.run(async { Ok(engine.dml.write().await) }).await?);
            shared = None;
            at_least = at_least.max(engine.log.end());
        } else {
            alone = None;
            shared = Some(guard.run(async { Ok(engine.dml.read().await) }).await?);
        }
        // A plain INSERT of values reads nothing but its own table's name.
        let reads = needs.alone || needs.relations.len() > 1;
        let cut = if reads {
            let pin = transaction.pin(&engine, &needs.relations, at_least, guard.left());
            Some(guard.run(pin).await?)
        } else {
            None
        };
        let evaluation = Evaluation {
            engine: &engine,
            state: &self.state,
            parsed,
            params,
            transaction: &mut transaction,
            cut,
            check: Check::No,
            scope: self.scope(),
            own_rows: Default::default(),
        };
        let outcome = guard.run(dml::run(evaluation)).await?;
        // From here on the statement is not cancelled: its facts are on their way.
        if let Some(position) = transaction.commit_locked(&engine).await? {
            self.wrote(position);
        }
        drop((alone, shared));
        Ok(outcome)
    }
}

impl Session {
    /// Counts the rows of SELECT ... FOR UPDATE as touched by the open transaction, which has
    /// pinned what the SELECT reads.
    pub(super) async fn hold(
        &mut self,
        parsed: &Parsed,
        query: &Query,
        params: &[ArrayRef],
    ) -> Result<(), SqlError> {
        let (scope, guard) = (self.scope(), self.guard());
        let Some(open) = &mut self.open else { return Ok(()) };
        let cut = open.transaction.shared_cut();
        let mut evaluation = Evaluation {
            engine: &self.engine,
            state: &self.state,
            parsed,
            params,
            transaction: &mut open.transaction,
            cut,
            check: Check::AtCommit,
            scope,
            own_rows: Default::default(),
        };
        guard.run(dml::hold(&mut evaluation, query)).await
    }
}

fn refuse_read_only(transaction: &Transaction, parsed: &Parsed) -> Result<(), SqlError> {
    if !transaction.read_only {
        return Ok(());
    }
    let verb = match &parsed.command {
        Command::Insert(_) => "INSERT",
        Command::Update(_) => "UPDATE",
        _ => "DELETE",
    };
    Err(SqlError::new(
        READ_ONLY_TRANSACTION,
        format!("cannot execute {verb} in a read-only transaction"),
    ))
}
