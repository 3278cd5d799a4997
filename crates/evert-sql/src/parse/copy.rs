//! COPY: its words and its options, as Postgres takes and checks them.

use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{command, consume_word, expect_word, place, word};
use crate::SqlError;
use crate::command::{Command, Copy, CopyEnd, CopyRead, CopyWhat};
use crate::copy::{CopyForm, ForceQuote, Format, Header, Options};
use crate::error::{FEATURE_NOT_SUPPORTED, INVALID_PARAMETER_VALUE, SYNTAX_ERROR};
use crate::names::{fold, relation_name};
use crate::text::at_text;

/// `COPY relation [(column, ...)] FROM | TO end [options]`, `COPY (statement) TO end [options]`.
pub(super) fn copy(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    parser.next_token();
    let what = if parser.consume_token(&Token::LParen) {
        let at = place(parser, text);
        let inner = command(parser, text)?;
        at_text(parser.expect_token(&Token::RParen), text)?;
        if !matches!(inner, Command::Query(_) | Command::QueryAsOf { .. } | Command::Subscribe(_)) {
            return Err(SqlError::unsupported("COPY of anything but SELECT and SUBSCRIBE").at(at));
        }
        expect_word(parser, "TO", text)?;
        CopyWhat::To(CopyRead::Statement(Box::new(inner)))
    } else {
        let name = relation_name(&at_text(parser.parse_object_name(false), text)?)?;
        let columns = columns(parser, text)?;
        if consume_word(parser, "FROM") {
            CopyWhat::From { relation: name, columns }
        } else {
            expect_word(parser, "TO", text)?;
            CopyWhat::To(CopyRead::Relation { name, columns })
        }
    };
    let from = matches!(what, CopyWhat::From { .. });
    let end = end(parser, text, from)?;
    let mut given = Given::default();
    consume_word(parser, "WITH");
    if parser.consume_token(&Token::LParen) {
        given.listed(parser, text)?;
    } else {
        given.old(parser, text)?;
    }
    if from && word(parser, 0) == "WHERE" {
        let hint = "Copy into a table of its own, then INSERT ... SELECT ... WHERE.";
        return Err(SqlError::unsupported("COPY FROM ... WHERE")
            .hint(hint)
            .at(place(parser, text)));
    }
    let options = given.checked(from)?;
    if options.format == Format::Parquet && end == CopyEnd::Client {
        let hint = "Parquet is copied from and to files under the server's --files directory.";
        return Err(SqlError::unsupported("COPY in Parquet over the connection").hint(hint));
    }
    Ok(Command::Copy(Box::new(Copy { what, end, options })))
}

/// `(column, ...)`, if it is there.
fn columns(parser: &mut Parser<'_>, text: &str) -> Result<Vec<String>, SqlError> {
    if !parser.consume_token(&Token::LParen) {
        return Ok(Vec::new());
    }
    let columns = at_text(parser.parse_comma_separated(Parser::parse_identifier), text)?;
    at_text(parser.expect_token(&Token::RParen), text)?;
    Ok(columns.iter().map(fold).collect())
}

fn end(parser: &mut Parser<'_>, text: &str, from: bool) -> Result<CopyEnd, SqlError> {
    let at = place(parser, text);
    match word(parser, 0).as_str() {
        // As in Postgres, either word means the client.
        "STDIN" | "STDOUT" => {
            parser.next_token();
            Ok(CopyEnd::Client)
        }
        "PROGRAM" => Err(SqlError::unsupported("COPY with PROGRAM").at(at)),
        _ => match quoted(parser) {
            Some(path) => Ok(CopyEnd::File(path)),
            None => {
                let next = parser.peek_token();
                let expected = if from { "STDIN or a file" } else { "STDOUT or a file" };
                at_text(parser.expected(expected, next), text)
            }
        },
    }
}

/// A quoted text, if one comes.
fn quoted(parser: &mut Parser<'_>) -> Option<String> {
    let (Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text)) =
        &parser.peek_token_ref().token
    else {
        return None;
    };
    let text = text.clone();
    parser.next_token();
    Some(text)
}

/// Options as they were written.
#[derive(Default)]
struct Given {
    format: Option<Format>,
    delimiter: Option<String>,
    null: Option<String>,
    header: Option<Header>,
    quote: Option<String>,
    escape: Option<String>,
    force_quote: Option<ForceQuote>,
    force_not_null: Option<Vec<String>>,
    force_null: Option<Vec<String>>,
}

/// Sets what may be given once.
fn once<T>(slot: &mut Option<T>, value: T, at: Option<usize>) -> Result<(), SqlError> {
    if slot.replace(value).is_some() {
        return Err(SqlError::new(SYNTAX_ERROR, "conflicting or redundant options").at(at));
    }
    Ok(())
}

