//! Clauses over one field, or the same words over several.

use serde_json::Value;
use tantivy::query::{
    AllQuery, BooleanQuery, EmptyQuery, ExistsQuery, FuzzyTermQuery, Occur, PhrasePrefixQuery,
    PhraseQuery, RangeQuery, RegexQuery, TermQuery, TermSetQuery,
};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::tokenizer::TokenStream;
use tantivy::{Score, Term};

use super::options::{Options, text_of};
use super::{
    Answer, BoxQuery, Sought, TERMS_MAX, Translator, any_of, best_of, boosted, combine, constant,
    field_of, list, minimum,
};
use crate::dates::DateReader;
use crate::error::EsError;
use crate::glob;
use crate::mapping::{FieldKind, FieldRef, ID};

/// Words that a prefix at the end of a phrase may stand for.
const EXPANSIONS: u32 = 50;

/// How words of a text must be found.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    pub(super) all: bool,
    pub(super) fuzziness: Option<Fuzziness>,
    pub(super) minimum: Option<Value>,
    /// What cannot be read as the field's type finds nothing, and is no error.
    pub(super) lenient: bool,
}

/// How many changes make another word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fuzziness {
    /// By the word's length: none below the first, one below the second, else two.
    Auto(usize, usize),
    Changes(u8),
}

impl Fuzziness {
    pub(super) fn parse(value: &Value) -> Result<Self, EsError> {
        let text = text_of(value).unwrap_or_default().to_ascii_uppercase();
        let auto = |lengths: &str| {
            let (low, high) = lengths.split_once(',')?;
            Some(Self::Auto(low.trim().parse().ok()?, high.trim().parse().ok()?))
        };
        let parsed = match text.as_str() {
            "AUTO" => Some(Self::Auto(3, 6)),
            "0" | "0.0" => Some(Self::Changes(0)),
            "1" | "1.0" => Some(Self::Changes(1)),
            "2" | "2.0" => Some(Self::Changes(2)),
            other => other.strip_prefix("AUTO:").and_then(auto),
        };
        parsed.ok_or_else(|| {
            EsError::argument(format!("fuzziness must be AUTO, 0, 1 or 2, not [{value}]"))
        })
    }

    pub(super) fn changes(self, word: &str) -> u8 {
        match self {
            Self::Changes(changes) => changes,
            Self::Auto(low, high) => {
                let length = word.chars().count();
                u8::from(length >= low) + u8::from(length >= high.max(low))
            }
        }
    }
}

fn operator(options: &mut Options, name: &str) -> Result<bool, EsError> {
    match options.text(name)?.as_deref() {
        None | Some("or" | "OR" | "Or") => Ok(false),
        Some("and" | "AND" | "And") => Ok(true),
        Some(other) => Err(EsError::argument(format!("operator [{other}] is not AND or OR"))),
    }
}

impl Words {
    /// Takes the options that say how words are found.
    pub(super) fn take(options: &mut Options, operator_name: &str) -> Result<Self, EsError> {
        let fuzziness = options.take("fuzziness").as_ref().map(Fuzziness::parse).transpose()?;
        let all = operator(options, operator_name)?;
        let minimum = options.take("minimum_should_match");
        let lenient = options.flag("lenient")?;
        options.ignore(&[
            "auto_generate_synonyms_phrase_query",
            "fuzzy_transpositions",
            "max_expansions",
        ]);
        Ok(Self { all, fuzziness, minimum, lenient })
    }
}

