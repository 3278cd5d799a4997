//! CREATE TABLE, STREAM, MATERIALIZED VIEW and SOURCE.

use std::collections::BTreeMap;

use evert_model::{Column, ColumnType, RowSchema};
use evert_view::RelationKind;
use sqlparser::ast::{
    ColumnDef, ColumnOption, Expr, Ident, IndexColumn, ObjectName, ObjectNamePart, Query,
    TableConstraint,
};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::own::literal;
use super::{consume_word, expect_word, fold as folds, if_not_exists, place, word};
use crate::command::{Command, CreateRelation, CreateView, CreateViewOptions, ViewBody};
use crate::error::{
    DUPLICATE_COLUMN, INVALID_PARAMETER_VALUE, INVALID_TABLE_DEFINITION, SYNTAX_ERROR,
    UNDEFINED_COLUMN,
};
use crate::names::{fold, relation_name};
use crate::text::{at_text, slice};
use crate::types::{column_type, text_length};
use crate::{NewSource, SqlError};

/// `CREATE TABLE | STREAM [IF NOT EXISTS] name (columns) [WITH (options)]`.
pub(super) fn relation(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    parser.next_token();
    let kind = if consume_word(parser, "STREAM") {
        RelationKind::Stream
    } else {
        expect_word(parser, "TABLE", text)?;
        RelationKind::Table
    };
    let if_not_exists = if_not_exists(parser);
    let at = place(parser, text);
    let name = relation_name(&at_text(parser.parse_object_name(false), text)?)?;
    if parser.peek_keyword(Keyword::AS) {
        return Err(SqlError::unsupported("CREATE TABLE AS")
            .hint("Create the table, then INSERT INTO it SELECT ...")
            .at(place(parser, text)));
    }
    let (columns, constraints) = at_text(parser.parse_columns(), text)?;
    let options = options(parser, text)?;
    let mut create = CreateRelation {
        name,
        kind,
        if_not_exists,
        schema: RowSchema { columns: Vec::new(), key: Vec::new() },
        topic: None,
        partitions: 1,
        topic_config: BTreeMap::new(),
        conflict_is_error: false,
        lengths: BTreeMap::new(),
        defaults: BTreeMap::new(),
        notices: Vec::new(),
    };
    describe_columns(&mut create, &columns, &constraints).map_err(|error| {
        let position = error.position.or(at);
        error.at(position)
    })?;
    for (key, value, at) in options {
        option(&mut create, &key, value).map_err(|error| error.at(at))?;
    }
    Ok(Command::CreateRelation(create))
}

/// A column's name and type, without its options.
pub(super) fn column_of(column: &ColumnDef, notices: &mut Vec<String>) -> Result<Column, SqlError> {
    let name = fold(&column.name);
    let ty = match column_type(&column.data_type)? {
        Some(ty) => ty,
        None => {
            notices.push(format!(
                "column \"{name}\": NUMERIC without precision is kept as text, exactly as \
                 written; NUMERIC(38,s) computes"
            ));
            ColumnType::Text
        }
    };
    Ok(Column { name, ty, nullable: true })
}

