//! Cells: a predicate over rows and log time, as conditions on the row and intervals of time.
//!
//! Invariant: no two cells of a predicate hold the same row at the same time, so that the rows of
//! all cells together are the rows for which the predicate is true, each once.

use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::utils::{conjunction, disjunction};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};

use super::bound::Edge;
use super::mentions_now;
use super::solve::solve;

/// Beyond so many cells a predicate is refused.
const CELLS_MAX: usize = 64;

/// Rows for which all of `when` are true, from the last of `from` until the first of `until`.
/// Never, where an edge is NULL.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    pub(super) when: Vec<Expr>,
    pub(super) from: Vec<Edge>,
    pub(super) until: Vec<Edge>,
}

impl Cell {
    pub(super) fn from(edge: Edge) -> Self {
        Self { from: vec![edge], ..Self::default() }
    }

    pub(super) fn until(edge: Edge) -> Self {
        Self { until: vec![edge], ..Self::default() }
    }

    fn when(condition: Expr) -> Self {
        Self { when: vec![condition], ..Self::default() }
    }

    fn and(&self, other: &Self) -> Self {
        Self {
            when: [&self.when[..], &other.when].concat(),
            from: [&self.from[..], &other.from].concat(),
            until: [&self.until[..], &other.until].concat(),
        }
    }

    /// Whether it holds no row at any time, for all that can be told from its form.
    fn is_empty(&self) -> bool {
        let is_over = self.from.iter().any(|from| {
            let ends = |until: &Edge| {
                until.row == from.row && until.path == from.path && until.beyond <= from.beyond
            };
            self.until.iter().any(ends)
        });
        let is_denied = |condition: &Expr| match condition {
            Expr::IsNull(value) => self.when.contains(&Expr::IsNotNull(value.clone())),
            _ => false,
        };
        is_over || self.when.iter().any(is_denied)
    }

    /// The cells of every row and time that this one leaves out.
    fn complement(&self) -> Vec<Self> {
        let mut cells = Vec::new();
        if let Some(when) = conjunction(self.when.clone()) {
            cells.push(Self::when(Expr::IsNotTrue(Box::new(when))));
        }
        let mut values: Vec<&Expr> = Vec::new();
        for edge in self.from.iter().chain(&self.until) {
            if !values.contains(&&edge.row) {
                values.push(&edge.row);
            }
        }
        let is_null = values.iter().map(|value| Expr::IsNull(Box::new((*value).clone())));
        let is_there = values.iter().map(|value| Expr::IsNotNull(Box::new((*value).clone())));
        let mut so_far = Self { when: self.when.clone(), ..Self::default() };
        if let Some(is_null) = disjunction(is_null) {
            cells.push(so_far.and(&Self::when(is_null)));
        }
        so_far.when.extend(is_there);
        // One edge after the other: those before it hold, this one does not.
        for edge in &self.from {
            cells.push(so_far.and(&Self::until(edge.clone())));
            so_far.from.push(edge.clone());
        }
        for edge in &self.until {
            cells.push(so_far.and(&Self::from(edge.clone())));
            so_far.until.push(edge.clone());
        }
        cells
    }
}

/// The cells in which `predicate` is true.
///
/// # Errors
/// What cannot be split.
pub(super) fn cells_of(predicate: &Expr) -> Result<Vec<Cell>, String> {
    cells_where(predicate, true)
}

/// A condition's three outcomes.
pub(super) struct Marked {
    pub(super) is_true: Vec<Cell>,
    pub(super) is_false: Vec<Cell>,
    pub(super) is_null: Vec<Cell>,
}

/// The cells of each outcome of a condition.
///
/// # Errors
/// What cannot be split.
pub(super) fn marked(condition: &Expr) -> Result<Marked, String> {
    let (is_true, is_false) = (cells_where(condition, true)?, cells_where(condition, false)?);
    let is_known = matches!(
        condition,
        Expr::IsTrue(_) | Expr::IsNotTrue(_) | Expr::IsFalse(_) | Expr::IsNotFalse(_)
    );
    let is_null = match is_known {
        true => Vec::new(),
        false => both(&complement(&is_true)?, &complement(&is_false)?)?,
    };
    Ok(Marked { is_true, is_false, is_null })
}

/// The cells in which `predicate` is `wanted`: neither the other value nor NULL.
fn cells_where(predicate: &Expr, wanted: bool) -> Result<Vec<Cell>, String> {
    if !mentions_now(predicate) {
        let condition = match wanted {
            true => predicate.clone(),
            false => Expr::Not(Box::new(predicate.clone())),
        };
        return Ok(vec![Cell::when(condition)]);
    }
    match predicate {
        Expr::Alias(alias) => cells_where(&alias.expr, wanted),
        Expr::Not(inner) => cells_where(inner, !wanted),
        Expr::IsTrue(inner) => is(inner, true, wanted),
        Expr::IsNotTrue(inner) => is(inner, true, !wanted),
        Expr::IsFalse(inner) => is(inner, false, wanted),
        Expr::IsNotFalse(inner) => is(inner, false, !wanted),
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let (left, right) = (cells_where(left, wanted)?, cells_where(right, wanted)?);
            // NOT (a OR b) is NOT a AND NOT b.
            if (*op == Operator::And) == wanted {
                both(&left, &right)
            } else {
                either(left, &right)
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let op = match wanted {
                true => *op,
                false => op.negate().ok_or_else(|| format!("now() under {op}"))?,
            };
            solve(left, op, right)
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let binary = |op, right: &Expr| {
                Expr::BinaryExpr(BinaryExpr::new(expr.clone(), op, Box::new(right.clone())))
            };
            let within = binary(Operator::GtEq, low).and(binary(Operator::LtEq, high));
            cells_where(&within, wanted != *negated)
        }
        Expr::InList(InList { expr, list, negated }) => {
            let equal = list.iter().map(|item| expr.as_ref().clone().eq(item.clone()));
            let any = disjunction(equal).ok_or("now() in an empty list")?;
            cells_where(&any, wanted != *negated)
        }
        _ => Err("this condition on now()".to_owned()),
    }
}

/// The cells in which `inner IS value` is `wanted`.
fn is(inner: &Expr, value: bool, wanted: bool) -> Result<Vec<Cell>, String> {
    let cells = cells_where(inner, value)?;
    if wanted { Ok(cells) } else { complement(&cells) }
}

/// What two sets of cells have in common.
pub(super) fn both(left: &[Cell], right: &[Cell]) -> Result<Vec<Cell>, String> {
    limited(left.iter().flat_map(|left| right.iter().map(|right| left.and(right))).collect())
}

/// The first, and of the second what the first leaves out.
fn either(mut left: Vec<Cell>, right: &[Cell]) -> Result<Vec<Cell>, String> {
    let rest = both(right, &complement(&left)?)?;
    left.extend(rest);
    limited(left)
}

fn complement(cells: &[Cell]) -> Result<Vec<Cell>, String> {
    cells.iter().try_fold(vec![Cell::default()], |rest, cell| both(&rest, &cell.complement()))
}

fn limited(mut cells: Vec<Cell>) -> Result<Vec<Cell>, String> {
    cells.retain(|cell| !cell.is_empty());
    match cells.len() {
        0..=CELLS_MAX => Ok(cells),
        _ => Err("a condition with so many cases of now()".to_owned()),
    }
}
