//! A client's session: the simple and the extended protocol over the engine's session.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::ArrayRef;
use tokio::sync::watch;

use super::backend::{Response, Session, SqlError, Statement, TransactionStatus};
use super::cancel::Cancel;
use super::copy;
use super::door::{PgConfig, told};
use super::encode::Form;
use super::frontend::{Bind, Message, Target};
use super::portal::{Cursor, Failure, Portal, PortalState};
use super::reply::{self, Bare};
use super::statement::{Action, Prepared, deallocated};
use super::wire::Wire;

/// What outlives a message.
pub(super) struct Client {
    session: Box<dyn Session>,
    statements: HashMap<String, Arc<Prepared>>,
    portals: HashMap<String, Portal>,
    cancel: Arc<Cancel>,
    cancelled: watch::Receiver<()>,
    /// Ends what would otherwise not end, or not soon.
    stopping: watch::Receiver<bool>,
    /// Settings as the client knows them.
    reported: Vec<(String, String)>,
    config: Arc<PgConfig>,
}

impl Client {
    pub(super) fn new(
        session: Box<dyn Session>,
        cancel: Arc<Cancel>,
        config: Arc<PgConfig>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let cancelled = cancel.watch();
        Self {
            session,
            statements: HashMap::new(),
            portals: HashMap::new(),
            cancel,
            cancelled,
            stopping,
            reported: Vec::new(),
            config,
        }
    }

    /// Acts on a message. After an error the caller tells the client and calls [`Client::failed`].
    pub(super) async fn handle(
        &mut self,
        wire: &mut Wire,
        message: Message,
    ) -> Result<(), Failure> {
        match message {
            Message::Query(sql) => self.query(wire, &sql).await,
            Message::Parse { name, sql, param_oids } => {
                self.parse(wire, name, &sql, &param_oids).await
            }
            Message::Bind(bind) => self.bind(wire, bind),
            Message::Describe { target, name } => self.describe(wire, target, &name).await,
            Message::Execute { portal, rows_max } => self.execute(wire, &portal, rows_max).await,
            Message::Close { target, name } => {
                match target {
                    Target::Statement => drop(self.statements.remove(&name)),
                    Target::Portal => drop(self.portals.remove(&name)),
                }
                reply::bare(&mut wire.out, Bare::CloseComplete);
                Ok(())
            }
            Message::Flush => Ok(wire.flush().await?),
            Message::FunctionCall => {
                Err(SqlError::new("0A000", "function calls by message are not supported").into())
            }
            // The caller ends a series at Sync, and the connection at Terminate.
            Message::Sync | Message::Terminate | Message::Copy => Ok(()),
        }
    }

    /// An error was reported: an open transaction has failed.
    pub(super) fn failed(&mut self) {
        if self.session.transaction_status() == TransactionStatus::InTransaction {
            self.session.fail_transaction();
        }
    }

    /// Tells the client that it may go on; portals end with their transaction.
    pub(super) fn ready(&mut self, wire: &mut Wire) {
        let status = self.session.transaction_status();
        if status == TransactionStatus::Idle {
            self.portals.clear();
        }
        reply::ready(&mut wire.out, status);
    }

    /// How long the client may leave the session alone; `None` is for ever.
    pub(super) fn idle_max(&self) -> Option<Duration> {
        match self.session.transaction_status() {
            TransactionStatus::Idle => None,
            _ => self.session.idle_in_transaction_max(),
        }
    }

    /// Reports the settings that have changed since the last report.
    pub(super) fn report_settings(&mut self, wire: &mut Wire) {
        let settings = self.session.parameters();
        for setting in &settings {
            if !self.reported.contains(setting) {
                reply::parameter_status(&mut wire.out, &setting.0, &setting.1);
            }
        }
        self.reported = settings;
    }

    fn send_notices(&mut self, wire: &mut Wire) {
        for notice in self.session.take_notices() {
            reply::notice(&mut wire.out, &notice);
        }
    }

    async fn query(&mut self, wire: &mut Wire, sql: &str) -> Result<(), Failure> {
        // A simple query ends whatever the unnamed statement and portal were.
        self.statements.remove("");
        self.portals.remove("");
        if let Some(name) = deallocated(sql) {
            let tag = self.deallocate(name.as_deref())?;
            reply::command_complete(&mut wire.out, tag);
            return Ok(());
        }
        let statements = self.session.parse(sql)?;
        if statements.is_empty() {
            reply::bare(&mut wire.out, Bare::EmptyQuery);
        }
        for statement in statements {
            self.run_simple(wire, &statement).await?;
        }
        Ok(())
    }

    async fn run_simple(&mut self, wire: &mut Wire, statement: &Statement) -> Result<(), Failure> {
        match self.start(wire, statement, &[]).await? {
            Response::Rows { schema, batches, tag } => {
                reply::row_description(&mut wire.out, &schema, |_| Form::Text.code());
                let forms = vec![Form::Text; schema.fields().len()];
                let mut cursor = Cursor::new(batches, forms, tag);
                cursor.send(wire, &mut self.cancelled, None).await?;
                self.send_notices(wire);
                reply::command_complete(&mut wire.out, &cursor.tag());
            }
            other => self.complete(wire, other).await?,
        }
        Ok(wire.flush_if_full().await?)
    }

