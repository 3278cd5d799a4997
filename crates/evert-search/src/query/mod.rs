//! Elasticsearch's query DSL becomes queries over an index.
//!
//! Owns: which clauses there are and how they combine; limits of depth and size.
//! Not here: what one clause does with a field (`leaf`), the query strings' languages
//! (`syntax`, `simple`).
//!
//! (Elasticsearch reference, "Query DSL")

mod leaf;
mod options;
mod range;
mod simple;
mod strings;
mod syntax;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};
use tantivy::Score;
use tantivy::query::{
    AllQuery, BooleanQuery, BoostQuery, ConstScoreQuery, DisjunctionMaxQuery, EmptyQuery, Occur,
    Query,
};
use tantivy::schema::Field;
use tantivy::tokenizer::TextAnalyzer;

use crate::analyzer;
use crate::error::EsError;
use crate::mapping::Mapping;
use options::Options;

/// How deep queries may be nested.
const DEPTH_MAX: usize = 20;
/// Clauses of one request. (Lucene's limit)
const CLAUSES_MAX: usize = 1024;
/// Values of one `terms` or `ids`. (`index.max_terms_count`)
const TERMS_MAX: usize = 65_536;
/// Bytes of a pattern or a query string.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// A query over an index.
pub(crate) type BoxQuery = Box<dyn Query>;
type Answer = Result<BoxQuery, EsError>;

/// What a query looks for in a field, for highlighting.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mark {
    pub(crate) field: Field,
    pub(crate) what: Sought,
}

/// See [`Mark`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sought {
    /// One word as it is indexed, or a whole keyword.
    Word(String),
    Prefix(String),
    /// A pattern with `*` and `?`.
    Glob {
        pattern: String,
        any_case: bool,
    },
    /// A word with so many changes.
    Fuzzy(String, u8),
}

/// Translates the queries of one request.
pub(crate) struct Translator<'a> {
    mapping: &'a Mapping,
    /// What `now` is, in microseconds since 1970.
    now: i64,
    analyzer: TextAnalyzer,
    clauses: usize,
    marks: Vec<Mark>,
}

impl<'a> Translator<'a> {
    pub(crate) fn new(mapping: &'a Mapping, now: i64) -> Self {
        let analyzer = analyzer::standard();
        Self { mapping, now, analyzer, clauses: 0, marks: Vec::new() }
    }

    /// The query of a JSON object such as `{"match": {"email": "riya"}}`.
    ///
    /// # Errors
    /// When it cannot be read, is too large, or does not fit the fields' types.
    pub(crate) fn query(&mut self, query: &Value) -> Answer {
        self.clause(query, 0)
    }

    /// What the queries so far look for.
    pub(crate) fn take_marks(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.marks)
    }

    /// Counts clauses against the limit.
    fn count(&mut self, clauses: usize) -> Result<(), EsError> {
        self.clauses += clauses;
        if self.clauses > CLAUSES_MAX {
            let reason = format!("too many clauses: maxClauseCount is set to {CLAUSES_MAX}");
            return Err(EsError::new(400, "too_many_clauses", reason));
        }
        Ok(())
    }

    fn mark(&mut self, field: Field, what: Sought) {
        self.marks.push(Mark { field, what });
    }

    fn clause(&mut self, query: &Value, depth: usize) -> Answer {
        if depth > DEPTH_MAX {
            let reason = format!("the query is nested deeper than {DEPTH_MAX}");
            return Err(EsError::new(400, "too_many_nested_clauses", reason));
        }
        self.count(1)?;
        let Some(object) = query.as_object() else {
            return Err(EsError::parsing("[_na] query malformed, must start with start_object"));
        };
        let mut members = object.iter();
        let (name, body) = match (members.next(), members.next()) {
            (Some(member), None) => member,
            (None, _) => return Err(EsError::argument("query malformed, empty clause found")),
            (Some((name, _)), Some((other, _))) => {
                return Err(EsError::parsing(format!(
                    "[{name}] malformed query, expected [END_OBJECT] but found [FIELD_NAME] \
                     [{other}]"
                )));
            }
        };
        match name.as_str() {
            "match_all" => {
                let options = Options::of(name, body)?;
                options.finish(Box::new(AllQuery))
            }
            "match_none" => Options::of(name, body)?.finish(Box::new(EmptyQuery)),
            "bool" => self.bool(Options::of(name, body)?, depth),
            "constant_score" => {
                let mut options = Options::of(name, body)?;
                let filter = self.unmarked_filter(&options.required("filter")?, depth)?;
                options.finish(Box::new(ConstScoreQuery::new(filter, 1.0)))
            }
            "dis_max" => {
                let mut options = Options::of(name, body)?;
                let queries = list(&options.required("queries")?);
                let queries: Result<Vec<_>, _> =
                    queries.iter().map(|query| self.clause(query, depth + 1)).collect();
                let tie = options.number("tie_breaker")?.unwrap_or(0.0) as Score;
                options.finish(Box::new(DisjunctionMaxQuery::with_tie_breaker(queries?, tie)))
            }
            "match" => self.match_words(name, body),
            "match_phrase" => self.match_phrase(name, body),
            "match_phrase_prefix" => self.match_phrase_prefix(name, body),
            "multi_match" => self.multi_match(Options::of(name, body)?),
            "term" => self.term(name, body),
            "terms" => self.terms(Options::of(name, body)?),
            "range" => self.range(name, body),
            "prefix" => self.prefix(name, body),
            "wildcard" => self.wildcard(name, body),
            "regexp" => self.regexp(name, body),
            "fuzzy" => self.fuzzy(name, body),
            "exists" => self.exists(Options::of(name, body)?),
            "ids" => self.ids(Options::of(name, body)?),
            "query_string" => self.query_string(Options::of(name, body)?),
            "simple_query_string" => self.simple_query_string(Options::of(name, body)?),
            other => Err(EsError::parsing(format!("unknown query [{other}]"))),
        }
    }

    fn unmarked_filter(&mut self, query: &Value, depth: usize) -> Answer {
        self.clause(query, depth + 1)
    }

    fn bool(&mut self, mut options: Options, depth: usize) -> Answer {
        let mut parts: Vec<(Occur, BoxQuery)> = Vec::new();
        for query in list(&options.take("must").unwrap_or(Value::Null)) {
            parts.push((Occur::Must, self.clause(&query, depth + 1)?));
        }
        for query in list(&options.take("filter").unwrap_or(Value::Null)) {
            let filter = self.unmarked_filter(&query, depth)?;
            parts.push((Occur::Must, Box::new(ConstScoreQuery::new(filter, 0.0))));
        }
        let required = !parts.is_empty();
        let mut should = 0;
        for query in list(&options.take("should").unwrap_or(Value::Null)) {
            should += 1;
            parts.push((Occur::Should, self.clause(&query, depth + 1)?));
        }
        let positive = parts.len();
        for query in list(&options.take("must_not").unwrap_or(Value::Null)) {
            // What must not be there is not shown as found.
            let marks = self.marks.len();
            parts.push((Occur::MustNot, self.clause(&query, depth + 1)?));
            self.marks.truncate(marks);
        }
        let least = match options.take("minimum_should_match") {
            Some(least) => minimum(&least, should)?,
            None => usize::from(!required && should > 0),
        };
        if parts.is_empty() {
            return options.finish(Box::new(AllQuery));
        }
        if positive == 0 {
            let all = ConstScoreQuery::new(Box::new(AllQuery), 0.0);
            parts.push((Occur::Must, Box::new(all)));
        }
        options.finish(combine(parts, should, least))
    }
}

