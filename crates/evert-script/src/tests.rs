use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    Float64Array, Int32Array, Int64Array, Int64Builder, ListBuilder, StringViewArray,
    StringViewBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::Int64Type;
use arrow::util::display::array_value_to_string;
use evert_model::{Column, ColumnType, ItemType};

use crate::{Definition, Failure, Script, ScriptError};

fn columns(columns: &[(&str, ColumnType)]) -> Vec<Column> {
    let column = |(name, ty): &(&str, ColumnType)| Column {
        name: (*name).to_owned(),
        ty: *ty,
        nullable: true,
    };
    columns.iter().map(column).collect()
}

/// A fold of rows with a bigint `n`, which gives a text `v`.
fn try_script(source: &str) -> Result<Script, ScriptError> {
    Script::new(Definition {
        source: source.to_owned(),
        input: columns(&[("n", ColumnType::Int64)]),
        output: columns(&[("v", ColumnType::Text)]),
    })
}

fn script(source: &str) -> Script {
    try_script(source).expect("the code is a fold")
}

fn numbers(values: &[i64]) -> Vec<Vec<ArrayRef>> {
    vec![vec![Arc::new(Int64Array::from(values.to_vec()))]]
}

/// The text that a script gives for some rows.
fn told(script: &Script, values: &[i64]) -> Result<Option<String>, Failure> {
    let packed = script.fold(&numbers(values))?;
    Ok(packed.map(|row| {
        let rows = BinaryArray::from_iter_values([row]);
        let column = script.unpack(&rows, 0).expect("packed rows can be unpacked");
        column.as_string_view().value(0).to_owned()
    }))
}

/// A fold whose step evaluates an expression and keeps it as text.
fn expression(code: &str) -> Script {
    script(&format!(
        "({{ init: () => null, step: (s, row) => String({code}), row: (s) => ({{ v: s }}) }})"
    ))
}

#[test]
fn rows_are_folded_in_order() {
    let script = script(
        "({ init: () => [], step: (s, row) => { s.push(row.n); return s; },
            row: (s) => ({ v: s.join(',') }) })",
    );
    assert_eq!(told(&script, &[3, 1, 2]), Ok(Some("3,1,2".to_owned())));
    assert_eq!(told(&script, &[]), Ok(Some(String::new())));
    let many: Vec<i64> = (0..1000).collect();
    let expected: Vec<String> = many.iter().map(ToString::to_string).collect();
    assert_eq!(told(&script, &many), Ok(Some(expected.join(","))));
}

#[test]
fn null_is_no_row() {
    let script = script("({ init: () => 0, step: (s) => s + 1, row: (s) => s > 1 ? {} : null })");
    assert_eq!(script.fold(&numbers(&[1])), Ok(None));
    let row = script.fold(&numbers(&[1, 2])).expect("it folds").expect("it has a row");
    let rows = BinaryArray::from(vec![Some(row.as_slice()), None]);
    let column = script.unpack(&rows, 0).expect("packed rows can be unpacked");
    assert!(column.is_null(0) && column.is_null(1));
    assert!(script.unpack(&rows, 1).is_err());
}

#[test]
fn code_may_be_a_body_that_returns() {
    let script = script(
        "const most = 2;\nfunction least(a, b) { return a < b ? a : b; }\n\
         return { init: () => 0, step: (s, row) => least(row.n, most), row: (s) => ({ v: `${s}` }) };",
    );
    assert_eq!(told(&script, &[7]), Ok(Some("2".to_owned())));
    for end in ["", ";", " ; ", "; // done", "\n// done; \n", " /* done */", "; /* a */ // b"] {
        let commented = format!("({{ init: () => 0, step: (s) => s, row: () => null }}){end}");
        assert!(try_script(&commented).is_ok(), "{end}");
    }
}

