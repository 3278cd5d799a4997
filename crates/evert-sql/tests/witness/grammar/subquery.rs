//! Subqueries within expressions: EXISTS, IN, scalar ones, correlated or not.

use super::{Col, Grammar};
use crate::world::Ty;

impl Grammar<'_> {
    /// A condition with a subquery in it, alone or beside another.
    pub(super) fn subquery_condition(&mut self, scope: &[Col]) -> String {
        let one = match self.choices.below(6) {
            0 => self.exists(scope),
            1 => self.in_subquery(scope),
            2 => self.not_in_subquery(scope),
            3 => self.compared_with_scalar(scope),
            4 => format!("NOT {}", self.exists(scope)),
            _ => self.quantified(scope),
        };
        match self.choices.weighted(&[(6, 0), (2, 1), (2, 2)]) {
            0 => one,
            1 => format!("{one} AND {}", self.comparison(scope, 1)),
            _ => {
                self.note("subquery in OR");
                format!("({one} OR {})", self.comparison(scope, 1))
            }
        }
    }

    /// FROM and WHERE of a subquery, with the columns it has of its own.
    fn inner(&mut self, outer: &[Col], correlated: bool) -> (String, Vec<Col>) {
        let from = self.relation();
        let mut conditions = Vec::new();
        if correlated {
            self.note("correlated subquery");
            conditions.extend(self.equality(outer, &from.scope));
            if self.choices.one_in(6) {
                let mut both = outer.to_vec();
                both.extend(from.scope.iter().cloned());
                conditions.push(self.comparison(&both, 0));
            }
        }
        if self.choices.one_in(3) {
            conditions.push(self.comparison(&from.scope, 1));
        }
        let condition = match conditions.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", conditions.join(" AND ")),
        };
        (format!(" FROM {}{condition}", from.sql), from.scope)
    }

    pub(super) fn exists(&mut self, scope: &[Col]) -> String {
        self.note("EXISTS");
        let correlated = !self.choices.one_in(6);
        let (inner, _) = self.inner(scope, correlated);
        format!("EXISTS (SELECT 1{inner})")
    }

    /// Something of the outer row and a subquery that gives values of its type.
    fn operand(&mut self, scope: &[Col]) -> (String, String) {
        let ty = self.type_of(scope);
        let x = self.expr(scope, ty, 1);
        let correlated = self.choices.one_in(4);
        let (inner, columns) = self.inner(scope, correlated);
        let y = self.expr(&columns, ty, 1);
        (x, format!("(SELECT {y}{inner})"))
    }

    pub(super) fn in_subquery(&mut self, scope: &[Col]) -> String {
        self.note("IN subquery");
        let (x, subquery) = self.operand(scope);
        format!("{x} IN {subquery}")
    }

    fn not_in_subquery(&mut self, scope: &[Col]) -> String {
        self.note("NOT IN subquery");
        let (x, subquery) = self.operand(scope);
        format!("{x} NOT IN {subquery}")
    }

    fn quantified(&mut self, scope: &[Col]) -> String {
        self.note("ANY, ALL");
        let (x, subquery) = self.operand(scope);
        let operator = self.choices.pick(&["= ANY", "> ALL", "< ANY", "<> ALL"]);
        format!("{x} {operator} {subquery}")
    }

    fn compared_with_scalar(&mut self, scope: &[Col]) -> String {
        let ty = self.type_of(scope);
        let x = self.expr(scope, ty, 1);
        let subquery = self.scalar_subquery(scope, ty);
        format!("{x} {} {subquery}", self.choices.pick(&["=", "<", ">=", "<>"]))
    }

    /// A subquery that gives one value of a type.
    pub(super) fn scalar_subquery(&mut self, scope: &[Col], ty: Ty) -> String {
        self.note("scalar subquery");
        let correlated = self.choices.below(2) == 1;
        let (inner, columns) = self.inner(scope, correlated);
        let value = match ty {
            Ty::Big => self.choices.pick(&["count(*)", "count(DISTINCT 1)"]).to_owned(),
            Ty::Bool => format!("bool_or({})", self.expr(&columns, ty, 1)),
            _ => {
                let x = self.expr(&columns, ty, 1);
                format!("{}({x})", self.choices.pick(&["max", "min"]))
            }
        };
        format!("(SELECT {value}{inner})")
    }
}