impl Translator<'_> {
    /// The words of a text, with their places.
    pub(super) fn words(&mut self, text: &str) -> Vec<(usize, String)> {
        let mut stream = self.analyzer.token_stream(text);
        let mut words = Vec::new();
        while stream.advance() {
            let token = stream.token();
            words.push((token.position, token.text.clone()));
        }
        words
    }

    /// What finds a text in a field: its words in a text, the whole in a keyword, the value in
    /// anything else.
    pub(super) fn text_in(&mut self, field: FieldRef<'_>, text: &str, how: &Words) -> Answer {
        if field.kind == FieldKind::Text {
            let words = self.words(text);
            self.count(words.len())?;
            let mut parts: Vec<(Occur, BoxQuery)> = Vec::with_capacity(words.len());
            for (_, word) in words {
                parts.push((Occur::Should, self.word(field.field, &word, how.fuzziness)));
            }
            let count = parts.len();
            let least = match &how.minimum {
                Some(least) if !how.all => minimum(least, count)?.max(1),
                _ if how.all => count,
                _ => 1,
            };
            return Ok(match parts.len() {
                0 => Box::new(EmptyQuery),
                1 if least <= 1 => parts.remove(0).1,
                _ => combine(parts, count, least),
            });
        }
        if field.kind == FieldKind::Keyword && how.fuzziness.is_some() {
            return Ok(self.word(field.field, text, how.fuzziness));
        }
        match self.value(field, &Value::String(text.to_owned())) {
            Err(_) if how.lenient => Ok(Box::new(EmptyQuery)),
            result => result,
        }
    }

    fn word(&mut self, field: Field, word: &str, fuzziness: Option<Fuzziness>) -> BoxQuery {
        let term = Term::from_field_text(field, word);
        match fuzziness.map_or(0, |fuzziness| fuzziness.changes(word)) {
            0 => {
                self.mark(field, Sought::Word(word.to_owned()));
                Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs))
            }
            changes => {
                self.mark(field, Sought::Fuzzy(word.to_owned(), changes));
                Box::new(FuzzyTermQuery::new(term, changes, true))
            }
        }
    }

    /// What finds exactly one value.
    pub(super) fn value(&mut self, field: FieldRef<'_>, value: &Value) -> Answer {
        let refuse = || {
            EsError::shard(format!(
                "failed to create query: [{value}] is not a value of field [{}] of type [{}]",
                field.name(),
                field.kind.word()
            ))
        };
        let term = match field.kind {
            FieldKind::Text | FieldKind::Keyword => {
                let text = text_of(value).ok_or_else(refuse)?;
                self.mark(field.field, Sought::Word(text.clone()));
                let term = Term::from_field_text(field.field, &text);
                return Ok(Box::new(TermQuery::new(term, IndexRecordOption::Basic)));
            }
            FieldKind::Boolean => {
                let flag = match value {
                    Value::Bool(flag) => *flag,
                    Value::String(text) if text == "true" => true,
                    Value::String(text) if text == "false" || text.is_empty() => false,
                    _ => return Err(refuse()),
                };
                Term::from_field_bool(field.field, flag)
            }
            FieldKind::Long => {
                let number = number_of(value).ok_or_else(refuse)?;
                match number {
                    Number::Whole(number) => Term::from_field_i64(field.field, number),
                    // No whole number is equal to one with a fraction.
                    Number::Float(_) => return Ok(Box::new(EmptyQuery)),
                }
            }
            FieldKind::Double => {
                let number = number_of(value).ok_or_else(refuse)?.float();
                let at = Term::from_field_f64(field.field, number + 0.0);
                return Ok(constant(between(at.clone(), at)));
            }
            FieldKind::Date => {
                let reader = DateReader { now: self.now, ..DateReader::default() };
                let span = reader.read(value)?;
                return Ok(constant(self.dates(field.field, Some(span.first), Some(span.last))));
            }
        };
        Ok(constant(Box::new(TermQuery::new(term, IndexRecordOption::Basic))))
    }

    pub(super) fn match_words(&mut self, clause: &str, body: &Value) -> Answer {
        let (name, body) = field_of(clause, body)?;
        let mut options = Options::of_field(clause, body, "query")?;
        let text = options.required_text("query")?;
        let how = Words::take(&mut options, "operator")?;
        let none_is_all = match options.text("zero_terms_query")?.as_deref() {
            None | Some("none") => false,
            Some("all") => true,
            Some(other) => {
                return Err(EsError::argument(format!("zero_terms_query [{other}] is not known")));
            }
        };
        let Some(field) = self.mapping.field(name) else {
            return options.finish(Box::new(EmptyQuery));
        };
        if none_is_all && field.kind == FieldKind::Text && self.words(&text).is_empty() {
            return options.finish(Box::new(AllQuery));
        }
        let query = self.text_in(field, &text, &how)?;
        options.finish(query)
    }

    pub(super) fn phrase_in(&mut self, field: FieldRef<'_>, text: &str, slop: u32) -> Answer {
        if field.kind != FieldKind::Text {
            return self.value(field, &Value::String(text.to_owned()));
        }
        let words = self.words(text);
        self.count(words.len())?;
        for (_, word) in &words {
            self.mark(field.field, Sought::Word(word.clone()));
        }
        let mut terms: Vec<(usize, Term)> = words
            .iter()
            .map(|(place, word)| (*place, Term::from_field_text(field.field, word)))
            .collect();
        Ok(match terms.len() {
            0 => Box::new(EmptyQuery),
            1 => Box::new(TermQuery::new(terms.remove(0).1, IndexRecordOption::WithFreqs)),
            _ => Box::new(PhraseQuery::new_with_offset_and_slop(terms, slop)),
        })
    }

    pub(super) fn match_phrase(&mut self, clause: &str, body: &Value) -> Answer {
        let (name, body) = field_of(clause, body)?;
        let mut options = Options::of_field(clause, body, "query")?;
        let text = options.required_text("query")?;
        let slop = options.small("slop")?.unwrap_or(0);
        options.ignore(&["zero_terms_query"]);
        match self.mapping.field(name) {
            None => options.finish(Box::new(EmptyQuery)),
            Some(field) => {
                let query = self.phrase_in(field, &text, slop)?;
                options.finish(query)
            }
        }
    }

    fn phrase_prefix_in(&mut self, field: FieldRef<'_>, text: &str, expansions: u32) -> Answer {
        if field.kind != FieldKind::Text {
            return match field.kind {
                FieldKind::Keyword => self.prefix_in(field, text, false),
                _ => self.value(field, &Value::String(text.to_owned())),
            };
        }
        let mut words = self.words(text);
        self.count(words.len())?;
        let Some((_, last)) = words.last().cloned() else { return Ok(Box::new(EmptyQuery)) };
        if words.len() == 1 {
            return self.prefix_in(field, &last, false);
        }
        let terms = words
            .iter()
            .map(|(place, word)| (*place, Term::from_field_text(field.field, word)))
            .collect();
        words.pop();
        for (_, word) in words {
            self.mark(field.field, Sought::Word(word));
        }
        self.mark(field.field, Sought::Prefix(last));
        let mut query = PhrasePrefixQuery::new_with_offset(terms);
        query.set_max_expansions(expansions);
        Ok(Box::new(query))
    }

    pub(super) fn match_phrase_prefix(&mut self, clause: &str, body: &Value) -> Answer {
        let (name, body) = field_of(clause, body)?;
        let mut options = Options::of_field(clause, body, "query")?;
        let text = options.required_text("query")?;
        let expansions = options.small("max_expansions")?.unwrap_or(EXPANSIONS);
        options.ignore(&["zero_terms_query"]);
        match self.mapping.field(name) {
            None => options.finish(Box::new(EmptyQuery)),
            Some(field) => {
                let query = self.phrase_prefix_in(field, &text, expansions)?;
                options.finish(query)
            }
        }
    }

    pub(super) fn multi_match(&mut self, mut options: Options) -> Answer {
        let text = options.required_text("query")?;
        let kind = options.text("type")?.unwrap_or_else(|| "best_fields".into());
        let named = options.take("fields");
        let mut how = Words::take(&mut options, "operator")?;
        let slop = options.small("slop")?.unwrap_or(0);
        let tie = options.number("tie_breaker")?;
        options.ignore(&["zero_terms_query"]);
        how.lenient |= named.is_none();
        let fields = self.fields(named.as_ref())?;
        self.count(fields.len())?;
        if kind == "cross_fields" {
            let query = self.cross_fields(&fields, &text, &how)?;
            return options.finish(query);
        }
        let mut queries = Vec::with_capacity(fields.len());
        for &(index, ref name, boost) in &fields {
            let field =
                self.mapping.field(name).unwrap_or(self.mapping.main(&self.mapping.fields[index]));
            let query = match kind.as_str() {
                "best_fields" | "most_fields" | "bool_prefix" => {
                    self.text_in(field, &text, &how)?
                }
                "phrase" => self.lenient(how.lenient, |it| it.phrase_in(field, &text, slop))?,
                "phrase_prefix" => {
                    self.lenient(how.lenient, |it| it.phrase_prefix_in(field, &text, EXPANSIONS))?
                }
                other => {
                    let reason = format!("failed to parse [multi_match] query type [{other}]");
                    return Err(EsError::parsing(reason));
                }
            };
            queries.push(boosted(query, boost));
        }
        let query = match kind.as_str() {
            "most_fields" | "bool_prefix" => any_of(queries),
            _ => best_of(queries, tie.unwrap_or(0.0) as Score),
        };
        options.finish(query)
    }

    /// Each word in any of the fields, as if they were one.
    fn cross_fields(
        &mut self,
        fields: &[(usize, String, Score)],
        text: &str,
        how: &Words,
    ) -> Answer {
        let words = self.words(text);
        let count = words.len();
        let mut parts: Vec<(Occur, BoxQuery)> = Vec::with_capacity(count);
        for (_, word) in words {
            let mut anywhere = Vec::with_capacity(fields.len());
            self.count(fields.len())?;
            for (_, name, boost) in fields {
                let Some(field) = self.mapping.field(name) else { continue };
                let lenient = Words { lenient: true, ..Words::default() };
                anywhere.push(boosted(self.text_in(field, &word, &lenient)?, *boost));
            }
            parts.push((Occur::Should, best_of(anywhere, 0.0)));
        }
        let least = match &how.minimum {
            Some(least) if !how.all => minimum(least, count)?.max(1),
            _ if how.all => count,
            _ => 1,
        };
        Ok(if count == 0 { Box::new(EmptyQuery) } else { combine(parts, count, least) })
    }

    pub(super) fn lenient(
        &mut self,
        lenient: bool,
        query: impl FnOnce(&mut Self) -> Answer,
    ) -> Answer {
        match query(self) {
            Err(_) if lenient => Ok(Box::new(EmptyQuery)),
            result => result,
        }
    }

    /// The fields of patterns such as `email^2` and `*`, each with its column and boost; all
    /// columns if there are none.
    pub(super) fn fields(
        &self,
        named: Option<&Value>,
    ) -> Result<Vec<(usize, String, Score)>, EsError> {
        let mut found: Vec<(usize, String, Score)> = Vec::new();
        let patterns = named.map_or_else(|| vec!["*".into()], list);
        for pattern in patterns {
            let refuse = || EsError::parsing(format!("fields cannot hold {pattern}"));
            let text = pattern.as_str().ok_or_else(refuse)?;
            let (text, boost) = match text.rsplit_once('^') {
                Some((name, boost)) => (name, boost.parse().map_err(|_| refuse())?),
                None => (text, 1.0),
            };
            if let Some(field) = self.mapping.field(text) {
                let index = self.mapping.fields.iter().position(|it| it.name == field.column.name);
                found.push((index.unwrap_or_default(), text.to_owned(), boost));
            } else if text.contains('*') {
                for (index, column) in self.mapping.fields.iter().enumerate() {
                    if glob::matches(text, &column.name) {
                        found.push((index, column.name.clone(), boost));
                    }
                    let subfield = format!("{}.keyword", column.name);
                    // `*` alone means the columns: their subfields hold the same again.
                    if text != "*" && column.keyword.is_some() && glob::matches(text, &subfield) {
                        found.push((index, subfield, boost));
                    }
                }
            }
        }
        Ok(found)
    }

    pub(super) fn term(&mut self, clause: &str, body: &Value) -> Answer {
        let (name, body) = field_of(clause, body)?;
        let mut options = Options::of_field(clause, body, "value")?;
        let value = options.required("value")?;
        let any_case = options.flag("case_insensitive")?;
        if name == ID {
            let text = text_of(&value).unwrap_or_default();
            let term = Term::from_field_text(self.mapping.id, &text);
            let query = TermQuery::new(term, IndexRecordOption::Basic);
            return options.finish(constant(Box::new(query)));
        }
        let query = match self.mapping.field(name) {
            None => Box::new(EmptyQuery),
            Some(field) if any_case && field.kind.is_text_like() => {
                let text = text_of(&value).unwrap_or_default();
                let mut pattern = String::new();
                for c in text.chars() {
                    if matches!(c, '*' | '?' | '\\') {
                        pattern.push('\\');
                    }
                    pattern.push(c);
                }
                self.glob_in(field, &pattern, true)?
            }
            Some(field) => self.value(field, &value)?,
        };
        options.finish(query)
    }

    pub(super) fn terms(&mut self, mut options: Options) -> Answer {
        let boost = options.take("boost");
        let rest = options.rest();
        let clause = options.clause().to_owned();
        let mut fields = rest.iter();
        let (Some((name, values)), None) = (fields.next(), fields.next()) else {
            return Err(EsError::parsing(format!("[{clause}] query requires one field")));
        };
        let Value::Array(values) = values else {
            return Err(EsError::parsing(format!(
                "[{clause}] query does not support [{name}]: it is not an array"
            )));
        };
        check_terms(values.len())?;
        let mut options = Options::of(&clause, &Value::Object(Default::default()))?;
        if let Some(boost) = boost {
            options = Options::of(&clause, &serde_json::json!({ "boost": boost }))?;
        }
        if name == ID {
            return options.finish(self.of_ids(values));
        }
        let Some(field) = self.mapping.field(name) else {
            return options.finish(Box::new(EmptyQuery));
        };
        if field.kind.is_text_like() {
            let texts: Vec<_> = values.iter().filter_map(text_of).collect();
            for text in texts.iter().take(100) {
                self.mark(field.field, Sought::Word(text.clone()));
            }
            let terms = texts.iter().map(|text| Term::from_field_text(field.field, text));
            return options.finish(constant(Box::new(TermSetQuery::new(terms))));
        }
        self.count(values.len())?;
        let queries: Result<Vec<_>, _> =
            values.iter().map(|value| self.value(field, value)).collect();
        options.finish(constant(any_of(queries?)))
    }

    fn of_ids(&self, values: &[Value]) -> BoxQuery {
        let texts = values.iter().filter_map(text_of);
        let terms = texts.map(|text| Term::from_field_text(self.mapping.id, &text));
        constant(Box::new(TermSetQuery::new(terms)))
    }

    pub(super) fn ids(&mut self, mut options: Options) -> Answer {
        let values = list(&options.required("values")?);
        check_terms(values.len())?;
        let query = self.of_ids(&values);
        options.finish(query)
    }

    pub(super) fn exists(&mut self, mut options: Options) -> Answer {
        let name = options.required_text("field")?;
        let query = self.exists_in(&name);
        options.finish(query)
    }

    pub(super) fn exists_in(&self, name: &str) -> BoxQuery {
        let Some(field) = self.mapping.field(name) else {
            return if name == ID { Box::new(AllQuery) } else { Box::new(EmptyQuery) };
        };
        let column = match field.column.keyword {
            Some(keyword) => FieldRef { field: keyword, ..field },
            None => field,
        };
        let ignored = Term::from_field_text(self.mapping.ignored, &field.column.name);
        constant(Box::new(BooleanQuery::union(vec![
            Box::new(ExistsQuery::new(column.inner(), false)),
            Box::new(TermQuery::new(ignored, IndexRecordOption::Basic)),
        ])))
    }

    /// A field whose terms are texts; patterns have no meaning for others.
    fn of_text<'b>(&'b self, clause: &str, name: &str) -> Result<Option<FieldRef<'b>>, EsError> {
        match self.mapping.field(name) {
            None => Ok(None),
            Some(field) if field.kind.is_text_like() => Ok(Some(field)),
            Some(field) => Err(EsError::shard(format!(
                "Can only use {clause} queries on keyword and text fields - not on [{name}] which \
                 is of type [{}]",
                field.kind.word()
            ))),
        }
    }

    pub(super) fn prefix_in(&mut self, field: FieldRef<'_>, text: &str, any_case: bool) -> Answer {
        self.mark(
            field.field,
            match any_case {
                false => Sought::Prefix(text.to_owned()),
                true => Sought::Glob { pattern: format!("{text}*"), any_case },
            },
        );
        let mut pattern = String::new();
        for c in text.chars() {
            if matches!(c, '*' | '?' | '\\') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern.push('*');
        let regex = glob::regex_of(&pattern, any_case);
        Ok(Box::new(RegexQuery::from_pattern(&regex, field.field)?))
    }

    pub(super) fn glob_in(&mut self, field: FieldRef<'_>, pattern: &str, any_case: bool) -> Answer {
        self.mark(field.field, Sought::Glob { pattern: pattern.to_owned(), any_case });
        let regex = glob::regex_of(pattern, any_case);
        Ok(Box::new(RegexQuery::from_pattern(&regex, field.field)?))
    }

    pub(super) fn prefix(&mut self, clause: &str, body: &Value) -> Answer {
        let (name, body) = field_of(clause, body)?;
        let mut options = Options::of_field(clause, body, "value")?;
        let text = options.required_text("value")?;
        let any_case = options.flag("case_insensitive")?;
        options.ignore(&["rewrite"]);
        let query = match self.mapping.field(name) {
            None => Box::new(EmptyQuery),
            Some(field) => {
                self.of_text(clause, name)?;
                self.prefix_in(field, &text, any_case)?
            }
        };
        options.finish(query)
    }

    pub(super) fn wildcard(&mut self, clause: &str, body: &Value) -> Answer {
        let (name, body) = field_of(clause, body)?;
        let mut options = Options::of_field(clause, body, "value")?;
        let pattern = match options.text("wildcard")? {
            Some(pattern) => pattern,
            None => options.required_text("value")?,
        };
        let any_case = options.flag("case_insensitive")?;
        options.ignore(&["rewrite"]);
        let query = match self.mapping.field(name) {
            None => Box::new(EmptyQuery),
            Some(field) => {
                self.of_text(clause, name)?;
                self.glob_in(field, &pattern, any_case)?
            }
        };
        options.finish(query)
    }

    pub(super) fn regexp(&mut self, clause: &str, body: &Value) -> Answer {
        let (name, body) = field_of(clause, body)?;
        let mut options = Options::of_field(clause, body, "value")?;
        let pattern = options.required_text("value")?;
        options.ignore(&["rewrite", "flags", "max_determinized_states"]);
        let query = match self.mapping.field(name) {
            None => Box::new(EmptyQuery),
            Some(field) => {
                self.of_text(clause, name)?;
                regex_in(field, &pattern)?
            }
        };
        options.finish(query)
    }

    pub(super) fn fuzzy(&mut self, clause: &str, body: &Value) -> Answer {
        let (name, body) = field_of(clause, body)?;
        let mut options = Options::of_field(clause, body, "value")?;
        let text = options.required_text("value")?;
        let fuzziness = options.take("fuzziness").as_ref().map(Fuzziness::parse).transpose()?;
        options.ignore(&["rewrite", "transpositions", "max_expansions"]);
        let query = match self.mapping.field(name) {
            None => Box::new(EmptyQuery),
            Some(field) => {
                self.of_text(clause, name)?;
                self.word(field.field, &text, Some(fuzziness.unwrap_or(Fuzziness::Auto(3, 6))))
            }
        };
        options.finish(query)
    }
}

