//! Statements that read beyond a plain SELECT: SUBSCRIBE, AS OF, cursors.

use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::own::{literal, position};
use super::{command, consume_word, expect_word, place, word};
use crate::SqlError;
use crate::command::{AsOf, Command, Declare, Fetch, Subscribe};
use crate::error::INVALID_PARAMETER_VALUE;
use crate::names::{fold, relation_name};
use crate::settings::duration_ms;
use crate::text::{DIALECT, at_text};

/// `SUBSCRIBE [TO] name [WITH SNAPSHOT | PROGRESS] [AS OF POSITION n | TIMESTAMP t]
/// [UP TO POSITION n]`; the options may also be written `WITH (SNAPSHOT, PROGRESS = true)`.
pub(super) fn subscribe(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    parser.next_token();
    consume_word(parser, "TO");
    if parser.peek_token_ref().token == Token::LParen {
        return Err(SqlError::unsupported("SUBSCRIBE to a query")
            .hint("Create a materialized view of the query and subscribe to it.")
            .at(place(parser, text)));
    }
    let name = relation_name(&at_text(parser.parse_object_name(false), text)?)?;
    let mut subscribe =
        Subscribe { name, snapshot: false, progress: false, after: None, upto: None };
    loop {
        match (word(parser, 0).as_str(), word(parser, 1).as_str()) {
            ("WITH", _) => {
                parser.next_token();
                options(parser, text, &mut subscribe)?;
            }
            ("WITHOUT", "SNAPSHOT") => {
                parser.next_token();
                parser.next_token();
                subscribe.snapshot = false;
            }
            ("AS", "OF") => {
                let tokens = rest(parser);
                let end = until(&tokens, |at| is_words(&tokens[at..], &["UP", "TO"]));
                let mut own = sub_parser(&tokens[..end]);
                subscribe.after = Some(as_of(&mut own, text)?);
                advance(parser, end);
            }
            ("UP", "TO") => {
                parser.next_token();
                parser.next_token();
                consume_word(parser, "POSITION");
                subscribe.upto = Some(position(parser, text)?);
            }
            _ => return Ok(Command::Subscribe(Box::new(subscribe))),
        }
    }
}

/// What follows WITH: `SNAPSHOT`, or `(SNAPSHOT, PROGRESS = true)`.
fn options(parser: &mut Parser<'_>, text: &str, subscribe: &mut Subscribe) -> Result<(), SqlError> {
    let listed = parser.consume_token(&Token::LParen);
    loop {
        let at = place(parser, text);
        let name = word(parser, 0);
        parser.next_token();
        let on = if listed && parser.consume_token(&Token::Eq) {
            let value = at_text(parser.parse_identifier(), text)?.value;
            match value.to_lowercase().as_str() {
                "true" | "on" => true,
                "false" | "off" => false,
                _ => {
                    let message = format!("{name} requires a Boolean value");
                    return Err(SqlError::new(INVALID_PARAMETER_VALUE, message).at(at));
                }
            }
        } else {
            true
        };
        match name.as_str() {
            "SNAPSHOT" => subscribe.snapshot = on,
            "PROGRESS" => subscribe.progress = on,
            _ => {
                let message = "unrecognized option of SUBSCRIBE";
                return Err(SqlError::new(INVALID_PARAMETER_VALUE, message)
                    .hint("Options are SNAPSHOT and PROGRESS.")
                    .at(at));
            }
        }
        if !listed {
            return Ok(());
        }
        if !parser.consume_token(&Token::Comma) {
            at_text(parser.expect_token(&Token::RParen), text)?;
            return Ok(());
        }
    }
}

/// Whether it is worth looking for AS OF in a text.
pub(super) fn may_be_as_of(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains(" of") && (text.contains("position") || text.contains("timestamp"))
}