    /// What every response but rows to be fetched comes to: it is complete then.
    async fn complete(&mut self, wire: &mut Wire, response: Response) -> Result<(), Failure> {
        match response {
            Response::Rows { .. } => {}
            Response::CopyOut { schema, batches, form, file, endless } => {
                let forms = vec![Form::Text; schema.fields().len()];
                let mut cursor = Cursor::new(batches, forms, "COPY");
                let cancelled = &mut self.cancelled;
                let mut stopping = self.stopping.clone();
                match file {
                    Some(file) => {
                        copy::to_file(wire, &schema, &form, &mut cursor, cancelled, file).await?;
                    }
                    None => tokio::select! {
                        copied =
                            copy::to_client(wire, &schema, &form, &mut cursor, cancelled) => copied?,
                        () = told(&mut stopping), if endless => return Err(stopped().into()),
                    },
                }
                self.done(wire, &cursor.tag());
            }
            Response::CopyIn { columns } => {
                let mut stopping = self.stopping.clone();
                let session = self.session.as_mut();
                let copied = tokio::select! {
                    copied =
                        copy::from_client(wire, session, columns, &mut self.cancelled) => copied,
                    () = told(&mut stopping) => Err(stopped().into()),
                };
                if copied.is_err() {
                    self.session.copy_abandon();
                }
                let tag = copied?;
                self.done(wire, &tag);
            }
            Response::Done { tag } => self.done(wire, &tag),
            Response::Empty => reply::bare(&mut wire.out, Bare::EmptyQuery),
        }
        Ok(())
    }

    /// Starts a statement. A client that leaves meanwhile cancels it.
    async fn start(
        &mut self,
        wire: &mut Wire,
        statement: &Statement,
        params: &[ArrayRef],
    ) -> Result<Response, SqlError> {
        // A request that came too late for the statement before is not for this one.
        self.cancelled.mark_unchanged();
        let result = {
            let execute = self.session.execute(statement, params);
            tokio::pin!(execute);
            tokio::select! {
                biased;
                result = &mut execute => result,
                () = wire.gone() => {
                    self.cancel.ask();
                    execute.await
                }
            }
        };
        self.send_notices(wire);
        result
    }

    /// A command is complete. Commands may change settings.
    fn done(&mut self, wire: &mut Wire, tag: &str) {
        if tag == "DISCARD ALL" {
            self.statements.clear();
            self.portals.clear();
        }
        self.report_settings(wire);
        reply::command_complete(&mut wire.out, tag);
    }