impl Given {
    /// `(FORMAT csv, HEADER, ...)`, from behind the bracket.
    fn listed(&mut self, parser: &mut Parser<'_>, text: &str) -> Result<(), SqlError> {
        loop {
            let at = place(parser, text);
            let name = word(parser, 0);
            parser.next_token();
            match name.as_str() {
                "FORMAT" => once(&mut self.format, format(parser, text)?, at)?,
                "DELIMITER" => once(&mut self.delimiter, value(parser, text)?, at)?,
                "NULL" => once(&mut self.null, value(parser, text)?, at)?,
                "QUOTE" => once(&mut self.quote, value(parser, text)?, at)?,
                "ESCAPE" => once(&mut self.escape, value(parser, text)?, at)?,
                "HEADER" => once(&mut self.header, header(parser, text)?, at)?,
                "FORCE_QUOTE" => once(&mut self.force_quote, force_quote(parser, text)?, at)?,
                "FORCE_NOT_NULL" => once(&mut self.force_not_null, columns(parser, text)?, at)?,
                "FORCE_NULL" => once(&mut self.force_null, columns(parser, text)?, at)?,
                "ENCODING" => encoding(&value(parser, text)?, at)?,
                // It says how Postgres stores the rows.
                "FREEZE" => drop(switch(parser, text)?),
                _ => {
                    let message = format!("option \"{}\" not recognized", name.to_lowercase());
                    return Err(SqlError::new(SYNTAX_ERROR, message).at(at));
                }
            }
            if !parser.consume_token(&Token::Comma) {
                at_text(parser.expect_token(&Token::RParen), text)?;
                return Ok(());
            }
        }
    }

    /// `CSV HEADER DELIMITER AS ';' ...`, as it was written before there were brackets.
    fn old(&mut self, parser: &mut Parser<'_>, text: &str) -> Result<(), SqlError> {
        loop {
            let at = place(parser, text);
            let (first, second) = (word(parser, 0), word(parser, 1));
            let told = |parser: &mut Parser<'_>| {
                parser.next_token();
                consume_word(parser, "AS");
                value(parser, text)
            };
            match first.as_str() {
                "DELIMITER" => once(&mut self.delimiter, told(parser)?, at)?,
                "NULL" => once(&mut self.null, told(parser)?, at)?,
                "QUOTE" => once(&mut self.quote, told(parser)?, at)?,
                "ESCAPE" => once(&mut self.escape, told(parser)?, at)?,
                "CSV" => {
                    parser.next_token();
                    once(&mut self.format, Format::Csv, at)?;
                }
                "BINARY" => return Err(binary().at(at)),
                "HEADER" => {
                    parser.next_token();
                    once(&mut self.header, Header::Skip, at)?;
                }
                "ENCODING" => encoding(&told(parser)?, at)?,
                "FREEZE" => drop(parser.next_token()),
                "FORCE" => {
                    parser.next_token();
                    parser.next_token();
                    match second.as_str() {
                        "QUOTE" => once(&mut self.force_quote, bare_force(parser, text)?, at)?,
                        "NULL" => once(&mut self.force_null, names(parser, text)?, at)?,
                        _ => {
                            expect_word(parser, "NULL", text)?;
                            once(&mut self.force_not_null, names(parser, text)?, at)?;
                        }
                    }
                }
                _ => return Ok(()),
            }
        }
    }

    /// The options, if they go together.
    fn checked(self, from: bool) -> Result<Options, SqlError> {
        let format = self.format.unwrap_or_default();
        let csv = format == Format::Csv;
        if format == Format::Parquet {
            let others = self.delimiter.is_some()
                || self.null.is_some()
                || self.header.is_some()
                || self.quote.is_some()
                || self.escape.is_some();
            if others {
                return Err(SqlError::new(SYNTAX_ERROR, "Parquet has no such COPY options"));
            }
        }
        let only_csv = |given: bool, what: &str| match given && !csv {
            true => Err(refused(format!("COPY {what} available only in CSV mode"))),
            false => Ok(()),
        };
        only_csv(self.quote.is_some(), "quote")?;
        only_csv(self.escape.is_some(), "escape")?;
        only_csv(self.force_quote.is_some(), "force quote")?;
        only_csv(self.force_not_null.is_some(), "force not null")?;
        only_csv(self.force_null.is_some(), "force null")?;
        if self.force_quote.is_some() && from {
            return Err(refused("COPY force quote only available using COPY TO"));
        }
        if (self.force_not_null.is_some() || self.force_null.is_some()) && !from {
            return Err(refused("COPY force null only available using COPY FROM"));
        }
        if self.header == Some(Header::Match) && !from {
            let message = "cannot use \"match\" with HEADER in COPY TO";
            return Err(SqlError::new(INVALID_PARAMETER_VALUE, message));
        }
        let default = CopyForm::default();
        let quote = one_byte(self.quote.as_deref(), default.quote, "quote")?;
        let form = CopyForm {
            csv,
            delimiter: one_byte(
                self.delimiter.as_deref(),
                if csv { b',' } else { default.delimiter },
                "delimiter",
            )?,
            null: self.null.unwrap_or(if csv { String::new() } else { default.null }),
            quote,
            escape: one_byte(self.escape.as_deref(), quote, "escape")?,
            header: self.header.is_some_and(|header| header != Header::No),
            force_quote: self.force_quote.unwrap_or_default(),
        };
        check_form(&form)?;
        Ok(Options {
            format,
            form,
            header: self.header.unwrap_or_default(),
            force_not_null: self.force_not_null.unwrap_or_default(),
            force_null: self.force_null.unwrap_or_default(),
        })
    }
}

