//! A clause's options: each is taken once, and what is left over is an error.

use serde_json::{Map, Value};
use tantivy::Score;

use super::{BoxQuery, boosted};
use crate::error::EsError;

/// The members of a clause's object that nobody has taken yet.
pub(super) struct Options {
    clause: String,
    members: Map<String, Value>,
}

impl Options {
    /// The options of a clause's body.
    pub(super) fn of(clause: &str, body: &Value) -> Result<Self, EsError> {
        match body {
            Value::Object(members) => {
                let mut members = members.clone();
                members.remove("_name");
                Ok(Self { clause: clause.to_owned(), members })
            }
            _ => Err(EsError::parsing(format!(
                "[{clause}] query malformed, no start_object after query name"
            ))),
        }
    }

    /// The options of a field, where `short` stands for one of them alone.
    pub(super) fn of_field(clause: &str, body: &Value, short: &str) -> Result<Self, EsError> {
        match body {
            Value::Object(_) => Self::of(clause, body),
            Value::Array(_) => Err(EsError::parsing(format!(
                "[{clause}] unknown token [START_ARRAY] after [{short}]"
            ))),
            value => {
                let members = Map::from_iter([(short.to_owned(), value.clone())]);
                Ok(Self { clause: clause.to_owned(), members })
            }
        }
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn required(&mut self, name: &str) -> Result<Value, EsError> {
        let missing = || EsError::argument(format!("[{}] requires '{name}'", self.clause));
        self.members.remove(name).ok_or_else(missing)
    }

    /// A text; numbers and booleans stand for theirs.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, EsError> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => match text_of(&value) {
                Some(text) if text.len() <= super::TEXT_BYTES_MAX => Ok(Some(text)),
                Some(text) => Err(EsError::argument(format!(
                    "[{}] [{name}] is {} bytes long: at most {} are allowed",
                    self.clause,
                    text.len(),
                    super::TEXT_BYTES_MAX
                ))),
                None => Err(self.bad(name, &value)),
            },
        }
    }

    pub(super) fn required_text(&mut self, name: &str) -> Result<String, EsError> {
        let missing = EsError::argument(format!("[{}] requires '{name}'", self.clause));
        self.text(name)?.ok_or(missing)
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<f64>, EsError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        number.filter(|number| number.is_finite()).map(Some).ok_or_else(|| self.bad(name, &value))
    }

    /// A number that is not negative and small.
    pub(super) fn small(&mut self, name: &str) -> Result<Option<u32>, EsError> {
        match self.number(name)? {
            None => Ok(None),
            Some(number) if number.fract() == 0.0 && (0.0..=1e6).contains(&number) => {
                Ok(Some(number as u32))
            }
            Some(number) => Err(self.bad(name, &number.into())),
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<bool, EsError> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(Value::String(text)) if text == "true" => Ok(true),
            Some(Value::String(text)) if text == "false" => Ok(false),
            Some(value) => Err(self.bad(name, &value)),
        }
    }

    /// Options that change nothing here.
    pub(super) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.members.remove(*name);
        }
    }

    fn bad(&self, name: &str, value: &Value) -> EsError {
        EsError::parsing(format!("[{}] [{name}] cannot be {value}", self.clause))
    }

    /// The members that are left, which name fields.
    pub(super) fn rest(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.members)
    }

    pub(super) fn clause(&self) -> &str {
        &self.clause
    }

    /// Applies the boost; refuses what nobody has taken.
    pub(super) fn finish(mut self, query: BoxQuery) -> Result<BoxQuery, EsError> {
        let boost = self.number("boost")?.unwrap_or(1.0);
        if boost < 0.0 {
            return Err(EsError::argument(format!("negative [boost] is not allowed: {boost}")));
        }
        match self.members.keys().next() {
            None => Ok(boosted(query, boost as Score)),
            Some(other) => {
                Err(EsError::parsing(format!("[{}] query does not support [{other}]", self.clause)))
            }
        }
    }
}

/// A scalar's text.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}
