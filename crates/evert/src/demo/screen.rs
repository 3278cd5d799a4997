//! What the demo shows: both views, read over the SQL door like any client would.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use tokio_postgres::{Client, SimpleQueryMessage};

const TOP_MERCHANTS: &str = "SELECT merchant_id AS merchant, day, payments, captured \
     FROM captured_by_day ORDER BY captured DESC LIMIT 5";
const CITIES: &str = "SELECT city, captured, captured_amount, failed, failed_amount, refunded, \
     refunded_amount FROM by_city ORDER BY city";
const STATES: &str = "SELECT name AS view, state, position, lag_records, lag_ms, rows \
     FROM evert.views ORDER BY name";

/// The figures beside the tables.
pub(super) struct Figures {
    pub(super) elapsed: Duration,
    pub(super) facts: u64,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

impl Figures {
    pub(super) fn line(&self) -> String {
        let rate = self.facts as f64 / self.elapsed.as_secs_f64().max(0.001);
        format!(
            "{} facts in {:.1} s ({rate:.0}/s), freshness p50 {} p99 {}",
            self.facts,
            self.elapsed.as_secs_f64(),
            millis(self.p50),
            millis(self.p99),
        )
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

/// Shows the views: repainted in a terminal, a line now and then elsewhere.
pub(super) struct Screen {
    live: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { live: std::io::stdout().is_terminal() }
    }

    /// How often to show.
    pub(super) fn period(&self) -> Duration {
        if self.live { Duration::from_millis(500) } else { Duration::from_secs(5) }
    }

    pub(super) async fn show(&self, client: &Client, figures: &Figures) -> Result<()> {
        let mut out = String::new();
        if self.live {
            // Clear the screen and go home (ECMA-48), then paint.
            out.push_str("\x1b[2J\x1b[H");
            out.push_str(&tables(client).await?);
        }
        out.push_str(&figures.line());
        out.push('\n');
        print(&out)
    }

    pub(super) async fn show_last(&self, client: &Client) -> Result<()> {
        print(&format!("\n{}", tables(client).await?))
    }
}

fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

async fn tables(client: &Client) -> Result<String> {
    let mut out = String::new();
    for (title, sql) in [
        ("captured_by_day: the five largest", TOP_MERCHANTS),
        ("by_city", CITIES),
        ("evert.views", STATES),
    ] {
        out.push_str(title);
        out.push('\n');
        out.push_str(&table(client, sql).await?);
        out.push_str("\n\n");
    }
    Ok(out)
}

async fn table(client: &Client, sql: &str) -> Result<String> {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    for message in client.simple_query(sql).await? {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                table.set_header(columns.iter().map(|column| column.name()));
            }
            SimpleQueryMessage::Row(row) => {
                table.add_row((0..row.len()).map(|i| row.get(i).unwrap_or("NULL").to_owned()));
            }
            _ => {}
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    Ok(table.to_string())
}
