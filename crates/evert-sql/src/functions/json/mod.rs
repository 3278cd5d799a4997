//! JSON: Postgres's operators and functions over JSON that is kept as its text.
//!
//! Owns: `->`, `->>`, `#>`, `#>>`, `||`, `@>`, `<@`, `?`, `?|`, `?&`, and functions that take JSON apart
//! or build it.
//! Not here: functions that return rows, which are lists unnested (`rephrase`).

mod build;
mod change;
mod concat;
mod text;
mod tree;

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Int32Builder, ListBuilder, StringViewArray,
    StringViewBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{DFSchema, Result, exec_datafusion_err, exec_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::scalar::ScalarValue;
use evert_model::{Column, ColumnType, RowSchema};
use sqlparser::ast::BinaryOperator;

use self::text::{Invalid, Json, Kind};
use super::constants::constant_text;
use super::rows::external;
use crate::SqlError;
use crate::error::UNTRANSLATABLE_CHARACTER;
use crate::wording::undefined_function;

/// What a function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Task {
    Get,
    GetText,
    Path,
    PathText,
    ExtractPath,
    ExtractPathText,
    Contains,
    Concat,
    Has,
    HasAny,
    HasAll,
    Elements,
    ElementsText,
    Keys,
    Values,
    ValuesText,
    Length,
    TypeOf,
    /// The text itself, as JSON.
    Mark,
    BuildObject(ObjectForm),
    BuildArray,
    /// A list of JSON values as an array.
    List,
    /// A name and a value as a member of an object.
    Member,
    /// A list of members as an object. `binary`: as `jsonb` writes it.
    Members {
        binary: bool,
    },
    ToJson,
}

const ROW_TO_JSON: &str = "row_to_json";

/// How an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ObjectForm {
    /// As `json_build_object` does: `{"a" : 1, "b" : 2}`.
    Json,
    /// As `jsonb` does: `{"a": 1, "b": 2}`.
    Binary,
    /// As `row_to_json` does: `{"a":1,"b":2}`.
    Row,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonFunction {
    name: &'static str,
    task: Task,
    signature: Signature,
}

/// The functions, those of operators under names of their own.
const NAMES: &[(&str, Task)] = &[
    ("json_get", Task::Get),
    ("json_get_text", Task::GetText),
    ("json_get_path", Task::Path),
    ("json_get_path_text", Task::PathText),
    ("json_contains", Task::Contains),
    ("json_concat", Task::Concat),
    ("json_has", Task::Has),
    ("json_has_any", Task::HasAny),
    ("json_has_all", Task::HasAll),
    ("json_elements", Task::Elements),
    ("json_elements_text", Task::ElementsText),
    ("json_keys", Task::Keys),
    ("json_values", Task::Values),
    ("json_values_text", Task::ValuesText),
    ("json_value", Task::Mark),
    ("json_extract_path", Task::ExtractPath),
    ("jsonb_extract_path", Task::ExtractPath),
    ("json_extract_path_text", Task::ExtractPathText),
    ("jsonb_extract_path_text", Task::ExtractPathText),
    ("json_array_length", Task::Length),
    ("jsonb_array_length", Task::Length),
    ("json_typeof", Task::TypeOf),
    ("jsonb_typeof", Task::TypeOf),
    ("json_build_object", Task::BuildObject(ObjectForm::Json)),
    ("jsonb_build_object", Task::BuildObject(ObjectForm::Binary)),
    ("json_row", Task::BuildObject(ObjectForm::Row)),
    ("json_build_array", Task::BuildArray),
    ("jsonb_build_array", Task::BuildArray),
    ("json_list", Task::List),
    ("json_member", Task::Member),
    ("json_members", Task::Members { binary: false }),
    ("jsonb_members", Task::Members { binary: true }),
    ("to_json", Task::ToJson),
    ("to_jsonb", Task::ToJson),
    // Rows are JSON before it sees them.
    (ROW_TO_JSON, Task::ToJson),
];

