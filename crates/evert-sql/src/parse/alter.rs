//! ALTER TABLE and ALTER STREAM: columns are added, and nothing else changes.

use evert_model::Column;
use evert_view::RelationKind;
use sqlparser::ast::{ColumnDef, ColumnOption};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::create::column_of;
use super::{consume_word, if_not_exists, place, word};
use crate::SqlError;
use crate::command::{AddColumn, Alter, Command};
use crate::names::relation_name;
use crate::text::at_text;
use crate::types::text_length;

/// `ALTER TABLE | STREAM [IF EXISTS] [ONLY] name ADD [COLUMN] [IF NOT EXISTS] column type, ...`.
pub(super) fn alter(parser: &mut Parser<'_>, text: &str) -> Result<Command, SqlError> {
    let at = place(parser, text);
    parser.next_token();
    let kind = match word(parser, 0).as_str() {
        "TABLE" => RelationKind::Table,
        "STREAM" => RelationKind::Stream,
        _ => {
            let what = format!("ALTER {}", word(parser, 0));
            let hint = "Use CREATE OR REPLACE for a view; drop other things and create them again.";
            return Err(SqlError::unsupported(what.trim_end()).hint(hint).at(at));
        }
    };
    parser.next_token();
    let if_exists = consume_word(parser, "IF");
    if if_exists {
        super::expect_word(parser, "EXISTS", text)?;
    }
    consume_word(parser, "ONLY");
    let name = relation_name(&at_text(parser.parse_object_name(false), text)?)?;
    let mut columns = Vec::new();
    let mut notices = Vec::new();
    loop {
        columns.push(added(parser, text, kind, &mut notices)?);
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    Ok(Command::Alter(Alter { kind, name, if_exists, columns, notices }))
}

fn added(
    parser: &mut Parser<'_>,
    text: &str,
    kind: RelationKind,
    notices: &mut Vec<String>,
) -> Result<AddColumn, SqlError> {
    let at = place(parser, text);
    let verb = word(parser, 0);
    let constraint = matches!(
        word(parser, 1).as_str(),
        "CONSTRAINT" | "PRIMARY" | "UNIQUE" | "FOREIGN" | "CHECK"
    );
    if verb != "ADD" || constraint {
        let of = if kind == RelationKind::Stream { "STREAM" } else { "TABLE" };
        let what = format!("ALTER {of} ... {verb} {}", word(parser, 1));
        return Err(SqlError::unsupported(what.trim_end())
            .hint("Columns can be added: ADD COLUMN name type.")
            .at(at));
    }
    parser.next_token();
    consume_word(parser, "COLUMN");
    let if_not_exists = if_not_exists(parser);
    let at = place(parser, text);
    let def = at_text(parser.parse_column_def(), text)?;
    let column = column(&def, notices).map_err(|error| {
        let position = error.position.or(at);
        error.at(position)
    })?;
    let length = text_length(&def.data_type)?;
    Ok(AddColumn { column, length, if_not_exists })
}

fn column(def: &ColumnDef, notices: &mut Vec<String>) -> Result<Column, SqlError> {
    let mut column = column_of(def, notices)?;
    for option in &def.options {
        match &option.option {
            ColumnOption::Null | ColumnOption::Comment(_) | ColumnOption::Collation(_) => {}
            ColumnOption::NotNull => column.nullable = false,
            other => {
                return Err(SqlError::unsupported(format!("column option {other}"))
                    .hint("A column that is added is NULL in the rows that are there."));
            }
        }
    }
    Ok(column)
}