/// What Postgres's ProcessCopyOptions refuses.
fn check_form(form: &CopyForm) -> Result<(), SqlError> {
    let line_ends = |text: &[u8]| text.iter().any(|byte| matches!(byte, b'\n' | b'\r'));
    let invalid = |message: &str| Err(SqlError::new(INVALID_PARAMETER_VALUE, message));
    if line_ends(&[form.delimiter]) {
        return invalid("COPY delimiter cannot be newline or carriage return");
    }
    if line_ends(form.null.as_bytes()) {
        return invalid("COPY null representation cannot use newline or carriage return");
    }
    let special = b"\\.abcdefghijklmnopqrstuvwxyz0123456789";
    if !form.csv && special.contains(&form.delimiter) {
        let delimiter = char::from(form.delimiter);
        return invalid(&format!("COPY delimiter cannot be \"{delimiter}\""));
    }
    if form.csv && form.delimiter == form.quote {
        return invalid("COPY delimiter and quote must be different");
    }
    if form.null.as_bytes().contains(&form.delimiter) {
        return Err(refused("COPY delimiter must not appear in the NULL specification"));
    }
    if form.csv && form.null.as_bytes().contains(&form.quote) {
        return Err(refused("CSV quote character must not appear in the NULL specification"));
    }
    Ok(())
}

fn refused(message: impl Into<String>) -> SqlError {
    SqlError::new(FEATURE_NOT_SUPPORTED, message)
}

fn binary() -> SqlError {
    SqlError::unsupported("COPY in binary format").hint("Formats are text, csv and parquet.")
}

fn one_byte(given: Option<&str>, default: u8, what: &str) -> Result<u8, SqlError> {
    match given.map(str::as_bytes) {
        None => Ok(default),
        Some([byte]) => Ok(*byte),
        Some(_) => Err(refused(format!("COPY {what} must be a single one-byte character"))),
    }
}

fn encoding(name: &str, at: Option<usize>) -> Result<(), SqlError> {
    let plain: String = name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    match plain.as_str() {
        "utf8" | "unicode" | "sqlascii" => Ok(()),
        _ => Err(SqlError::unsupported(format!("COPY in encoding {name}"))
            .hint("Everything is UTF8 here.")
            .at(at)),
    }
}

/// A quoted text, or a word.
fn value(parser: &mut Parser<'_>, text: &str) -> Result<String, SqlError> {
    match quoted(parser) {
        Some(value) => Ok(value),
        None => Ok(fold(&at_text(parser.parse_identifier(), text)?)),
    }
}

fn format(parser: &mut Parser<'_>, text: &str) -> Result<Format, SqlError> {
    let at = place(parser, text);
    match value(parser, text)?.as_str() {
        "text" => Ok(Format::Text),
        "csv" => Ok(Format::Csv),
        "parquet" => Ok(Format::Parquet),
        "binary" => Err(binary().at(at)),
        other => {
            let message = format!("COPY format \"{other}\" not recognized");
            Err(SqlError::new(INVALID_PARAMETER_VALUE, message).at(at))
        }
    }
}

fn header(parser: &mut Parser<'_>, text: &str) -> Result<Header, SqlError> {
    if word(parser, 0) == "MATCH"
        || matches!(&parser.peek_token_ref().token, Token::SingleQuotedString(text) if text.eq_ignore_ascii_case("match"))
    {
        parser.next_token();
        return Ok(Header::Match);
    }
    Ok(if switch(parser, text)? { Header::Skip } else { Header::No })
}

