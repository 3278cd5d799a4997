//! The row that tables in FROM make: its columns as `*` shows them, and what their names mean.

use sqlparser::ast::{
    ExceptSelectItem, Expr, Ident, ObjectName, ObjectNamePart, SelectItem,
    SelectItemQualifiedWildcardKind, WildcardAdditionalOptions,
};

use super::whole_rows::WholeRow;
use crate::SqlError;
use crate::error::{AMBIGUOUS_COLUMN, UNDEFINED_COLUMN};
use crate::names::fold;

/// What names mean that are not columns of one table.
#[derive(Clone, Default)]
pub(super) struct Meanings {
    /// Merged columns, and functions in FROM, and what they are.
    pub(super) values: Vec<(String, Expr)>,
    /// Tables, where a whole row is meant.
    pub(super) rows: Vec<WholeRow>,
}

impl Meanings {
    pub(super) fn value(&self, name: &str) -> Option<&Expr> {
        self.values.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }
}

/// A part of the row that tables in FROM make.
#[derive(Clone)]
pub(super) enum Piece {
    /// A column. What its name means is `value`, unless another column is called so too.
    Column { name: String, value: Expr, is_merged: bool },
    /// The columns of a table of which they are not known, without those that joins merge.
    Unknown { table: Ident, taken: Vec<String> },
    /// As that, of a table that cannot be named.
    Unnamed,
    /// The name of a function in FROM, which is that of its value unless a column has it.
    Whole { name: String, value: Expr },
    /// A table whose columns, which come before it, are known.
    Table(WholeRow),
}

fn is_unknown(piece: &Piece) -> bool {
    matches!(piece, Piece::Unknown { .. } | Piece::Unnamed)
}

/// The row that tables in FROM make, as `*` shows it.
#[derive(Clone, Default)]
pub(super) struct Row(pub(super) Vec<Piece>);

impl Row {
    /// Notes that an outer join may have none of it.
    pub(super) fn make_optional(&mut self) {
        for piece in &mut self.0 {
            if let Piece::Table(row) = piece {
                row.optional = true;
            }
        }
    }

    /// Takes out the column that a join merges.
    pub(super) fn take(&mut self, wanted: &str, side: &str) -> Result<Expr, SqlError> {
        let is_it = |piece: &Piece| matches!(piece, Piece::Column { name, .. } if name == wanted);
        let mut places = (0..self.0.len()).filter(|place| is_it(&self.0[*place]));
        match (places.next(), places.next()) {
            (Some(place), None) => {
                let Piece::Column { value, .. } = self.0.remove(place) else {
                    unreachable!("the column was found there");
                };
                return Ok(value);
            }
            (Some(_), Some(_)) => {
                let message = format!(
                    "common column name \"{wanted}\" appears more than once in {side} table"
                );
                return Err(SqlError::new(AMBIGUOUS_COLUMN, message));
            }
            (None, _) => {}
        }
        let unknown: Vec<&mut Piece> =
            self.0.iter_mut().filter(|piece| is_unknown(piece)).collect();
        match <[&mut Piece; 1]>::try_from(unknown) {
            Ok([Piece::Unknown { table, taken }]) => {
                taken.push(wanted.to_owned());
                Ok(Expr::CompoundIdentifier(vec![table.clone(), quoted(wanted)]))
            }
            Err(pieces) if pieces.is_empty() => {
                let message = format!(
                    "column \"{wanted}\" specified in USING clause does not exist in {side} table"
                );
                Err(SqlError::new(UNDEFINED_COLUMN, message))
            }
            _ => Err(SqlError::unsupported("JOIN ... USING of such tables")
                .hint("Give the tables names, or say ON a.k = b.k.")),
        }
    }

    /// The columns that a NATURAL JOIN merges.
    pub(super) fn shared(&self, right: &Self) -> Result<Vec<String>, SqlError> {
        let (Some(left), Some(right)) = (self.names(None), right.names(None)) else {
            return Err(SqlError::unsupported("NATURAL JOIN of such tables")
                .hint("Name the columns: JOIN ... USING (...)."));
        };
        Ok(left.into_iter().filter(|name| right.contains(name)).collect())
    }