#[test]
fn mistakes_have_places() {
    let error = try_script("({ init: () => 0,\n  step: (s, row) => s +,\n row: () => null })");
    let place = error.as_ref().expect_err("it is no JavaScript").place();
    assert_eq!(place.map(|(line, _)| line), Some(2), "{error:?}");
    let error = try_script("const a = 1;\nconst b = ;\nreturn {};").expect_err("no JavaScript");
    assert_eq!(error.place().map(|(line, _)| line), Some(2), "{error}");
    let missing = |name: &str| Err(ScriptError::Missing(name.to_owned()));
    assert_eq!(try_script("({ init: () => 0, step: (s) => s })").map(drop), missing("row"));
    assert_eq!(try_script("({ step: (s) => s, row: () => null })").map(drop), missing("init"));
    assert_eq!(try_script("42").map(drop), missing("init"));
    let throws = try_script("({ init: () => nothing.at.all, step: (s) => s, row: () => null })");
    assert!(matches!(throws, Err(ScriptError::Throws(_))), "{throws:?}");
    let closes = try_script(
        "1)}); globalThis.n = 0; (function () { return ({ init() {}, step() {}, row() {} }",
    );
    assert!(matches!(closes, Err(ScriptError::Syntax { .. })), "{closes:?}");
}

#[test]
fn what_throws_tells_message_and_line() {
    let script = script("({ init: () => 0,\n step: (s, row) => row.none.at,\n row: () => null })");
    let failure = told(&script, &[1]).expect_err("it throws");
    assert!(matches!(failure, Failure::Thrown { line: Some(2), .. }), "{failure:?}");
    assert!(failure.to_string().starts_with("TypeError: "), "{failure}");
    assert!(failure.to_string().ends_with(" at line 2"), "{failure}");
    let text = self::script("({ init: () => 0, step: () => { throw 'so' }, row: () => null })");
    assert_eq!(told(&text, &[1]).expect_err("it throws").to_string(), "so");
    let nothing = self::script("({ init: () => 0, step: (s) => { s + 1 }, row: () => null })");
    let failure = told(&nothing, &[1]).expect_err("it throws").to_string();
    assert!(failure.contains("step returned nothing"), "{failure}");
    let number = self::script("({ init: () => 0, step: (s) => s, row: () => 3 })");
    let failure = told(&number, &[1]).expect_err("it throws").to_string();
    assert!(failure.contains("row returned a number"), "{failure}");
    let stranger = self::script("({ init: () => 0, step: (s) => s, row: () => ({ w: 1 }) })");
    let failure = told(&stranger, &[1]).expect_err("it throws").to_string();
    assert!(failure.contains("'w', which is none of its columns"), "{failure}");
}

#[test]
fn there_is_no_clock_no_chance_and_no_way_out() {
    for code in [
        "Date.now()",
        "new Date()",
        "Date()",
        "Math.random()",
        "eval('1')",
        "Function('return 1')()",
        "(() => 0).constructor('return 1')()",
        "(async () => 0).constructor('return 1')",
        "(function* () {}).constructor('return 1')",
        "performance.now()",
        "new WeakRef({})",
        "new SharedArrayBuffer(8)",
        "Atomics",
        "new Intl.DateTimeFormat()",
        "(1).toLocaleString()",
        "'a'.localeCompare('b')",
        "new Promise(() => 0)",
        "queueMicrotask(() => 0)",
        "new Date(0).toLocaleTimeString()",
        "require('fs')",
        "process",
        "std",
    ] {
        let failure = told(&expression(code), &[1]);
        assert!(matches!(failure, Err(Failure::Thrown { .. })), "{code}: {failure:?}");
    }
}

#[test]
fn what_there_is_not_on_purpose_is_told() {
    for (code, what) in [
        ("Date.now()", "no clock, on purpose"),
        ("new Date()", "no clock, on purpose"),
        ("Math.random()", "no randomness, on purpose"),
    ] {
        let failure = told(&expression(code), &[1]).expect_err("it throws").to_string();
        assert!(failure.contains(what), "{code}: {failure}");
        assert!(failure.ends_with(" at line 1"), "{code}: {failure}");
    }
}

