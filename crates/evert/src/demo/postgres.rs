//! `--postgres URL`: payments are committed in a Postgres, and come from its write-ahead log.
//!
//! Owns: the table over there, what is committed in it, and leaving that server as it was found.
//! Not here: how its changes are read (`evert-cdc`), which payments are made (`payments`).
//!
//! Invariants
//! - A table that was there before is only added to, and only if it has exactly these columns.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use evert_model::{Lsn, PositionToken};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::payments::Payments;

/// The source's name, and so the schema of its relation.
pub(super) const SOURCE: &str = "demo";
/// The relation that the views read.
pub(super) const RELATION: &str = "demo.payments";
const TABLE: &str = "public.payments";
const COLUMNS: [(&str, &str); 8] = [
    ("payment_id", "bigint"),
    ("merchant_id", "text"),
    ("amount", "numeric(12,2)"),
    ("status", "text"),
    ("email", "text"),
    ("card_hash", "text"),
    ("card_last4", "text"),
    ("paid_at", "timestamp without time zone"),
];

/// The Postgres that payments are committed in.
pub(super) struct Origin {
    client: Client,
    url: String,
    /// The table was not there before.
    is_new: bool,
    /// Payments from this id on are the demo's.
    pub(super) first_id: u64,
}

/// What Postgres holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) payments: String,
    pub(super) captured: String,
}

impl Origin {
    /// Connects, and makes the table if it is not there.
    ///
    /// # Errors
    /// When the server cannot be reached, or has a table of the name with other columns.
    pub(super) async fn open(url: &str) -> Result<Self> {
        let (client, connection) =
            tokio_postgres::connect(url, NoTls).await.context("cannot connect to that Postgres")?;
        tokio::spawn(connection);
        let wanted = COLUMNS.map(|(name, ty)| format!("{name} {ty}")).join(", ");
        let is_new = match columns(&client).await? {
            None => {
                let table = format!("CREATE TABLE {TABLE} ({wanted}, PRIMARY KEY (payment_id))");
                client.batch_execute(&table).await.with_context(|| format!("no table {TABLE}"))?;
                true
            }
            Some(there) if there == format!("{wanted}, PRIMARY KEY (payment_id)") => false,
            Some(there) => bail!(
                "that Postgres has a table {TABLE} of another shape, which is not touched: it is \
                 ({there}), the demo's is ({wanted}, PRIMARY KEY (payment_id)). Name another \
                 database in the URL, or rename the table."
            ),
        };
        let next = format!("SELECT coalesce(max(payment_id), 0) + 1 FROM {TABLE}");
        let first_id: i64 = client.query_one(&next, &[]).await?.get(0);
        Ok(Self { client, url: url.to_owned(), is_new, first_id: u64::try_from(first_id)? })
    }

    /// The statement that makes the table a relation.
    pub(super) fn source_sql(&self) -> String {
        let url = self.url.replace('\'', "''");
        format!(
            "CREATE SOURCE IF NOT EXISTS {SOURCE} FROM POSTGRES '{url}' \
             (PUBLICATION 'evert_demo', TABLES ({TABLE}))"
        )
    }

    /// Commits `count` payments, in one transaction; gives a place that is not before its end.
    pub(super) async fn commit(
        &self,
        payments: &mut Payments,
        count: u32,
        micros: i64,
    ) -> Result<Lsn> {
        let (mut new, mut refunded) = (String::new(), String::new());
        for _ in 0..count {
            let payment = payments.next(micros);
            let list = if payment.is_refund() { &mut refunded } else { &mut new };
            list.push_str(if list.is_empty() { "" } else { ", " });
            if payment.is_refund() {
                write!(list, "{}", payment.id).expect("writing into a string cannot fail");
            } else {
                payment.write_values(list);
            }
        }
        let mut sql = String::from("BEGIN; ");
        if !new.is_empty() {
            sql.push_str(&format!("INSERT INTO {TABLE} VALUES {new}; "));
        }
        if !refunded.is_empty() {
            let update = "SET status = 'refunded' WHERE payment_id IN";
            sql.push_str(&format!("UPDATE {TABLE} {update} ({refunded}); "));
        }
        sql.push_str("COMMIT; SELECT pg_current_wal_insert_lsn()");
        self.place(&sql).await
    }

    /// The end of that server's write-ahead log.
    pub(super) async fn end(&self) -> Result<Lsn> {
        self.place("SELECT pg_current_wal_insert_lsn()").await
    }

    async fn place(&self, sql: &str) -> Result<Lsn> {
        let [lsn] = self.row(sql).await?;
        Lsn::parse(&lsn).with_context(|| format!("Postgres gave {lsn} for a place in its log"))
    }

    /// What the table holds by Postgres's own account.
    pub(super) async fn totals(&self) -> Result<Totals> {
        let captured = "coalesce(sum(amount) FILTER (WHERE status = 'captured'), 0)";
        let [payments, captured] =
            self.row(&format!("SELECT count(*), {captured} FROM {TABLE}")).await?;
        Ok(Totals { payments, captured })
    }

    async fn row<const N: usize>(&self, sql: &str) -> Result<[String; N]> {
        for message in self.client.simple_query(sql).await.context("that Postgres")? {
            if let SimpleQueryMessage::Row(row) = message {
                ensure!(row.len() == N, "{} columns instead of {N}", row.len());
                return Ok(std::array::from_fn(|i| row.get(i).unwrap_or_default().to_owned()));
            }
        }
        bail!("Postgres gave no row")
    }

    /// Leaves that server as it was found.
    ///
    /// # Errors
    /// When it cannot be reached any more.
    pub(super) async fn leave(&self) -> Result<()> {
        let sql = if self.is_new {
            format!("DROP TABLE {TABLE}")
        } else {
            format!("DELETE FROM {TABLE} WHERE payment_id >= {}", self.first_id)
        };
        let left = "the demo's payments stay in that Postgres";
        self.client.batch_execute(&sql).await.with_context(|| format!("{left}: {sql}"))
    }
}

/// That everything up to a place has come from that Postgres.
pub(super) fn token(lsn: Lsn) -> PositionToken {
    PositionToken::Source { source: SOURCE.to_owned(), lsn }
}

/// The table's columns and key in words, if it is there.
async fn columns(client: &Client) -> Result<Option<String>> {
    let sql = format!(
        "SELECT c.relkind = 'r', coalesce(string_agg(a.attname || ' ' || \
         format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum), ''), \
         (SELECT pg_get_constraintdef(k.oid) FROM pg_constraint k \
          WHERE k.conrelid = c.oid AND k.contype = 'p') \
         FROM pg_class c LEFT JOIN pg_attribute a \
         ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         WHERE c.oid = to_regclass('{TABLE}') GROUP BY c.oid, c.relkind"
    );
    let Some(row) = client.query_opt(&sql, &[]).await? else { return Ok(None) };
    let (is_table, columns): (bool, String) = (row.get(0), row.get(1));
    if !is_table {
        return Ok(Some("no ordinary table".to_owned()));
    }
    Ok(Some(match row.get::<_, Option<String>>(2) {
        Some(key) => format!("{columns}, {key}"),
        None => columns,
    }))
}
