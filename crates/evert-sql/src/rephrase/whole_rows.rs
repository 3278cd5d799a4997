//! A table's name as a value, where JSON is made of it or rows are counted: `row_to_json(t)`,
//! `json_agg(t)`, `to_jsonb(t.*)`, `count(t)`.
//!
//! Not here: whole rows as values of composite types, which are not there.

use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    ObjectName, ObjectNamePart, Value,
};

use super::{call, function_name, unnamed};
use crate::names::fold;
use crate::output_names::shown_name;

/// A table in FROM, by its name there.
#[derive(Clone)]
pub(super) struct WholeRow {
    pub(super) name: String,
    pub(super) columns: Vec<(String, Expr)>,
    /// An outer join may have no row of it: then it is NULL.
    pub(super) optional: bool,
    /// A column has its name: only `name.*` means the row.
    pub(super) hidden: bool,
}

/// How a function writes the rows that it is given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Binary,
}

/// Whether a function may be given whole rows.
pub(super) fn takes_rows(function: &Function) -> bool {
    form(function).is_some() && names_tables(function)
}

/// Gives a function JSON of whole rows in the place of their tables' names.
pub(super) fn put(function: &mut Function, rows: &[WholeRow]) {
    let Some(form) = form(function) else { return };
    let FunctionArguments::List(list) = &mut function.args else { return };
    for arg in &mut list.args {
        let found = table_name(arg)
            .and_then(|(name, all)| Some((rows.iter().find(|row| row.name == name)?, all)));
        if let Some((row, all)) = found
            && (all || !row.hidden)
        {
            *arg = unnamed(row.value(form));
        }
    }
}

fn form(function: &Function) -> Option<Form> {
    match function_name(&function.name)?.as_str() {
        "row_to_json" | "to_json" | "json_agg" | "json_build_object" | "json_build_array"
        | "json_object_agg" | "count" => Some(Form::Json),
        "to_jsonb" | "jsonb_agg" | "jsonb_build_object" | "jsonb_build_array"
        | "jsonb_object_agg" => Some(Form::Binary),
        _ => None,
    }
}

fn names_tables(function: &Function) -> bool {
    let args = match &function.args {
        FunctionArguments::List(list) => list.args.as_slice(),
        _ => &[],
    };
    args.iter().any(|arg| table_name(arg).is_some())
}

/// What may be a table's name: a single name, or `name.*`, which can mean nothing else.
fn table_name(arg: &FunctionArg) -> Option<(String, bool)> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(name))) => {
            Some((fold(name), false))
        }
        FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(ObjectName(parts))) => {
            match parts.as_slice() {
                [ObjectNamePart::Identifier(name)] => Some((fold(name), true)),
                _ => None,
            }
        }
        _ => None,
    }
}

impl WholeRow {
    fn value(&self, form: Form) -> Expr {
        let mut columns: Vec<&(String, Expr)> = self.columns.iter().collect();
        let function = match form {
            Form::Json => "json_row",
            Form::Binary => {
                // The order of jsonb's names.
                columns.sort_by_key(|(name, _)| (name.len(), name));
                "jsonb_build_object"
            }
        };
        let args = columns.iter().flat_map(|(name, value)| {
            let name = Expr::value(Value::SingleQuotedString(shown_name(name).to_owned()));
            [unnamed(name), unnamed(value.clone())]
        });
        let object = call(function, args.collect());
        match self.absent() {
            Some(absent) if self.optional => {
                let case = Expr::Case {
                    case_token: AttachedToken::empty(),
                    end_token: AttachedToken::empty(),
                    operand: None,
                    conditions: vec![CaseWhen {
                        condition: absent,
                        result: Expr::value(Value::Null),
                    }],
                    else_result: Some(Box::new(object)),
                };
                call("json_value", vec![unnamed(case)])
            }
            _ => object,
        }
    }

    /// Whether an outer join had no row: no column has a value.
    fn absent(&self) -> Option<Expr> {
        let null = self.columns.iter().map(|(_, value)| Expr::IsNull(Box::new(value.clone())));
        null.reduce(|left, right| Expr::BinaryOp {
            left: Box::new(left),
            op: BinaryOperator::And,
            right: Box::new(right),
        })
    }
}