#[test]
fn dates_are_of_rows_and_in_utc() {
    for (code, expected) in [
        ("new Date(0).toISOString()", "1970-01-01T00:00:00.000Z"),
        ("new Date(0).getHours()", "0"),
        ("new Date(0).getTimezoneOffset()", "0"),
        ("new Date(0)", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("new Date(2026, 10, 21, 12).getTime()", "1795262400000"),
        ("new Date('2026-11-21 12:00').getTime()", "1795262400000"),
        ("Date.parse('2026-11-21T14:00:00+02')", "1795262400000"),
        ("Date.parse('2026-11-21T14:00:00.000+0200')", "1795262400000"),
        ("Date.parse('2026-11-21')", "1795219200000"),
        ("Date.parse('Nov 21 2026 12:00')", "NaN"),
        ("new Date(new Date(7)).getTime()", "7"),
        ("new Date(0) instanceof Date", "true"),
        ("new (class extends Date { two() { return 2 } })(5).two()", "2"),
    ] {
        assert_eq!(told(&expression(code), &[1]), Ok(Some(expected.to_owned())), "{code}");
    }
}

#[test]
fn nothing_is_remembered_from_group_to_group() {
    for code in [
        "let n = 0; return { init: () => 0, step: () => ++n, row: (s) => ({ v: `${s}` }) }",
        "const f = { n: 0, init: () => 0, step: () => ++f.n, row: (s) => ({ v: `${s}` }) }; return f",
        "const r = /a/g; return { init: () => 0, step: () => { r.test('aa'); return r.lastIndex },
          row: (s) => ({ v: `${s}` }) }",
    ] {
        let script = script(code);
        for _ in 0..3 {
            assert_eq!(told(&script, &[1]), Ok(Some("1".to_owned())), "{code}");
        }
    }
    for code in [
        "globalThis.n = 1",
        "n = 1",
        "Object.prototype.n = 1",
        "Array.prototype.push = 1",
        "Object.prototype.toString = 1",
        "Math.n = 1",
        "JSON.parse = 1",
        "Object.getPrototypeOf(function* () {}).n = 1",
        "Object.getPrototypeOf([][Symbol.iterator]()).n = 1",
        "Object.getPrototypeOf(new Map().entries()).n = 1",
        "Object.getPrototypeOf(async () => 0).n = 1",
        "Error.stackTraceLimit = 1",
        "Object.defineProperty(Date.prototype, 'n', { value: 1 })",
        "Object.setPrototypeOf(Map.prototype, null)",
    ] {
        let failure = told(&expression(code), &[1]);
        assert!(matches!(failure, Err(Failure::Thrown { .. })), "{code}: {failure:?}");
    }
    // An object may still have what its prototype has.
    let own = "(() => { const o = {}; o.toString = () => 'own'; return o })()";
    assert_eq!(told(&expression(own), &[1]), Ok(Some("own".to_owned())));
    let error = "(() => { const e = new TypeError('x'); e.name = 'Own'; return e })()";
    assert_eq!(told(&expression(error), &[1]), Ok(Some("Own: x".to_owned())));
}

#[test]
fn steps_are_bounded_by_their_number() {
    let endless = script(
        "({ init: () => 0, step: (s, row) => { while (row.n) ; return 1 }, row: () => ({ v: 'done' }) })",
    );
    assert_eq!(told(&endless, &[0, 1]), Err(Failure::TooManySteps { rows: 2 }));
    assert_eq!(told(&endless, &[0, 0]), Ok(Some("done".to_owned())));
    let caught = script(
        "({ init: () => 0, step: (s) => { for (;;) { try { for (;;) ; } catch {} finally {} } }, row: () => null })",
    );
    assert_eq!(told(&caught, &[1]), Err(Failure::TooManySteps { rows: 1 }));
    let regex = expression("/^(a+)+$/.test('a'.repeat(40) + 'b')");
    assert_eq!(told(&regex, &[1]), Err(Failure::TooManySteps { rows: 1 }));
    let init = try_script("({ init: () => { for (;;) ; }, step: (s) => s, row: () => null })");
    assert_eq!(init.map(drop), Err(ScriptError::Throws(Failure::TooManySteps { rows: 0 })));
    let making = try_script("for (;;) ;");
    assert!(making.is_err());
}

