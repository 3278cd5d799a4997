//! `regclass` and `regnamespace`: oids that are written as names.
//!
//! Owns: casts to them, as calls of functions that give the oid, or the name where it is shown.
//! Not here: the other types of the kind, which `datafusion-pg-catalog` looks up.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use evert_view::{Name, Views};
use sqlparser::ast::{
    DataType as SqlType, Expr, Ident, Query, SelectItem, SetExpr, Statement, VisitMut, VisitorMut,
};

use super::oids::{self, Class};
use crate::SqlError;
use crate::error::{SYNTAX_ERROR, UNDEFINED_TABLE};

/// What an oid is the number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Class,
    Namespace,
}

/// What a function gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Gives {
    Oid,
    Name,
    /// The name, or NULL if there is none such.
    NameIfAny,
}

struct Named {
    name: &'static str,
    kind: Kind,
    gives: Gives,
    views: Views,
    signature: Signature,
}

/// The functions over a server's catalog.
pub(crate) fn functions(views: &Views) -> Vec<ScalarUDF> {
    let named = |(name, kind, gives)| {
        let signature = Signature::any(1, Volatility::Stable);
        ScalarUDF::from(Named { name, kind, gives, views: views.clone(), signature })
    };
    [
        ("regclass_oid", Kind::Class, Gives::Oid),
        ("regclass_name", Kind::Class, Gives::Name),
        ("to_regclass", Kind::Class, Gives::NameIfAny),
        ("regnamespace_oid", Kind::Namespace, Gives::Oid),
        ("regnamespace_name", Kind::Namespace, Gives::Name),
        ("to_regnamespace", Kind::Namespace, Gives::NameIfAny),
    ]
    .map(named)
    .to_vec()
}

/// Postgres's numbers of its own catalogs.
const CATALOGS: [(&str, i64); 38] = [
    ("pg_aggregate", 2600),
    ("pg_am", 2601),
    ("pg_amop", 2602),
    ("pg_amproc", 2603),
    ("pg_attrdef", 2604),
    ("pg_attribute", 1249),
    ("pg_auth_members", 1261),
    ("pg_authid", 1260),
    ("pg_cast", 2605),
    ("pg_class", 1259),
    ("pg_collation", 3456),
    ("pg_constraint", 2606),
    ("pg_conversion", 2607),
    ("pg_database", 1262),
    ("pg_default_acl", 826),
    ("pg_depend", 2608),
    ("pg_description", 2609),
    ("pg_enum", 3501),
    ("pg_event_trigger", 3466),
    ("pg_extension", 3079),
    ("pg_foreign_data_wrapper", 2328),
    ("pg_foreign_server", 1417),
    ("pg_foreign_table", 3118),
    ("pg_index", 2610),
    ("pg_inherits", 2611),
    ("pg_language", 2612),
    ("pg_namespace", 2615),
    ("pg_opclass", 2616),
    ("pg_operator", 2617),
    ("pg_proc", 1255),
    ("pg_rewrite", 2618),
    ("pg_sequence", 2224),
    ("pg_shdescription", 2396),
    ("pg_subscription", 6100),
    ("pg_tablespace", 1213),
    ("pg_trigger", 2620),
    ("pg_type", 1247),
    ("pg_publication", 6104),
];

/// The parts of a name as it is written, folded.
fn parts(text: &str) -> Result<Vec<String>, SqlError> {
    let invalid = || SqlError::new("42602", "invalid name syntax");
    let mut parser = crate::text::parser(text).map_err(|_| invalid())?;
    let name = parser.parse_object_name(false).map_err(|_| invalid())?;
    if parser.peek_token_ref().token != sqlparser::tokenizer::Token::EOF {
        return Err(invalid());
    }
    crate::names::parts(&name)
}

/// A name as Postgres writes it: in quotes where it has to be.
fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