    fn deallocate(&mut self, name: Option<&str>) -> Result<&'static str, SqlError> {
        match name {
            None => {
                self.statements.clear();
                Ok("DEALLOCATE ALL")
            }
            Some(name) => match self.statements.remove(name) {
                Some(_) => Ok("DEALLOCATE"),
                None => Err(no_statement(name)),
            },
        }
    }

    async fn parse(
        &mut self,
        wire: &mut Wire,
        name: String,
        sql: &str,
        oids: &[u32],
    ) -> Result<(), Failure> {
        if name.is_empty() {
            self.statements.remove("");
        } else if self.statements.contains_key(&name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(SqlError::new("42P05", message).into());
        }
        if self.statements.len() >= self.config.statements_max {
            return Err(SqlError::new("54000", "too many prepared statements").into());
        }
        let prepared = Prepared::new(self.session.as_mut(), sql, oids).await;
        self.send_notices(wire);
        let prepared = prepared?;
        self.check_memory(prepared.bytes)?;
        self.statements.insert(name, Arc::new(prepared));
        reply::bare(&mut wire.out, Bare::ParseComplete);
        Ok(())
    }

    fn bind(&mut self, wire: &mut Wire, bind: Bind) -> Result<(), Failure> {
        let prepared = self.statement(&bind.statement)?;
        let portal = Portal::new(prepared, &bind)?;
        self.check_memory(portal.bytes)?;
        let open = self.portals.len();
        match self.portals.entry(bind.portal) {
            Entry::Occupied(mut entry) if entry.key().is_empty() => drop(entry.insert(portal)),
            Entry::Occupied(entry) => {
                let message = format!("portal \"{}\" already exists", entry.key());
                return Err(SqlError::new("42P03", message).into());
            }
            Entry::Vacant(_) if open >= self.config.portals_max => {
                return Err(SqlError::new("54000", "too many open portals").into());
            }
            Entry::Vacant(entry) => drop(entry.insert(portal)),
        }
        reply::bare(&mut wire.out, Bare::BindComplete);
        Ok(())
    }

    /// Refuses what would take the connection past its bound.
    fn check_memory(&self, more: usize) -> Result<(), SqlError> {
        let statements: usize = self.statements.values().map(|prepared| prepared.bytes).sum();
        let portals: usize = self.portals.values().map(|portal| portal.bytes).sum();
        if statements + portals + more > self.config.prepared_bytes_max {
            let message = "prepared statements and portals take too much memory";
            return Err(SqlError::new("53200", message));
        }
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<Arc<Prepared>, SqlError> {
        self.statements.get(name).cloned().ok_or_else(|| no_statement(name))
    }

    async fn describe(
        &mut self,
        wire: &mut Wire,
        target: Target,
        name: &str,
    ) -> Result<(), Failure> {
        let (prepared, forms) = match target {
            Target::Statement => {
                let prepared = self.statement(name)?;
                reply::parameter_description(&mut wire.out, &prepared.param_oids);
                (prepared, None)
            }
            Target::Portal => {
                let Some(portal) = self.portals.get(name) else {
                    return self.describe_cursor(wire, name).await;
                };
                (portal.prepared.clone(), Some(&portal.forms))
            }
        };
        match &prepared.columns {
            Some(columns) => reply::row_description(&mut wire.out, columns, |column| {
                forms.map_or(Form::Text, |forms| forms[column]).code()
            }),
            None => reply::bare(&mut wire.out, Bare::NoData),
        }
        Ok(())
    }

    /// A cursor that DECLARE made is a portal too.
    async fn describe_cursor(&mut self, wire: &mut Wire, name: &str) -> Result<(), Failure> {
        let fetch = format!("FETCH \"{}\"", name.replace('"', "\"\""));
        let found = Prepared::new(self.session.as_mut(), &fetch, &[]).await;
        let columns = found.ok().and_then(|found| found.columns).ok_or_else(|| no_portal(name))?;
        reply::row_description(&mut wire.out, &columns, |_| Form::Text.code());
        Ok(())
    }

    async fn execute(&mut self, wire: &mut Wire, name: &str, rows_max: i32) -> Result<(), Failure> {
        // Taken out while it runs: a portal that fails is gone.
        let mut portal = self.portals.remove(name).ok_or_else(|| no_portal(name))?;
        if matches!(portal.state, PortalState::Bound) {
            let (prepared, params) = (portal.prepared.clone(), &portal.params);
            match self.start_portal(wire, &prepared, params, &portal.forms).await? {
                Some(state) => portal.state = state,
                None => portal.state = PortalState::Finished { tag: String::new() },
            }
        } else if let PortalState::Finished { tag } = &portal.state {
            if tag.is_empty() {
                let message = format!("portal \"{name}\" cannot be run again");
                return Err(SqlError::new("55000", message).into());
            }
            reply::command_complete(&mut wire.out, tag);
        }
        if let PortalState::Rows(cursor) = &mut portal.state {
            let rows_max = u64::try_from(rows_max).ok().filter(|&rows| rows > 0);
            self.cancelled.mark_unchanged();
            let ended = cursor.send(wire, &mut self.cancelled, rows_max).await?;
            self.send_notices(wire);
            if ended {
                reply::command_complete(&mut wire.out, &cursor.tag());
                portal.state = PortalState::Finished { tag: cursor.tag_of_nothing() };
            } else {
                reply::bare(&mut wire.out, Bare::PortalSuspended);
            }
        }
        self.portals.insert(name.to_owned(), portal);
        Ok(wire.flush_if_full().await?)
    }

    /// Runs a bound statement; one without rows is complete then.
    async fn start_portal(
        &mut self,
        wire: &mut Wire,
        prepared: &Prepared,
        params: &[ArrayRef],
        forms: &[Form],
    ) -> Result<Option<PortalState>, Failure> {
        let statement = match &prepared.action {
            Action::Run(statement) => statement,
            Action::Empty => {
                reply::bare(&mut wire.out, Bare::EmptyQuery);
                return Ok(None);
            }
            Action::Deallocate(name) => {
                let tag = self.deallocate(name.as_deref())?;
                reply::command_complete(&mut wire.out, tag);
                return Ok(None);
            }
        };
        match self.start(wire, statement, params).await? {
            Response::Rows { schema, batches, tag } => {
                if !prepared.describes(&schema) {
                    let message = "cached plan must not change result type";
                    return Err(SqlError::new("0A000", message).into());
                }
                Ok(Some(PortalState::Rows(Cursor::new(batches, forms.to_vec(), tag))))
            }
            other => {
                self.complete(wire, other).await?;
                Ok(None)
            }
        }
    }
}

fn stopped() -> SqlError {
    SqlError::new("57P01", "terminating connection due to administrator command")
}

fn no_statement(name: &str) -> SqlError {
    let message = if name.is_empty() {
        "unnamed prepared statement does not exist".to_owned()
    } else {
        format!("prepared statement \"{name}\" does not exist")
    };
    SqlError::new("26000", message)
}

fn no_portal(name: &str) -> SqlError {
    SqlError::new("34000", format!("portal \"{name}\" does not exist"))
}
