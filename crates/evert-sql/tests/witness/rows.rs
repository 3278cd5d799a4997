//! Rows as text that is the same for both databases, and whether two bags of them are equal.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;

/// A row: each cell in its canonical text.
pub(crate) type Row = Vec<Option<String>>;

/// How a column's text is brought into canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Number,
    Boolean,
    Timestamp,
    Text,
}

impl Kind {
    pub(crate) fn of(ty: &DataType) -> Self {
        match ty {
            DataType::Boolean => Self::Boolean,
            DataType::Timestamp(..) | DataType::Date64 => Self::Timestamp,
            ty if ty.is_numeric() => Self::Number,
            _ => Self::Text,
        }
    }

    /// The canonical form of what either database shows.
    pub(crate) fn canonical(self, text: &str) -> String {
        match self {
            Self::Number => number(text),
            Self::Boolean => (if text.starts_with('t') { "true" } else { "false" }).to_owned(),
            Self::Timestamp => {
                let text = text.trim_end_matches('Z').replacen('T', " ", 1);
                match text.split_once('.') {
                    Some((whole, fraction)) if fraction.trim_end_matches('0').is_empty() => {
                        whole.to_owned()
                    }
                    Some(_) => text.trim_end_matches('0').to_owned(),
                    None => text,
                }
            }
            Self::Text => text.to_owned(),
        }
    }
}

/// A number without trailing zeros; zero has no sign.
fn number(text: &str) -> String {
    let plain = |c: char| c.is_ascii_digit() || c == '.' || c == '-';
    let text = if text.chars().all(plain) {
        text.to_owned()
    } else {
        let number: f64 = text.parse().unwrap_or_else(|_| panic!("{text} is no number"));
        number.to_string()
    };
    let text = match text.split_once('.') {
        Some(_) => text.trim_end_matches('0').trim_end_matches('.'),
        None => &text,
    };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// The rows of batches.
pub(crate) fn of_batches(batches: impl IntoIterator<Item = RecordBatch>) -> Vec<Row> {
    let mut rows = Vec::new();
    for batch in batches {
        let kinds: Vec<Kind> =
            batch.columns().iter().map(|column| Kind::of(column.data_type())).collect();
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().zip(&kinds).map(|(column, kind)| {
                let text = || array_value_to_string(column, row).expect("a printable value");
                column.is_valid(row).then(|| kind.canonical(&text()))
            });
            rows.push(cells.collect());
        }
    }
    rows
}

/// Whether two bags of rows are the same. `rounded` columns may differ in the last digits.
pub(crate) fn equal(ours: &[Row], theirs: &[Row], rounded: &[bool]) -> bool {
    if ours.len() != theirs.len() {
        return false;
    }
    let split = |rows: &[Row]| {
        let mut rows: Vec<(Row, Row)> = rows.iter().map(|row| parts(row, rounded)).collect();
        rows.sort();
        rows
    };
    let (ours, theirs) = (split(ours), split(theirs));
    if ours.iter().map(|row| &row.0).ne(theirs.iter().map(|row| &row.0)) {
        return false;
    }
    let mut from = 0;
    while from < ours.len() {
        let same = ours[from..].iter().take_while(|row| row.0 == ours[from].0).count();
        if !pair_up(&ours[from..from + same], &theirs[from..from + same]) {
            return false;
        }
        from += same;
    }
    true
}

/// The cells that must be equal, and those that must be near.
fn parts(row: &Row, rounded: &[bool]) -> (Row, Row) {
    let cells = row.iter().cloned().zip(rounded);
    let (near, exact): (Vec<_>, Vec<_>) = cells.partition(|(_, rounded)| **rounded);
    let cells = |cells: Vec<(Option<String>, &bool)>| -> Row {
        cells.into_iter().map(|(cell, _)| cell).collect()
    };
    (cells(exact), cells(near))
}

/// Whether each row has another of the other side that is near it.
fn pair_up(ours: &[(Row, Row)], theirs: &[(Row, Row)]) -> bool {
    let mut left: Vec<&Row> = theirs.iter().map(|row| &row.1).collect();
    ours.iter().all(|row| match left.iter().position(|other| near(&row.1, other)) {
        Some(found) => {
            left.swap_remove(found);
            true
        }
        None => false,
    })
}

fn near(ours: &Row, theirs: &Row) -> bool {
    ours.iter().zip(theirs).all(|(x, y)| match (x, y) {
        (Some(x), Some(y)) if x == y => true,
        (Some(x), Some(y)) => match (x.parse::<f64>(), y.parse::<f64>()) {
            (Ok(x), Ok(y)) => (x - y).abs() <= 2e-6 * x.abs().max(y.abs()).max(1.0),
            _ => false,
        },
        (x, y) => x == y,
    })
}

/// Rows for people to read, in order.
pub(crate) fn shown(rows: &[Row]) -> String {
    let mut lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let cells = row.iter().map(|cell| cell.as_deref().map_or("NULL".into(), quoted));
            format!("--   {}\n", cells.collect::<Vec<String>>().join(" | "))
        })
        .collect();
    lines.sort();
    lines.concat()
}

fn quoted(text: &str) -> String {
    if text.is_empty() || text.contains(['|', ' ']) { format!("{text:?}") } else { text.into() }
}

#[test]
fn numbers_have_one_form() {
    let forms = [
        ("1.50", "1.5"),
        ("-0.00", "0"),
        ("1e3", "1000"),
        ("100", "100"),
        ("inf", "inf"),
        ("-Infinity", "-inf"),
        ("NaN", "NaN"),
        ("12345678901234567890123.10", "12345678901234567890123.1"),
    ];
    for (text, form) in forms {
        assert_eq!(number(text), form);
    }
    assert_eq!(Kind::Timestamp.canonical("2026-01-01T10:00:00.500Z"), "2026-01-01 10:00:00.5");
    assert_eq!(Kind::Timestamp.canonical("2026-01-01 10:00:00"), "2026-01-01 10:00:00");
}

#[test]
fn bags_are_equal_or_not() {
    let row = |cells: &[&str]| cells.iter().map(|cell| Some((*cell).to_owned())).collect::<Row>();
    let (a, b) = (row(&["1", "0.333333"]), row(&["1", "0.3333333333"]));
    let rounded = [false, true];
    assert!(equal(&[a.clone(), b.clone()], &[b.clone(), a.clone()], &rounded));
    assert!(!equal(std::slice::from_ref(&a), std::slice::from_ref(&b), &[false, false]));
    assert!(!equal(std::slice::from_ref(&a), &[a.clone(), a.clone()], &rounded));
    assert!(!equal(&[row(&["1", "0.3"])], std::slice::from_ref(&b), &rounded));
    assert!(!equal(&[row(&["2", "0.333333"])], &[b], &rounded));
    assert!(!equal(&[vec![None, None]], &[a], &rounded));
}
