//! `EXPLAIN [(FORMAT JSON)] SELECT ... | view | CREATE MATERIALIZED VIEW ...`.

use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{consume_word, create, expect_word, place, word};
use crate::SqlError;
use crate::command::{Command, Explain, ExplainTarget};
use crate::error::INVALID_PARAMETER_VALUE;
use crate::names::relation_name;
use crate::text::at_text;

pub(super) fn explain(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    parser.next_token();
    let at = place(parser, text);
    let Options { json, analyze } = options(parser, text)?;
    let target = match word(parser, 0).as_str() {
        "CREATE" => match create::view(parser, text)? {
            Command::CreateView(create) => ExplainTarget::Create(Box::new(create)),
            _ => return Err(SqlError::unsupported("EXPLAIN of this statement")),
        },
        "MATERIALIZED" | "VIEW" => {
            consume_word(parser, "MATERIALIZED");
            expect_word(parser, "VIEW", text)?;
            view(parser, text)?
        }
        "INSERT" | "UPDATE" | "DELETE" => {
            return Err(SqlError::unsupported("EXPLAIN of anything but a SELECT or a view")
                .at(place(parser, text)));
        }
        "SELECT" | "WITH" | "VALUES" | "TABLE" => query(parser, text)?,
        _ if parser.peek_token_ref().token == Token::LParen => query(parser, text)?,
        _ => view(parser, text)?,
    };
    if analyze && !matches!(target, ExplainTarget::Query(_)) {
        let error = SqlError::unsupported("EXPLAIN ANALYZE of anything but a SELECT");
        return Err(error.at(at));
    }
    Ok(Command::Explain(Explain { target, json, analyze }))
}

fn query(parser: &mut Parser<'_>, text: &str) -> Result<ExplainTarget, SqlError> {
    Ok(ExplainTarget::Query(super::query(parser, text)?))
}

fn view(parser: &mut Parser<'_>, text: &str) -> Result<ExplainTarget, SqlError> {
    Ok(ExplainTarget::View(relation_name(&at_text(parser.parse_object_name(false), text)?)?))
}

/// What Postgres's options come to.
struct Options {
    json: bool,
    /// The statement is run, too.
    analyze: bool,
}

/// Postgres's options, of which FORMAT and ANALYZE have an effect.
fn options(parser: &mut Parser<'_>, text: &str) -> Result<Options, SqlError> {
    let mut json = false;
    let mut analyze = consume_word(parser, "ANALYZE");
    consume_word(parser, "VERBOSE");
    let in_brackets = ["FORMAT", "COSTS", "VERBOSE", "ANALYZE", "SUMMARY", "TIMING", "BUFFERS"];
    let opens = parser.peek_token_ref().token == Token::LParen;
    if !opens || !in_brackets.contains(&word(parser, 1).as_str()) {
        return Ok(Options { json, analyze });
    }
    parser.next_token();
    loop {
        let at = place(parser, text);
        let option = word(parser, 0);
        parser.next_token();
        let value = word(parser, 0);
        if !value.is_empty() {
            parser.next_token();
        }
        match (option.as_str(), value.as_str()) {
            ("FORMAT", "JSON") => json = true,
            ("FORMAT", "TEXT") => json = false,
            ("FORMAT", other) => {
                return Err(SqlError::new(
                    INVALID_PARAMETER_VALUE,
                    format!("unrecognized value for EXPLAIN option \"format\": \"{other}\""),
                )
                .at(at));
            }
            ("ANALYZE", value) => analyze = value != "OFF" && value != "FALSE",
            _ => {}
        }
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    at_text(parser.expect_token(&Token::RParen), text)?;
    Ok(Options { json, analyze })
}
