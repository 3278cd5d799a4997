//! `TABLE t` and `TABLE t PARTITION BY a, b` as arguments, which the parser does not know: the
//! first becomes `t`, the second `t, __partition(a, b)`.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

/// The function that stands for PARTITION BY.
pub(crate) const PARTITION: &str = "__partition";

/// Rewrites the table arguments of window functions.
pub(crate) fn plain_tables(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_needed = |token: &TokenWithSpan| is_window(&token.token);
    if !tokens.iter().any(is_needed) {
        return tokens;
    }
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut rest = tokens.into_iter().peekable();
    while let Some(token) = rest.next() {
        let opens = token.token == Token::LParen && is_call_of_window(&out);
        out.push(token);
        if opens {
            argument(&mut rest, &mut out);
        }
    }
    out
}

type Rest = std::iter::Peekable<std::vec::IntoIter<TokenWithSpan>>;

/// The first argument: up to the comma after it.
fn argument(rest: &mut Rest, out: &mut Vec<TokenWithSpan>) {
    let mut depth = 0usize;
    let mut is_partition = false;
    // `DATA => TABLE t` and `TABLE t`; not a column that is called so.
    let mut may_be_table = true;
    while let Some(next) = rest.peek().map(|token| token.token.clone()) {
        match next {
            Token::Whitespace(_) => {}
            Token::Comma | Token::RParen if depth == 0 && !is_partition => return,
            // After the keys comes a descriptor, or the end.
            Token::Comma if depth == 0 && is_descriptor(rest) => break,
            Token::RParen if depth == 0 => break,
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        let Some(token) = rest.next() else { return };
        match &token.token {
            Token::Word(word) if word.keyword == Keyword::TABLE && may_be_table => {
                may_be_table = false;
                continue;
            }
            Token::Word(word) if word.keyword == Keyword::PARTITION && depth == 0 => {
                is_partition = true;
                let like = |kind| TokenWithSpan { token: kind, span: token.span };
                out.push(like(Token::Comma));
                out.push(like(Token::Word(Word {
                    value: PARTITION.to_owned(),
                    quote_style: None,
                    keyword: Keyword::NoKeyword,
                })));
                out.push(like(Token::LParen));
                skip_by(rest);
                continue;
            }
            Token::RArrow => may_be_table = true,
            Token::Whitespace(_) => {}
            Token::Word(word) if word.value.eq_ignore_ascii_case("data") => {}
            _ => may_be_table = false,
        }
        out.push(token);
    }
    if is_partition && let Some(token) = rest.peek() {
        out.push(TokenWithSpan { token: Token::RParen, span: token.span });
    }
}

fn skip_by(rest: &mut Rest) {
    while let Some(token) = rest.peek() {
        let is_by = matches!(&token.token, Token::Word(word) if word.keyword == Keyword::BY);
        if !is_by && !matches!(token.token, Token::Whitespace(_)) {
            return;
        }
        rest.next();
        if is_by {
            return;
        }
    }
}

/// Whether the comma that is next is followed by `DESCRIPTOR(`, or by an argument's name.
fn is_descriptor(rest: &Rest) -> bool {
    let mut ahead = rest.clone().skip(1).map(|token| token.token);
    let mut next = || ahead.find(|token| !matches!(token, Token::Whitespace(_)));
    let Some(Token::Word(word)) = next() else { return false };
    let after = next();
    after == Some(Token::RArrow)
        || (after == Some(Token::LParen) && word.value.eq_ignore_ascii_case("descriptor"))
}

fn is_window(token: &Token) -> bool {
    let Token::Word(word) = token else { return false };
    let names = ["tumble", "hop", "session"];
    word.quote_style.is_none() && names.iter().any(|name| word.value.eq_ignore_ascii_case(name))
}

fn is_call_of_window(before: &[TokenWithSpan]) -> bool {
    let mut before = before.iter().rev().map(|token| &token.token);
    before.find(|token| !matches!(token, Token::Whitespace(_))).is_some_and(is_window)
}