fn describe_columns(
    create: &mut CreateRelation,
    columns: &[ColumnDef],
    constraints: &[TableConstraint],
) -> Result<(), SqlError> {
    let mut key: Vec<String> = Vec::new();
    for column in columns {
        let name = fold(&column.name);
        if create.schema.index_of(&name).is_some() {
            let message = format!("column \"{name}\" specified more than once");
            return Err(SqlError::new(DUPLICATE_COLUMN, message));
        }
        let Column { ty, mut nullable, .. } = column_of(column, &mut create.notices)?;
        for option in &column.options {
            match &option.option {
                ColumnOption::Null => {}
                ColumnOption::NotNull => nullable = false,
                ColumnOption::PrimaryKey(_) => key_is(&mut key, vec![name.clone()])?,
                ColumnOption::Comment(_) | ColumnOption::Collation(_) => {}
                ColumnOption::Default(value) => {
                    create.defaults.insert(name.clone(), value.to_string());
                }
                other => {
                    return Err(SqlError::unsupported(format!("column option {other}"))
                        .hint("A column may be NOT NULL, PRIMARY KEY and have a DEFAULT."));
                }
            }
        }
        let length = text_length(&column.data_type)?;
        create.lengths.extend(length.map(|length| (name.clone(), length)));
        create.schema.columns.push(Column { name, ty, nullable });
    }
    for constraint in constraints {
        match constraint {
            TableConstraint::PrimaryKey(constraint) => {
                let names = constraint.columns.iter().map(key_column);
                key_is(&mut key, names.collect::<Result<_, _>>()?)?;
            }
            other => return Err(SqlError::unsupported(format!("constraint {other}"))),
        }
    }
    for name in &key {
        let Some(index) = create.schema.index_of(name) else {
            let message = format!("column \"{name}\" named in key does not exist");
            return Err(SqlError::new(UNDEFINED_COLUMN, message));
        };
        if create.schema.key.contains(&index) {
            let message = format!("column \"{name}\" appears twice in primary key");
            return Err(SqlError::new(DUPLICATE_COLUMN, message));
        }
        create.schema.columns[index].nullable = false;
        create.schema.key.push(index);
    }
    if create.schema.columns.is_empty() {
        return Err(SqlError::new(INVALID_TABLE_DEFINITION, "a relation needs columns"));
    }
    match (create.kind, create.schema.key.is_empty()) {
        (RelationKind::Table, true) => Err(SqlError::new(
            INVALID_TABLE_DEFINITION,
            format!("table \"{}\" has no PRIMARY KEY", create.name),
        )
        .hint("A table's rows are told apart by their key; use CREATE STREAM for an append-only relation.")),
        (RelationKind::Stream, false) => Err(SqlError::new(
            INVALID_TABLE_DEFINITION,
            format!("stream \"{}\" cannot have a PRIMARY KEY", create.name),
        )
        .hint("Each record of a stream is a row; use CREATE TABLE for rows that supersede each other.")),
        _ => Ok(()),
    }
}

fn key_is(key: &mut Vec<String>, columns: Vec<String>) -> Result<(), SqlError> {
    if !key.is_empty() {
        return Err(SqlError::new(
            INVALID_TABLE_DEFINITION,
            "multiple primary keys are not allowed",
        ));
    }
    *key = columns;
    Ok(())
}

fn key_column(column: &IndexColumn) -> Result<String, SqlError> {
    match &column.column.expr {
        Expr::Identifier(ident) => Ok(fold(ident)),
        other => Err(SqlError::new(SYNTAX_ERROR, format!("{other} is not a column"))),
    }
}

/// Takes one option of WITH.
fn option(create: &mut CreateRelation, key: &str, value: String) -> Result<(), SqlError> {
    let refuse = |allowed: &str| {
        let message = format!("invalid value for {key}: \"{value}\"");
        Err(SqlError::new(INVALID_PARAMETER_VALUE, message).hint(format!("Use {allowed}.")))
    };
    match key {
        "topic" => create.topic = Some(value),
        "format" if value.eq_ignore_ascii_case("json") => {}
        "format" => {
            return Err(SqlError::unsupported(format!("format '{value}'")).hint("Use 'json'."));
        }
        "key_format" if matches!(value.as_str(), "text" | "json") => {
            let single = create.schema.key.len() == 1;
            if (value == "text") != single {
                return refuse("'text' for a key of one column and 'json' for one of several");
            }
        }
        "key_format" => return refuse("'text' or 'json'"),
        "partitions" => match value.parse() {
            Ok(partitions @ 1..) => create.partitions = partitions,
            _ => return refuse("a number from 1"),
        },
        "on_conflict" => match value.as_str() {
            "error" => create.conflict_is_error = true,
            "replace" => create.conflict_is_error = false,
            _ => return refuse("'error' or 'replace'"),
        },
        // Topic settings have dotted names; which of them exist the log knows.
        _ if key.contains('.') => {
            create.topic_config.insert(key.to_owned(), value);
        }
        _ => {
            return Err(SqlError::new(
                INVALID_PARAMETER_VALUE,
                format!("unrecognized option \"{key}\""),
            )
            .hint(
                "Options are topic, format, partitions, on_conflict, key_format and the topic's \
                 own settings, such as retention.ms.",
            ));
        }
    }
    Ok(())
}

pub(super) type Options = Vec<(String, String, Option<usize>)>;