/// An evaluation that is near its last step has the same outcome in a realm that has been used and
/// in a new one.
#[test]
fn the_last_step_does_not_move() {
    let turns = |script: &Script, n: i64| told(script, &[n]).is_ok();
    let code = "({ init: () => 0, step: (s, row) => { for (let i = 0; i < row.n; i++) ; return 1 }, row: () => null })";
    let fresh = |n: i64| turns(&script(code), n);
    let (mut low, mut high) = (0, 4_000_000);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if fresh(middle) { low = middle } else { high = middle }
    }
    let used = script(code);
    for before in [1, 999, 3_333, 7_777, 9_999] {
        assert!(turns(&used, before));
        assert!(turns(&used, low), "after {before} turns, {low} are too many");
        assert!(turns(&used, before));
        assert!(!turns(&used, high), "after {before} turns, {high} are allowed");
    }
    let expected = super::worker::calls_max(1) * super::meter::STEPS_A_CALL;
    assert!(low.unsigned_abs() as usize > expected / 3, "{low} turns are allowed");
}

/// One call of a built-in function is one step; what it takes to write its answer to counts.
#[test]
fn memory_that_is_taken_counts_as_steps() {
    for code in ["for (;;) new Uint8Array(1e6)", "for (;;) try { new Uint8Array(1e6) } catch {}"] {
        let source =
            format!("({{ init: () => 0, step: () => {{ {code} }}, row: (s) => ({{ v: '' }}) }})");
        let mut script = script(&source);
        script.time_max = Duration::from_secs(600);
        for _ in 0..2 {
            assert_eq!(told(&script, &[1]), Err(Failure::TooManySteps { rows: 1 }), "{code}");
        }
    }
}

/// So does what it walks, and a search is not begun that would compare without end.
#[test]
fn what_is_walked_counts_as_steps() {
    for code in [
        "const s = 'x'.repeat(1e7); for (;;) s.indexOf('y')",
        "const s = 'x'.repeat(1e7); for (;;) try { s.includes('y') } catch {}",
        "const s = 'x'.repeat(1e7); for (;;) s.split('y')",
        "const s = ' '.repeat(1e7); for (;;) s.trimLeft()",
        "const a = new Array(1e6).fill(0); for (;;) a.indexOf(1)",
        "const a = new Uint8Array(1e7); for (;;) a.includes(1)",
        "('a'.repeat(8e6)).indexOf('a'.repeat(4e6) + 'b')",
    ] {
        let source =
            format!("({{ init: () => 0, step: () => {{ {code} }}, row: (s) => ({{ v: '' }}) }})");
        let mut script = script(&source);
        script.time_max = Duration::from_secs(600);
        let started = Instant::now();
        for _ in 0..2 {
            assert_eq!(told(&script, &[1]), Err(Failure::TooManySteps { rows: 1 }), "{code}");
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{code}");
    }
}

/// What counts its work is what it was to the code.
#[test]
fn what_is_counted_works_as_before() {
    for (code, expected) in [
        ("['abc'.indexOf('c'), 'abcb'.lastIndexOf('b'), 'abcb'.lastIndexOf('b', 2)]", "2,3,1"),
        ("['a-b'.split('-'), 'aXbX'.replace(/x/gi, (x) => x + '!')]", "a,b,aX!bX!"),
        ("['abc'.startsWith('b', 1), 'abc'.endsWith('b', 2), ' a '.trim()]", "true,true,a"),
        ("[[1, 2, 1].lastIndexOf(1), [1, 2].join('+'), [3, 1].reverse()]", "2,1+2,1,3"),
        (
            "(() => { const a = [1, 2, 3]; a.shift(); return [a.splice(1), a.unshift(0, 1)] })()",
            "3,3",
        ),
        ("[new Uint8Array([3, 1, 2]).sort(), [1, [2, 3]].toString()]", "1,2,3,1,2,3"),
        ("[''.indexOf.name, ''.indexOf.length, [].splice.length]", "indexOf,1,2"),
        ("'x'.repeat(1e5).indexOf('y') + 'x'.repeat(1e5).lastIndexOf('x')", "99998"),
    ] {
        assert_eq!(told(&expression(code), &[1]), Ok(Some(expected.to_owned())), "{code}");
    }
    let failure = told(&expression("'x'.includes(/x/)"), &[1]).expect_err("it is no text");
    assert!(matches!(failure, Failure::Thrown { line: Some(1), .. }), "{failure:?}");
}

#[test]
fn what_nobody_wants_is_stopped() {
    let slow = script(
        "({ init: () => [1, 2].map(() => 'a'.repeat(1e6)), row: () => ({ v: 'done' }),
            step: (s, row) => { if (row.n) for (;;) s[0] === s[1]; return s } })",
    );
    let unwanted = Arc::new(AtomicBool::new(false));
    let unless = evert_env::works_unless(&unwanted);
    let later = Arc::clone(&unwanted);
    let other = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        later.store(true, Ordering::Relaxed);
    });
    let started = Instant::now();
    assert_eq!(told(&slow, &[1]), Err(Failure::Unwanted));
    assert!(started.elapsed() < slow.time_max);
    assert_eq!(told(&slow, &[0]), Err(Failure::Unwanted));
    drop(unless);
    other.join().expect("the thread ends well");
    // Whoever else folds with the script goes on.
    assert_eq!(told(&slow, &[0]), Ok(Some("done".to_owned())));
}