fn check_terms(count: usize) -> Result<(), EsError> {
    if count <= TERMS_MAX {
        return Ok(());
    }
    Err(EsError::argument(format!(
        "the number of terms [{count}] has exceeded the allowed maximum of [{TERMS_MAX}]"
    )))
}

/// Terms that a regular expression matches as a whole.
pub(super) fn regex_in(field: FieldRef<'_>, pattern: &str) -> Answer {
    match RegexQuery::from_pattern(pattern, field.field) {
        Ok(query) => Ok(Box::new(query)),
        Err(error) => Err(EsError::shard(format!("invalid regular expression: {error}"))),
    }
}

/// Everything from one term to another, both included.
pub(super) fn between(from: Term, to: Term) -> BoxQuery {
    use std::ops::Bound::Included;
    Box::new(RangeQuery::new(Included(from), Included(to)))
}

/// A number of a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Whole(i64),
    Float(f64),
}

impl Number {
    pub(super) fn float(self) -> f64 {
        match self {
            Self::Whole(number) => number as f64,
            Self::Float(number) => number,
        }
    }
}

/// A number, or a text that is one.
pub(super) fn number_of(value: &Value) -> Option<Number> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => return None,
    };
    if let Ok(number) = text.parse() {
        return Some(Number::Whole(number));
    }
    let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite())?;
    let whole = number.fract() == 0.0 && number.abs() < 9e15;
    Some(if whole { Number::Whole(number as i64) } else { Number::Float(number) })
}
