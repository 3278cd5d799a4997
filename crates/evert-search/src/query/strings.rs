//! Query strings: their trees become queries.

use serde_json::Value;
use tantivy::Score;
use tantivy::query::{AllQuery, EmptyQuery, Occur};

use super::leaf::{Fuzziness, Words, regex_in};
use super::options::Options;
use super::range::Ends;
use super::syntax::{Leaf, Node};
use super::{Answer, BoxQuery, Translator, best_of, boosted, combine, simple, syntax};
use crate::error::EsError;
use crate::mapping::{FieldKind, FieldRef};

/// Where a query string looks if it does not say so, and how.
struct Place {
    fields: Vec<(usize, String, Score)>,
    how: Words,
}

impl Translator<'_> {
    pub(super) fn query_string(&mut self, mut options: Options) -> Answer {
        let text = options.required_text("query")?;
        let mut how = Words::take(&mut options, "default_operator")?;
        let default_field = options.take("default_field");
        let named = match options.take("fields") {
            Some(fields) => Some(fields),
            None => default_field.filter(|field| field.as_str() != Some("*")),
        };
        options.ignore(&[
            "allow_leading_wildcard",
            "analyze_wildcard",
            "enable_position_increments",
            "fuzzy_max_expansions",
            "max_determinized_states",
            "quote_field_suffix",
            "rewrite",
            "type",
            "tie_breaker",
        ]);
        how.lenient |= named.is_none();
        let fields = self.fields(named.as_ref())?;
        let default = if how.all { Occur::Must } else { Occur::Should };
        let node = syntax::parse(&text, default)
            .map_err(|why| EsError::shard(format!("Failed to parse query [{text}]: {why}")))?;
        let query = self.node(&node, &Place { fields, how })?;
        options.finish(query)
    }

    pub(super) fn simple_query_string(&mut self, mut options: Options) -> Answer {
        let text = options.required_text("query")?;
        let mut how = Words::take(&mut options, "default_operator")?;
        let named = options.take("fields");
        options.ignore(&[
            "analyze_wildcard",
            "flags",
            "fuzzy_max_expansions",
            "fuzzy_prefix_length",
            "quote_field_suffix",
        ]);
        // A text of a person is never an error.
        how.lenient = true;
        let fields = self.fields(named.as_ref())?;
        let default = if how.all { Occur::Must } else { Occur::Should };
        let query = self.node(&simple::parse(&text, default), &Place { fields, how })?;
        options.finish(query)
    }

    /// What SQL's `search(index, text)` looks for: a query string over all columns.
    pub(crate) fn text(&mut self, text: &str) -> Answer {
        let query = serde_json::json!({ "query_string": { "query": text } });
        self.query(&query)
    }

    fn node(&mut self, node: &Node, place: &Place) -> Answer {
        self.count(1)?;
        match node {
            Node::All => Ok(Box::new(AllQuery)),
            Node::Exists(field) => Ok(self.exists_in(field)),
            Node::Boost(node, boost) => Ok(boosted(self.node(node, place)?, *boost)),
            Node::Group(clauses) => self.group(clauses, place),
            Node::Leaf(field, leaf) => {
                let named = field.as_ref().map(|name| Value::from(name.as_str()));
                let fields = match &named {
                    Some(_) => &self.fields(named.as_ref())?,
                    None => &place.fields,
                };
                let lenient = place.how.lenient && field.is_none();
                self.count(fields.len())?;
                let mut queries = Vec::with_capacity(fields.len());
                for (_, name, boost) in fields {
                    let mapping = self.mapping;
                    let Some(field) = mapping.field(name) else { continue };
                    if let Some(query) = self.leaf(field, leaf, &place.how, lenient)? {
                        queries.push(boosted(query, *boost));
                    }
                }
                Ok(best_of(queries, 0.0))
            }
        }
    }

    fn group(&mut self, clauses: &[(Occur, Node)], place: &Place) -> Answer {
        let mut parts: Vec<(Occur, BoxQuery)> = Vec::with_capacity(clauses.len());
        for (occur, node) in clauses {
            let marks = self.marks.len();
            parts.push((*occur, self.node(node, place)?));
            if *occur == Occur::MustNot {
                self.marks.truncate(marks);
            }
        }
        let of = |wanted| parts.iter().filter(|(occur, _)| *occur == wanted).count();
        let (must, should) = (of(Occur::Must), of(Occur::Should));
        if parts.is_empty() {
            return Ok(Box::new(EmptyQuery));
        }
        if must == 0 && should == 0 {
            parts.push((Occur::Must, Box::new(AllQuery)));
        }
        let least = match &place.how.minimum {
            Some(least) => super::minimum(least, should)?,
            None => usize::from(must == 0 && should > 0),
        };
        Ok(combine(parts, should, least))
    }

    /// One thing in one field; nothing where it makes no sense there and need not.
    fn leaf(
        &mut self,
        field: FieldRef<'_>,
        leaf: &Leaf,
        how: &Words,
        lenient: bool,
    ) -> Result<Option<BoxQuery>, EsError> {
        let how = Words { lenient, minimum: None, ..how.clone() };
        // Words of a text are in lower case.
        let folded = |text: &str| match field.kind {
            FieldKind::Text => text.to_lowercase(),
            _ => text.to_owned(),
        };
        let patterned = matches!(leaf, Leaf::Glob(_) | Leaf::Regex(_) | Leaf::Fuzzy(..));
        if patterned && !field.kind.is_text_like() {
            if let (Leaf::Glob(pattern), false) = (leaf, lenient) {
                return Err(EsError::shard(format!(
                    "[{pattern}]: field [{}] of type [{}] has no wildcards",
                    field.name(),
                    field.kind.word()
                )));
            }
            return Ok(None);
        }
        let query = match leaf {
            Leaf::Words(text) => self.text_in(field, text, &how),
            Leaf::Phrase(text, slop) => self.phrase_in(field, text, *slop),
            Leaf::Glob(pattern) => self.glob_in(field, &folded(pattern), false),
            Leaf::Regex(pattern) => regex_in(field, pattern),
            Leaf::Fuzzy(word, changes) => {
                let fuzziness = match changes {
                    Some(changes) => Fuzziness::Changes(*changes),
                    None => Fuzziness::Auto(3, 6),
                };
                let how = Words { fuzziness: Some(fuzziness), ..how };
                self.text_in(field, &folded(word), &how)
            }
            Leaf::Range(from, to) => {
                let end = |end: &Option<(String, bool)>| {
                    end.as_ref().map(|(text, included)| (Value::from(folded(text)), *included))
                };
                let ends = Ends { from: end(from), to: end(to), ..Ends::default() };
                self.range_in(field, &ends)
            }
        };
        match query {
            Ok(query) => Ok(Some(query)),
            Err(_) if lenient => Ok(None),
            Err(error) => Err(error),
        }
    }
}