/// `WITH (key = value, ...)`; keys may be dotted or quoted, values numbers, words or texts.
pub(super) fn options(parser: &mut Parser<'_>, text: &str) -> Result<Options, SqlError> {
    let mut options = Vec::new();
    if !consume_word(parser, "WITH") {
        return Ok(options);
    }
    at_text(parser.expect_token(&Token::LParen), text)?;
    loop {
        let at = place(parser, text);
        let key = option_key(parser, text)?;
        at_text(parser.expect_token(&Token::Eq), text)?;
        options.push((key, option_value(parser, text)?, at));
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    at_text(parser.expect_token(&Token::RParen), text)?;
    Ok(options)
}

fn option_key(parser: &mut Parser<'_>, text: &str) -> Result<String, SqlError> {
    if let Token::SingleQuotedString(key) = &parser.peek_token_ref().token {
        let key = key.clone();
        parser.next_token();
        return Ok(key);
    }
    let mut key = String::new();
    loop {
        let ident: Ident = at_text(parser.parse_identifier(), text)?;
        key.push_str(&fold(&ident));
        if !parser.consume_token(&Token::Period) {
            return Ok(key);
        }
        key.push('.');
    }
}

fn option_value(parser: &mut Parser<'_>, text: &str) -> Result<String, SqlError> {
    let next = parser.peek_token();
    match next.token {
        Token::Word(word) => {
            parser.next_token();
            Ok(word.value)
        }
        Token::Minus => {
            parser.next_token();
            Ok(format!("-{}", literal(parser, text)?))
        }
        _ => literal(parser, text),
    }
}

/// `CREATE [OR REPLACE] MATERIALIZED VIEW [IF NOT EXISTS] name [DRY RUN] AS SELECT ...`, or
/// `CREATE [OR REPLACE] [MATERIALIZED] VIEW [IF NOT EXISTS] name (columns) ON ...`, a custom fold.
pub(super) fn view(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    parser.next_token();
    let replace = parser.parse_keywords(&[Keyword::OR, Keyword::REPLACE]);
    let at = place(parser, text);
    let materialized = consume_word(parser, "MATERIALIZED");
    if replace && !materialized && super::word(parser, 0) != "VIEW" {
        return Err(SqlError::unsupported("CREATE OR REPLACE of anything but a view")
            .hint("DROP it, then CREATE it.")
            .at(at));
    }
    expect_word(parser, "VIEW", text)?;
    let if_not_exists = if_not_exists(parser);
    let name = relation_name(&at_text(parser.parse_object_name(false), text)?)?;
    let mut options = view_options(parser, text)?;
    let dry_run = dry_run(parser, replace, text)?;
    let is_fold = folds::is_next(parser);
    if !is_fold && parser.peek_token_ref().token == Token::LParen {
        return Err(SqlError::unsupported("a list of column names")
            .hint("Name the columns in the SELECT with AS; those of a custom fold have types.")
            .at(place(parser, text)));
    }
    let (body, sql) = if is_fold {
        let definition = folds::definition(parser, text, &mut options)?;
        let sql = definition.sql.clone();
        (ViewBody::Fold(Box::new(definition)), sql)
    } else if materialized {
        let (query, sql) = view_query(parser, text)?;
        (ViewBody::Select(query), sql)
    } else {
        return Err(SqlError::unsupported("CREATE VIEW")
            .hint("Use CREATE MATERIALIZED VIEW.")
            .at(at));
    };
    Ok(Command::CreateView(CreateView {
        name,
        if_not_exists,
        replace,
        dry_run,
        body,
        sql,
        options,
    }))
}

/// `[DRY RUN]`, which only means something with OR REPLACE.
fn dry_run(parser: &mut Parser<'_>, replace: bool, text: &str) -> Result<bool, SqlError> {
    let at = place(parser, text);
    if !consume_word(parser, "DRY") {
        return Ok(false);
    }
    expect_word(parser, "RUN", text)?;
    if !replace {
        let message = "DRY RUN tells what CREATE OR REPLACE would change";
        return Err(SqlError::new(SYNTAX_ERROR, message).at(at));
    }
    Ok(true)
}

/// `AS SELECT ... [WITH DATA]`: the SELECT and its text.
fn view_query(parser: &mut Parser<'_>, text: &str) -> Result<(Box<Query>, String), SqlError> {
    at_text(parser.expect_keyword_is(Keyword::AS), text)?;
    let from = parser.peek_token_ref().span.start;
    let query = super::query(parser, text)?;
    let to = parser.peek_token_ref().span.start;
    if parser.parse_keyword(Keyword::WITH) {
        let no = consume_word(parser, "NO");
        expect_word(parser, "DATA", text)?;
        if no {
            return Err(SqlError::unsupported("WITH NO DATA"));
        }
    }
    Ok((query, slice(text, from, to).to_owned()))
}

fn view_options(parser: &mut Parser<'_>, text: &str) -> Result<CreateViewOptions, SqlError> {
    let mut found = CreateViewOptions::default();
    more_view_options(parser, text, &mut found)?;
    Ok(found)
}

/// `[WITH (changes = 'on')] [START AT POSITION n | TIMESTAMP t]`, in any order.
pub(super) fn more_view_options(
    parser: &mut Parser<'_>,
    text: &str,
    found: &mut CreateViewOptions,
) -> Result<(), SqlError> {
    loop {
        match word(parser, 0).as_str() {
            "WITH" => {
                for (key, value, at) in options(parser, text)? {
                    view_option(found, &key, &value).map_err(|error| error.at(at))?;
                }
            }
            "START" => {
                parser.next_token();
                expect_word(parser, "AT", text)?;
                found.start = Some(super::reading::start(parser, text)?);
            }
            _ => return Ok(()),
        }
    }
}

fn view_option(found: &mut CreateViewOptions, key: &str, value: &str) -> Result<(), SqlError> {
    match (key, value.to_lowercase().as_str()) {
        ("changes", "on" | "true") => found.changes = true,
        ("changes", "off" | "false") => found.changes = false,
        ("changes", _) => {
            let message = format!("invalid value for {key}: \"{value}\"");
            return Err(SqlError::new(INVALID_PARAMETER_VALUE, message).hint("Use 'on' or 'off'."));
        }
        _ => {
            let message = format!("unrecognized option \"{key}\"");
            return Err(SqlError::new(INVALID_PARAMETER_VALUE, message)
                .hint("The option of a view is changes."));
        }
    }
    Ok(())
}

/// `CREATE SOURCE [IF NOT EXISTS] name FROM POSTGRES 'url' (PUBLICATION 'p', SLOT 's', TABLES (...))`.
pub(super) fn source(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    parser.next_token();
    expect_word(parser, "SOURCE", text)?;
    let if_not_exists = if_not_exists(parser);
    let name = fold(&at_text(parser.parse_identifier(), text)?);
    at_text(parser.expect_keyword_is(Keyword::FROM), text)?;
    let at = place(parser, text);
    if !consume_word(parser, "POSTGRES") {
        let other = at_text(parser.parse_identifier(), text)?;
        return Err(SqlError::unsupported(format!("CREATE SOURCE FROM {other}"))
            .hint("Use FROM POSTGRES.")
            .at(at));
    }
    let url = at_text(parser.parse_literal_string(), text)?;
    let mut new =
        NewSource { name, url, publication: None, slot: None, tables: Vec::new(), if_not_exists };
    if parser.consume_token(&Token::LParen) {
        loop {
            source_option(parser, text, &mut new)?;
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
        at_text(parser.expect_token(&Token::RParen), text)?;
    }
    Ok(Command::CreateSource(new))
}

/// A table's name as the source reads it: with quotes where it has them here.
fn as_over_there(name: &ObjectName) -> String {
    let part = |part: &ObjectNamePart| match part.as_ident() {
        Some(ident) if ident.quote_style == Some('"') => {
            format!("\"{}\"", ident.value.replace('"', "\"\""))
        }
        // A text holds a name as it is written over there.
        Some(ident) if ident.quote_style.is_some() => ident.value.clone(),
        Some(ident) => fold(ident),
        None => part.to_string(),
    };
    name.0.iter().map(part).collect::<Vec<_>>().join(".")
}

fn source_option(parser: &mut Parser<'_>, text: &str, new: &mut NewSource) -> Result<(), SqlError> {
    if consume_word(parser, "PUBLICATION") {
        new.publication = Some(literal(parser, text)?);
    } else if consume_word(parser, "SLOT") {
        new.slot = Some(literal(parser, text)?);
    } else {
        expect_word(parser, "TABLES", text)?;
        at_text(parser.expect_token(&Token::LParen), text)?;
        loop {
            let name = at_text(parser.parse_object_name(false), text)?;
            new.tables.push(as_over_there(&name));
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
        at_text(parser.expect_token(&Token::RParen), text)?;
    }
    Ok(())
}
