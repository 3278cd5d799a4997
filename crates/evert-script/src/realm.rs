//! Realm: a runtime with a fold's code in it, and nothing in it that could change an answer.
//!
//! Owns: which parts of JavaScript there are (`prelude.js` takes away the rest and freezes what
//! stays), how code is compiled, how the engine's errors are told.
//!
//! Invariants
//! - The code's own objects and functions are made anew for each group, so that nothing is
//!   remembered from one to the next.

use std::rc::Rc;

use rquickjs::context::{EvalOptions, intrinsic};
use rquickjs::convert::Coerced;
use rquickjs::{Context, Ctx, Error, FromJs, Function, Persistent, Runtime, Value};

use crate::meter::{Meter, Metered};
use crate::script::{Definition, Failure, GIVEN_UP, ScriptError};

/// Bytes of the machine's stack that code may use.
const STACK_BYTES_MAX: usize = 256 * 1024;
/// What making a realm may take, in calls of the meter's handler.
const MAKING_CALLS_MAX: usize = 1000;
/// Characters of a message that are told.
const MESSAGE_CHARS_MAX: usize = 500;
/// The name that the fold's code has in the engine's traces. The code begins on the second line.
const FILE: &str = "fold.js";
const LINES_BEFORE: usize = 1;

/// A runtime and the functions of the driver.
pub(crate) struct Realm {
    // In the order in which they may be dropped: values before what they are values of.
    missing: Persistent<Function<'static>>,
    begin: Persistent<Function<'static>>,
    context: Context,
    runtime: Runtime,
    pub(crate) meter: Rc<Meter>,
}

impl Realm {
    /// A realm that may hold so many bytes.
    ///
    /// # Errors
    /// If the code cannot be compiled.
    pub(crate) fn new(definition: &Definition, bytes_max: usize) -> Result<Self, ScriptError> {
        let meter = Meter::new(bytes_max);
        meter.begin(MAKING_CALLS_MAX, None);
        let unmade = |error: Error| ScriptError::Engine(error.to_string());
        let runtime = Runtime::new_with_alloc(Metered(Rc::clone(&meter))).map_err(unmade)?;
        runtime.set_max_stack_size(STACK_BYTES_MAX);
        let asked = Rc::clone(&meter);
        runtime.set_interrupt_handler(Some(Box::new(move || asked.interrupt())));
        let context = Context::custom::<(
            intrinsic::Date,
            intrinsic::Eval,
            intrinsic::RegExpCompiler,
            intrinsic::RegExp,
            intrinsic::Json,
            intrinsic::MapSet,
            intrinsic::TypedArrays,
            intrinsic::Promise,
        )>(&runtime)
        .map_err(unmade)?;
        let made = context.with(|ctx| {
            let own = |error: Error| ScriptError::Engine(thrown(&ctx, error).message);
            prepare(&ctx, &meter).map_err(own)?;
            let code = compile(&ctx, &definition.source)?;
            let driver = crate::driver::source(&definition.input, &definition.output);
            let driver: Function<'_> =
                ctx.eval_with_options(driver, options("driver.js")).map_err(own)?;
            let (missing, begin): (Function<'_>, Function<'_>) =
                parts(driver.call((code,)).map_err(own)?).map_err(own)?;
            Ok((Persistent::save(&ctx, missing), Persistent::save(&ctx, begin)))
        });
        let (missing, begin) = made?;
        Ok(Self { missing, begin, context, runtime, meter })
    }

    /// Runs something in the realm.
    pub(crate) fn with<T>(&self, run: impl FnOnce(&Ctx<'_>, &Self) -> T) -> T {
        self.context.with(|ctx| run(&ctx, self))
    }

    /// What `begin()` gives: the functions that fold a group's rows and end it.
    pub(crate) fn begin<'js>(
        &self,
        ctx: &Ctx<'js>,
    ) -> rquickjs::Result<(Function<'js>, Function<'js>)> {
        parts(self.begin.clone().restore(ctx)?.call(())?)
    }

    /// The first function that the fold lacks.
    pub(crate) fn missing(&self, ctx: &Ctx<'_>) -> rquickjs::Result<Option<String>> {
        self.missing.clone().restore(ctx)?.call(())
    }

    /// Whether code has left something to be done later.
    pub(crate) fn is_waiting(&self) -> bool {
        self.runtime.is_job_pending()
    }
}

/// Takes away and freezes, and has the built-in functions count what they walk.
fn prepare(ctx: &Ctx<'_>, meter: &Rc<Meter>) -> rquickjs::Result<()> {
    let prelude: Function<'_> =
        ctx.eval_with_options(include_str!("prelude.js"), options("prelude.js"))?;
    let meter = Rc::clone(meter);
    let walks = Function::new(ctx.clone(), move |bytes: f64| meter.walks(bytes))?;
    prelude.call((walks,))
}