/// A statement that may end in `AS OF POSITION n` or `AS OF TIMESTAMP t`: its own part is parsed
/// by itself, since the words would be taken for an alias there. `None` if it does not.
pub(super) fn query_as_of(
    parser: &mut Parser<'_>,
    text: &str,
) -> Result<Option<Command>, SqlError> {
    let tokens = rest(parser);
    let end = until(&tokens, |_| false);
    let at = until(&tokens[..end], |at| {
        let tail = &tokens[at..end];
        is_words(tail, &["AS", "OF", "POSITION"]) || is_words(tail, &["AS", "OF", "TIMESTAMP"])
    });
    // CREATE and other statements that hold a query are left alone.
    if at == end
        || !matches!(
            word(parser, 0).as_str(),
            "SELECT" | "WITH" | "VALUES" | "TABLE" | "EXPLAIN" | ""
        )
    {
        return Ok(None);
    }
    let mut own = sub_parser(&tokens[..at]);
    let inner = command(&mut own, text)?;
    if own.peek_token_ref().token != Token::EOF {
        let next = own.peek_token();
        return at_text(own.expected("end of statement", next), text);
    }
    let mut clause = sub_parser(&tokens[at..end]);
    let as_of = as_of(&mut clause, text)?;
    if clause.peek_token_ref().token != Token::EOF {
        let next = clause.peek_token();
        return at_text(clause.expected("end of statement", next), text);
    }
    advance(parser, end);
    match inner {
        Command::Query(query) => Ok(Some(Command::QueryAsOf { query, as_of })),
        _ => Err(SqlError::unsupported("AS OF in anything but a SELECT")
            .at(crate::translate::character(text, tokens[at].span.start))),
    }
}

/// `AS OF POSITION n`, `AS OF TIMESTAMP t` with any constant expression, to the end.
fn as_of(parser: &mut Parser<'_>, text: &str) -> Result<AsOf, SqlError> {
    expect_word(parser, "AS", text)?;
    expect_word(parser, "OF", text)?;
    moment(parser, text)
}

/// `POSITION n` or `TIMESTAMP t`.
fn moment(parser: &mut Parser<'_>, text: &str) -> Result<AsOf, SqlError> {
    if consume_word(parser, "POSITION") {
        return Ok(AsOf::Position(position(parser, text)?));
    }
    // TIMESTAMP before a text is a literal's type, before anything else only a word.
    let literal = matches!(parser.peek_nth_token_ref(1).token, Token::SingleQuotedString(_));
    if word(parser, 0) != "TIMESTAMP" {
        let next = parser.peek_token();
        return at_text(parser.expected("POSITION or TIMESTAMP", next), text);
    }
    if literal {
        parser.next_token();
    } else {
        expect_word(parser, "TIMESTAMP", text)?;
    }
    Ok(AsOf::Time(Box::new(at_text(parser.parse_expr(), text)?)))
}

/// What follows START AT in CREATE MATERIALIZED VIEW: a moment, up to AS, WITH or a fold's ON.
pub(super) fn start(parser: &mut Parser<'_>, text: &str) -> Result<AsOf, SqlError> {
    let tokens = rest(parser);
    let ends = |at: usize| ["AS", "WITH", "ON"].iter().any(|end| is_words(&tokens[at..], &[end]));
    let end = until(&tokens, ends);
    let mut own = sub_parser(&tokens[..end]);
    let moment = moment(&mut own, text)?;
    if own.peek_token_ref().token != Token::EOF {
        let next = own.peek_token();
        return at_text(own.expected("AS", next), text);
    }
    advance(parser, end);
    Ok(moment)
}

/// `DECLARE name [BINARY] [ASENSITIVE | INSENSITIVE] [[NO] SCROLL] CURSOR [WITH | WITHOUT HOLD]
/// FOR statement`.
pub(super) fn declare(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    parser.next_token();
    let name = fold(&at_text(parser.parse_identifier(), text)?);
    loop {
        match word(parser, 0).as_str() {
            "BINARY" => {
                return Err(SqlError::unsupported("BINARY CURSOR").at(place(parser, text)));
            }
            "ASENSITIVE" | "INSENSITIVE" => drop(parser.next_token()),
            "NO" if word(parser, 1) == "SCROLL" => {
                parser.next_token();
                parser.next_token();
            }
            "SCROLL" => {
                return Err(SqlError::unsupported("SCROLL CURSOR")
                    .hint("Cursors go forward only.")
                    .at(place(parser, text)));
            }
            _ => break,
        }
    }
    expect_word(parser, "CURSOR", text)?;
    let hold = match word(parser, 0).as_str() {
        "WITH" => true,
        "WITHOUT" => false,
        _ => {
            expect_word(parser, "FOR", text)?;
            return declared(parser, text, name, false);
        }
    };
    parser.next_token();
    expect_word(parser, "HOLD", text)?;
    expect_word(parser, "FOR", text)?;
    declared(parser, text, name, hold)
}