    /// The names of all columns, or of one table's, if they are known.
    pub(super) fn names(&self, table: Option<&str>) -> Option<Vec<String>> {
        let mut names = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Column { name, value, .. } => {
                    let of = match value {
                        Expr::CompoundIdentifier(parts) => parts.first().map(fold),
                        _ => None,
                    };
                    if table.is_none() || of.as_deref() == table {
                        names.push(name.clone());
                    }
                }
                Piece::Unknown { table: other, .. }
                    if table.is_some_and(|table| fold(other) != table) => {}
                Piece::Whole { .. } | Piece::Table(_) => {}
                Piece::Unknown { .. } | Piece::Unnamed => return None,
            }
        }
        Some(names)
    }

    /// What names mean that are not columns of one table, also of those further out.
    pub(super) fn meanings(&self, outer: &Meanings) -> Meanings {
        let called = |wanted: &str| {
            self.0
                .iter()
                .filter(|piece| matches!(piece, Piece::Column { name, .. } if name == wanted))
                .count()
        };
        let all_known = !self.0.iter().any(is_unknown);
        let own = self.0.iter().filter_map(|piece| match piece {
            Piece::Column { name, value, is_merged: true } if called(name) == 1 => {
                Some((name.clone(), value.clone()))
            }
            Piece::Whole { name, value } if all_known && called(name) == 0 => {
                Some((name.clone(), value.clone()))
            }
            _ => None,
        });
        let further =
            outer.values.iter().filter(|(name, _)| all_known && called(name) == 0).cloned();
        let tables = self.0.iter().filter_map(|piece| match piece {
            Piece::Table(row) => Some(row),
            _ => None,
        });
        // The nearest table of a name is the one that is meant.
        let rows = tables.chain(&outer.rows).map(|row| {
            let hidden = row.hidden || !all_known || called(&row.name) > 0;
            WholeRow { hidden, ..row.clone() }
        });
        let rows = rows.collect();
        Meanings { values: own.chain(further).collect(), rows }
    }

    /// What `*` stands for.
    pub(super) fn all(&self) -> Result<Vec<SelectItem>, SqlError> {
        let item = |piece: &Piece| {
            Some(match piece {
                Piece::Column { name, value, .. } if column_name(value).as_ref() == Some(name) => {
                    Ok(SelectItem::UnnamedExpr(value.clone()))
                }
                Piece::Column { name, value, .. } => {
                    Ok(SelectItem::ExprWithAlias { expr: value.clone(), alias: quoted(name) })
                }
                Piece::Unknown { table, taken } => Ok(all_but(table.clone(), taken)),
                Piece::Unnamed => {
                    Err(SqlError::unsupported("* over JOIN ... USING of such tables")
                        .hint("Name the columns."))
                }
                Piece::Whole { .. } | Piece::Table(_) => return None,
            })
        };
        self.0.iter().filter_map(item).collect()
    }
}

pub(super) fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

/// A column's name, if an expression is one.
pub(super) fn column_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(fold(name)),
        Expr::CompoundIdentifier(parts) => parts.last().map(fold),
        _ => None,
    }
}

/// `t.* EXCEPT (a, b)`.
fn all_but(table: Ident, left_out: &[String]) -> SelectItem {
    let kind =
        SelectItemQualifiedWildcardKind::ObjectName(ObjectName(vec![ObjectNamePart::Identifier(
            table,
        )]));
    let mut columns = left_out.iter().map(|name| quoted(name));
    let opt_except = columns.next().map(|first_element| ExceptSelectItem {
        first_element,
        additional_elements: columns.collect(),
    });
    let options = WildcardAdditionalOptions { opt_except, ..Default::default() };
    SelectItem::QualifiedWildcard(kind, options)
}
