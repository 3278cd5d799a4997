//! A custom fold's definition, from the list of its columns on:
//! `(columns) [options] ON relation [KEY (columns)] ORDER BY (columns) LANGUAGE javascript AS $$code$$`.

use evert_model::Column;
use sqlparser::ast::{Ident, ObjectName, Query, SetExpr, Statement, TableFactor};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::create::{column_of, more_view_options};
use super::{consume_word, expect_word, place, word};
use crate::SqlError;
use crate::command::{CreateViewOptions, FoldDefinition, FoldOrder};
use crate::error::{INVALID_TABLE_DEFINITION, UNDEFINED_OBJECT};
use crate::names::fold;
use crate::text::{at_text, parse_statements, parser, slice};

/// Whether what comes is the list of columns that a fold's definition begins with, and no query in
/// brackets.
pub(crate) fn is_next(parser: &Parser<'_>) -> bool {
    let queries = ["SELECT", "WITH", "VALUES", "TABLE"];
    let [first, second, third] = [0, 1, 2].map(|n| &parser.peek_nth_token_ref(n).token);
    *first == Token::LParen
        && matches!(second, Token::Word(_))
        && matches!(third, Token::Word(_))
        && !queries.contains(&word(parser, 1).as_str())
}

/// A definition as it is kept with its view. `None` if the text is a query.
pub(crate) fn definition_of(text: &str) -> Result<Option<FoldDefinition>, SqlError> {
    let mut parser = parser(text)?;
    if !is_next(&parser) {
        return Ok(None);
    }
    let definition = definition(&mut parser, text, &mut CreateViewOptions::default())?;
    let next = parser.peek_token();
    match next.token {
        Token::EOF => Ok(Some(definition)),
        _ => at_text(parser.expected("end of the definition", next), text),
    }
}

/// The definition. Options of its view that stand in it are added to `options`.
pub(super) fn definition(
    parser: &mut Parser<'_>,
    text: &str,
    options: &mut CreateViewOptions,
) -> Result<FoldDefinition, SqlError> {
    let columns_from = parser.peek_token_ref().span.start;
    let columns = columns(parser, text)?;
    let columns_to = parser.peek_token_ref().span.start;
    more_view_options(parser, text, options)?;
    let rest_from = parser.peek_token_ref().span.start;
    expect_word(parser, "ON", text)?;
    let input = input(parser, text)?;
    let key = key(parser, text)?;
    let order = order(parser, text)?;
    language(parser, text)?;
    at_text(parser.expect_keyword_is(Keyword::AS), text)?;
    let at = place(parser, text);
    let code = parser.next_token();
    let rest_to = parser.peek_token_ref().span.start;
    let (source, starts_at) = match &code.token {
        Token::DollarQuotedString(quoted) => {
            let tag = quoted.tag.as_ref().map_or(0, |tag| tag.chars().count());
            (quoted.value.clone(), at.map(|at| at + tag + 2))
        }
        Token::SingleQuotedString(source) => (source.clone(), None),
        _ => return at_text(parser.expected("the code, as $$ ... $$", code), text),
    };
    // What is kept says nothing of the options, which are kept beside it.
    let [columns_text, rest] =
        [(columns_from, columns_to), (rest_from, rest_to)].map(|(from, to)| slice(text, from, to));
    let sql = format!("{columns_text} {rest}");
    Ok(FoldDefinition { columns, input, key, order, source, starts_at, at, sql })
}

fn columns(parser: &mut Parser<'_>, text: &str) -> Result<Vec<Column>, SqlError> {
    let at = place(parser, text);
    let (declared, constraints) = at_text(parser.parse_columns(), text)?;
    let mut columns = Vec::with_capacity(declared.len());
    for column in &declared {
        if let Some(option) = column.options.first() {
            return Err(SqlError::unsupported(format!("column option {option}")).at(at));
        }
        let mut notices = Vec::new();
        let column = column_of(column, &mut notices).map_err(|error| error.at(at))?;
        if !notices.is_empty() {
            let message = format!("column \"{}\" needs a precision and a scale", column.name);
            return Err(SqlError::new(INVALID_TABLE_DEFINITION, message)
                .hint("Write NUMERIC(38,4), or TEXT.")
                .at(at));
        }
        columns.push(column);
    }
    if let Some(constraint) = constraints.first() {
        return Err(SqlError::unsupported(format!("constraint {constraint}"))
            .hint("A fold's rows are told apart by KEY (columns).")
            .at(at));
    }
    Ok(columns)
}

