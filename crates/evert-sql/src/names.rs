//! Names: how a statement's identifiers become catalog names.
//!
//! Owns: folding to lower case, the search path, "did you mean".

use datafusion::common::TableReference;
use evert_view::{Catalog, Name, OutletKind};
use sqlparser::ast::{Ident, ObjectName, ObjectNamePart};

use crate::SqlError;
use crate::error::{SYNTAX_ERROR, UNDEFINED_TABLE, WRONG_OBJECT_TYPE};

/// An identifier as the catalog writes it: folded to lower case unless it was quoted.
pub(crate) fn fold(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// A relation's name: `name`, `schema.name` or `database.schema.name`.
pub(crate) fn relation_name(name: &ObjectName) -> Result<Name, SqlError> {
    let parts = parts(name)?;
    match parts.as_slice() {
        [name] => Ok(Name::public(name)),
        [schema, name] | [_, schema, name] => Ok(Name::new(schema, name)),
        _ => Err(SqlError::new(SYNTAX_ERROR, format!("improper relation name: {name}"))),
    }
}

/// The parts of a dotted name, folded.
pub(crate) fn parts(name: &ObjectName) -> Result<Vec<String>, SqlError> {
    name.0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Ok(fold(ident)),
            ObjectNamePart::Function(_) => {
                Err(SqlError::new(SYNTAX_ERROR, format!("improper name: {name}")))
            }
        })
        .collect()
}

/// The catalog name that a planned table reference means.
pub(crate) fn of_reference(reference: &TableReference) -> Name {
    match reference.schema() {
        Some(schema) => Name::new(schema, reference.table()),
        None => Name::public(reference.table()),
    }
}

/// `42P01` for a relation that is not there, with the nearest names as a hint; `42809` for a name
/// that is there and no relation.
pub(crate) fn unknown_relation(name: &Name, catalog: &Catalog) -> SqlError {
    if let Some(outlet) = catalog.outlets.get(name) {
        let (what, on) = (outlet.kind.a_noun(), &outlet.on);
        let hint = match outlet.kind {
            OutletKind::Search => format!("SELECT * FROM search('{name}', 'words') reads it."),
            OutletKind::Archive => format!("A SELECT reads it; here, name \"{on}\"."),
            OutletKind::Sink => format!("Its rows are elsewhere; here, name \"{on}\"."),
        };
        return SqlError::new(WRONG_OBJECT_TYPE, format!("\"{name}\" is {what}")).hint(hint);
    }
    let error = SqlError::new(UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"));
    let known = catalog.named_relations().map(|relation| &relation.name);
    let known = known.chain(catalog.views.keys()).map(Name::to_string);
    match nearest(&name.to_string(), known) {
        Some(near) => error.hint(format!("Perhaps you meant \"{near}\".")),
        None => error,
    }
}

/// The candidate that differs least from `wanted`, if it is near enough to be a slip.
pub(crate) fn nearest(
    wanted: &str,
    candidates: impl Iterator<Item = impl Into<String>>,
) -> Option<String> {
    let limit = (wanted.chars().count() / 3).max(1);
    candidates
        .map(Into::into)
        .map(|candidate| (distance(wanted, &candidate), candidate))
        .filter(|(distance, candidate)| *distance <= limit || bare(candidate) == bare(wanted))
        .min()
        .map(|(_, candidate)| candidate)
}

fn bare(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, bare)| bare)
}

/// Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_a_slip_away() {
        let known = ["payments", "merchants", "shop.orders"];
        assert_eq!(nearest("payment", known.into_iter()).as_deref(), Some("payments"));
        assert_eq!(nearest("orders", known.into_iter()).as_deref(), Some("shop.orders"));
        assert_eq!(nearest("customers", known.into_iter()), None);
    }
}