static FUNCTIONS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let signature = Signature::one_of(
        vec![TypeSignature::Nullary, TypeSignature::VariadicAny],
        Volatility::Immutable,
    );
    let make = |(name, task): &(&'static str, Task)| {
        let function = JsonFunction { name, task: *task, signature: signature.clone() };
        Arc::new(ScalarUDF::from(function))
    };
    NAMES.iter().map(make).chain(change::functions().iter().cloned()).collect()
});

/// The functions on JSON.
pub(crate) fn json_functions() -> &'static [Arc<ScalarUDF>] {
    &FUNCTIONS
}

fn function(task: Task) -> Arc<ScalarUDF> {
    let place = NAMES.iter().position(|(_, other)| *other == task);
    Arc::clone(&FUNCTIONS[place.expect("every task has a function")])
}

/// Puts functions in the place of JSON's operators.
#[derive(Debug)]
pub(crate) struct JsonOperators;

impl ExprPlanner for JsonOperators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let is_json = |side: &Expr| gives_json(side, schema);
        // A constant text beside JSON is JSON.
        let are_json =
            |a: &Expr, b: &Expr| is_json(a) && (is_json(b) || constant_text(b).is_some());
        let task = match expr.op {
            BinaryOperator::StringConcat
                if are_json(&expr.left, &expr.right) || are_json(&expr.right, &expr.left) =>
            {
                Task::Concat
            }
            BinaryOperator::Arrow => Task::Get,
            BinaryOperator::LongArrow => Task::GetText,
            BinaryOperator::HashArrow => Task::Path,
            BinaryOperator::HashLongArrow => Task::PathText,
            BinaryOperator::Question => Task::Has,
            BinaryOperator::QuestionPipe => Task::HasAny,
            BinaryOperator::QuestionAnd => Task::HasAll,
            BinaryOperator::AtArrow | BinaryOperator::ArrowAt => Task::Contains,
            BinaryOperator::HashMinus => return Ok(changed("jsonb_delete_path", expr)),
            BinaryOperator::Minus if is_json(&expr.left) => {
                return Ok(changed("jsonb_delete", expr));
            }
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let args = match expr.op {
            BinaryOperator::ArrowAt => vec![expr.right, expr.left],
            _ => vec![expr.left, expr.right],
        };
        let call = ScalarFunction::new_udf(function(task), args);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}

/// What is left of JSON, by a function of its operands.
fn changed(name: &str, expr: RawBinaryExpr) -> PlannerResult<RawBinaryExpr> {
    match change::function(name) {
        Some(function) => {
            let call = ScalarFunction::new_udf(function, vec![expr.left, expr.right]);
            PlannerResult::Planned(Expr::ScalarFunction(call))
        }
        None => PlannerResult::Original(expr),
    }
}

/// The metadata that tells JSON from text.
fn json_field(name: &str) -> Field {
    let column = Column { name: name.to_owned(), ty: ColumnType::Json, nullable: true };
    let schema = RowSchema { columns: vec![column], key: Vec::new() }.to_arrow();
    schema.field(0).clone()
}

/// Whether an expression's values are JSON, also where its field, as the planner makes it, does not
/// say so.
pub(crate) fn gives_json(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::Alias(alias) => gives_json(&alias.expr, schema),
        Expr::Cast(cast) => is_json(&cast.field),
        Expr::Case(case) => {
            let thens = case.when_then_expr.iter().map(|(_, then)| then);
            thens.chain(&case.else_expr).any(|result| gives_json(result, schema))
        }
        Expr::ScalarFunction(call) if matches!(call.func.name(), "coalesce" | "nullif") => {
            call.args.iter().any(|arg| gives_json(arg, schema))
        }
        Expr::ScalarSubquery(subquery) => match subquery.subquery.as_ref() {
            LogicalPlan::Projection(projection) => match projection.expr.as_slice() {
                [expr] => gives_json(expr, projection.input.schema()),
                _ => false,
            },
            plan => plan.schema().fields().first().is_some_and(|field| is_json(field)),
        },
        other => other.to_field(schema).is_ok_and(|(_, field)| is_json(&field)),
    }
}

/// An expression whose values are JSON, whose field says so too.
pub(crate) fn marked_json(expr: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(function(Task::Mark), vec![expr]))
}

