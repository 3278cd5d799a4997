//! Numbers as they are written: `1e15` is the decimal 1000000000000000, exactly.

use sqlparser::ast::{CastKind, DataType, ExactNumberInfo, Expr, Value};

use crate::casts::NumericText;

/// A number that the planner would not read rightly, in other words: one with an exponent becomes
/// its digits, and one with more digits than a decimal has becomes a double. `None` for all others.
pub(super) fn number(value: &Value) -> Option<Expr> {
    let Value::Number(text, _) = value else { return None };
    let has_exponent = text.contains(['e', 'E']);
    // Nothing shorter can have too many digits.
    if !has_exponent && text.len() <= 38 {
        return None;
    }
    let number = NumericText::read(text)?;
    let Some((precision, scale)) = number.size() else {
        let text = Expr::value(Value::SingleQuotedString(text.clone()));
        return Some(cast(text, DataType::DoublePrecision));
    };
    if !has_exponent {
        return None;
    }
    let units = number.units(precision, scale).ok()?;
    let digits = Expr::value(Value::Number(point(units, scale), false));
    let info = ExactNumberInfo::PrecisionAndScale(u64::from(precision), i64::from(scale));
    Some(match scale {
        // Without a point it would be an integer.
        0 => cast(digits, DataType::Numeric(info)),
        _ => digits,
    })
}

/// Units with a point before the last `scale` digits.
fn point(units: i128, scale: i8) -> String {
    let scale = usize::from(scale.unsigned_abs());
    let digits = format!("{units:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    let kind = CastKind::DoubleColon;
    Expr::Cast { kind, expr: Box::new(expr), data_type, array: false, format: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_exponents_are_their_digits() {
        for (text, expected) in [
            ("1e15", Some("1000000000000000::NUMERIC(16,0)")),
            ("1.5e-3", Some("0.0015")),
            ("12.50e1", Some("125.0")),
            ("1e300", Some("'1e300'::DOUBLE PRECISION")),
            ("1e-40", Some("'1e-40'::DOUBLE PRECISION")),
            ("1.5", None),
            ("99999999999999999999", None),
        ] {
            let found = number(&Value::Number(text.into(), false));
            let found = found.map(|expr| expr.to_string().replace(", ", ","));
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}
