//! The statements of a Postgres target.

use evert_log::LogId;
use evert_model::{Position, RowSchema};
use evert_view::OutletDef;

use super::table::Table;

/// The temporary table that rows wait in.
const STAGED: &str = "pg_temp.evert_sink_rows";
/// The table of marks, beside the target.
const MARKS: &str = "evert_sink_positions";
/// The advisory lock of those who make it: `evertsnk`.
const MAKING: i64 = i64::from_be_bytes(*b"evertsnk");

/// Statements that end in a semicolon can be put one after the other.
pub(super) struct Statements {
    /// Makes the table of marks and the temporary table.
    pub(super) prepare: String,
    pub(super) read_mark: String,
    pub(super) count: String,
    /// COPY into the table, which is empty.
    pub(super) load: String,
    /// COPY into the temporary table.
    pub(super) stage: String,
    /// Makes what was staged all that the table holds.
    pub(super) replace: String,
    /// Removes the rows that were staged as gone.
    pub(super) delete: String,
    /// Puts in the others.
    pub(super) put: String,
    /// `missing` and `unexpected` rows, as two tables to select from.
    pub(super) differences: String,
    pub(super) key: Vec<String>,
    pub(super) columns: Vec<String>,
    marks: String,
    sink: String,
    log_id: String,
    id: String,
}

pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    match text.contains('\\') {
        true => format!(" E'{}'", doubled.replace('\\', "\\\\")),
        false => format!("'{doubled}'"),
    }
}

/// The table of marks in the schema of the target, as far as that was named.
fn marks_of(table: &[String]) -> String {
    match table {
        [schema, _] => format!("{}.{MARKS}", identifier(schema)),
        _ => MARKS.to_owned(),
    }
}

/// Two transactions that make a table at once both find that it is not there, and one of them fails
/// by Postgres's own catalog: sinks do it one after the other.
fn make_marks(marks: &str) -> String {
    format!(
        "SELECT pg_advisory_xact_lock({MAKING}); CREATE TABLE IF NOT EXISTS {marks} (sink text PRIMARY KEY, log_id text NOT NULL, id text \
         NOT NULL, position bigint, updated_at timestamptz NOT NULL DEFAULT now())"
    )
}

/// Makes a table that is not there and takes the position out of the mark, which speaks of a table
/// that is gone. Sent at once they are one transaction: no crash leaves an empty table with a
/// position.
pub(super) fn make_anew(definition: &str, table: &[String], def: &OutletDef) -> String {
    let (marks, sink) = (marks_of(table), literal(&def.name.to_string()));
    format!(
        "{}; {definition}; UPDATE {marks} SET position = NULL WHERE sink = {sink}",
        make_marks(&marks)
    )
}

/// Removes the mark, if there is a table of them.
pub(super) fn forget(table: &[String], def: &OutletDef) -> String {
    let (marks, sink) = (marks_of(table), literal(&def.name.to_string()));
    let delete = format!(
        "DELETE FROM {marks} WHERE sink = {sink} AND id = {}",
        literal(&def.id.to_string())
    );
    format!(
        "DO $evert$ BEGIN IF to_regclass({}) IS NOT NULL THEN {delete}; END IF; END $evert$",
        literal(&marks)
    )
}

