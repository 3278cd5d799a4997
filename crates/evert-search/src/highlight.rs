//! Highlights: the parts of a text in which words were found, with tags around them.
//!
//! (Elasticsearch reference, "Highlighting")

use evert_model::ColumnType;
use serde_json::{Map, Value};
use tantivy::tokenizer::{TextAnalyzer, TokenStream};

use crate::analyzer;
use crate::error::EsError;
use crate::glob;
use crate::mapping::{FieldKind, Mapping};
use crate::query::{Mark, Sought};

/// Longer texts are highlighted up to here. (`index.highlight.max_analyzed_offset`)
const TEXT_BYTES_MAX: usize = 1_000_000;
const FRAGMENTS_MAX: usize = 100;

/// How one field is highlighted.
#[derive(Clone, Debug)]
struct Field {
    name: String,
    pre: String,
    post: String,
    /// Bytes of a fragment, about.
    fragment: usize,
    /// Nothing: the whole text.
    fragments: usize,
    any_field: bool,
    no_match: usize,
    escaped: bool,
}

/// The `highlight` of a request.
pub(crate) struct Highlighter {
    fields: Vec<Field>,
    marks: Vec<Mark>,
    analyzer: TextAnalyzer,
}

impl Highlighter {
    /// Reads what is to be highlighted; `marks` is what the query looks for.
    pub(crate) fn parse(
        value: &Value,
        mapping: &Mapping,
        marks: Vec<Mark>,
    ) -> Result<Self, EsError> {
        let refuse = |what: &str| EsError::parsing(format!("[highlight] {what}"));
        let object = value.as_object().ok_or_else(|| refuse("is no object"))?;
        let listed: Vec<(String, Value)> = match object.get("fields") {
            Some(Value::Object(fields)) => {
                fields.iter().map(|(name, options)| (name.clone(), options.clone())).collect()
            }
            Some(Value::Array(parts)) => parts
                .iter()
                .filter_map(Value::as_object)
                .flatten()
                .map(|(name, options)| (name.clone(), options.clone()))
                .collect(),
            _ => return Err(refuse("names no fields")),
        };
        let mut fields = Vec::new();
        for (pattern, options) in listed {
            for column in &mapping.fields {
                let subfield = format!("{}.keyword", column.name);
                let names = [(&column.name, true), (&subfield, column.keyword.is_some())];
                for (name, there) in names {
                    if there && glob::matches(&pattern, name) && column.kind.is_text_like() {
                        fields.push(Field::parse(name, &options, object)?);
                    }
                }
            }
        }
        Ok(Self { fields, marks, analyzer: analyzer::standard() })
    }

    /// The highlights of one row, by field; fields in which nothing was found are left out.
    pub(crate) fn of(&mut self, mapping: &Mapping, row: &Map<String, Value>) -> Map<String, Value> {
        let mut found = Map::new();
        for field in &self.fields {
            let Some(target) = mapping.field(&field.name) else { continue };
            let Some(value) = row.get(&target.column.name) else { continue };
            let texts: Vec<String> = match (target.column.ty, value) {
                (ColumnType::Array(_), Value::Array(items)) => items.iter().map(text_of).collect(),
                (_, value) => vec![text_of(value)],
            };
            let marks: Vec<&Sought> = self
                .marks
                .iter()
                .filter(|mark| field.any_field || mark.field == target.field)
                .map(|mark| &mark.what)
                .collect();
            let mut fragments = Vec::new();
            for text in &texts {
                let text = &text[..floor(text, TEXT_BYTES_MAX)];
                let hits = match target.kind {
                    FieldKind::Text => self_hits(&mut self.analyzer, text, &marks),
                    _ if marks.iter().any(|mark| mark.finds(text)) => vec![(0, text.len())],
                    _ => Vec::new(),
                };
                if !hits.is_empty() {
                    fragments.extend(field.fragments(text, &hits));
                }
            }
            match texts.first() {
                Some(text) if fragments.is_empty() => fragments = field.fragments(text, &[]),
                _ => fragments.truncate(field.fragments.max(1)),
            }
            if !fragments.is_empty() {
                found.insert(field.name.clone(), fragments.into());
            }
        }
        found
    }
}

/// A JSON value as the text that was indexed.
fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The words of a text that are looked for.
fn self_hits(analyzer: &mut TextAnalyzer, text: &str, marks: &[&Sought]) -> Vec<(usize, usize)> {
    let mut hits = Vec::new();
    let mut stream = analyzer.token_stream(text);
    while stream.advance() {
        let token = stream.token();
        if marks.iter().any(|mark| mark.finds(&token.text)) {
            hits.push((token.offset_from, token.offset_to));
        }
    }
    hits
}

impl Sought {
    fn finds(&self, word: &str) -> bool {
        match self {
            Self::Word(sought) => sought == word,
            Self::Prefix(prefix) => word.starts_with(prefix.as_str()),
            Self::Glob { pattern, any_case: false } => glob::matches(pattern, word),
            Self::Glob { pattern, any_case: true } => {
                glob::matches(&pattern.to_lowercase(), &word.to_lowercase())
            }
            Self::Fuzzy(sought, changes) => within(sought, word, (*changes).into()),
        }
    }
}

/// Whether two words are at most so many changes apart; neighbours that change places are one.
fn within(a: &str, b: &str, changes: usize) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > changes {
        return false;
    }
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()] <= changes
}