impl Named {
    /// The oid of a name, which may be a number too.
    fn oid(&self, text: &str, classes: &[Class]) -> Result<Option<i64>, SqlError> {
        if let Ok(number) = text.trim().parse() {
            return Ok(Some(number));
        }
        if text.trim() == "-" {
            return Ok(Some(0));
        }
        let parts = parts(text)?;
        match (self.kind, parts.as_slice()) {
            (Kind::Namespace, [name]) => {
                let schemas = oids::schemas(&self.views.catalog(), Vec::new());
                Ok(schemas.get(name).copied())
            }
            (Kind::Class, [name]) => Ok(["pg_catalog", "public"]
                .iter()
                .find_map(|schema| class_oid(&Name::new(*schema, name), classes))),
            (Kind::Class, [schema, name] | [_, schema, name]) => {
                Ok(class_oid(&Name::new(schema, name), classes))
            }
            _ => {
                Err(SqlError::new(SYNTAX_ERROR, "improper qualified name (too many dotted names)"))
            }
        }
    }

    /// The name of an oid; the oid itself if it is nothing's.
    fn shown(&self, oid: i64, classes: &[Class]) -> String {
        let name = match self.kind {
            Kind::Namespace => {
                let schemas = oids::schemas(&self.views.catalog(), Vec::new());
                schemas.iter().find(|(_, number)| **number == oid).map(|(name, _)| quoted(name))
            }
            Kind::Class => class_name(oid, classes),
        };
        name.unwrap_or_else(|| if oid == 0 { "-".to_owned() } else { oid.to_string() })
    }

    fn missing(&self, text: &str) -> SqlError {
        match self.kind {
            Kind::Class => {
                let name = parts(text).map_or_else(|_| text.to_owned(), |parts| parts.join("."));
                SqlError::new(UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))
            }
            Kind::Namespace => SqlError::new("3F000", format!("schema \"{text}\" does not exist")),
        }
    }

    fn evaluate(&self, values: &ArrayRef) -> Result<ArrayRef, SqlError> {
        let classes = oids::classes(&self.views.catalog());
        let oids = self.oids(values, &classes)?;
        if self.gives == Gives::Oid {
            return Ok(Arc::new(oids));
        }
        let names = oids.iter().map(|oid| oid.map(|oid| self.shown(oid, &classes)));
        Ok(Arc::new(names.collect::<StringViewArray>()))
    }

    fn oids(&self, values: &ArrayRef, classes: &[Class]) -> Result<Int64Array, SqlError> {
        let casting = |error: arrow::error::ArrowError| {
            crate::translate::planning(&DataFusionError::from(error), "")
        };
        if values.data_type().is_integer() {
            let oids = cast(values, &DataType::Int64).map_err(casting)?;
            return Ok(oids.as_primitive::<Int64Type>().clone());
        }
        let texts = cast(values, &DataType::Utf8View).map_err(casting)?;
        let oid = |text: Option<&str>| {
            let Some(text) = text else { return Ok(None) };
            match self.oid(text, classes)? {
                None if self.gives != Gives::NameIfAny => Err(self.missing(text)),
                oid => Ok(oid),
            }
        };
        texts.as_string_view().iter().map(oid).collect()
    }
}

fn class_oid(name: &Name, classes: &[Class]) -> Option<i64> {
    if name.schema == "pg_catalog"
        && let Some((_, oid)) = CATALOGS.iter().find(|(known, _)| *known == name.name)
    {
        return Some(*oid);
    }
    let own = classes.iter().find(|class| class.name == *name).map(|class| class.oid);
    own.or_else(|| super::find(name).map(|(full, _)| oids::of_system(&full)))
}

fn class_name(oid: i64, classes: &[Class]) -> Option<String> {
    if let Some((name, _)) = CATALOGS.iter().find(|(_, known)| *known == oid) {
        return Some((*name).to_owned());
    }
    let own = classes.iter().find(|class| class.oid == oid).map(|class| class.name.clone());
    let system = || {
        let mut names = super::tables().map(|table| Name::new(table.schema, table.name));
        names.find(|name| oids::of_system(name) == oid)
    };
    let name = own.or_else(system)?;
    Some(match name.schema.as_str() {
        "public" | "pg_catalog" => quoted(&name.name),
        schema => format!("{}.{}", quoted(schema), quoted(&name.name)),
    })
}