impl Statements {
    pub(super) fn new(table: &Table, schema: &RowSchema, def: &OutletDef, log_id: LogId) -> Self {
        let columns: Vec<String> =
            schema.columns.iter().map(|column| identifier(&column.name)).collect();
        let key: Vec<String> = schema.key.iter().map(|&index| columns[index].clone()).collect();
        let (list, target) = (columns.join(", "), table.quoted());
        let marks = marks_of(&table.parts);
        let prepare = format!(
            "{}; CREATE TEMPORARY TABLE evert_sink_rows ON COMMIT DELETE ROWS AS SELECT {list}, \
             false AS evert_gone FROM {target} WITH NO DATA",
            make_marks(&marks)
        );
        let sink = literal(&def.name.to_string());
        let equal = |operator: &str| {
            let pairs = key.iter().map(|column| format!("t.{column} {operator} s.{column}"));
            pairs.collect::<Vec<_>>().join(" AND ")
        };
        let put = put(&columns, &key, &target);
        let (delete, clear) = if key.is_empty() {
            (String::new(), format!("DELETE FROM {target};"))
        } else {
            let with_null: Vec<_> =
                key.iter().map(|column| format!("s.{column} IS NULL")).collect();
            // Plain equality finds rows by the index; only keys with a NULL in them need more.
            let delete = format!(
                "DELETE FROM {target} t USING {STAGED} s WHERE s.evert_gone AND {}; DELETE FROM \
                 {target} t USING (SELECT * FROM {STAGED} s WHERE s.evert_gone AND ({})) s WHERE \
                 {};",
                equal("="),
                with_null.join(" OR "),
                equal("IS NOT DISTINCT FROM")
            );
            let clear = format!(
                "ANALYZE {STAGED}; DELETE FROM {target} t WHERE NOT EXISTS (SELECT 1 FROM \
                 {STAGED} s WHERE {});",
                equal("=")
            );
            (delete, clear)
        };
        Self {
            prepare,
            read_mark: format!("SELECT log_id, id, position FROM {marks} WHERE sink = {sink}"),
            count: format!("SELECT count(*) FROM {target}"),
            load: format!("COPY {target} ({list}) FROM STDIN"),
            stage: format!("COPY {STAGED} ({list}, evert_gone) FROM STDIN"),
            replace: format!("{clear}{put}"),
            delete,
            put,
            differences: differences(table, &columns, &target),
            key,
            columns,
            marks,
            sink,
            log_id: literal(&log_id.0.to_string()),
            id: literal(&def.id.to_string()),
        }
    }

    /// After a copy: whatever the mark was, it is this sink's now.
    pub(super) fn set_mark(&self, position: Position) -> String {
        let Self { marks, sink, log_id, id, .. } = self;
        format!(
            "INSERT INTO {marks} (sink, log_id, id, position) VALUES ({sink}, {log_id}, {id}, \
             {position}) ON CONFLICT (sink) DO UPDATE SET log_id = EXCLUDED.log_id, id = \
             EXCLUDED.id, position = EXCLUDED.position, updated_at = now();"
        )
    }

    pub(super) fn move_mark(&self, from: Position, to: Position) -> String {
        let Self { marks, sink, log_id, id, .. } = self;
        format!(
            "UPDATE {marks} SET position = {to}, updated_at = now() WHERE sink = {sink} AND \
             log_id = {log_id} AND id = {id} AND position = {from};"
        )
    }
}

fn put(columns: &[String], key: &[String], target: &str) -> String {
    let list = columns.join(", ");
    let insert =
        format!("INSERT INTO {target} ({list}) SELECT {list} FROM {STAGED} WHERE NOT evert_gone");
    if key.is_empty() {
        return insert + ";";
    }
    let others = columns.iter().filter(|column| !key.contains(column));
    let sets: Vec<_> = others.map(|column| format!("{column} = EXCLUDED.{column}")).collect();
    let action = match sets.is_empty() {
        true => "NOTHING".to_owned(),
        false => format!("UPDATE SET {}", sets.join(", ")),
    };
    format!("{insert} ON CONFLICT ({}) DO {action};", key.join(", "))
}

fn differences(table: &Table, columns: &[String], target: &str) -> String {
    // Type json knows no equality.
    let shown = columns.iter().map(|column| match table.has_no_equality(column) {
        true => format!("{column}::text AS {column}"),
        false => column.clone(),
    });
    let list = shown.collect::<Vec<_>>().join(", ");
    format!(
        "WITH missing AS (SELECT {list} FROM {STAGED} EXCEPT ALL SELECT {list} FROM {target}), \
         unexpected AS (SELECT {list} FROM {target} EXCEPT ALL SELECT {list} FROM {STAGED})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
    }
}
