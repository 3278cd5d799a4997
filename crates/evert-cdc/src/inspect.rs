//! What the other server has, and what would have to change there before a source can work.

use tokio_postgres::Client;

use crate::address::{quote_identifier, quote_literal};
use crate::definition::{SourceColumn, Table};
use crate::error::{Refusal, SourceError};
use crate::types::{self, Mapped};

/// The first version whose pgoutput takes every option that the stream asks for.
const SERVER_VERSION_MIN: i32 = 140_000;

/// A table that can be taken, and what a user should know about it.
#[derive(Debug)]
pub(crate) struct Inspected {
    pub(crate) table: Table,
    pub(crate) notices: Vec<String>,
}

/// Refuses a server that cannot stream its changes to this user.
pub(crate) async fn check_server(client: &Client) -> Result<(), SourceError> {
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::int4, current_setting('wal_level'), \
             current_setting('server_encoding'), current_user::text, \
             (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user)",
            &[],
        )
        .await?;
    if row.get::<_, i32>(0) < SERVER_VERSION_MIN {
        return Err(SourceError::invalid("the source runs a Postgres before version 14"));
    }
    let wal_level: String = row.get(1);
    if wal_level != "logical" {
        return Err(SourceError::refused(
            format!("the source's wal_level is {wal_level}, not logical"),
            "Run there: ALTER SYSTEM SET wal_level = 'logical'; then restart that server.",
        ));
    }
    let encoding: String = row.get(2);
    if encoding == "SQL_ASCII" {
        return Err(SourceError::invalid(
            "the source's encoding is SQL_ASCII: what its text means is not known",
        ));
    }
    if row.get::<_, Option<bool>>(4) != Some(true) {
        let user: String = row.get(3);
        return Err(SourceError::refused(
            format!("role \"{user}\" of the source may not replicate"),
            format!("Run there: ALTER ROLE {} REPLICATION;", quote_identifier(&user)),
        ));
    }
    Ok(())
}

/// The tables that a CREATE SOURCE names, or all of the publication, or all there are.
pub(crate) async fn tables(
    client: &Client,
    named: &[String],
    publication: Option<&str>,
) -> Result<Vec<Inspected>, SourceError> {
    let oids = if named.is_empty() {
        let sql = "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE CASE WHEN EXISTS (SELECT FROM pg_publication WHERE pubname = $1) \
             THEN (n.nspname, c.relname) IN \
                 (SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = $1) \
             ELSE c.relkind = 'r' AND c.relpersistence = 'p' AND NOT c.relispartition \
                 AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' END \
             ORDER BY n.nspname, c.relname";
        let rows = client.query(sql, &[&publication.unwrap_or_default()]).await?;
        rows.iter().map(|row| row.get(0)).collect()
    } else {
        let mut oids: Vec<u32> = Vec::with_capacity(named.len());
        for name in named {
            // Postgres reads the name by its own rules, quotes and search path included.
            let row = client.query_one("SELECT to_regclass($1)::oid", &[name]).await?;
            let Some(oid) = row.get::<_, Option<u32>>(0) else {
                return Err(SourceError::invalid(format!("the source has no table {name}")));
            };
            if oids.contains(&oid) {
                return Err(SourceError::invalid(format!("table {name} is named twice")));
            }
            oids.push(oid);
        }
        oids
    };
    if oids.is_empty() {
        return Err(SourceError::invalid("the source has no tables to take"));
    }
    let mut found = Vec::with_capacity(oids.len());
    let mut refusals = Vec::new();
    for oid in oids {
        match table(client, oid).await? {
            Ok(table) => found.push(table),
            Err(refusal) => refusals.push(refusal),
        }
    }
    if refusals.is_empty() { Ok(found) } else { Err(SourceError::Refused(merge(refusals))) }
}

/// One refusal that says what to do about all of them.
fn merge(refusals: Vec<Refusal>) -> Refusal {
    let join = |texts: Vec<&str>, by: &str| texts.join(by);
    let message = join(refusals.iter().map(|r| r.message.as_str()).collect(), "; ");
    let hints: Vec<&str> = refusals.iter().filter_map(|r| r.hint.as_deref()).collect();
    let hint = (!hints.is_empty()).then(|| format!("Run there: {}", join(hints, " ")));
    Refusal { message, hint }
}

