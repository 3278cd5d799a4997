//! `evert view`: views, by SQL.

use std::collections::HashMap;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::Value;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::shown::Rows;
use crate::output::print;

/// The flags of `evert view`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ViewArgs {
    #[command(subcommand)]
    command: ViewCommand,
    /// Where the server's SQL door is
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = "postgres://evert@127.0.0.1:7432/evert"
    )]
    url: String,
    /// Print JSON, an object a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Clone, Debug)]
enum ViewCommand {
    /// All views, and how they are
    List,
    /// One view: how it is, its definition, what it holds in memory
    Show {
        /// The view
        name: String,
    },
    /// Fold views again from the log's beginning, and swap
    Rebuild {
        /// The views
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Fold a view privately and compare; fails when a row differs
    Verify {
        /// The view
        name: String,
    },
    /// Let a view stand still
    Pause {
        /// The view
        name: String,
    },
    /// Let a paused view go on
    Resume {
        /// The view
        name: String,
    },
    /// Drop views, search indexes, archives and sinks
    Drop {
        /// The views
        #[arg(required = true)]
        names: Vec<String>,
        /// And the views that read them
        #[arg(long)]
        cascade: bool,
    },
}

const COLUMNS: &str = "name, kind, state, stage, percent, eta_ms, position, lag_records, lag_ms, \
                       rows, memory_bytes";

/// Runs `evert view`.
///
/// # Errors
/// When the server cannot be reached, or refuses.
pub(crate) async fn run(args: ViewArgs) -> Result<ExitCode> {
    let connected = tokio_postgres::connect(&args.url, NoTls).await;
    let (client, connection) = connected.context("cannot connect to the SQL door")?;
    tokio::spawn(connection);
    // A rebuild takes as long as it takes.
    client.batch_execute("SET statement_timeout = 0").await.map_err(told)?;
    let mut agreed = true;
    match &args.command {
        ViewCommand::List => {
            let sql = format!("SELECT {COLUMNS} FROM evert.views ORDER BY name");
            print(&rows(&client, &sql).await?.render(args.json))?;
        }
        ViewCommand::Show { name } => show(&client, name, args.json).await?,
        ViewCommand::Rebuild { names } => {
            execute(&client, &format!("REBUILD VIEW {}", list(names))).await?;
        }
        ViewCommand::Verify { name } => {
            let sql = format!("VERIFY VIEW {}", quoted(name));
            let verdict = client.simple_query(&sql).await.map_err(told)?;
            let first = verdict.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row.get("equal") == Some("t")),
                _ => None,
            });
            agreed = first.context("VERIFY gave no verdict")?;
            print(&of_messages(&client, &sql, &verdict).await?.render(args.json))?;
        }
        ViewCommand::Pause { name } => {
            execute(&client, &format!("PAUSE VIEW {}", quoted(name))).await?;
        }
        ViewCommand::Resume { name } => {
            execute(&client, &format!("RESUME VIEW {}", quoted(name))).await?;
        }
        ViewCommand::Drop { names, cascade } => drop_all(&client, names, *cascade).await?,
    }
    Ok(if agreed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn show(client: &Client, name: &str, json: bool) -> Result<()> {
    let literal = name.replace('\'', "''");
    let sql = format!("SELECT {COLUMNS}, definition FROM evert.views WHERE name = '{literal}'");
    let found = rows(client, &sql).await?;
    if found.is_empty() {
        bail!("view \"{name}\" does not exist");
    }
    print(&found.render(json))?;
    let sql = format!(
        "SELECT operator_id, operator, rows, bytes FROM evert.view_state WHERE view = '{literal}' \
         ORDER BY operator_id"
    );
    let state = rows(client, &sql).await?;
    if !json {
        print(&format!("\n{}", state.render(false)))?;
    }
    Ok(())
}

/// Drops each by the statement of its kind; what reads a view first.
async fn drop_all(client: &Client, names: &[String], cascade: bool) -> Result<()> {
    let found = client.simple_query("SELECT name, kind FROM evert.views").await.map_err(told)?;
    let kinds: HashMap<_, _> = found
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((row.get(0)?, row.get(1)?)),
            _ => None,
        })
        .collect();
    // Names of nothing are for the server to refuse.
    let kind = |name: &str| match kinds.get(name.strip_prefix("public.").unwrap_or(name)) {
        Some(&"search") => "SEARCH INDEX",
        Some(&"archive") => "ARCHIVE",
        Some(&"sink") => "SINK",
        _ => "MATERIALIZED VIEW",
    };
    let cascade = if cascade { " CASCADE" } else { "" };
    for word in ["SEARCH INDEX", "ARCHIVE", "SINK", "MATERIALIZED VIEW"] {
        let own: Vec<_> = names.iter().filter(|name| kind(name) == word).cloned().collect();
        if !own.is_empty() {
            execute(client, &format!("DROP {word} {}{cascade}", list(&own))).await?;
        }
    }
    Ok(())
}

async fn execute(client: &Client, sql: &str) -> Result<()> {
    client.batch_execute(sql).await.map_err(told)?;
    print(&format!("{}\n", sql.split(' ').take(2).collect::<Vec<_>>().join(" ")))
}

async fn rows(client: &Client, sql: &str) -> Result<Rows> {
    let messages = client.simple_query(sql).await.map_err(told)?;
    of_messages(client, sql, &messages).await
}

/// A result's rows; its columns' types tell which values are numbers.
async fn of_messages(client: &Client, sql: &str, messages: &[SimpleQueryMessage]) -> Result<Rows> {
    let statement = client.prepare(sql).await.map_err(told)?;
    let types: Vec<Type> =
        statement.columns().iter().map(|column| column.type_().clone()).collect();
    let mut rows = Rows::new(statement.columns().iter().map(|column| column.name().to_owned()));
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            let cells = types.iter().enumerate();
            rows.push(cells.map(|(index, ty)| value(row.get(index), ty)).collect());
        }
    }
    Ok(rows)
}

fn value(text: Option<&str>, ty: &Type) -> Value {
    let Some(text) = text else { return Value::Null };
    match *ty {
        Type::BOOL => Value::Bool(text == "t"),
        Type::INT2 | Type::INT4 | Type::INT8 | Type::FLOAT4 | Type::FLOAT8 => {
            serde_json::from_str(text).unwrap_or_else(|_| text.into())
        }
        _ => text.into(),
    }
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

/// A name as the catalog has it: `view` or `schema.view`.
fn quoted(name: &str) -> String {
    let parts = name.splitn(2, '.').map(|part| format!("\"{}\"", part.replace('"', "\"\"")));
    parts.collect::<Vec<_>>().join(".")
}

/// The server's own words.
fn told(error: tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(db) => match db.hint() {
            Some(hint) => anyhow::anyhow!("{} ({hint})", db.message()),
            None => anyhow::anyhow!("{}", db.message()),
        },
        None => error.into(),
    }
}
