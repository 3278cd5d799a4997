//! `evert export`: a query's rows as of a moment, in a file that is the same whenever it is made.
//!
//! Owns: the rows' order, and the file's bytes.
//!
//! Invariants
//! - The same query as of the same commit gives the same bytes: rows that the query does not
//!   order are ordered by all their columns, and nothing in the file is of the time it was made.

mod csv;
mod order;
mod parquet;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use futures::TryStreamExt;
use tokio_postgres::{Client, Column, NoTls, SimpleQueryMessage};

use crate::output::Output;

/// The flags of `evert export`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ExportArgs {
    /// The SELECT
    #[arg(long, value_name = "SQL")]
    query: String,
    /// The moment: a position, topic/partition@offset, source:LSN, or a time such as
    /// "2026-11-21 23:00:00+05:30"
    #[arg(long, value_name = "MOMENT")]
    as_of: String,
    /// The file's format
    #[arg(long, value_enum)]
    format: Format,
    /// The file; standard output if not given
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Where the server's SQL door is
    #[arg(long, value_name = "URL", default_value = "postgres://evert@127.0.0.1:7432/evert")]
    url: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Csv,
    Parquet,
}

/// Takes a query's rows, in order; values are Postgres's text.
trait Sink {
    fn row(&mut self, values: &[Option<&str>]) -> Result<()>;
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Runs `evert export`.
///
/// # Errors
/// When the server refuses the query or the moment, or the file cannot be written; then there is
/// no file.
pub(crate) async fn run(args: ExportArgs) -> Result<()> {
    let connected = tokio_postgres::connect(&args.url, NoTls).await;
    let (client, connection) = connected.context("cannot connect to the SQL door")?;
    tokio::spawn(connection);
    let query = args.query.trim().trim_end_matches(';').trim_end();
    if let Some(mistake) = order::mistake(query) {
        bail!(mistake);
    }
    let moment = moment(&args.as_of);
    // By itself, so that errors are in its own words.
    let described = client.prepare(query).await.map_err(|error| told(&error))?;
    refuse_changing(&client, query).await?;
    let sql = format!("{}\n{moment}", order::whole(query, described.columns().len()));
    let rows = match &args.out {
        None => {
            let out = Box::new(std::io::BufWriter::new(Output::new()));
            copy(&client, &sql, described.columns(), args.format, out).await?
        }
        Some(path) => {
            let unfinished = beside(path);
            let file = std::fs::File::create(&unfinished)
                .with_context(|| format!("cannot write {}", unfinished.display()))?;
            let out = Box::new(std::io::BufWriter::new(file));
            let copied = copy(&client, &sql, described.columns(), args.format, out).await;
            if copied.is_err() {
                // The error is what counts; a file that stays says itself that it is unfinished.
                drop(std::fs::remove_file(&unfinished));
            }
            let rows = copied?;
            std::fs::rename(&unfinished, path)
                .with_context(|| format!("cannot write {}", path.display()))?;
            rows
        }
    };
    eprintln!("exported {rows} rows {}", moment.to_lowercase());
    Ok(())
}

/// The file's name until it is whole.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".unfinished");
    path.with_file_name(name)
}

/// The moment as a query's end says it.
fn moment(text: &str) -> String {
    let text = text.trim();
    let quoted = text.replace('\'', "''");
    if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        return format!("AS OF POSITION {text}");
    }
    let is_lsn = text.rsplit_once(':').is_some_and(|(source, lsn)| {
        let hex = |half: &str| !half.is_empty() && half.bytes().all(|b| b.is_ascii_hexdigit());
        !source.is_empty() && lsn.split_once('/').is_some_and(|(a, b)| hex(a) && hex(b))
    });
    match is_lsn || (text.contains('@') && text.contains('/')) {
        true => format!("AS OF POSITION '{quoted}'"),
        false => format!("AS OF TIMESTAMP '{quoted}'"),
    }
}

/// Refuses a query whose rows depend on more than the log. No view may be made of one either: the
/// server says so when it plans it.
async fn refuse_changing(client: &Client, query: &str) -> Result<()> {
    let sql = format!("EXPLAIN CREATE MATERIALIZED VIEW evert_export AS\n{query}");
    let Err(error) = client.simple_query(&sql).await else { return Ok(()) };
    let message = error.as_db_error().map_or("", |error| error.message());
    let changing = message.strip_suffix(" in a view is not supported");
    // Any other refusal is of views only.
    let changing = changing
        .filter(|what| what.ends_with("()"))
        .or_else(|| message.strip_prefix("a view over ")?.strip_suffix(" is not supported"));
    match changing {
        None => Ok(()),
        Some(what) => bail!(
            "an export is the same whenever it is made, and {what} is not: it depends on more than \
             the log"
        ),
    }
}

async fn copy(
    client: &Client,
    sql: &str,
    columns: &[Column],
    format: Format,
    out: Box<dyn Write + Send>,
) -> Result<u64> {
    let rows = client.simple_query_raw(sql).await.map_err(|error| told(&error))?;
    let mut rows = std::pin::pin!(rows);
    // Nothing is written of a moment that cannot be read.
    let mut message = rows.try_next().await.map_err(|error| told(&error))?;
    let mut sink: Box<dyn Sink> = match format {
        Format::Csv => Box::new(csv::CsvFile::begin(out, columns)?),
        Format::Parquet => Box::new(parquet::ParquetFile::begin(out, columns)?),
    };
    let mut count = 0;
    while let Some(came) = message {
        if let SimpleQueryMessage::Row(row) = came {
            let values: Vec<_> = (0..row.len()).map(|column| row.get(column)).collect();
            sink.row(&values)?;
            count += 1;
        }
        message = rows.try_next().await.map_err(|error| told(&error))?;
    }
    sink.finish()?;
    Ok(count)
}

/// The server's own words.
fn told(error: &tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(db) => {
            let hint = db.hint().map(|hint| format!("\nHINT: {hint}")).unwrap_or_default();
            anyhow::anyhow!("{} {}{hint}", db.code().code(), db.message())
        }
        None => anyhow::anyhow!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        assert_eq!(moment("41"), "AS OF POSITION 41");
        assert_eq!(moment("payments/0@9"), "AS OF POSITION 'payments/0@9'");
        assert_eq!(moment("shop:0/16B3748"), "AS OF POSITION 'shop:0/16B3748'");
        assert_eq!(moment("2026-11-21 23:00"), "AS OF TIMESTAMP '2026-11-21 23:00'");
        assert_eq!(moment("it's"), "AS OF TIMESTAMP 'it''s'");
    }
}
