//! Parsing: a text becomes commands.
//!
//! Owns: Evert's own statements, and which of the dialect's are understood.
//! Not here: what they do.

mod alter;
mod copy;
mod create;
mod dialect;
mod explain;
mod fold;
mod inlined;
mod outlet;
mod own;
mod reading;

use sqlparser::ast::Query;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use crate::SqlError;
use crate::command::Command;
use crate::depth::{balance, with_stack};
use crate::text::{at_text, parser};

pub(crate) use fold::definition_of;

/// Splits and parses a text. An empty one gives one empty command.
pub(crate) fn parse(text: &str) -> Result<Vec<Command>, SqlError> {
    with_stack(|| commands(text))
}

fn commands(text: &str) -> Result<Vec<Command>, SqlError> {
    if let Some(statements) = crate::system::rewrite(text) {
        return statements.into_iter().map(|statement| dialect::command(statement, text)).collect();
    }
    let mut parser = parser(text)?;
    let mut commands = Vec::new();
    loop {
        while parser.consume_token(&Token::SemiColon) {}
        if parser.peek_token_ref().token == Token::EOF {
            break;
        }
        commands.push(command(&mut parser, text)?);
        if !matches!(parser.peek_token_ref().token, Token::SemiColon | Token::EOF) {
            let next = parser.peek_token();
            return at_text(parser.expected("end of statement", next), text);
        }
    }
    if commands.is_empty() {
        commands.push(Command::Empty);
    }
    Ok(commands)
}

fn command(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    let first = word(parser, 0);
    let second = word(parser, 1);
    let second = second.as_str();
    match first.as_str() {
        "CREATE" if matches!(second, "TABLE" | "STREAM") => create::relation(parser, text),
        "CREATE" if second == "SCHEMA" => own::create_schema(parser, text),
        "DROP" if second == "SCHEMA" => own::drop_schema(parser, text),
        "CREATE" if second == "SOURCE" => create::source(parser, text),
        "CREATE" if matches!(second, "MATERIALIZED" | "OR" | "VIEW") => create::view(parser, text),
        "CREATE" if matches!(second, "SEARCH" | "ARCHIVE" | "SINK") => outlet::outlet(parser, text),
        "DROP"
            if matches!(
                second,
                "TABLE" | "STREAM" | "MATERIALIZED" | "VIEW" | "SOURCE" | "INDEX"
            ) =>
        {
            own::drop(parser, text)
        }
        "DROP" if matches!(second, "SEARCH" | "ARCHIVE" | "SINK") => own::drop(parser, text),
        "ALTER" => alter::alter(parser, text),
        "EXPLAIN" => explain::explain(parser, text),
        "SHOW" => own::show(parser, text),
        "RESET" => own::reset(parser, text),
        "WAIT" => own::wait(parser, text),
        "VERIFY" => own::verify(parser, text),
        "REFRESH" => own::refresh(parser, text),
        "SUBSCRIBE" => reading::subscribe(parser, text),
        "COPY" => copy::copy(parser, text),
        "DECLARE" => reading::declare(parser, text),
        "FETCH" | "MOVE" => reading::fetch(parser, text),
        "CLOSE" => reading::close(parser, text),
        "REBUILD" => own::rebuild(parser, text),
        "PAUSE" => Ok(Command::PauseView(own::view(parser, text)?)),
        "RESUME" => Ok(Command::ResumeView(own::view(parser, text)?)),
        "UNLISTEN" => {
            parser.next_token();
            parser.next_token();
            Ok(Command::Nothing { tag: "UNLISTEN" })
        }
        _ => {
            if reading::may_be_as_of(text)
                && let Some(command) = reading::query_as_of(parser, text)?
            {
                return Ok(command);
            }
            let at = place(parser, text);
            let mut statement = at_text(parser.parse_statement(), text)?;
            balance(&mut statement);
            dialect::command(statement, text).map_err(|error| {
                let position = error.position.or(at);
                error.at(position)
            })
        }
    }
}

/// The query that comes next.
fn query(parser: &mut Parser<'_>, text: &str) -> Result<Box<Query>, SqlError> {
    let mut query = at_text(parser.parse_query(), text)?;
    balance(&mut query);
    Ok(query)
}

/// The `n`-th token from here if it is an unquoted word, in capitals.
fn word(parser: &Parser<'_>, n: usize) -> String {
    match &parser.peek_nth_token_ref(n).token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_uppercase(),
        _ => String::new(),
    }
}

/// Consumes an unquoted word that is no keyword of the parser's.
fn consume_word(parser: &mut Parser<'_>, expected: &str) -> bool {
    let found = word(parser, 0) == expected;
    if found {
        parser.next_token();
    }
    found
}

fn expect_word(parser: &mut Parser<'_>, expected: &str, text: &str) -> Result<(), SqlError> {
    if consume_word(parser, expected) {
        return Ok(());
    }
    let next = parser.peek_token();
    at_text(parser.expected(expected, next), text)
}

/// Where the next token is: the 1-based character.
fn place(parser: &Parser<'_>, text: &str) -> Option<usize> {
    crate::translate::character(text, parser.peek_token_ref().span.start)
}

fn if_not_exists(parser: &mut Parser<'_>) -> bool {
    parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS])
}

#[cfg(test)]
mod tests;
