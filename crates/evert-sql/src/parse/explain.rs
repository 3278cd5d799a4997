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
    let json = options(parser, text)?;
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
    Ok(Command::Explain(Explain { target, json }))
}

fn query(parser: &mut Parser<'_>, text: &str) -> Result<ExplainTarget, SqlError> {
    Ok(ExplainTarget::Query(super::query(parser, text)?))
}

fn view(parser: &mut Parser<'_>, text: &str) -> Result<ExplainTarget, SqlError> {
    Ok(ExplainTarget::View(relation_name(&at_text(parser.parse_object_name(false), text)?)?))
}

/// Postgres's options, of which FORMAT has an effect. Whether it is JSON.
fn options(parser: &mut Parser<'_>, text: &str) -> Result<bool, SqlError> {
    let mut json = false;
    consume_word(parser, "VERBOSE");
    if word(parser, 0) == "ANALYZE" {
        return Err(analyze().at(place(parser, text)));
    }
    let in_brackets = ["FORMAT", "COSTS", "VERBOSE", "ANALYZE", "SUMMARY", "TIMING", "BUFFERS"];
    let opens = parser.peek_token_ref().token == Token::LParen;
    if !opens || !in_brackets.contains(&word(parser, 1).as_str()) {
        return Ok(json);
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
            ("ANALYZE", value) if value != "OFF" && value != "FALSE" => {
                return Err(analyze().at(at));
            }
            _ => {}
        }
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    at_text(parser.expect_token(&Token::RParen), text)?;
    Ok(json)
}

fn analyze() -> SqlError {
    SqlError::unsupported("EXPLAIN ANALYZE")
}
