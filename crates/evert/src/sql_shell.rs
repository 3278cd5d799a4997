//! `evert sql`: a small SQL client, for a machine that has no psql.

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use futures::TryStreamExt;
use tokio_postgres::error::DbError;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, SimpleColumn, SimpleQueryMessage};

use crate::output::print;

/// The flags of `evert sql`.
#[derive(Args, Clone, Debug)]
pub(crate) struct SqlArgs {
    /// Statements to run; without any they are read from standard input
    #[arg(short = 'c', long = "command", value_name = "SQL")]
    commands: Vec<String>,
    /// Where the server's SQL door is
    #[arg(long, value_name = "URL", default_value = "postgres://evert@127.0.0.1:7432/evert")]
    url: String,
}

/// Runs `evert sql`; a failed statement makes it fail.
///
/// # Errors
/// When the server cannot be reached or the connection breaks.
pub(crate) async fn run(args: SqlArgs) -> Result<ExitCode> {
    let connected = tokio_postgres::connect(&args.url, NoTls).await;
    let (client, connection) = connected.context("cannot connect to the SQL door")?;
    tokio::spawn(drive(connection));
    let mut succeeded = true;
    if !args.commands.is_empty() {
        for sql in &args.commands {
            succeeded = execute(&client, sql).await?;
            if !succeeded {
                break;
            }
        }
    } else if std::io::stdin().is_terminal() {
        prompt(&client).await?;
    } else {
        let sql = std::io::read_to_string(std::io::stdin().lock())?;
        succeeded = execute(&client, &sql).await?;
    }
    Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Moves the connection's bytes and prints the notices among them.
async fn drive<S, T>(mut connection: Connection<S, T>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => {
                eprintln!("{}:  {}", notice.severity(), notice.message());
            }
            Ok(_) => {}
            // The statement under way reports it.
            Err(_) => return,
        }
    }
}

/// Reads statements, each up to a line that ends in a semicolon, until the input's end.
async fn prompt(client: &Client) -> Result<()> {
    let mut sql = String::new();
    loop {
        print(if sql.is_empty() { "evert=> " } else { "evert-> " })?;
        let line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).map(|bytes| (bytes > 0).then_some(line))
        });
        let Some(line) = line.await?? else {
            return print("\n");
        };
        if sql.is_empty() && matches!(line.trim(), "\\q" | "quit" | "exit") {
            return Ok(());
        }
        sql.push_str(&line);
        if sql.trim().is_empty() {
            sql.clear();
        } else if sql.trim_end().ends_with(';') {
            execute(client, &std::mem::take(&mut sql)).await?;
        }
    }
}

/// Runs statements and prints what they give; `false` when one failed.
async fn execute(client: &Client, sql: &str) -> Result<bool> {
    let messages = match client.simple_query_raw(sql).await {
        Ok(messages) => messages,
        Err(error) => return report(error),
    };
    let mut messages = std::pin::pin!(messages);
    let mut rows = Rows::default();
    loop {
        match messages.try_next().await {
            Ok(None) => return Ok(true),
            Ok(Some(SimpleQueryMessage::RowDescription(columns))) => rows.begin(&columns),
            Ok(Some(SimpleQueryMessage::Row(row))) => {
                rows.push((0..row.len()).map(|column| row.get(column)));
            }
            Ok(Some(SimpleQueryMessage::CommandComplete(count))) => {
                print(&format!("{}\n", rows.finish(count)))?;
            }
            Ok(Some(_)) => {}
            Err(error) => return report(error),
        }
    }
}

/// Prints a statement's error; any other trouble ends the client.
fn report(error: tokio_postgres::Error) -> Result<bool> {
    match error.as_db_error() {
        Some(error) => {
            eprintln!("{}", describe(error));
            Ok(false)
        }
        None => bail!(error),
    }
}

fn describe(error: &DbError) -> String {
    let mut text = format!("{}:  {}: {}", error.severity(), error.code().code(), error.message());
    let place = error.position().map(|position| match position {
        tokio_postgres::error::ErrorPosition::Original(at) => format!("at character {at}"),
        tokio_postgres::error::ErrorPosition::Internal { position, query } => {
            format!("at character {position} of: {query}")
        }
    });
    let more = [("DETAIL", error.detail()), ("HINT", error.hint()), ("POSITION", place.as_deref())];
    for (name, value) in more {
        if let Some(value) = value {
            text.push_str(&format!("\n{name}:  {value}"));
        }
    }
    text
}

/// A result being gathered for printing.
#[derive(Default)]
struct Rows {
    table: Option<Table>,
    /// Whether all values of a column so far are numbers, which stand to the right.
    numeric: Vec<bool>,
}

impl Rows {
    fn begin(&mut self, columns: &[SimpleColumn]) {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header(columns.iter().map(SimpleColumn::name));
        self.numeric = vec![true; columns.len()];
        self.table = Some(table);
    }

    fn push<'a>(&mut self, values: impl Iterator<Item = Option<&'a str>>) {
        let values: Vec<_> = values.collect();
        for (numeric, value) in self.numeric.iter_mut().zip(&values) {
            *numeric &= value.is_none_or(|value| value.parse::<f64>().is_ok());
        }
        if let Some(table) = &mut self.table {
            table.add_row(values.into_iter().map(Option::unwrap_or_default));
        }
    }

    /// The table, if the statement gave rows, and how many rows it gave or changed.
    fn finish(&mut self, count: u64) -> String {
        let rows = if count == 1 { "1 row" } else { &format!("{count} rows") };
        let Some(mut table) = self.table.take() else { return format!("OK, {rows}") };
        for (column, numeric) in table.column_iter_mut().zip(&self.numeric) {
            if *numeric && count > 0 {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        format!("{table}\n({rows})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let mut rows = Rows { table: Some(Table::new()), numeric: vec![true, true] };
        let table = rows.table.as_mut().expect("just made");
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header(["name", "total"]);
        rows.push([Some("a"), Some("10")].into_iter());
        rows.push([None, Some("9.5")].into_iter());
        let expected =
            "| name | total |\n|------|-------|\n| a    |    10 |\n|      |   9.5 |\n(2 rows)";
        assert_eq!(rows.finish(2), expected);
        assert_eq!(rows.finish(1), "OK, 1 row");
    }
}
