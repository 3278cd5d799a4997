//! Which parts of a row an answer shows.

use serde_json::{Map, Value};

use crate::error::EsError;
use crate::glob;

/// The `_source` of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourceFilter {
    All,
    None,
    Some { includes: Vec<String>, excludes: Vec<String> },
}

impl SourceFilter {
    /// Reads `_source`: a flag, a name, names, or `{"includes": [], "excludes": []}`.
    pub(crate) fn parse(value: &Value) -> Result<Self, EsError> {
        let some = |includes, excludes| Self::Some { includes, excludes };
        Ok(match value {
            Value::Null | Value::Bool(true) => Self::All,
            Value::Bool(false) => Self::None,
            Value::String(_) | Value::Array(_) => some(names(value)?, Vec::new()),
            Value::Object(object) => {
                let part = |a: &str, b: &str| {
                    names(object.get(a).or_else(|| object.get(b)).unwrap_or(&Value::Null))
                };
                some(part("includes", "include")?, part("excludes", "exclude")?)
            }
            Value::Number(_) => return Err(EsError::parsing("[_source] cannot be a number")),
        })
    }

    /// Reads the words of a URL.
    pub(crate) fn of_words(source: Option<&str>, includes: &str, excludes: &str) -> Option<Self> {
        let list =
            |text: &str| text.split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect();
        match source {
            Some("true" | "") => Some(Self::All),
            Some("false") => Some(Self::None),
            None if includes.is_empty() && excludes.is_empty() => None,
            source => Some(Self::Some {
                includes: list(source.unwrap_or(includes)),
                excludes: list(excludes),
            }),
        }
    }

    /// What of a row's JSON is shown.
    ///
    /// # Errors
    /// When the stored row is not JSON.
    pub(crate) fn apply(&self, source: String) -> Result<Option<String>, serde_json::Error> {
        match self {
            Self::None => Ok(None),
            Self::All => Ok(Some(source)),
            Self::Some { includes, excludes } => {
                let mut row: Map<String, Value> = serde_json::from_str(&source)?;
                let any = |patterns: &[String], name: &str| {
                    patterns.iter().any(|pattern| glob::matches(pattern, name))
                };
                row.retain(|name, _| {
                    (includes.is_empty() || any(includes, name)) && !any(excludes, name)
                });
                serde_json::to_string(&row).map(Some)
            }
        }
    }
}

fn names(value: &Value) -> Result<Vec<String>, EsError> {
    let refuse = || EsError::parsing(format!("[_source] cannot hold {value}"));
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(name) => Ok(vec![name.clone()]),
        Value::Array(names) => {
            names.iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(refuse)).collect()
        }
        _ => Err(refuse()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_patterns_choose_columns() {
        let shown = |filter: Value| {
            let filter = SourceFilter::parse(&filter).unwrap();
            let row = r#"{"email":"a","email_at":1,"city":null}"#.to_owned();
            filter.apply(row).unwrap()
        };
        assert_eq!(shown(json!(true)).unwrap(), r#"{"email":"a","email_at":1,"city":null}"#);
        assert_eq!(shown(json!(false)), None);
        assert_eq!(shown(json!("city")).unwrap(), r#"{"city":null}"#);
        let some = shown(json!({ "includes": ["email*"], "excludes": ["*_at"] }));
        assert_eq!(some.unwrap(), r#"{"email":"a"}"#);
        assert!(SourceFilter::parse(&json!([1])).is_err());
    }
}