#[test]
fn what_takes_too_long_has_no_outcome() {
    let mut script = script(
        "({ init: () => [1, 2].map(() => 'a'.repeat(1e6)), row: () => ({ v: 'done' }),
            step: (s, row) => { if (row.n) for (;;) s[0] === s[1]; return s } })",
    );
    assert_eq!(told(&script, &[0]), Ok(Some("done".to_owned())));
    script.time_max = Duration::from_millis(50);
    assert_eq!(told(&script, &[1]), Err(Failure::TooSlow));
    // Others do not keep whoever fails for it waiting.
    let started = Instant::now();
    assert_eq!(told(&script, &[1]), Err(Failure::TooSlow));
    assert!(started.elapsed() < script.time_max);
    // Code cannot say so.
    let said = Failure::TooSlow.to_string();
    for code in ["throw said", "const e = new Error('x'); e.name = said; throw e"] {
        let source = format!(
            "const said = {said:?}; return {{ init: () => 0, step: () => {{ {code} }}, row: () => null }}"
        );
        let failure = told(&self::script(&source), &[1]).expect_err("it throws").to_string();
        assert!(failure.starts_with("Error: the fold was given up"), "{failure}");
    }
}

#[test]
fn memory_is_bounded() {
    for code in [
        "const all = []; return { init: () => 0, step: () => { for (;;) all.push({}) }, row: () => null }",
        "return { init: () => 0, step: () => { let s = 'x'; for (;;) s += s }, row: () => null }",
        "return { init: () => 0, step: () => 'x'.repeat(1e9), row: () => null }",
        "return { init: () => 0, step: () => new Array(1e9).fill(0), row: () => null }",
        "return { init: () => 0, step: () => new Uint8Array(1e9), row: () => null }",
        // What is caught does not count either.
        "return { init: () => 0, step: () => { try { 'x'.repeat(1e9) } catch {} return 1 }, row: () => ({ v: 'x' }) }",
    ] {
        let script = script(code);
        let failure = told(&script, &[1]).expect_err("it takes too much");
        // Some lengths are refused before memory is asked for.
        let reason = failure.to_string();
        let refused = reason.contains("RangeError") || reason.contains("too long");
        let refused = refused || failure == Failure::TooLarge;
        assert!(refused, "{code}: {failure}");
        assert_eq!(told(&script, &[1]), Err(failure), "{code}");
    }
    // Half of what is allowed passes, though the realm that is kept does not allow it.
    let large = script(
        "({ init: () => [], step: (s) => { s.push('x'.repeat(20 << 20)); return s }, row: (s) => ({ v: `${s.length}` }) })",
    );
    for _ in 0..3 {
        assert_eq!(told(&large, &[1]), Ok(Some("1".to_owned())));
    }
    // Rubbish is collected.
    let rubbish = script(
        "({ init: () => 0, step: (s) => { const a = { x: 'x'.repeat(1000) }; a.self = a; return s + 1 }, row: (s) => ({ v: `${s}` }) })",
    );
    let rows = vec![1; 100_000];
    assert_eq!(told(&rubbish, &rows), Ok(Some("100000".to_owned())));
}

