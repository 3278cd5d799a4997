//! The text of statements: tokens, places, and plain parsing.

use sqlparser::ast::Statement;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, Whitespace};

use crate::SqlError;
use crate::error::SYNTAX_ERROR;
use crate::time_windows::plain_tables;
use crate::{depth, translate};

/// The dialect of everything that is parsed here.
pub(crate) static DIALECT: PostgreSqlDialect = PostgreSqlDialect {};

/// A parser over a text's tokens, whose places are those in the text.
pub(crate) fn parser(text: &str) -> Result<Parser<'static>, SqlError> {
    let tokens = Tokenizer::new(&DIALECT, text).tokenize_with_location().map_err(|error| {
        SqlError::new(SYNTAX_ERROR, error.message.clone())
            .at(translate::character(text, error.location))
    })?;
    depth::check(&tokens)?;
    let tokens = is_null(plain_tables(signs(tokens)));
    Ok(Parser::new(&DIALECT)
        .with_recursion_limit(depth::NESTING_MAX)
        .with_tokens_with_locations(tokens))
}

/// `x>-1` as `x > -1`: an operator of several characters ends in a sign only if it has one of those
/// that no standard operator has. (Postgres, "Lexical Structure", operators)
fn signs(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out = Vec::with_capacity(tokens.len());
    for token in tokens {
        let Token::CustomBinaryOperator(operator) = &token.token else {
            out.push(token);
            continue;
        };
        let rest = operator.trim_end_matches(['+', '-']);
        let whole = operator.contains(|c| "~!@#%^&|`?".contains(c));
        let first = Tokenizer::new(&DIALECT, rest).tokenize().ok();
        let (false, Some([first])) = (whole || rest == operator, first.as_deref()) else {
            out.push(token);
            continue;
        };
        let (mut at, end) = (token.span.start, token.span.end);
        let mut put = |token: Token, length: usize| {
            let start = at;
            at.column += length as u64;
            let end = if at.column < end.column { at } else { end };
            out.push(TokenWithSpan { token, span: Span::new(start, end) });
        };
        put(first.clone(), rest.len());
        for sign in operator[rest.len()..].chars() {
            put(if sign == '-' { Token::Minus } else { Token::Plus }, 1);
        }
    }
    out
}

/// `x ISNULL` as `x IS NULL`: the parser would take the word for a column's new name.
fn is_null(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_word = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) => {
            word.quote_style.is_none() && word.value.eq_ignore_ascii_case("isnull")
        }
        _ => false,
    };
    if !tokens.iter().any(is_word) {
        return tokens;
    }
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len() + 4);
    for token in tokens {
        let before = out.iter().rev().find(|token| !matches!(token.token, Token::Whitespace(_)));
        let ends_value = before.is_some_and(|before| match &before.token {
            Token::Word(word) => word.quote_style.is_some() || !is_clause(word.keyword),
            Token::RParen | Token::RBracket | Token::Number(..) => true,
            Token::SingleQuotedString(_) | Token::Placeholder(_) => true,
            _ => false,
        });
        if !is_word(&token) || !ends_value {
            out.push(token);
            continue;
        }
        let span = token.span;
        let word = |text| TokenWithSpan { token: Token::make_keyword(text), span };
        let blank = TokenWithSpan { token: Token::Whitespace(Whitespace::Space), span };
        out.extend([word("IS"), blank, word("NULL")]);
    }
    out
}

/// Words after which a name comes.
fn is_clause(keyword: Keyword) -> bool {
    use Keyword::{AND, AS, BY, DISTINCT, FROM, HAVING, JOIN, NOT, ON, OR, SELECT, TABLE, WHERE};
    [AND, AS, BY, DISTINCT, FROM, HAVING, JOIN, NOT, ON, OR, SELECT, TABLE, WHERE]
        .contains(&keyword)
}

/// Parses statements of the dialect alone, none of Evert's own.
pub(crate) fn parse_statements(text: &str) -> Result<Vec<Statement>, SqlError> {
    let parsed = parser(text)?.parse_statements();
    let mut statements = parsed.map_err(|error| translate::syntax(&error, text))?;
    depth::balance(&mut statements);
    Ok(statements)
}

/// The part of a text from one place up to another. A place past the end is the end.
pub(crate) fn slice(text: &str, from: Location, to: Location) -> &str {
    let (from, to) = (byte(text, from), byte(text, to));
    text.get(from..to).unwrap_or_default().trim()
}

fn byte(text: &str, at: Location) -> usize {
    if at.line == 0 {
        return text.len();
    }
    let mut before = 0;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        if number == at.line {
            let column = (at.column as usize).saturating_sub(1);
            return line
                .char_indices()
                .nth(column)
                .map_or(before + line.len(), |(i, _)| before + i);
        }
        before += line.len();
    }
    text.len()
}

/// The parser's own result with this text's places.
pub(crate) fn at_text<T>(result: Result<T, ParserError>, text: &str) -> Result<T, SqlError> {
    result.map_err(|error| translate::syntax(&error, text))
}
