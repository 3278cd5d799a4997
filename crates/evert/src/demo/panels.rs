//! What the demo shows: each view read the way its readers would read it.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_postgres::{Client, SimpleQueryMessage};

const TOP_MERCHANTS: &str = "SELECT merchant_id AS merchant, payments, captured \
     FROM merchant_today ORDER BY captured DESC LIMIT 5";
const CITIES: &str = "SELECT city, captured, captured_amount, failed, refunded \
     FROM by_city ORDER BY city";
const CARDS: &str = "SELECT card_last4, payments, amount \
     FROM card_last_minute ORDER BY payments DESC, amount DESC LIMIT 5";
const FOUND: &str = "SELECT payment_id, email, status, paid_at \
     FROM search('payments_search', 'email:riya AND status:failed') ORDER BY paid_at DESC LIMIT 3";
const STATES: &str = "SELECT name AS view, kind, state, position, lag_ms, rows \
     FROM evert.views ORDER BY name";
/// The merchant whose row is read by key.
const MERCHANT: &str = "m42";

/// A small table.
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) header: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// Reads the views.
pub(super) struct Reader {
    pub(super) client: Client,
    pub(super) keyvalue: Option<SocketAddr>,
    /// The moment that is settled.
    pub(super) settled_at: DateTime<Utc>,
}

impl Reader {
    /// All panels, the states last.
    pub(super) async fn panels(&self) -> Result<Vec<Panel>> {
        let time = self.settled_at.format("%H:%M:%S%.3f");
        let mut panels = vec![
            self.panel("dashboard: captured today, the five largest", TOP_MERCHANTS).await?,
            self.panel("dashboard: by city", CITIES).await?,
        ];
        if let Some(address) = self.keyvalue {
            panels.push(hash(address, &format!("merchant_today:{MERCHANT}")).await?);
        }
        panels.push(self.panel("fraud: cards in the last 60 seconds", CARDS).await?);
        if Utc::now() > self.settled_at {
            let title = format!("settlement: captured as of {time}Z");
            panels.push(self.panel(&title, &self.settlement()).await?);
        }
        panels.push(self.panel("search: riya, failed", FOUND).await?);
        panels.push(self.panel("evert.views", STATES).await?);
        Ok(panels)
    }

    /// The same answer whenever it is asked.
    fn settlement(&self) -> String {
        let moment = self.settled_at.format("%Y-%m-%d %H:%M:%S%.6f");
        format!(
            "SELECT count(*) AS merchants, sum(captured) AS captured FROM settlement \
             AS OF TIMESTAMP '{moment}'"
        )
    }

    async fn panel(&self, title: &str, sql: &str) -> Result<Panel> {
        let mut panel = Panel { title: title.to_owned(), header: Vec::new(), rows: Vec::new() };
        let answer = self.client.simple_query(sql).await;
        for message in answer.with_context(|| format!("cannot read {title}"))? {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    panel.header = columns.iter().map(|column| column.name().to_owned()).collect();
                }
                SimpleQueryMessage::Row(row) => {
                    let cells = (0..row.len()).map(|i| row.get(i).unwrap_or("NULL").to_owned());
                    panel.rows.push(cells.collect());
                }
                _ => {}
            }
        }
        Ok(panel)
    }
}

/// A row by its key, as a client of Redis reads it: `HGETALL key`.
async fn hash(address: SocketAddr, key: &str) -> Result<Panel> {
    let mut socket = BufReader::new(TcpStream::connect(address).await?);
    socket.write_all(format!("HGETALL {key}\r\n").as_bytes()).await?;
    let mut line = String::new();
    socket.read_line(&mut line).await?;
    let Some(count) = line.trim_end().strip_prefix('*') else {
        bail!("HGETALL {key}: {}", line.trim_end());
    };
    let mut cells = Vec::new();
    for _ in 0..count.parse::<usize>()? {
        // Each is its length, then itself: none of these has a line's end in it.
        for _ in 0..2 {
            line.clear();
            socket.read_line(&mut line).await?;
        }
        cells.push(line.trim_end().to_owned());
    }
    let header = cells.iter().step_by(2).cloned().collect();
    let row: Vec<_> = cells.iter().skip(1).step_by(2).cloned().collect();
    let rows = if row.is_empty() { Vec::new() } else { vec![row] };
    Ok(Panel { title: format!("key-value: HGETALL {key}"), header, rows })
}
