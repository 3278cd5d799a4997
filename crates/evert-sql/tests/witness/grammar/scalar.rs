//! Expressions and conditions over columns.

use super::{Col, Grammar};
use crate::world::Ty;

/// Types that expressions may have.
pub(super) const TYPES: [Ty; 8] =
    [Ty::Int, Ty::Text, Ty::Big, Ty::Numeric, Ty::Double, Ty::Bool, Ty::Date, Ty::Timestamp];

impl Grammar<'_> {
    /// A type that some column has; JSON has no order, so it is read through its members.
    pub(super) fn type_of(&mut self, scope: &[Col]) -> Ty {
        let types: Vec<Ty> = scope.iter().map(|col| col.ty).filter(|ty| *ty != Ty::Json).collect();
        if types.is_empty() { Ty::Int } else { self.choices.pick(&types) }
    }

    /// A numeric type that some column has.
    pub(super) fn number_type_of(&mut self, scope: &[Col]) -> Ty {
        let types: Vec<Ty> = scope.iter().map(|col| col.ty).filter(|ty| ty.is_number()).collect();
        if types.is_empty() { Ty::Int } else { self.choices.pick(&types) }
    }

    /// A column of a type, if there is one.
    pub(super) fn column(&mut self, scope: &[Col], ty: Ty) -> Option<String> {
        let columns: Vec<&Col> = scope.iter().filter(|col| col.ty == ty).collect();
        if columns.is_empty() { None } else { Some(self.choices.pick(&columns).sql.clone()) }
    }

    /// A column of a type, or a constant.
    pub(super) fn leaf(&mut self, scope: &[Col], ty: Ty) -> String {
        match self.column(scope, ty) {
            Some(column) if !self.choices.one_in(10) => column,
            _ => self.literal(ty),
        }
    }

    /// An expression to group or sort by: a constant would name a column by its place.
    pub(super) fn key(&mut self, scope: &[Col], ty: Ty) -> String {
        let key = self.expr(scope, ty, 1);
        if scope.iter().any(|col| key.contains(&col.sql)) {
            return key;
        }
        self.column(scope, ty)
            .unwrap_or_else(|| format!("CASE WHEN {} IS NULL THEN {key} END", scope[0].sql))
    }

    pub(super) fn literal(&mut self, ty: Ty) -> String {
        let from: &[&str] = match ty {
            Ty::Int => &["1", "0", "2", "-1", "NULL::int"],
            Ty::Big => &["1::bigint", "0::bigint", "3::bigint"],
            Ty::Text => &["'a'::text", "''::text", "'b'::text", "'Pune'::text"],
            Ty::Numeric => &["1.50::numeric(12,2)", "0.00::numeric(12,2)", "-3.25::numeric(12,2)"],
            Ty::Double => &["1.5::double precision", "0::double precision"],
            Ty::Bool => &["true", "false", "NULL::boolean"],
            Ty::Date => &["DATE '2026-01-02'", "DATE '2026-01-04'"],
            Ty::Timestamp => {
                &["TIMESTAMP '2026-01-02 12:00:00'", "TIMESTAMP '2026-01-03 00:00:00'"]
            }
            Ty::Json => &["'{\"k\": \"z\"}'::json"],
        };
        self.choices.pick(from).to_owned()
    }

    /// An expression of a type.
    pub(super) fn expr(&mut self, scope: &[Col], ty: Ty, depth: usize) -> String {
        if depth == 0 || !self.choices.percent(45) {
            return self.leaf(scope, ty);
        }
        let depth = depth - 1;
        match self.choices.below(4) {
            0 => self.of_same_type(scope, ty, depth),
            _ => self.of_type(scope, ty, depth),
        }
    }

    /// What any type has.
    fn of_same_type(&mut self, scope: &[Col], ty: Ty, depth: usize) -> String {
        let (x, y) = (self.expr(scope, ty, depth), self.expr(scope, ty, depth));
        match self.choices.below(5) {
            0 => format!("coalesce({x}, {y})"),
            1 => format!("nullif({x}, {y})"),
            2 if ty != Ty::Bool => format!("greatest({x}, {y})"),
            3 if ty != Ty::Bool => format!("least({x}, {y})"),
            _ => format!("CASE WHEN {} THEN {x} ELSE {y} END", self.comparison(scope, depth)),
        }
    }

    fn of_type(&mut self, scope: &[Col], ty: Ty, depth: usize) -> String {
        match ty {
            Ty::Int => self.int(scope, depth),
            Ty::Big => {
                let x = self.expr(scope, Ty::Int, depth);
                format!("({x})::bigint")
            }
            Ty::Numeric | Ty::Double => self.number(scope, ty, depth),
            Ty::Text => self.text(scope, depth),
            Ty::Bool => format!("({})", self.comparison(scope, depth)),
            Ty::Date => {
                let x = self.expr(scope, Ty::Timestamp, depth);
                format!("({x})::date")
            }
            Ty::Timestamp => {
                let x = self.expr(scope, Ty::Timestamp, depth);
                match self.choices.below(4) {
                    0 => format!("date_trunc('day', {x})"),
                    1 => format!("date_trunc('hour', {x})"),
                    2 => format!("({x} + INTERVAL '90 minutes')"),
                    _ => format!("({x} - INTERVAL '1 day')"),
                }
            }
            Ty::Json => self.leaf(scope, ty),
        }
    }

    fn int(&mut self, scope: &[Col], depth: usize) -> String {
        let calm = !self.world.extreme;
        let x = self.expr(scope, Ty::Int, depth);
        match self.choices.below(8) {
            0 if calm => format!("({x} + {})", self.expr(scope, Ty::Int, depth)),
            1 if calm => format!("({x} - {})", self.expr(scope, Ty::Int, depth)),
            2 if calm => format!("({x} * 2)"),
            3 if calm => format!("abs({x})"),
            4 => format!("({x} % 3)"),
            5 => format!("length({})", self.expr(scope, Ty::Text, depth)),
            6 => format!("({} / 2)", x),
            7 => {
                let part = self.choices.pick(&["day", "hour", "month", "year", "dow", "minute"]);
                let at = self.expr(scope, Ty::Timestamp, depth);
                format!("extract({part} FROM {at})::int")
            }
            _ => format!("strpos({}, 'a')", self.expr(scope, Ty::Text, depth)),
        }
    }

    fn number(&mut self, scope: &[Col], ty: Ty, depth: usize) -> String {
        let calm = !self.world.extreme;
        let x = self.expr(scope, ty, depth);
        let sql = if ty == Ty::Numeric { "numeric(12,2)" } else { "double precision" };
        match self.choices.below(6) {
            0 if calm => format!("({x} + {})", self.expr(scope, ty, depth)),
            1 if calm => format!("({x} - {})", self.expr(scope, ty, depth)),
            2 if calm => format!("({x} * 2)"),
            3 => format!("abs({x})"),
            4 if ty == Ty::Numeric => format!("round({x}, 1)"),
            4 => format!("floor({x})"),
            _ => format!("({})::{sql}", self.expr(scope, Ty::Int, 0)),
        }
        // Postgres's numeric(12,2) does not hold every int.
        .replace("::numeric(12,2)", if calm { "::numeric(12,2)" } else { "::numeric(14,2)" })
    }

    fn text(&mut self, scope: &[Col], depth: usize) -> String {
        let x = self.expr(scope, Ty::Text, depth);
        match self.choices.below(13) {
            0 => format!("upper({x})"),
            1 => format!("({x} || {})", self.expr(scope, Ty::Text, depth)),
            2 => format!("lower({x})"),
            3 => format!("substr({x}, 1, 2)"),
            4 => format!("replace({x}, 'a', 'bc')"),
            5 => format!("trim({x})"),
            6 => format!("left({x}, 1)"),
            7 => format!("split_part({x}, ',', 2)"),
            8 => format!("concat({x}, '-', {})", self.expr(scope, Ty::Text, depth)),
            9 => format!("({})::text", self.expr(scope, Ty::Int, depth)),
            10 => match self.column(scope, Ty::Date) {
                Some(date) => format!("{date}::text"),
                None => format!("reverse({x})"),
            },
            11 => format!("lpad({x}, 3, '*')"),
            _ => match self.column(scope, Ty::Json) {
                Some(json) => {
                    self.note("json");
                    let path = ["->> 'k'", "->> 'n'", "-> 'o' ->> 'p'", "-> 'l' ->> 0", "->> 'l'"];
                    format!("({json} {})", self.choices.pick(&path))
                }
                None => format!("md5({x})"),
            },
        }
    }

    /// A condition without a subquery, that cannot fail.
    pub(super) fn comparison(&mut self, scope: &[Col], depth: usize) -> String {
        let depth = depth.min(1);
        let ty = self.type_of(scope);
        let x = self.expr(scope, ty, depth);
        match self.choices.weighted(&[
            (10, 0),
            (4, 1),
            (3, 2),
            (2, 3),
            (2, 4),
            (2, 5),
            (3, 6),
            (2, 7),
            (1, 8),
        ]) {
            1 => format!("{x} IS NOT NULL"),
            2 => format!("{x} IS NULL"),
            3 => format!("{x} IN ({}, {})", self.literal(ty), self.literal(ty)),
            4 if ty != Ty::Bool => {
                format!("{x} BETWEEN {} AND {}", self.literal(ty), self.literal(ty))
            }
            5 => {
                let other = self.expr(scope, ty, 0);
                let not = self.choices.pick(&["NOT ", ""]);
                format!("{x} IS {not}DISTINCT FROM {other}")
            }
            6 => {
                let text = self.expr(scope, Ty::Text, depth);
                let like = self.choices.pick(&["LIKE", "NOT LIKE", "ILIKE"]);
                format!(
                    "{text} {like} {}",
                    self.choices.pick(&["'%a%'", "'P_ne'", "''", "'%\\%%'"])
                )
            }
            7 => format!("NOT ({x} = {})", self.expr(scope, ty, 0)),
            8 => format!("{} IS NOT TRUE", self.leaf(scope, Ty::Bool)),
            _ => {
                let operator = self.choices.pick(&["=", "<", ">", "<=", ">=", "<>"]);
                format!("{x} {operator} {}", self.expr(scope, ty, depth))
            }
        }
    }

    /// A condition for WHERE, HAVING or ON.
    pub(super) fn condition(&mut self, scope: &[Col], depth: usize) -> String {
        if depth > 0 && self.choices.one_in(4) {
            let (x, y) = (self.condition(scope, depth - 1), self.condition(scope, depth - 1));
            return match self.choices.below(3) {
                0 => format!("({x} AND {y})"),
                1 => format!("({x} OR {y})"),
                _ => format!("NOT ({x})"),
            };
        }
        self.comparison(scope, depth)
    }
}