fn parts<'js>(value: Value<'js>) -> rquickjs::Result<(Function<'js>, Function<'js>)> {
    let ctx = value.ctx().clone();
    let pair = rquickjs::Array::from_js(&ctx, value)?;
    Ok((pair.get(0)?, pair.get(1)?))
}

fn options(file: &str) -> EvalOptions {
    let mut options = EvalOptions::default();
    options.filename = Some(file.to_owned());
    options
}

/// The function that makes the fold: from code that is an expression, or that returns one.
fn compile<'js>(ctx: &Ctx<'js>, source: &str) -> Result<Function<'js>, ScriptError> {
    match enclosed(ctx, "return (", without_end(source), ")") {
        Ok(function) => Ok(function),
        // What is neither is told by the error that lies further on: that is where it stops being
        // what it was meant to be.
        Err(first) => enclosed(ctx, "", source, "")
            .map_err(|second| if second.place() > first.place() { second } else { first }),
    }
}

/// An expression without the semicolon and the comments that follow it. What only looks like a
/// comment stood in a text, which then has no end: such code does not compile.
fn without_end(source: &str) -> &str {
    let mut rest = source;
    loop {
        rest = rest.trim_end_matches(|c: char| c.is_whitespace() || c == ';');
        let line = rest.rfind('\n').map_or(0, |place| place + 1);
        let comment = match rest.ends_with("*/") {
            true => rest.rfind("/*"),
            false => rest[line..].find("//").map(|place| line + place),
        };
        match comment {
            Some(place) => rest = &rest[..place],
            None => return rest,
        }
    }
}

fn enclosed<'js>(
    ctx: &Ctx<'js>,
    before: &str,
    source: &str,
    after: &str,
) -> Result<Function<'js>, ScriptError> {
    let function = |open: &str, close: &str| {
        let text = format!("{open}function () {{ {before}\n{source}\n{after} }}{close}");
        ctx.eval_with_options::<Value<'js>, _>(text, options(FILE)).map_err(|error| {
            let Thrown { message, place } = thrown(ctx, error);
            let (line, column) = place.unwrap_or((0, 0));
            ScriptError::Syntax { message, line, column }
        })
    };
    // In brackets of two kinds, so that code cannot close them and go on outside.
    function("[", "]")?;
    let made = function("(", ")")?;
    Function::from_js(ctx, made).map_err(|error| ScriptError::Engine(error.to_string()))
}

/// An exception, told.
#[derive(Debug)]
pub(crate) struct Thrown {
    pub(crate) message: String,
    /// Line and column of the code, from 1.
    pub(crate) place: Option<(usize, usize)>,
}

impl From<Thrown> for Failure {
    fn from(Thrown { message, place }: Thrown) -> Self {
        Self::Thrown { message, line: place.map(|(line, _)| line) }
    }
}

/// What an error of the engine's says. Takes the exception, if it is one.
pub(crate) fn thrown(ctx: &Ctx<'_>, error: Error) -> Thrown {
    if !error.is_exception() {
        return Thrown { message: shortened(&error.to_string()), place: None };
    }
    let value = ctx.catch();
    let (message, place) = match value.as_exception() {
        Some(exception) => {
            let name = exception.get::<_, Coerced<String>>("name");
            let name = name.map_or_else(|_| "Error".to_owned(), |name| name.0);
            let message = exception.message().unwrap_or_default();
            (format!("{name}: {message}"), exception.stack().as_deref().and_then(place_in))
        }
        None => {
            let text = Coerced::<String>::from_js(ctx, value);
            (text.map_or_else(|_| "an object was thrown".to_owned(), |text| text.0), None)
        }
    };
    // What was asked of the exception may have thrown too.
    drop(ctx.catch());
    // Whoever reads a failure knows by its first words that a fold was given up: code, or a value
    // that it throws, cannot say so.
    let message = match message.starts_with(GIVEN_UP) {
        true => format!("Error: {message}"),
        false => message,
    };
    Thrown { message: shortened(&message), place }
}

/// The first place in the fold's code that a trace names: `at step (fold.js:3:14)`.
fn place_in(stack: &str) -> Option<(usize, usize)> {
    let (_, after) = stack.split_once("fold.js:")?;
    let mut numbers = after.split(|c: char| !c.is_ascii_digit()).map(str::parse::<usize>);
    let line = numbers.next()?.ok()?;
    let column = numbers.next().and_then(Result::ok).unwrap_or(1);
    Some((line.saturating_sub(LINES_BEFORE).max(1), column))
}

fn shortened(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &message[..end]),
        None => message.to_owned(),
    }
}