#[test]
fn recursion_is_bounded() {
    let deep = expression("(function f(n) { return 1 + f(n + 1) })(0)");
    for _ in 0..2 {
        let failure = told(&deep, &[1]).expect_err("it is too deep");
        assert!(matches!(failure, Failure::Thrown { .. }), "{failure:?}");
    }
    let nested = expression("JSON.parse('['.repeat(100000))");
    assert!(told(&nested, &[1]).is_err());
    let chained =
        "(() => { let o = null; for (let i = 0; i < 100000; i++) o = { o }; return 'built' })()";
    assert_eq!(told(&expression(chained), &[1]), Ok(Some("built".to_owned())));
    let bound = "(() => { let f = () => 1; for (let i = 0; i < 10000; i++) f = f.bind(null); return f() })()";
    // However it ends, it ends.
    drop(told(&expression(bound), &[1]));
}

#[test]
fn nothing_is_done_later() {
    for code in ["(async () => { await 0 })()", "import('fs')"] {
        let script = expression(code);
        for _ in 0..2 {
            assert_eq!(told(&script, &[1]), Err(Failure::Waits), "{code}");
        }
    }
}

#[test]
fn scripts_do_not_disturb_each_other() {
    let scripts: Vec<Script> = (0..40).map(|n| expression(&format!("{n} + row.n"))).collect();
    for _ in 0..2 {
        for (n, script) in scripts.iter().enumerate() {
            assert_eq!(told(script, &[2]), Ok(Some((n + 2).to_string())));
        }
    }
    let shared = Arc::new(expression("row.n * 2"));
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let script = Arc::clone(&shared);
            std::thread::spawn(move || (told(&script, &[n]), n))
        })
        .collect();
    for thread in threads {
        let (told, n) = thread.join().expect("the thread ends well");
        assert_eq!(told, Ok(Some((n * 2).to_string())));
    }
}

fn all_types() -> Vec<Column> {
    columns(&[
        ("b", ColumnType::Boolean),
        ("i", ColumnType::Int32),
        ("n", ColumnType::Int64),
        ("f", ColumnType::Float64),
        ("d", ColumnType::Decimal { precision: 38, scale: 4 }),
        ("t", ColumnType::Text),
        ("x", ColumnType::Bytes),
        ("day", ColumnType::Date),
        ("at", ColumnType::TimestampTz),
        ("at_local", ColumnType::Timestamp),
        ("j", ColumnType::Json),
        ("u", ColumnType::Uuid),
        ("a", ColumnType::Array(ItemType::Text)),
        ("an", ColumnType::Array(ItemType::Int64)),
    ])
}

