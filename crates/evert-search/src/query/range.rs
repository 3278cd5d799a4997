//! Ranges: of numbers, dates and texts.

use std::ops::Bound;

use serde_json::Value;
use tantivy::Term;
use tantivy::query::{AllQuery, EmptyQuery, RangeQuery};
use tantivy::schema::Field;

use super::leaf::{Number, number_of};
use super::options::{Options, text_of};
use super::{Answer, BoxQuery, Translator, constant, field_of};
use crate::dates::{DateReader, ReadFormat, Zone};
use crate::document::date_of;
use crate::error::EsError;
use crate::mapping::{FieldKind, FieldRef};

/// The ends of a range, each with whether it belongs to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends {
    pub(super) from: Option<(Value, bool)>,
    pub(super) to: Option<(Value, bool)>,
    pub(super) zone: Zone,
    pub(super) seconds: bool,
}

impl Ends {
    /// Sets the format that dates are in.
    fn read_as(&mut self, format: ReadFormat) {
        self.seconds = format.seconds;
        for (value, _) in [&mut self.from, &mut self.to].into_iter().flatten() {
            if format.textual && value.is_number() {
                *value = value.to_string().into();
            }
        }
    }
}

impl Translator<'_> {
    pub(super) fn range(&mut self, clause: &str, body: &Value) -> Answer {
        let (name, body) = field_of(clause, body)?;
        let mut options = Options::of(clause, body)?;
        let mut ends = Ends::default();
        // The older way to say it.
        let (lower, upper) = (options.take("include_lower"), options.take("include_upper"));
        if let Some(from) = options.take("from") {
            ends.from = Some((from, lower != Some(Value::Bool(false))));
        }
        if let Some(to) = options.take("to") {
            ends.to = Some((to, upper != Some(Value::Bool(false))));
        }
        for (name, included) in [("gt", false), ("gte", true)] {
            if let Some(value) = options.take(name) {
                ends.from = Some((value, included));
            }
        }
        for (name, included) in [("lt", false), ("lte", true)] {
            if let Some(value) = options.take(name) {
                ends.to = Some((value, included));
            }
        }
        if let Some(zone) = options.text("time_zone")? {
            ends.zone = Zone::parse(&zone)?;
        }
        let format = options.text("format")?;
        options.ignore(&["relation"]);
        let query: BoxQuery = match self.mapping.field(name) {
            None => Box::new(EmptyQuery),
            Some(field) if field.kind == FieldKind::Date => {
                if let Some(format) = format {
                    ends.read_as(ReadFormat::parse(&format)?);
                }
                self.range_in(field, &ends)?
            }
            Some(field) => self.range_in(field, &ends)?,
        };
        options.finish(query)
    }

    /// What lies between the ends.
    pub(super) fn range_in(&mut self, field: FieldRef<'_>, ends: &Ends) -> Answer {
        if ends.from.is_none() && ends.to.is_none() {
            return Ok(self.exists_in(&field.name()));
        }
        let query = match field.kind {
            FieldKind::Long => self.longs(field, ends)?,
            FieldKind::Double => {
                let bound = |end: &Option<(Value, bool)>| match end {
                    None => Ok::<_, EsError>(Bound::Unbounded),
                    Some((value, included)) => {
                        let number = number(field, value)?.float() + 0.0;
                        Ok(bound(Term::from_field_f64(field.field, number), *included))
                    }
                };
                ranged(bound(&ends.from)?, bound(&ends.to)?)
            }
            FieldKind::Date => {
                let (zone, seconds) = (ends.zone, ends.seconds);
                let reader = DateReader { zone, seconds, now: self.now };
                let first = match &ends.from {
                    None => None,
                    Some((value, true)) => Some(reader.read(value)?.first),
                    Some((value, false)) => Some(reader.read(value)?.last.saturating_add(1)),
                };
                let last = match &ends.to {
                    None => None,
                    Some((value, true)) => Some(reader.read(value)?.last),
                    Some((value, false)) => Some(reader.read(value)?.first.saturating_sub(1)),
                };
                self.dates(field.field, first, last)
            }
            FieldKind::Text | FieldKind::Keyword => {
                let bound = |end: &Option<(Value, bool)>| match end {
                    None => Ok::<_, EsError>(Bound::Unbounded),
                    Some((value, included)) => {
                        let text = text_of(value).ok_or_else(|| bad(field, value))?;
                        Ok(bound(Term::from_field_text(field.field, &text), *included))
                    }
                };
                ranged(bound(&ends.from)?, bound(&ends.to)?)
            }
            FieldKind::Boolean => {
                let reason = format!("field [{}] of type [boolean] has no ranges", field.name());
                return Err(EsError::shard(reason));
            }
        };
        Ok(constant(query))
    }

    fn longs(&self, field: FieldRef<'_>, ends: &Ends) -> Answer {
        let mut from = i64::MIN;
        let mut to = i64::MAX;
        if let Some((value, included)) = &ends.from {
            match number(field, value)? {
                Number::Whole(number) if *included => from = number,
                Number::Whole(number) => match number.checked_add(1) {
                    Some(next) => from = next,
                    None => return Ok(Box::new(EmptyQuery)),
                },
                Number::Float(number) if number >= 9.3e18 => return Ok(Box::new(EmptyQuery)),
                Number::Float(number) => from = number.ceil() as i64,
            }
        }
        if let Some((value, included)) = &ends.to {
            match number(field, value)? {
                Number::Whole(number) if *included => to = number,
                Number::Whole(number) => match number.checked_sub(1) {
                    Some(before) => to = before,
                    None => return Ok(Box::new(EmptyQuery)),
                },
                Number::Float(number) if number <= -9.3e18 => return Ok(Box::new(EmptyQuery)),
                Number::Float(number) => to = number.floor() as i64,
            }
        }
        if from > to {
            return Ok(Box::new(EmptyQuery));
        }
        let term = |number| Term::from_field_i64(field.field, number);
        Ok(super::leaf::between(term(from), term(to)))
    }

    /// Dates from one microsecond to another, both included.
    pub(super) fn dates(&self, field: Field, first: Option<i64>, last: Option<i64>) -> BoxQuery {
        let limit = i64::MAX / 1000;
        let first = first.unwrap_or(-limit).clamp(-limit, limit);
        let last = last.unwrap_or(limit).clamp(-limit, limit);
        let (Some(from), Some(to)) = (date_of(first), date_of(last)) else {
            return Box::new(AllQuery);
        };
        if first > last {
            return Box::new(EmptyQuery);
        }
        super::leaf::between(Term::from_field_date(field, from), Term::from_field_date(field, to))
    }
}

fn bad(field: FieldRef<'_>, value: &Value) -> EsError {
    EsError::shard(format!(
        "failed to create query: [{value}] is not a value of field [{}] of type [{}]",
        field.name(),
        field.kind.word()
    ))
}

fn number(field: FieldRef<'_>, value: &Value) -> Result<Number, EsError> {
    number_of(value).ok_or_else(|| bad(field, value))
}

fn bound(term: Term, included: bool) -> Bound<Term> {
    if included { Bound::Included(term) } else { Bound::Excluded(term) }
}

fn ranged(from: Bound<Term>, to: Bound<Term>) -> BoxQuery {
    Box::new(RangeQuery::new(from, to))
}