/// A boolean; nothing is true.
fn switch(parser: &mut Parser<'_>, text: &str) -> Result<bool, SqlError> {
    let at = place(parser, text);
    let given = match &parser.peek_token_ref().token {
        Token::Comma | Token::RParen => return Ok(true),
        Token::Number(number, _) => number.clone(),
        Token::SingleQuotedString(value) => value.to_lowercase(),
        Token::Word(word) => word.value.to_lowercase(),
        _ => String::new(),
    };
    parser.next_token();
    match given.as_str() {
        "true" | "on" | "1" => Ok(true),
        "false" | "off" | "0" => Ok(false),
        _ => Err(SqlError::new(SYNTAX_ERROR, "the option requires a Boolean value").at(at)),
    }
}

/// `*` or `(column, ...)`.
fn force_quote(parser: &mut Parser<'_>, text: &str) -> Result<ForceQuote, SqlError> {
    if parser.consume_token(&Token::Mul) {
        return Ok(ForceQuote::All);
    }
    Ok(ForceQuote::Columns(columns(parser, text)?))
}

/// `*` or `column, ...`.
fn bare_force(parser: &mut Parser<'_>, text: &str) -> Result<ForceQuote, SqlError> {
    if parser.consume_token(&Token::Mul) {
        return Ok(ForceQuote::All);
    }
    Ok(ForceQuote::Columns(names(parser, text)?))
}

fn names(parser: &mut Parser<'_>, text: &str) -> Result<Vec<String>, SqlError> {
    let columns = at_text(parser.parse_comma_separated(Parser::parse_identifier), text)?;
    Ok(columns.iter().map(fold).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn options(sql: &str) -> Result<Options, SqlError> {
        match parse(sql)?.pop() {
            Some(Command::Copy(copy)) => Ok(copy.options),
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn both_spellings_of_options_mean_the_same() {
        let listed = "COPY t FROM STDIN WITH (FORMAT csv, HEADER true, DELIMITER ';', NULL 'x', \
                      QUOTE '''', FORCE_NOT_NULL (a, \"B\"), ENCODING 'utf-8', FREEZE)";
        let old = "COPY t FROM STDIN WITH CSV HEADER DELIMITER AS ';' NULL 'x' QUOTE AS '''' \
                   FORCE NOT NULL a, \"B\"";
        let (listed, old) = (options(listed).expect("legal"), options(old).expect("legal"));
        assert_eq!(format!("{listed:?}"), format!("{old:?}"));
        assert_eq!((listed.form.delimiter, listed.form.quote), (b';', b'\''));
        assert_eq!(listed.form.escape, b'\'', "the escape is the quote");
        assert_eq!(listed.force_not_null, ["a", "B"]);
        let tab = options("COPY t TO STDOUT (DELIMITER E'\\t')").expect("legal");
        assert_eq!(tab.form, CopyForm::default());
    }

    #[test]
    fn options_that_do_not_go_together_are_refused() {
        for (sql, sqlstate) in [
            ("COPY t FROM STDIN (FORMAT xml)", "22023"),
            ("COPY t FROM STDIN (FORMAT csv, FORMAT csv)", "42601"),
            ("COPY t FROM STDIN (DELIMITER 'ab')", "0A000"),
            ("COPY t FROM STDIN (DELIMITER 'a')", "22023"),
            ("COPY t FROM STDIN (QUOTE '\"')", "0A000"),
            ("COPY t FROM STDIN (FORMAT csv, QUOTE ',')", "22023"),
            ("COPY t FROM STDIN (FORMAT csv, NULL 'a,b')", "0A000"),
            ("COPY t FROM STDIN (FORMAT csv, FORCE_QUOTE *)", "0A000"),
            ("COPY t TO STDOUT (FORMAT csv, FORCE_NULL (a))", "0A000"),
            ("COPY t TO STDOUT (HEADER match)", "22023"),
            ("COPY t TO STDOUT (SPEED 9)", "42601"),
            ("COPY t TO STDOUT (FORMAT parquet)", "0A000"),
            ("COPY t TO '/x' (FORMAT parquet, HEADER)", "42601"),
            ("COPY t FROM STDIN (FORMAT binary)", "0A000"),
            ("COPY t FROM STDIN BINARY", "0A000"),
            ("COPY t FROM PROGRAM 'ls'", "0A000"),
            ("COPY t FROM STDIN WHERE a > 1", "0A000"),
            ("COPY t FROM STDIN (ENCODING 'latin1')", "0A000"),
            ("COPY (DELETE FROM t) TO STDOUT", "0A000"),
            ("COPY t FROM", "42601"),
        ] {
            assert_eq!(options(sql).expect_err(sql).sqlstate, sqlstate, "{sql}");
        }
    }
}