impl ScalarUDFImpl for Named {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(if self.gives == Gives::Oid { DataType::Int64 } else { DataType::Utf8View })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = args.args[0].to_array(args.number_rows)?;
        let told = self.evaluate(&values);
        let told = told.map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(ColumnarValue::Array(told))
    }
}

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Named {}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// The type that a cast is to, if it is one of these.
fn named_type(ty: &SqlType) -> Option<&'static str> {
    match ty.to_string().to_lowercase().trim_start_matches("pg_catalog.") {
        "regclass" => Some("regclass"),
        "regnamespace" => Some("regnamespace"),
        _ => None,
    }
}

/// Puts calls in the place of a statement's casts to these types.
pub(super) fn replace_casts(statement: &mut Statement) {
    if let Statement::Query(query) = statement {
        // What is ordered by a column may have no output of the column's name: the planner would
        // not know which of the two is meant.
        show_outputs(&mut query.body, query.order_by.is_none());
    }
    let _: ControlFlow<()> = VisitMut::visit(statement, &mut Casts);
}

/// What a statement gives is shown as names. `named`: under the name of the column that is cast.
fn show_outputs(body: &mut SetExpr, named: bool) {
    let select = match body {
        SetExpr::SetOperation { left, right, .. } => {
            show_outputs(left, named);
            return show_outputs(right, named);
        }
        SetExpr::Query(query) => {
            let Query { body, .. } = query.as_mut();
            return show_outputs(body, named);
        }
        SetExpr::Select(select) => select,
        _ => return,
    };
    for item in &mut select.projection {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                if let Expr::Cast { expr: inner, data_type, .. } = &*expr
                    && let Some((_, value)) = cast_of(inner)
                {
                    let name = match value {
                        Expr::Identifier(_) | Expr::CompoundIdentifier(_) if named => {
                            super::clients::output_name(value)
                        }
                        _ => data_type.to_string().to_lowercase(),
                    };
                    let alias = Ident::new(name);
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                } else if let Some((ty, inner)) = cast_of(expr) {
                    let name = match inner {
                        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Function(_) => {
                            super::clients::output_name(inner)
                        }
                        _ => ty.to_owned(),
                    };
                    let name = if named { name } else { ty.to_owned() };
                    let expr = super::clients::call(&format!("{ty}_name"), inner.clone());
                    *item = SelectItem::ExprWithAlias { expr, alias: Ident::new(name) };
                }
            }
            SelectItem::ExprWithAlias { expr, .. } => {
                if let Some((ty, inner)) = cast_of(expr) {
                    *expr = super::clients::call(&format!("{ty}_name"), inner.clone());
                }
            }
            _ => {}
        }
    }
}

fn cast_of(expr: &Expr) -> Option<(&'static str, &Expr)> {
    match expr {
        Expr::Cast { expr: inner, data_type, .. } => Some((named_type(data_type)?, inner)),
        _ => None,
    }
}

struct Casts;

impl VisitorMut for Casts {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        // `x::regclass::text` is the name, `x::regclass::oid` the oid.
        if let Expr::Cast { expr: inner, data_type, .. } = expr
            && let Some((ty, value)) = cast_of(inner)
        {
            let outer = data_type.to_string().to_lowercase();
            let is_text = ["text", "varchar", "character varying", "name"]
                .iter()
                .any(|text| outer.starts_with(text));
            let gives = if is_text { "name" } else { "oid" };
            let call = super::clients::call(&format!("{ty}_{gives}"), value.clone());
            match outer.as_str() {
                "oid" => *expr = call,
                _ => **inner = call,
            }
        } else if let Some((ty, value)) = cast_of(expr) {
            *expr = super::clients::call(&format!("{ty}_oid"), value.clone());
        }
        ControlFlow::Continue(())
    }
}