async fn table(client: &Client, oid: u32) -> Result<Result<Inspected, Refusal>, SourceError> {
    let row = client
        .query_one(
            "SELECT n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, \
             c.relreplident::text, has_table_privilege(c.oid, 'SELECT'), current_user::text \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
            &[&oid],
        )
        .await?;
    let (schema, name): (String, String) = (row.get(0), row.get(1));
    let shown = format!("{schema}.{name}");
    let quoted = format!("{}.{}", quote_identifier(&schema), quote_identifier(&name));
    let refuse = |what: &str, hint: Option<String>| {
        Ok(Err(Refusal { message: format!("{shown} {what}"), hint }))
    };
    let kind: String = row.get(2);
    match kind.as_str() {
        "r" => {}
        "p" => return refuse("is partitioned: name its partitions instead", None),
        _ => return refuse("is not a table", None),
    }
    if row.get::<_, String>(3) != "p" {
        return refuse("is temporary or unlogged: its changes are not in the WAL", None);
    }
    if !row.get::<_, bool>(5) {
        let grant = format!("GRANT SELECT ON {quoted} TO {};", quote_identifier(row.get(6)));
        return refuse("may not be read by this user", Some(grant));
    }
    let (columns, numbers, notices) = columns(client, oid, &shown).await?;
    if columns.is_empty() {
        return refuse("has no columns", None);
    }
    let index = client
        .query_opt(
            "SELECT indkey::int2[], indnkeyatts, indimmediate, indisreplident \
             FROM pg_index WHERE indrelid = $1 AND indisprimary",
            &[&oid],
        )
        .await?;
    let identity: String = row.get(4);
    let mut key = Vec::new();
    let mut identified = identity == "f";
    if let Some(index) = &index {
        let numbers_of_key: Vec<i16> = index.get(0);
        let parts = usize::try_from(index.get::<_, i16>(1)).unwrap_or_default();
        for number in numbers_of_key.iter().take(parts) {
            match numbers.iter().position(|n| n == number) {
                Some(column) => key.push(column),
                None => return refuse("has a generated column in its primary key", None),
            }
        }
        identified |= identity == "d" && index.get::<_, bool>(2);
        identified |= identity == "i" && index.get::<_, bool>(3);
    }
    if !identified {
        let (what, identity) = match &index {
            None => ("has no primary key, and its REPLICA IDENTITY is not FULL", "FULL"),
            Some(index) if !index.get::<_, bool>(2) => {
                ("has a deferrable primary key, and its REPLICA IDENTITY is not FULL", "FULL")
            }
            Some(_) => ("has a REPLICA IDENTITY other than its primary key", "DEFAULT"),
        };
        return refuse(what, Some(format!("ALTER TABLE {quoted} REPLICA IDENTITY {identity};")));
    }
    Ok(Ok(Inspected { table: Table { schema, name, columns, key }, notices }))
}

/// The columns with their attribute numbers, and notices about them.
async fn columns(
    client: &Client,
    table: u32,
    shown: &str,
) -> Result<(Vec<SourceColumn>, Vec<i16>, Vec<String>), SourceError> {
    // Domains are followed to the type under them.
    let sql = "WITH RECURSIVE base(attnum, type, modifier) AS ( \
             SELECT attnum, atttypid, atttypmod FROM pg_attribute \
             WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped \
             UNION ALL \
             SELECT b.attnum, t.typbasetype, t.typtypmod FROM base b \
             JOIN pg_type t ON t.oid = b.type AND t.typtype = 'd') \
         SELECT a.attnum, a.attname::text, a.atttypid, a.atttypmod, b.type, b.modifier, \
             format_type(a.atttypid, a.atttypmod), a.attgenerated::text \
         FROM pg_attribute a \
         JOIN base b ON b.attnum = a.attnum \
         JOIN pg_type t ON t.oid = b.type AND t.typtype <> 'd' \
         WHERE a.attrelid = $1 ORDER BY a.attnum";
    let mut columns = Vec::new();
    let mut numbers = Vec::new();
    let mut notices = Vec::new();
    for row in client.query(sql, &[&table]).await? {
        let name: String = row.get(1);
        if !row.get::<_, String>(7).is_empty() {
            notices.push(format!(
                "{shown}: column \"{name}\" is generated, which replication leaves out"
            ));
            continue;
        }
        let mapped = types::map(row.get(4), row.get(5));
        if let Mapped::AsText(why) = mapped {
            let printed: String = row.get(6);
            notices.push(format!(
                "{shown}: column \"{name}\" of type {printed} is taken as text: {why}"
            ));
        }
        numbers.push(row.get(0));
        columns.push(SourceColumn {
            name,
            ty: mapped.column_type(),
            type_oid: row.get(2),
            type_modifier: row.get(3),
        });
    }
    Ok((columns, numbers, notices))
}