fn all_values() -> Vec<ArrayRef> {
    let mut texts = ListBuilder::new(StringViewBuilder::new());
    texts.append_value([Some("x"), None, Some("")]);
    texts.append_null();
    let mut numbers = ListBuilder::new(Int64Builder::new());
    numbers.append_value([Some(i64::MAX), None, Some(-1)]);
    numbers.append_value([]);
    let decimal = Decimal128Array::from(vec![Some(12345678901234567890123456789_i128), None]);
    let micros = vec![Some(1_795_262_400_123_457), None];
    vec![
        Arc::new(BooleanArray::from(vec![Some(true), None])),
        Arc::new(Int32Array::from(vec![Some(i32::MIN), None])),
        Arc::new(Int64Array::from(vec![Some(i64::MAX), None])),
        Arc::new(Float64Array::from(vec![Some(-0.1), None])),
        Arc::new(decimal.with_precision_and_scale(38, 4).expect("it fits")),
        Arc::new(StringViewArray::from(vec![Some("grüße 🦀"), None])),
        Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), None])),
        Arc::new(Date32Array::from(vec![Some(-1), None])),
        Arc::new(TimestampMicrosecondArray::from(micros.clone()).with_timezone("UTC")),
        Arc::new(TimestampMicrosecondArray::from(micros)),
        Arc::new(StringViewArray::from(vec![Some(r#"{"a":[1,null,"x"]}"#), None])),
        Arc::new(StringViewArray::from(vec![Some("0e984725-c51c-4bf4-9960-e1c80e27aba0"), None])),
        Arc::new(texts.finish()),
        Arc::new(numbers.finish()),
    ]
}

#[test]
fn every_type_goes_in_and_out_unchanged() {
    let script = Script::new(Definition {
        source: "({ init: () => null, step: (s, row) => row, row: (s) => s })".to_owned(),
        input: all_types(),
        output: all_types(),
    })
    .expect("the code is a fold");
    let values = all_values();
    for row in 0..2 {
        let one: Vec<ArrayRef> = values.iter().map(|column| column.slice(row, 1)).collect();
        let packed = script.fold(std::slice::from_ref(&one)).expect("it folds").expect("a row");
        let packed = BinaryArray::from_iter_values([packed]);
        for (place, column) in one.iter().enumerate() {
            let back = script.unpack(&packed, place).expect("packed rows can be unpacked");
            assert_eq!(&back, column, "column {place}");
        }
    }
}

/// What a returned expression becomes in a column of a type.
fn returned(ty: ColumnType, code: &str) -> Result<String, String> {
    let script = Script::new(Definition {
        source: format!("({{ init: () => 0, step: (s) => s, row: () => ({{ v: {code} }}) }})"),
        input: columns(&[("n", ColumnType::Int64)]),
        output: columns(&[("v", ty)]),
    })
    .expect("the code is a fold");
    let packed = script.fold(&numbers(&[1])).map_err(|failure| failure.to_string())?;
    let rows = BinaryArray::from_iter_values([packed.expect("there is a row")]);
    let column = script.unpack(&rows, 0).expect("packed rows can be unpacked");
    Ok(array_value_to_string(&column, 0).expect("every type has a text"))
}

#[test]
fn values_fit_their_columns_or_are_refused() {
    let numeric = ColumnType::Decimal { precision: 5, scale: 2 };
    for (ty, code, expected) in [
        (ColumnType::Int16, "32767", "32767"),
        (ColumnType::Int64, "-0", "0"),
        (ColumnType::Int64, "2 ** 53 - 1", "9007199254740991"),
        (ColumnType::Int64, "2n ** 63n - 1n", "9223372036854775807"),
        (ColumnType::Float64, "Infinity", "inf"),
        (ColumnType::Float64, "3", "3.0"),
        (numeric, "'123.455'", "123.46"),
        (numeric, "1.005e2", "100.50"),
        (numeric, "7n", "7.00"),
        (ColumnType::Date, "'2026-11-21'", "2026-11-21"),
        (ColumnType::Date, "new Date(86400000)", "1970-01-02"),
        (ColumnType::Timestamp, "new Date(1500)", "1970-01-01T00:00:01.500"),
        (ColumnType::Timestamp, "0.001", "1970-01-01T00:00:00.000001"),
        (ColumnType::TimestampTz, "'2026-11-21 12:00:00+02'", "2026-11-21T10:00:00Z"),
        (ColumnType::Json, "({ a: [1, 'x'] })", r#"{"a":[1,"x"]}"#),
        (ColumnType::Json, "'text'", "\"text\""),
        (ColumnType::Text, "undefined", ""),
        (ColumnType::Array(ItemType::Int16), "[1, null, -2]", "[1, , -2]"),
        (ColumnType::Array(ItemType::Text), "[]", "[]"),
        (ColumnType::Array(ItemType::Date), "[new Date(86400000)]", "[1970-01-02]"),
        (ColumnType::Bytes, "'\\\\x00ff'", "00ff"),
    ] {
        assert_eq!(returned(ty, code), Ok(expected.to_owned()), "{ty:?} of {code}");
    }
    for (ty, code, expected) in [
        (ColumnType::Boolean, "1", "column \"v\": 1 is no boolean"),
        (ColumnType::Int16, "32768", "column \"v\": 32768 is no smallint"),
        (ColumnType::Int32, "1.5", "column \"v\": 1.5 is no integer"),
        (ColumnType::Int64, "2 ** 53", "column \"v\": 9007199254740992 is no bigint"),
        (ColumnType::Int64, "2n ** 63n", "column \"v\": 9223372036854775808 is no bigint"),
        (ColumnType::Int64, "NaN", "column \"v\": NaN is no bigint"),
        (ColumnType::Int64, "'5'", "column \"v\": \"5\" is no bigint"),
        (ColumnType::Float32, "1e300", "column \"v\": 1e+300 is no real"),
        (numeric, "1000", "column \"v\": 1000 is no numeric(5,2)"),
        (numeric, "'one'", "column \"v\": \"one\" is no numeric(5,2)"),
        (ColumnType::Text, "5", "column \"v\": 5 is no text"),
        (ColumnType::Text, "'a\\0'", "column \"v\": string is no text"),
        (ColumnType::Text, "'\\ud800'", "column \"v\": string is no text"),
        (ColumnType::Date, "'soon'", "column \"v\": \"soon\" is no date"),
        (ColumnType::Timestamp, "NaN", "column \"v\": NaN is no timestamp without time zone"),
        (ColumnType::Uuid, "'x'", "column \"v\": \"x\" is no uuid"),
        (ColumnType::Bytes, "'00ff'", "column \"v\": \"00ff\" is no bytea"),
        (ColumnType::Array(ItemType::Int16), "[1, 1.5]", "column \"v\": 1.5 is no smallint"),
        (ColumnType::Array(ItemType::Text), "'{a}'", "column \"v\": \"{a}\" is no text[]"),
        (
            ColumnType::Array(ItemType::Int16),
            "Array(65537)",
            "column \"v\": an array has more than 65536 elements",
        ),
        (ColumnType::Text, "({})", "column \"v\": object is no text"),
    ] {
        assert_eq!(returned(ty, code), Err(expected.to_owned()), "{ty:?} of {code}");
    }
}

#[test]
fn columns_may_have_any_name() {
    let name = "__proto__ 'x' \"y\" `z` \\ \n }";
    let script = Script::new(Definition {
        source: "({ init: () => 0, step: (s, row) => { const [k] = Object.keys(row); return s + row[k] },
                    row: (s) => ({ ['__proto__']: s }) })"
            .to_owned(),
        input: columns(&[(name, ColumnType::Int64), ("__proto__", ColumnType::Int64)]),
        output: columns(&[("__proto__", ColumnType::Int64)]),
    })
    .expect("the code is a fold");
    let column: ArrayRef = Arc::new(Int64Array::from(vec![20, 22]));
    let packed = script.fold(&[vec![Arc::clone(&column), column]]).expect("it folds");
    let rows = BinaryArray::from_iter_values([packed.expect("there is a row")]);
    let sum = script.unpack(&rows, 0).expect("packed rows can be unpacked");
    assert_eq!(sum.as_primitive::<Int64Type>().value(0), 42);
}
