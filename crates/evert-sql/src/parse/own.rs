//! Statements that only Evert has, or means in its own way.

use evert_model::PositionToken;
use evert_view::Name;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{consume_word, expect_word, place, word};
use crate::SqlError;
use crate::command::{Command, Drop, DropKind};
use crate::error::INVALID_PARAMETER_VALUE;
use crate::names::{fold, relation_name};
use crate::schemas::{CreateSchema, DropSchema};
use crate::settings::duration_ms;
use crate::text::at_text;

/// `DROP kind [IF EXISTS] name, ... [CASCADE | RESTRICT] [WITH TOPIC]`.
pub(super) fn drop(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    parser.next_token();
    let kind = drop_kind(parser, text)?;
    let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let mut names = Vec::new();
    loop {
        names.push(relation_name(&at_text(parser.parse_object_name(false), text)?)?);
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    let cascade = consume_word(parser, "CASCADE");
    if !cascade {
        consume_word(parser, "RESTRICT");
    }
    let with_topic = consume_word(parser, "WITH");
    if with_topic {
        expect_word(parser, "TOPIC", text)?;
    }
    Ok(Command::Drop(Drop { kind, names, if_exists, cascade, with_topic }))
}

/// `CREATE SCHEMA [IF NOT EXISTS] name [AUTHORIZATION role]`.
pub(super) fn create_schema(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    parser.next_token();
    parser.next_token();
    let if_not_exists = super::if_not_exists(parser);
    // Without a name it is called after its owner.
    let authorization = consume_word(parser, "AUTHORIZATION");
    let name = fold(&at_text(parser.parse_identifier(), text)?);
    if !authorization && consume_word(parser, "AUTHORIZATION") {
        at_text(parser.parse_identifier(), text)?;
    }
    Ok(Command::CreateSchema(CreateSchema { name, if_not_exists }))
}

/// `DROP SCHEMA [IF EXISTS] name, ... [CASCADE | RESTRICT]`.
pub(super) fn drop_schema(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    parser.next_token();
    parser.next_token();
    let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let mut names = vec![fold(&at_text(parser.parse_identifier(), text)?)];
    while parser.consume_token(&Token::Comma) {
        names.push(fold(&at_text(parser.parse_identifier(), text)?));
    }
    let cascade = consume_word(parser, "CASCADE");
    if !cascade {
        consume_word(parser, "RESTRICT");
    }
    Ok(Command::DropSchema(DropSchema { names, if_exists, cascade }))
}

fn drop_kind(parser: &mut Parser<'_>, text: &str) -> Result<DropKind, SqlError> {
    if let Some(outlet) = super::outlet::kind(parser) {
        return Ok(DropKind::Outlet(outlet));
    }
    let kind = match word(parser, 0).as_str() {
        "TABLE" => DropKind::Table,
        "STREAM" => DropKind::Stream,
        "SOURCE" => DropKind::Source,
        "INDEX" => DropKind::Index,
        "VIEW" => DropKind::View,
        _ => {
            parser.next_token();
            if word(parser, 0) != "VIEW" {
                let next = parser.peek_token();
                return at_text(parser.expected("VIEW", next), text);
            }
            DropKind::View
        }
    };
    parser.next_token();
    Ok(kind)
}

/// `SHOW setting`, `SHOW POSITION`, `SHOW VIEWS`, ...
pub(super) fn show(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    parser.next_token();
    let name = setting_name(parser, text)?;
    Ok(match name.as_str() {
        "position" => Command::ShowPosition,
        _ => Command::Show(name),
    })
}

/// `RESET setting` or `RESET ALL`.
pub(super) fn reset(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    parser.next_token();
    let name = setting_name(parser, text)?;
    Ok(match name.as_str() {
        "all" => Command::ResetAll,
        _ => Command::Set { name, value: None, local: false },
    })
}

/// Words up to the statement's end: `evert.after`, `transaction isolation level`, `time zone`.
fn setting_name(parser: &mut Parser<'_>, text: &str) -> Result<String, SqlError> {
    let mut name = String::new();
    let mut dotted = false;
    loop {
        match &parser.peek_token_ref().token {
            Token::Word(word) => {
                if !name.is_empty() && !dotted {
                    name.push(' ');
                }
                name.push_str(&word.value.to_lowercase());
                dotted = false;
            }
            Token::Period => {
                name.push('.');
                dotted = true;
            }
            _ => break,
        }
        parser.next_token();
    }
    if name.is_empty() {
        let next = parser.peek_token();
        return at_text(parser.expected("a name", next), text);
    }
    Ok(name)
}

/// `WAIT FOR POSITION token [TIMEOUT '5s']`.
pub(super) fn wait(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    parser.next_token();
    expect_word(parser, "FOR", text)?;
    expect_word(parser, "POSITION", text)?;
    let token = position(parser, text)?;
    let timeout_ms = if consume_word(parser, "TIMEOUT") {
        let at = place(parser, text);
        let value = literal(parser, text)?;
        Some(duration_ms(&value).map_err(|error| error.at(at))?)
    } else {
        None
    };
    Ok(Command::WaitForPosition { token, timeout_ms })
}

pub(super) fn position(parser: &mut Parser<'_>, text: &str) -> Result<PositionToken, SqlError> {
    let at = place(parser, text);
    literal(parser, text)?
        .parse()
        .map_err(|error| SqlError::new(INVALID_PARAMETER_VALUE, format!("{error}")).at(at))
}

/// A number or a quoted text, as text.
pub(super) fn literal(parser: &mut Parser<'_>, text: &str) -> Result<String, SqlError> {
    let next = parser.next_token();
    match next.token {
        Token::Number(number, _) => Ok(number),
        Token::SingleQuotedString(value) => Ok(value),
        _ => at_text(parser.expected("a number or a quoted text", next), text),
    }
}

/// `VERIFY VIEW name`.
pub(super) fn verify(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    Ok(Command::VerifyView(view(parser, text)?))
}

/// `REBUILD VIEW name, ...`.
pub(super) fn rebuild(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    let mut names = vec![view(parser, text)?];
    while parser.consume_token(&Token::Comma) {
        names.push(relation_name(&at_text(parser.parse_object_name(false), text)?)?);
    }
    Ok(Command::RebuildViews(names))
}

/// `verb [MATERIALIZED] VIEW | SEARCH INDEX | ARCHIVE | SINK name`.
pub(super) fn view(parser: &mut Parser<'_>, text: &str) -> Result<Name, SqlError> {
    parser.next_token();
    if super::outlet::kind(parser).is_none() {
        consume_word(parser, "MATERIALIZED");
        expect_word(parser, "VIEW", text)?;
    }
    relation_name(&at_text(parser.parse_object_name(false), text)?)
}

/// `REFRESH MATERIALIZED VIEW [CONCURRENTLY] name`.
pub(super) fn refresh(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    parser.next_token();
    expect_word(parser, "MATERIALIZED", text)?;
    expect_word(parser, "VIEW", text)?;
    consume_word(parser, "CONCURRENTLY");
    let name = relation_name(&at_text(parser.parse_object_name(false), text)?)?;
    Ok(Command::RefreshView(name))
}