/// Makes sure that the publication has what the tables need. Says whether it was made here.
pub(crate) async fn ensure_publication(
    client: &Client,
    name: &str,
    tables: &[Table],
) -> Result<bool, SourceError> {
    let quoted = quote_identifier(name);
    // ONLY, because a child table is a table of its own.
    let only = |table: &Table| {
        format!("ONLY {}.{}", quote_identifier(&table.schema), quote_identifier(&table.name))
    };
    let existing = client
        .query_opt(
            "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate \
             FROM pg_publication WHERE pubname = $1",
            &[&name],
        )
        .await?;
    let Some(existing) = existing else {
        let tables = tables.iter().map(only).collect::<Vec<_>>().join(", ");
        client.batch_execute(&format!("CREATE PUBLICATION {quoted} FOR TABLE {tables}")).await?;
        return Ok(true);
    };
    if !existing.get::<_, bool>(0) {
        return Err(SourceError::refused(
            format!("publication \"{name}\" does not publish every kind of change"),
            format!(
                "Run there: ALTER PUBLICATION {quoted} \
                 SET (publish = 'insert, update, delete, truncate');"
            ),
        ));
    }
    let published = published(client, name).await?;
    let missing: Vec<String> =
        tables.iter().filter(|table| !published.iter().any(|p| p.is(table))).map(only).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Err(SourceError::refused(
            format!("publication \"{name}\" leaves out {missing}"),
            format!("Run there: ALTER PUBLICATION {quoted} ADD TABLE {missing};"),
        ));
    }
    for table in tables {
        let mut found = published.iter();
        let found = found.find(|p| p.is(table));
        let Some(found) = found else { continue };
        let whole = |c: &SourceColumn| found.columns.as_ref().is_none_or(|l| l.contains(&c.name));
        if found.filtered || !table.columns.iter().all(whole) {
            return Err(SourceError::invalid(format!(
                "publication \"{name}\" publishes only some rows or columns of {}: a copy of the \
                 table would not agree with its changes",
                table.source_name()
            )));
        }
    }
    Ok(false)
}

/// The tables that a publication does not publish.
pub(crate) async fn unpublished<'a>(
    client: &Client,
    publication: &str,
    tables: &'a [Table],
) -> Result<Vec<&'a Table>, SourceError> {
    let published = published(client, publication).await?;
    Ok(tables.iter().filter(|table| !published.iter().any(|p| p.is(table))).collect())
}

/// Columns that the tables have now and that were not there when the source was made: each with its
/// table, as their own server writes them.
pub(crate) async fn added_columns(
    client: &Client,
    tables: &[Table],
) -> Result<Vec<(String, String)>, SourceError> {
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    // What is generated is never taken, which was said when the source was made.
    let sql = "SELECT n.nspname::text, c.relname::text, a.attname::text FROM pg_attribute a \
         JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE (n.nspname::text, c.relname::text) IN \
             (SELECT * FROM unnest($1::text[], $2::text[])) \
         AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' \
         ORDER BY n.nspname, c.relname, a.attnum";
    let rows = client.query(sql, &[&schemas, &names]).await?;
    let added = rows.iter().filter_map(|row| {
        let (schema, name, column): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        let table = tables.iter().find(|table| table.schema == schema && table.name == name)?;
        let is_ours = table.columns.iter().any(|ours| ours.name == column);
        (!is_ours).then(|| (table.source_name(), column.to_owned()))
    });
    Ok(added.collect())
}

struct Published {
    schema: String,
    name: String,
    filtered: bool,
    columns: Option<Vec<String>>,
}

impl Published {
    fn is(&self, table: &Table) -> bool {
        self.schema == table.schema && self.name == table.name
    }
}

async fn published(client: &Client, publication: &str) -> Result<Vec<Published>, SourceError> {
    // Row filters and column lists came with version 15.
    let version = client.query_one("SHOW server_version_num", &[]).await?;
    let filters = version.get::<_, String>(0).parse::<i32>().is_ok_and(|v| v >= 150_000);
    let sql = if filters {
        "SELECT schemaname::text, tablename::text, rowfilter IS NOT NULL, attnames::text[] \
         FROM pg_publication_tables WHERE pubname = $1"
    } else {
        "SELECT schemaname::text, tablename::text, false, NULL::text[] \
         FROM pg_publication_tables WHERE pubname = $1"
    };
    let rows = client.query(sql, &[&publication]).await?;
    let published = rows.iter().map(|row| Published {
        schema: row.get(0),
        name: row.get(1),
        filtered: row.get(2),
        columns: row.get(3),
    });
    Ok(published.collect())
}

/// Refuses a slot name that is not legal or not free.
pub(crate) async fn check_slot_is_free(client: &Client, slot: &str) -> Result<(), SourceError> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if slot.is_empty() || slot.len() > 63 || !slot.bytes().all(legal) {
        return Err(SourceError::invalid(format!(
            "\"{slot}\" is not a slot's name: up to 63 lower-case letters, digits and _"
        )));
    }
    let sql = "SELECT FROM pg_replication_slots WHERE slot_name = $1";
    if client.query_opt(sql, &[&slot]).await?.is_some() {
        return Err(SourceError::refused(
            format!("the source has a replication slot \"{slot}\" already"),
            format!(
                "If nothing uses it, run there: SELECT pg_drop_replication_slot({}); or name \
                 another slot.",
                quote_literal(slot)
            ),
        ));
    }
    Ok(())
}
