//! CREATE SEARCH INDEX, ARCHIVE and SINK.

use evert_view::OutletKind;
use serde_json::{Map, Value, json};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::create::options;
use super::own::literal;
use super::{consume_word, expect_word, if_not_exists, place};
use crate::SqlError;
use crate::command::{Command, CreateOutlet};
use crate::error::{DUPLICATE_COLUMN, SYNTAX_ERROR};
use crate::names::{fold, parts, relation_name};
use crate::text::at_text;

/// `SEARCH INDEX`, `ARCHIVE` or `SINK`, if they are what comes next.
pub(super) fn kind(parser: &mut Parser<'_>) -> Option<OutletKind> {
    if consume_word(parser, "ARCHIVE") {
        return Some(OutletKind::Archive);
    }
    if consume_word(parser, "SINK") {
        return Some(OutletKind::Sink);
    }
    let is_search = super::word(parser, 0) == "SEARCH" && super::word(parser, 1) == "INDEX";
    is_search.then(|| {
        parser.next_token();
        parser.next_token();
        OutletKind::Search
    })
}

/// `CREATE SEARCH INDEX | ARCHIVE | SINK [IF NOT EXISTS] name ON relation ... [WITH (options)]`.
pub(super) fn outlet(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    parser.next_token();
    let Some(kind) = kind(parser) else {
        let next = parser.peek_token();
        return at_text(parser.expected("SEARCH INDEX, ARCHIVE or SINK", next), text);
    };
    let if_not_exists = if_not_exists(parser);
    let name = relation_name(&at_text(parser.parse_object_name(false), text)?)?;
    // Other databases say FROM.
    if !(kind == OutletKind::Sink && consume_word(parser, "FROM")) {
        at_text(parser.expect_keyword_is(Keyword::ON), text)?;
    }
    let on = relation_name(&at_text(parser.parse_object_name(false), text)?)?;
    let mut described = match kind {
        OutletKind::Search => columns(parser, text)?,
        OutletKind::Archive => {
            at_text(parser.expect_keyword_is(Keyword::TO), text)?;
            let to = at_text(parser.parse_literal_string(), text)?;
            Map::from_iter([("to".to_owned(), Value::String(to))])
        }
        OutletKind::Sink => target(parser, text)?,
    };
    let mut with = Map::new();
    for (key, value, at) in options(parser, text)? {
        if with.insert(key.clone(), Value::String(value)).is_some() {
            let message = format!("option \"{key}\" specified more than once");
            return Err(SqlError::new(SYNTAX_ERROR, message).at(at));
        }
    }
    described.insert("with".to_owned(), Value::Object(with));
    let options = Value::Object(described);
    Ok(Command::CreateOutlet(CreateOutlet { name, kind, on, options, if_not_exists }))
}

fn columns(parser: &mut Parser<'_>, text: &str) -> Result<Map<String, Value>, SqlError> {
    at_text(parser.expect_token(&Token::LParen), text)?;
    let mut columns: Vec<String> = Vec::new();
    loop {
        let at = place(parser, text);
        let column = fold(&at_text(parser.parse_identifier(), text)?);
        if columns.contains(&column) {
            let message = format!("column \"{column}\" specified more than once");
            return Err(SqlError::new(DUPLICATE_COLUMN, message).at(at));
        }
        columns.push(column);
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    at_text(parser.expect_token(&Token::RParen), text)?;
    Ok(Map::from_iter([("columns".to_owned(), json!(columns))]))
}

/// `INTO POSTGRES 'url' TABLE t | REDIS 'url' | KAFKA 'brokers' TOPIC t`.
fn target(parser: &mut Parser<'_>, text: &str) -> Result<Map<String, Value>, SqlError> {
    at_text(parser.expect_keyword_is(Keyword::INTO), text)?;
    let at = place(parser, text);
    let into = fold(&at_text(parser.parse_identifier(), text)?);
    if !matches!(into.as_str(), "postgres" | "redis" | "kafka") {
        return Err(SqlError::unsupported(format!("CREATE SINK INTO {}", into.to_uppercase()))
            .hint("Use INTO POSTGRES, REDIS or KAFKA.")
            .at(at));
    }
    let url = at_text(parser.parse_literal_string(), text)?;
    let mut target = Map::new();
    match into.as_str() {
        "postgres" => {
            expect_word(parser, "TABLE", text)?;
            let table = parts(&at_text(parser.parse_object_name(false), text)?)?;
            target.insert("table".to_owned(), json!(table));
        }
        "kafka" => {
            expect_word(parser, "TOPIC", text)?;
            let topic = match parser.peek_token_ref().token {
                Token::SingleQuotedString(_) => literal(parser, text)?,
                _ => parts(&at_text(parser.parse_object_name(false), text)?)?.join("."),
            };
            target.insert("topic".to_owned(), Value::String(topic));
        }
        _ => {}
    }
    target.insert("into".to_owned(), Value::String(into));
    target.insert("url".to_owned(), Value::String(url));
    Ok(target)
}