fn is_json(field: &Field) -> bool {
    ColumnType::of_field(field) == Some(ColumnType::Json)
}

impl ScalarUDFImpl for JsonFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.task {
            Task::Contains | Task::Has | Task::HasAny | Task::HasAll => DataType::Boolean,
            Task::Length => DataType::Int32,
            Task::Elements | Task::ElementsText | Task::Keys | Task::Values | Task::ValuesText => {
                DataType::List(Arc::new(Field::new_list_field(DataType::Utf8View, true)))
            }
            _ => DataType::Utf8View,
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let given = args.arg_fields.len();
        let fits = match self.task {
            Task::BuildObject(_) => given.is_multiple_of(2),
            Task::BuildArray => true,
            Task::ExtractPath | Task::ExtractPathText => given > 0,
            Task::Get
            | Task::GetText
            | Task::Path
            | Task::PathText
            | Task::Contains
            | Task::Concat
            | Task::Has
            | Task::HasAny
            | Task::HasAll
            | Task::Member => given == 2,
            _ => given == 1,
        };
        if self.name == ROW_TO_JSON && !args.arg_fields.iter().all(|field| is_json(field)) {
            let types = args.arg_fields.iter().map(|field| field.data_type());
            return Err(external(
                undefined_function(self.name, types).hint("Name a table of FROM: row_to_json(t)."),
            ));
        }
        if !fits {
            return plan_err!("function {} does not take {given} arguments", self.name);
        }
        Ok(Arc::new(match self.task {
            Task::Get
            | Task::Concat
            | Task::Path
            | Task::ExtractPath
            | Task::Mark
            | Task::BuildObject(_)
            | Task::BuildArray
            | Task::List
            | Task::Members { .. }
            | Task::ToJson => json_field(self.name),
            _ => Field::new(self.name, self.return_type(&[])?, true),
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let all_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let count = if all_constant { 1 } else { rows };
        let values = args.args.iter().map(|arg| arg.to_array(count)).collect::<Result<Vec<_>>>()?;
        let result = self.evaluate(&values, &args.arg_fields, count)?;
        if all_constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

impl JsonFunction {
    fn evaluate(&self, args: &[ArrayRef], fields: &[FieldRef], rows: usize) -> Result<ArrayRef> {
        match self.task {
            Task::BuildObject(form) => return build::object(args, fields, rows, form),
            Task::BuildArray => return build::array(args, fields, rows),
            Task::ToJson => return build::value(&args[0], &fields[0]),
            Task::List => return build::list(&args[0]),
            Task::Member => return build::member(args, fields, rows),
            Task::Members { binary } => return build::members(&args[0], binary),
            _ => {}
        }
        let json = texts(&args[0])?;
        match self.task {
            Task::Mark => Ok(Arc::new(json)),
            Task::Get | Task::GetText => self.get(&json, &args[1]),
            Task::Path | Task::PathText => {
                let paths = lists(&args[1])?;
                self.paths(&json, |row| Ok(paths(row)))
            }
            Task::ExtractPath | Task::ExtractPathText => {
                let steps = args[1..].iter().map(texts).collect::<Result<Vec<_>>>()?;
                self.paths(&json, |row| {
                    let step = |steps: &StringViewArray| {
                        steps.is_valid(row).then(|| steps.value(row).to_owned())
                    };
                    Ok(steps.iter().map(step).collect())
                })
            }
            Task::Contains => {
                let parts = texts(&args[1])?;
                self.truths(&json, |value, row| {
                    if parts.is_null(row) {
                        return Ok(None);
                    }
                    let part = parse(parts.value(row))?;
                    value.contains(part).map(Some).map_err(invalid)
                })
            }
            Task::Concat => {
                let others = texts(&args[1])?;
                let mut results = StringViewBuilder::with_capacity(json.len());
                for (left, right) in json.iter().zip(others.iter()) {
                    let (Some(left), Some(right)) = (left, right) else {
                        results.append_null();
                        continue;
                    };
                    match concat::concatenated(parse(left)?, parse(right)?).map_err(invalid)? {
                        Some(both) => results.append_value(both),
                        None => return exec_err!("invalid concatenation of jsonb objects"),
                    }
                }
                Ok(Arc::new(results.finish()))
            }
            Task::Has => {
                let names = texts(&args[1])?;
                self.truths(&json, |value, row| match names.is_valid(row) {
                    true => value.has(names.value(row)).map(Some).map_err(invalid),
                    false => Ok(None),
                })
            }
            Task::HasAny | Task::HasAll => {
                let names = lists(&args[1])?;
                let every = self.task == Task::HasAll;
                self.truths(&json, |value, row| {
                    let Some(names) = names(row) else { return Ok(None) };
                    for name in names {
                        if value.has(&name).map_err(invalid)? != every {
                            return Ok(Some(!every));
                        }
                    }
                    Ok(Some(every))
                })
            }
            Task::Elements | Task::ElementsText | Task::Keys | Task::Values | Task::ValuesText => {
                self.parts(&json)
            }
            Task::Length => {
                let mut lengths = Int32Builder::with_capacity(json.len());
                for text in json.iter() {
                    lengths.append_option(match text {
                        Some(text) => {
                            Some(elements(parse(text)?, "get array length of")?.len() as i32)
                        }
                        None => None,
                    });
                }
                Ok(Arc::new(lengths.finish()))
            }
            Task::TypeOf => {
                let mut names = StringViewBuilder::with_capacity(json.len());
                for text in json.iter() {
                    names.append_option(text.map(parse).transpose()?.map(kind_name));
                }
                Ok(Arc::new(names.finish()))
            }
            Task::BuildObject(_)
            | Task::BuildArray
            | Task::List
            | Task::Member
            | Task::Members { .. }
            | Task::ToJson => {
                exec_err!("{} is evaluated elsewhere", self.name)
            }
        }
    }

    /// `->` and `->>`: a member by its name, or an element by its place.
    fn get(&self, json: &StringViewArray, keys: &ArrayRef) -> Result<ArrayRef> {
        let mut results = StringViewBuilder::with_capacity(json.len());
        if keys.data_type().is_integer() {
            let places = cast(keys, &DataType::Int64)?;
            let places = places.as_primitive::<Int64Type>();
            for (row, text) in json.iter().enumerate() {
                let found = match text {
                    Some(text) if places.is_valid(row) => {
                        parse(text)?.element(places.value(row)).map_err(invalid)?
                    }
                    _ => None,
                };
                results.append_option(self.shown(found)?);
            }
        } else {
            let names = texts(keys)?;
            for (row, text) in json.iter().enumerate() {
                let found = match text {
                    Some(text) if names.is_valid(row) => {
                        parse(text)?.member(names.value(row)).map_err(invalid)?
                    }
                    _ => None,
                };
                results.append_option(self.shown(found)?);
            }
        }
        Ok(Arc::new(results.finish()))
    }

    fn paths(
        &self,
        json: &StringViewArray,
        path: impl Fn(usize) -> Result<Option<Vec<String>>>,
    ) -> Result<ArrayRef> {
        let mut results = StringViewBuilder::with_capacity(json.len());
        for (row, text) in json.iter().enumerate() {
            let found = match (text, path(row)?) {
                (Some(text), Some(path)) => {
                    parse(text)?.at_path(path.iter().map(String::as_str)).map_err(invalid)?
                }
                _ => None,
            };
            results.append_option(self.shown(found)?);
        }
        Ok(Arc::new(results.finish()))
    }

    /// A value as JSON or as text.
    fn shown<'a>(&self, value: Option<Json<'a>>) -> Result<Option<Cow<'a, str>>> {
        let Some(value) = value else { return Ok(None) };
        match self.task {
            Task::Get | Task::Path | Task::ExtractPath | Task::Elements | Task::Values => {
                Ok(Some(Cow::Borrowed(value.text())))
            }
            _ => match value.as_text().map_err(invalid)? {
                Some(text) if text.contains('\0') => Err(external(SqlError::new(
                    UNTRANSLATABLE_CHARACTER,
                    "unsupported Unicode escape sequence: \\u0000 cannot be converted to text",
                ))),
                text => Ok(text),
            },
        }
    }

    fn truths(
        &self,
        json: &StringViewArray,
        truth: impl Fn(Json<'_>, usize) -> Result<Option<bool>>,
    ) -> Result<ArrayRef> {
        let mut truths = BooleanBuilder::with_capacity(json.len());
        for (row, text) in json.iter().enumerate() {
            truths.append_option(match text {
                Some(text) => truth(parse(text)?, row)?,
                None => None,
            });
        }
        Ok(Arc::new(truths.finish()))
    }

    /// The elements of arrays, or the names in objects.
    fn parts(&self, json: &StringViewArray) -> Result<ArrayRef> {
        let mut lists = ListBuilder::new(StringViewBuilder::new());
        for text in json.iter() {
            let Some(text) = text else {
                lists.append_null();
                continue;
            };
            let value = parse(text)?;
            if let Task::Keys | Task::Values | Task::ValuesText = self.task {
                let Some(members) = value.members().map_err(invalid)? else {
                    return exec_err!(
                        "invalid argument: cannot get the keys of {}",
                        kind_name(value)
                    );
                };
                for (name, value) in members {
                    match self.task {
                        Task::Keys => lists.values().append_value(name),
                        _ => lists.values().append_option(self.shown(Some(value))?),
                    }
                }
            } else {
                for element in elements(value, "extract elements from")? {
                    lists.values().append_option(self.shown(Some(element))?);
                }
            }
            lists.append(true);
        }
        Ok(Arc::new(lists.finish()))
    }
}

fn parse(text: &str) -> Result<Json<'_>> {
    Json::parse(text).map_err(invalid)
}

fn invalid(_: Invalid) -> datafusion::common::DataFusionError {
    exec_datafusion_err!("invalid input syntax for type json")
}

fn elements<'a>(value: Json<'a>, what: &str) -> Result<Vec<Json<'a>>> {
    match value.elements().map_err(invalid)? {
        Some(elements) => Ok(elements),
        None => exec_err!("invalid argument: cannot {what} {}", kind_name(value)),
    }
}