fn declared(
    parser: &mut Parser<'_>,
    text: &str,
    name: String,
    hold: bool,
) -> Result<Command, SqlError> {
    let at = place(parser, text);
    let command = Box::new(command(parser, text)?);
    match *command {
        Command::Query(_) | Command::QueryAsOf { .. } | Command::Subscribe(_) => {
            Ok(Command::Declare(Declare { name, hold, command }))
        }
        _ => Err(SqlError::unsupported("a cursor for anything but SELECT and SUBSCRIBE").at(at)),
    }
}

/// `FETCH [NEXT | n | ALL | FORWARD [n | ALL]] [FROM | IN] name [WITH (TIMEOUT = '1s')]`.
pub(super) fn fetch(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    let discard = word(parser, 0) == "MOVE";
    parser.next_token();
    let mut count = Some(1);
    match word(parser, 0).as_str() {
        "NEXT" => drop(parser.next_token()),
        "ALL" => {
            parser.next_token();
            count = None;
        }
        "FORWARD" => {
            parser.next_token();
            if consume_word(parser, "ALL") {
                count = None;
            } else if matches!(parser.peek_token_ref().token, Token::Number(..)) {
                count = Some(rows(parser, text)?);
            }
        }
        "PRIOR" | "BACKWARD" | "FIRST" | "LAST" | "ABSOLUTE" | "RELATIVE" => {
            let what = format!("FETCH {}", word(parser, 0));
            return Err(SqlError::new("55000", "cursor can only scan forward")
                .detail(format!("{what} would go back."))
                .at(place(parser, text)));
        }
        _ if matches!(parser.peek_token_ref().token, Token::Number(..)) => {
            count = Some(rows(parser, text)?);
        }
        _ => {}
    }
    if matches!(word(parser, 0).as_str(), "FROM" | "IN") {
        parser.next_token();
    }
    let name = fold(&at_text(parser.parse_identifier(), text)?);
    let mut timeout_ms = None;
    if consume_word(parser, "WITH") {
        at_text(parser.expect_token(&Token::LParen), text)?;
        expect_word(parser, "TIMEOUT", text)?;
        let _ = parser.consume_token(&Token::Eq);
        let at = place(parser, text);
        let value = literal(parser, text)?;
        timeout_ms = Some(duration_ms(&value).map_err(|error| error.at(at))?);
        at_text(parser.expect_token(&Token::RParen), text)?;
    }
    Ok(Command::Fetch(Fetch { name, count, timeout_ms, discard }))
}

fn rows(parser: &mut Parser<'_>, text: &str) -> Result<u64, SqlError> {
    at_text(parser.parse_literal_uint(), text)
}

/// `CLOSE name | ALL`.
pub(super) fn close(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    parser.next_token();
    if parser.parse_keyword(Keyword::ALL) {
        return Ok(Command::CloseCursor(None));
    }
    Ok(Command::CloseCursor(Some(fold(&at_text(parser.parse_identifier(), text)?))))
}

/// The tokens from here to the end of the text; the parser stays where it is.
fn rest(parser: &mut Parser<'_>) -> Vec<TokenWithSpan> {
    let mut tokens = Vec::new();
    while parser.peek_token_ref().token != Token::EOF {
        tokens.push(parser.next_token());
    }
    tokens.iter().for_each(|_| parser.prev_token());
    tokens
}

/// The first place outside of brackets where `found` says so; the statement's end if nowhere.
fn until(tokens: &[TokenWithSpan], found: impl Fn(usize) -> bool) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen => depth += 1,
            // The bracket around the whole, as in COPY (...), ends it.
            Token::RParen if depth == 0 => return at,
            Token::RParen => depth -= 1,
            Token::SemiColon => return at,
            _ if depth == 0 && found(at) => return at,
            _ => {}
        }
    }
    tokens.len()
}

/// Whether tokens begin with these unquoted words.
fn is_words(tokens: &[TokenWithSpan], words: &[&str]) -> bool {
    tokens.len() >= words.len()
        && tokens.iter().zip(words).all(|(token, word)| match &token.token {
            Token::Word(found) => {
                found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word)
            }
            _ => false,
        })
}

fn sub_parser(tokens: &[TokenWithSpan]) -> Parser<'static> {
    Parser::new(&DIALECT)
        .with_recursion_limit(crate::depth::NESTING_MAX)
        .with_tokens_with_locations(tokens.to_vec())
}

fn advance(parser: &mut Parser<'_>, count: usize) {
    for _ in 0..count {
        parser.next_token();
    }
}
