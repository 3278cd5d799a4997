//! `a[1]` and `a[2:3]` as calls: what is beyond an array's ends is NULL, or nothing, where the
//! planner would count from the other end; and a slice may leave an end out.

use sqlparser::ast::{AccessExpr, CastKind, DataType, Expr, Subscript, Value};

use super::{call, unnamed};

/// The same in calls; `None` where there is more than subscripts.
pub(super) fn taken(expr: &Expr) -> Option<Expr> {
    let Expr::CompoundFieldAccess { root, access_chain } = expr else { return None };
    // `(t).a` is `t.a`.
    let (root, in_parentheses) = match root.as_ref() {
        Expr::Nested(inner) if matches!(**inner, Expr::Identifier(_)) => (inner, true),
        _ => (root, false),
    };
    // `t.a[1]`
    let is_name = |access: &&AccessExpr| matches!(access, AccessExpr::Dot(Expr::Identifier(_)));
    let names = access_chain.iter().take_while(is_name).count();
    let mut array = match (root.as_ref(), names) {
        (root, 0) => root.clone(),
        (Expr::Identifier(first), _) => {
            let rest = access_chain[..names].iter().filter_map(|access| match access {
                AccessExpr::Dot(Expr::Identifier(name)) => Some(name.clone()),
                _ => None,
            });
            Expr::CompoundIdentifier(std::iter::once(first.clone()).chain(rest).collect())
        }
        _ => return None,
    };
    for access in &access_chain[names..] {
        array = match access {
            // A member of an object.
            AccessExpr::Subscript(Subscript::Index { index: Expr::Value(value) })
                if matches!(value.value, Value::SingleQuotedString(_)) =>
            {
                return None;
            }
            AccessExpr::Subscript(Subscript::Index { index }) => {
                call("array_item", vec![unnamed(array), unnamed(index.clone())])
            }
            AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, stride: None }) => {
                let from = lower_bound.clone().unwrap_or_else(|| bound("1"));
                let to = upper_bound.clone().unwrap_or_else(|| bound("2147483647"));
                call("array_part", [array, from, to].map(unnamed).to_vec())
            }
            _ => return None,
        };
    }
    (names < access_chain.len() || in_parentheses).then_some(array)
}

fn bound(digits: &str) -> Expr {
    let expr = Box::new(Expr::value(Value::Number(digits.into(), false)));
    let data_type = DataType::Integer(None);
    Expr::Cast { kind: CastKind::DoubleColon, expr, data_type, array: false, format: None }
}
