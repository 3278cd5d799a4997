//! GROUP BY: aggregates of every kind, grouping sets, HAVING.

use super::select::list;
use super::{Body, Col, Grammar, Output};
use crate::world::Ty;

/// Where FILTER stands if not at an aggregate's end.
const FILTER: &str = "{filter}";

impl Grammar<'_> {
    pub(super) fn group(&mut self) -> Body {
        let from = self.from();
        let keys: Vec<(String, Ty)> = (0..self.choices.weighted(&[(4, 1), (2, 0), (2, 2)]))
            .map(|_| {
                let ty = self.type_of(&from.scope);
                (self.key(&from.scope, ty), ty)
            })
            .collect();
        let mut items: Vec<String> = keys.iter().map(|(key, _)| key.clone()).collect();
        let mut columns: Vec<Output> = keys.iter().map(|(_, ty)| Output::exact(*ty)).collect();
        for _ in 0..1 + self.choices.below(3) {
            let (item, output) = self.aggregate(&from.scope);
            items.push(item);
            columns.push(output);
        }
        let keys: Vec<String> = keys.into_iter().map(|(key, _)| key).collect();
        let filter = self.filter(&from.scope);
        let groups = self.groups(&keys, &mut items, &mut columns);
        let having = if !keys.is_empty() && self.choices.one_in(4) {
            self.note("HAVING");
            let ty = self.type_of(&from.scope);
            let x = self.leaf(&from.scope, ty);
            let conditions = [
                "count(*) > 1".to_owned(),
                format!("count({x}) > 0"),
                format!("count(DISTINCT {x}) = 1"),
            ];
            format!(" HAVING {}", self.choices.pick(&conditions))
        } else {
            String::new()
        };
        let sql = format!("SELECT {} FROM {}{filter}{groups}{having}", list(&items), from.sql);
        Body { sql, columns }
    }

    /// ` GROUP BY ...`, by sets of the keys at times.
    fn groups(
        &mut self,
        keys: &[String],
        items: &mut Vec<String>,
        columns: &mut Vec<Output>,
    ) -> String {
        if keys.is_empty() {
            return String::new();
        }
        let all = keys.join(", ");
        let kind = self.choices.weighted(&[(8, "plain"), (2, "rollup"), (2, "cube"), (2, "sets")]);
        // A parenthesis at the front of a set's key reads as a set.
        if kind == "plain" || keys.iter().any(|key| key.starts_with('(')) {
            return match self.choices.below(3) {
                0 => format!(" GROUP BY {all}"),
                _ => {
                    let places = (1..=keys.len()).map(|place| place.to_string());
                    format!(" GROUP BY {}", places.collect::<Vec<_>>().join(", "))
                }
            };
        }
        self.note("grouping sets");
        if self.choices.one_in(3) {
            self.note("grouping()");
            items.push(format!("grouping({all})"));
            columns.push(Output::exact(Ty::Int));
        }
        match kind {
            "rollup" => format!(" GROUP BY ROLLUP ({all})"),
            "cube" => format!(" GROUP BY CUBE ({all})"),
            _ => format!(" GROUP BY GROUPING SETS (({all}), ({}), ())", keys[0]),
        }
    }

    /// An aggregate and what it gives.
    fn aggregate(&mut self, scope: &[Col]) -> (String, Output) {
        let (call, output) = match self.choices.weighted(&[
            (5, "count"),
            (5, "sum"),
            (5, "extreme"),
            (2, "avg"),
            (3, "distinct"),
            (2, "spread"),
            (2, "bool"),
            (3, "list"),
            (1, "bit"),
            (1, "pair"),
        ]) {
            "sum" => self.sum(scope, ""),
            "extreme" => {
                let ty = self.type_of(scope);
                // Postgres has no least boolean.
                let ty = if ty == Ty::Bool { Ty::Int } else { ty };
                let x = self.expr(scope, ty, 1);
                let function = self.choices.pick(&["max", "min"]);
                (format!("{function}({x})"), Output::exact(ty))
            }
            "avg" => {
                let ty = self.number_type_of(scope);
                let x = self.expr(scope, ty, 1);
                (format!("avg({x})"), Output::rounded())
            }
            "distinct" => self.distinct_aggregate(scope),
            "spread" => self.spread(scope),
            "bool" => {
                self.note("bool_and, bool_or");
                let x = self.expr(scope, Ty::Bool, 2);
                let function = self.choices.pick(&["bool_and", "bool_or", "every"]);
                (format!("{function}({x})"), Output::exact(Ty::Bool))
            }
            "list" => self.listed(scope),
            "bit" => {
                self.note("bit_and, bit_or, bit_xor");
                let x = self.expr(scope, Ty::Int, 1);
                let function = self.choices.pick(&["bit_and", "bit_or", "bit_xor"]);
                (format!("{function}({x})"), Output::exact(Ty::Int))
            }
            "pair" => {
                self.note("corr, covar");
                let (x, y) = (self.expr(scope, Ty::Double, 0), self.expr(scope, Ty::Double, 0));
                let function = self.choices.pick(&["covar_pop", "covar_samp", "regr_count"]);
                (format!("{function}({x}, {y})"), Output::rounded())
            }
            _ => match self.choices.below(2) {
                0 => ("count(*)".to_owned(), Output::exact(Ty::Big)),
                _ => {
                    let ty = self.type_of(scope);
                    (format!("count({})", self.expr(scope, ty, 1)), Output::exact(Ty::Big))
                }
            },
        };
        let filter = if self.choices.one_in(5) {
            self.note("FILTER");
            format!(" FILTER (WHERE {})", self.comparison(scope, 1))
        } else {
            String::new()
        };
        match call.contains(FILTER) {
            true => (call.replace(FILTER, &filter), output),
            false => (format!("{call}{filter}"), output),
        }
    }

    fn sum(&mut self, scope: &[Col], distinct: &str) -> (String, Output) {
        let ty = self.number_type_of(scope);
        let x = self.expr(scope, ty, 1);
        (format!("sum({distinct}{x})"), Output::wide(ty))
    }

    fn distinct_aggregate(&mut self, scope: &[Col]) -> (String, Output) {
        self.note("DISTINCT aggregate");
        match self.choices.below(3) {
            0 => {
                let ty = self.type_of(scope);
                (format!("count(DISTINCT {})", self.expr(scope, ty, 1)), Output::exact(Ty::Big))
            }
            1 => self.sum(scope, "DISTINCT "),
            _ => {
                let ty = self.number_type_of(scope);
                let x = self.expr(scope, ty, 1);
                (format!("avg(DISTINCT {x})"), Output::rounded())
            }
        }
    }

    fn spread(&mut self, scope: &[Col]) -> (String, Output) {
        self.note("stddev, variance");
        let ty = if self.world.extreme { Ty::Int } else { self.number_type_of(scope) };
        // Of extreme values, variances don't fit nine digits.
        let x = if self.world.extreme {
            format!("length({})", self.expr(scope, Ty::Text, 1))
        } else {
            self.expr(scope, ty, 1)
        };
        let function = self.choices.pick(&["stddev", "var_pop", "stddev_pop", "var_samp"]);
        (format!("{function}({x})"), Output::rounded())
    }

    /// string_agg and array_agg, in an order that tells all values apart.
    fn listed(&mut self, scope: &[Col]) -> (String, Output) {
        let text = Output::exact(Ty::Text);
        let direction = self.choices.pick(&["", " DESC", " NULLS FIRST"]);
        match self.choices.below(4) {
            0 => {
                self.note("string_agg");
                let x = self.expr(scope, Ty::Text, 1);
                (format!("string_agg({x}, ',' ORDER BY {x}{direction})"), text)
            }
            1 => {
                self.note("string_agg by another order");
                let (x, ty) = (self.leaf(scope, Ty::Text), self.type_of(scope));
                let by = self.leaf_column(scope, ty);
                (format!("string_agg({x}, '|' ORDER BY {by}{direction}, {x})"), text)
            }
            2 => {
                self.note("string_agg DISTINCT");
                let x = self.leaf(scope, Ty::Text);
                (format!("string_agg(DISTINCT {x}, ',' ORDER BY {x})"), text)
            }
            _ => {
                self.note("array_agg");
                let x = self.expr(scope, Ty::Int, 1);
                let list = format!("array_agg({x} ORDER BY {x}{direction})");
                (format!("array_to_string({list}{FILTER}, ',', '-')"), text)
            }
        }
    }
}