/// The last place at or before `at` that is between two characters.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl Field {
    fn parse(name: &str, own: &Value, shared: &Map<String, Value>) -> Result<Self, EsError> {
        let get = |key: &str| own.get(key).or_else(|| shared.get(key));
        let tag = |key: &str, default: &str| {
            let first = get(key).and_then(|tags| tags.get(0).unwrap_or(tags).as_str());
            first.unwrap_or(default).to_owned()
        };
        let size = |key: &str, default: usize| match get(key) {
            None => Ok(default),
            Some(value) => value
                .as_u64()
                .and_then(|number| usize::try_from(number).ok())
                .ok_or_else(|| EsError::parsing(format!("[highlight] [{key}] cannot be {value}"))),
        };
        Ok(Self {
            name: name.to_owned(),
            pre: tag("pre_tags", "<em>"),
            post: tag("post_tags", "</em>"),
            fragment: size("fragment_size", 100)?.max(1),
            fragments: size("number_of_fragments", 5)?.min(FRAGMENTS_MAX),
            any_field: get("require_field_match") == Some(&Value::Bool(false)),
            no_match: size("no_match_size", 0)?,
            escaped: get("encoder").and_then(Value::as_str) == Some("html"),
        })
    }

    /// The parts of a text around what was found, in the text's order.
    fn fragments(&self, text: &str, hits: &[(usize, usize)]) -> Vec<String> {
        if hits.is_empty() {
            let shown = &text[..floor(text, self.no_match)];
            return if shown.is_empty() { Vec::new() } else { vec![self.tagged(shown, 0, &[])] };
        }
        if self.fragments == 0 || text.len() <= self.fragment {
            return vec![self.tagged(text, 0, hits)];
        }
        let mut fragments = Vec::new();
        let mut rest = hits;
        // Where the last fragment ends: none begins before.
        let mut done = 0;
        while let Some((&(first, _), _)) = rest.split_first()
            && fragments.len() < self.fragments
        {
            let before = self.fragment / 4;
            let begin = floor(text, first.saturating_sub(before).max(done));
            let begin = match text[begin..first].find(char::is_whitespace) {
                Some(space) if begin > done => begin + space + 1,
                _ => begin,
            };
            let begin = floor(text, begin);
            let end = floor(text, begin + self.fragment);
            let within = rest.iter().take_while(|(_, to)| *to <= end).count().max(1);
            let end = end.max(rest[within - 1].1);
            let end = match text[..end].rfind(char::is_whitespace) {
                Some(space) if end < text.len() && space > rest[within - 1].1 => space,
                _ => end,
            };
            fragments.push(self.tagged(&text[begin..end], begin, &rest[..within]));
            rest = &rest[within..];
            done = end;
        }
        fragments
    }

    /// A part that begins at `offset` of its text, with tags around the hits.
    fn tagged(&self, part: &str, offset: usize, hits: &[(usize, usize)]) -> String {
        let mut out = String::new();
        let mut at = 0;
        for (from, to) in hits {
            let (from, to) = (from - offset, to - offset);
            self.push(&part[at..from], &mut out);
            out.push_str(&self.pre);
            self.push(&part[from..to], &mut out);
            out.push_str(&self.post);
            at = to;
        }
        self.push(&part[at..], &mut out);
        out
    }

    fn push(&self, text: &str, out: &mut String) {
        if !self.escaped {
            return out.push_str(text);
        }
        for c in text.chars() {
            match c {
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '&' => out.push_str("&amp;"),
                '"' => out.push_str("&quot;"),
                c => out.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mapping::tests::mapping;
    use crate::query::Translator;

    fn highlights(query: Value, highlight: Value, row: Value) -> Value {
        let mapping = mapping();
        let mut translator = Translator::new(&mapping, 0);
        translator.query(&query).unwrap();
        let marks = translator.take_marks();
        let mut highlighter = Highlighter::parse(&highlight, &mapping, marks).unwrap();
        Value::Object(highlighter.of(&mapping, row.as_object().unwrap()))
    }

    #[test]
    fn found_words_have_tags() {
        let shown = highlights(
            json!({ "match": { "email": "riya FAILED" } }),
            json!({ "fields": { "email": {} } }),
            json!({ "email": "Riya's payment failed: Riya", "status": "failed" }),
        );
        let expected = "Riya's payment <em>failed</em>: <em>Riya</em>";
        assert_eq!(shown, json!({ "email": [expected] }));
    }

    #[test]
    fn patterns_and_negations_are_respected() {
        let shown = highlights(
            json!({ "bool": {
                "must": [{ "prefix": { "status": "fa" } }, { "fuzzy": { "email": "ryia" } }],
                "must_not": { "term": { "email": "sharma" } } } }),
            json!({ "fields": { "*": {} }, "pre_tags": ["<b>"], "post_tags": ["</b>"] }),
            json!({ "email": "riya sharma", "status": "failed" }),
        );
        assert_eq!(shown, json!({ "email": ["<b>riya</b> sharma"], "status": ["<b>failed</b>"] }));
    }

    #[test]
    fn a_long_text_is_shown_in_fragments() {
        let text = format!("{} needle {} needle ü", "straw ".repeat(50), "hay ".repeat(100));
        let shown = highlights(
            json!({ "match": { "email": "needle" } }),
            json!({ "fields": { "email": { "fragment_size": 40 } } }),
            json!({ "email": text }),
        );
        let fragments = shown["email"].as_array().unwrap();
        assert_eq!(fragments.len(), 2);
        for fragment in fragments {
            let fragment = fragment.as_str().unwrap();
            assert!(fragment.contains("<em>needle</em>") && fragment.len() < 70, "{fragment}");
        }
    }
}