fn kind_name(value: Json<'_>) -> &'static str {
    match value.kind() {
        Kind::Null => "null",
        Kind::Boolean => "boolean",
        Kind::Number => "number",
        Kind::String => "string",
        Kind::Array => "array",
        Kind::Object => "object",
    }
}

fn texts(array: &ArrayRef) -> Result<StringViewArray> {
    Ok(cast(array, &DataType::Utf8View)?.as_string_view().clone())
}

/// Lists of texts, by row; a text stands for the list that it writes, as in `'{a,b}'`.
/// The texts of a row's list.
type Lists = Box<dyn Fn(usize) -> Option<Vec<String>>>;

fn lists(array: &ArrayRef) -> Result<Lists> {
    if let DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) =
        array.data_type()
    {
        let item = Field::new_list_field(DataType::Utf8View, true);
        let lists = cast(array, &DataType::List(Arc::new(item)))?.as_list::<i32>().clone();
        return Ok(Box::new(move |row| {
            let list = lists.is_valid(row).then(|| lists.value(row))?;
            Some(list.as_string_view().iter().flatten().map(str::to_owned).collect())
        }));
    }
    let texts = texts(array)?;
    Ok(Box::new(move |row| texts.is_valid(row).then(|| written_list(texts.value(row)))))
}

/// The items of `{a,"b c"}`.
fn written_list(text: &str) -> Vec<String> {
    let inner = text.trim().trim_start_matches('{').trim_end_matches('}');
    let mut items = Vec::new();
    let mut item = String::new();
    let (mut quoted, mut any) = (false, false);
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        any = true;
        match character {
            '"' => quoted = !quoted,
            '\\' => item.extend(characters.next()),
            ',' if !quoted => items.push(std::mem::take(&mut item).trim().to_owned()),
            other => item.push(other),
        }
    }
    if any {
        items.push(item.trim().to_owned());
    }
    items
}
