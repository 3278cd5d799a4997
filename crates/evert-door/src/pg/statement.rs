//! Prepared statements: a statement with the types that were agreed on for it.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::backend::{Session, SqlError, Statement};
use super::types::{PARAM_SCALE, PgType, array_of, arrow_type, oid};

/// What a text given to Parse holds.
#[derive(Clone)]
pub(super) enum Action {
    /// Nothing.
    Empty,
    /// A statement for the engine.
    Run(Statement),
    /// `DEALLOCATE name`, or all. Prepared statements are the door's, so it is carried out here.
    Deallocate(Option<String>),
}

/// A prepared statement.
pub(super) struct Prepared {
    pub(super) action: Action,
    /// The type that each parameter travels as.
    pub(super) param_oids: Vec<u32>,
    /// The type that the statement expects of it.
    pub(super) param_types: Vec<DataType>,
    /// The result's columns; `None` for statements that return no rows.
    pub(super) columns: Option<SchemaRef>,
    /// What it is counted as against the connection's bound.
    pub(super) bytes: usize,
}

impl Prepared {
    /// Parses one statement and settles its types; `oids` are the client's wishes, 0 for none.
    pub(super) async fn new(
        session: &mut dyn Session,
        sql: &str,
        oids: &[u32],
    ) -> Result<Self, SqlError> {
        let empty = |action| Self {
            action,
            param_oids: Vec::new(),
            param_types: Vec::new(),
            columns: None,
            bytes: sql.len(),
        };
        if let Some(name) = deallocated(sql) {
            return Ok(empty(Action::Deallocate(name)));
        }
        let mut statements = session.parse(sql)?;
        if statements.len() > 1 {
            let message = "cannot insert multiple commands into a prepared statement";
            return Err(SqlError::new("42601", message));
        }
        let Some(statement) = statements.pop() else { return Ok(empty(Action::Empty)) };
        let mut hints: Vec<_> = oids.iter().map(|&oid| arrow_type(oid)).collect();
        let mut description = session.describe(&statement, &hints).await?;
        if widen_decimals(&mut hints, &description.params) {
            description = session.describe(&statement, &hints).await?;
        }
        let told = |index| {
            let told = description.oids.iter().find(|(place, _)| *place == index);
            told.map(|(_, oid)| *oid)
        };
        let param_oids =
            description.params.iter().enumerate().map(|(index, ty)| match oids.get(index) {
                Some(&oid) if arrow_type(oid).is_some() => oid,
                _ if told(index).is_some() => {
                    let told = told(index).unwrap_or(oid::TEXT);
                    match ty {
                        DataType::List(_) => array_of(told).unwrap_or(oid::TEXT),
                        _ => told,
                    }
                }
                _ => PgType::of_field(&Field::new("", ty.clone(), true)).oid,
            });
        Ok(Self {
            param_oids: param_oids.collect(),
            param_types: description.params,
            columns: description.columns,
            // A parsed statement takes some multiple of its text.
            bytes: sql.len() * 8 + 1024,
            action: Action::Run(statement),
        })
    }

    /// Whether rows of `schema` are what was described.
    pub(super) fn describes(&self, schema: &Schema) -> bool {
        let types = |schema: &Schema| -> Vec<u32> {
            schema.fields().iter().map(|field| PgType::of_field(field).oid).collect()
        };
        self.columns.as_ref().is_some_and(|columns| types(columns) == types(schema))
    }
}

/// A NUMERIC parameter takes its scale from its context (`amount = $1` with a column of two
/// digits), which would round the value that is compared: such parameters get more digits.
fn widen_decimals(hints: &mut Vec<Option<DataType>>, described: &[DataType]) -> bool {
    hints.resize(hints.len().max(described.len()), None);
    let mut widened = false;
    for (hint, ty) in hints.iter_mut().zip(described) {
        if let (None, DataType::Decimal128(_, scale)) = (&hint, ty) {
            *hint = Some(DataType::Decimal128(38, PARAM_SCALE.max(*scale)));
            widened = true;
        }
    }
    widened
}

/// What `DEALLOCATE [PREPARE] name | ALL` names: `Some(None)` for all.
pub(super) fn deallocated(sql: &str) -> Option<Option<String>> {
    let text = sql.trim().trim_end_matches(';').trim_end();
    let mut words = text.split_ascii_whitespace();
    if !words.next()?.eq_ignore_ascii_case("deallocate") {
        return None;
    }
    let mut name = words.next()?;
    if name.eq_ignore_ascii_case("prepare") {
        name = words.next()?;
    }
    if words.next().is_some() {
        return None;
    }
    if name.eq_ignore_ascii_case("all") {
        return Some(None);
    }
    let quoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    Some(Some(quoted.map_or_else(|| name.to_lowercase(), |name| name.replace("\"\"", "\""))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deallocate_names_a_statement() {
        assert_eq!(deallocated("DEALLOCATE ALL;"), Some(None));
        assert_eq!(deallocated("deallocate prepare _pg3_0"), Some(Some("_pg3_0".into())));
        assert_eq!(deallocated("DEALLOCATE \"S\"\"1\""), Some(Some("S\"1".into())));
        assert_eq!(deallocated("SELECT 1"), None);
        assert_eq!(deallocated("DEALLOCATE"), None);
    }
}