/// `[KEY (column, ...)]`.
fn key(parser: &mut Parser<'_>, text: &str) -> Result<Vec<String>, SqlError> {
    if !consume_word(parser, "KEY") {
        return Ok(Vec::new());
    }
    at_text(parser.expect_token(&Token::LParen), text)?;
    let key = at_text(parser.parse_comma_separated(Parser::parse_identifier), text)?;
    at_text(parser.expect_token(&Token::RParen), text)?;
    Ok(key.iter().map(fold).collect())
}

/// A relation, or a query in brackets.
fn input(parser: &mut Parser<'_>, text: &str) -> Result<Box<Query>, SqlError> {
    if parser.consume_token(&Token::LParen) {
        let query = super::query(parser, text)?;
        at_text(parser.expect_token(&Token::RParen), text)?;
        return Ok(query);
    }
    all_of(at_text(parser.parse_object_name(false), text)?)
}

/// `SELECT * FROM name`.
fn all_of(name: ObjectName) -> Result<Box<Query>, SqlError> {
    let Some(Statement::Query(mut query)) = parse_statements("SELECT * FROM t")?.pop() else {
        unreachable!("a SELECT is a query")
    };
    if let SetExpr::Select(select) = query.body.as_mut()
        && let Some(from) = select.from.first_mut()
        && let TableFactor::Table { name: of, .. } = &mut from.relation
    {
        *of = name;
    }
    Ok(query)
}

/// `ORDER BY (column [ASC | DESC] [NULLS FIRST | LAST], ...)`, the brackets as one likes.
fn order(parser: &mut Parser<'_>, text: &str) -> Result<Vec<FoldOrder>, SqlError> {
    if !parser.parse_keywords(&[Keyword::ORDER, Keyword::BY]) {
        let next = parser.peek_token();
        return at_text(parser.expected("ORDER BY", next), text).map_err(|error: SqlError| {
            error.hint("A fold takes rows in an order, so that its answer depends on them alone.")
        });
    }
    let enclosed = parser.consume_token(&Token::LParen);
    let mut order = Vec::new();
    loop {
        let column: Ident = at_text(parser.parse_identifier(), text)?;
        let descending = match word(parser, 0).as_str() {
            "ASC" => {
                parser.next_token();
                false
            }
            "DESC" => parser.parse_keyword(Keyword::DESC),
            _ => false,
        };
        // As in Postgres, NULL is the greatest.
        let mut nulls_first = descending;
        if consume_word(parser, "NULLS") {
            nulls_first = consume_word(parser, "FIRST");
            if !nulls_first {
                expect_word(parser, "LAST", text)?;
            }
        }
        order.push(FoldOrder { column: fold(&column), descending, nulls_first });
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    if enclosed {
        at_text(parser.expect_token(&Token::RParen), text)?;
    }
    Ok(order)
}

fn language(parser: &mut Parser<'_>, text: &str) -> Result<(), SqlError> {
    expect_word(parser, "LANGUAGE", text)?;
    let at = place(parser, text);
    let next = parser.next_token();
    let name = match &next.token {
        Token::Word(word) => word.value.to_lowercase(),
        Token::SingleQuotedString(name) => name.to_lowercase(),
        _ => return at_text(parser.expected("a language", next), text),
    };
    match name.as_str() {
        "javascript" | "js" => Ok(()),
        _ => Err(SqlError::new(UNDEFINED_OBJECT, format!("language \"{name}\" does not exist"))
            .hint("Use LANGUAGE javascript.")
            .at(at)),
    }
}