/// A boolean query of which at least `least` of `should` optional parts match.
fn combine(mut parts: Vec<(Occur, BoxQuery)>, should: usize, least: usize) -> BoxQuery {
    if least > should {
        return Box::new(EmptyQuery);
    }
    if least > 0 && least == should {
        for (occur, _) in parts.iter_mut().filter(|(occur, _)| *occur == Occur::Should) {
            *occur = Occur::Must;
        }
    }
    let least = if least == should { 0 } else { least };
    Box::new(BooleanQuery::with_minimum_required_clauses(parts, least))
}

/// Any of some queries, their scores added.
fn any_of(queries: Vec<BoxQuery>) -> BoxQuery {
    match <[BoxQuery; 1]>::try_from(queries) {
        Ok([only]) => only,
        Err(queries) if queries.is_empty() => Box::new(EmptyQuery),
        Err(queries) => Box::new(BooleanQuery::union(queries)),
    }
}

/// Any of some queries, with the best of their scores.
fn best_of(queries: Vec<BoxQuery>, tie_breaker: Score) -> BoxQuery {
    match <[BoxQuery; 1]>::try_from(queries) {
        Ok([only]) => only,
        Err(queries) if queries.is_empty() => Box::new(EmptyQuery),
        Err(queries) => Box::new(DisjunctionMaxQuery::with_tie_breaker(queries, tie_breaker)),
    }
}

fn boosted(query: BoxQuery, boost: Score) -> BoxQuery {
    if boost == 1.0 { query } else { Box::new(BoostQuery::new(query, boost)) }
}

fn constant(query: BoxQuery) -> BoxQuery {
    Box::new(ConstScoreQuery::new(query, 1.0))
}

/// Both of two queries, scored as the first.
pub(crate) fn both(query: &dyn Query, filter: BoxQuery) -> BoxQuery {
    let filter: BoxQuery = Box::new(ConstScoreQuery::new(filter, 0.0));
    Box::new(BooleanQuery::new(vec![(Occur::Must, query.box_clone()), (Occur::Must, filter)]))
}

/// An array's elements, or the one value that stands for an array.
fn list(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(values) => values.clone(),
        value => vec![value.clone()],
    }
}

/// `minimum_should_match`: a number, or a percentage, of `of`; negative ones say how many may be
/// missing.
fn minimum(value: &Value, of: usize) -> Result<usize, EsError> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => String::new(),
    };
    let refuse = || {
        EsError::argument(format!("[minimum_should_match] must be a number or percentage: {value}"))
    };
    let all = i64::try_from(of).map_err(|_| refuse())?;
    let wanted = match text.strip_suffix('%') {
        Some(percent) => {
            let percent: i64 = percent.parse().map_err(|_| refuse())?;
            all.saturating_mul(percent) / 100
        }
        None => text.parse().map_err(|_| refuse())?,
    };
    let wanted = if wanted < 0 { all.saturating_add(wanted) } else { wanted };
    Ok(usize::try_from(wanted.max(0)).unwrap_or(usize::MAX))
}

/// The one field and its options in `{"field": ...}`.
fn field_of<'v>(clause: &str, body: &'v Value) -> Result<(&'v str, &'v Value), EsError> {
    let refuse = |what: &str| EsError::parsing(format!("[{clause}] {what}"));
    let object: &Map<String, Value> = body
        .as_object()
        .ok_or_else(|| refuse("query malformed, no start_object after query name"))?;
    let mut fields = object.iter().filter(|(name, _)| *name != "_name" && *name != "boost");
    match (fields.next(), fields.next()) {
        (Some((field, options)), None) => Ok((field, options)),
        (None, _) => Err(refuse("query malformed, it names no field")),
        (Some((first, _)), Some((second, _))) => Err(refuse(&format!(
            "query doesn't support multiple fields, found [{first}] and [{second}]"
        ))),
    }
}
