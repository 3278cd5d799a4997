//! Functions of dates, times and intervals: `date_trunc`, `extract`, `age`, `to_char`, ... as
//! Postgres has them.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
    IntervalMonthDayNanoArray, Time64NanosecondArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, DurationMicrosecondType, IntervalMonthDayNanoType, IntervalUnit,
    Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::Result;
use datafusion::logical_expr::{ReturnFieldArgs, ScalarUDF, Volatility};
use datafusion::scalar::ScalarValue;
use evert_model::ColumnType;

use super::moments::times_of_texts;
use super::rows::{
    Call, RowFunction, Run, cast, external, is_integer, is_number, is_text, of, types,
};
use crate::SqlError;
use crate::error::{FEATURE_NOT_SUPPORTED, INVALID_PARAMETER_VALUE};
use crate::times::{self, DAY, Field, HOUR, MINUTE, Number, SECOND, Source, Span};

pub(super) const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
pub(super) const CLOCK: DataType = DataType::Time64(TimeUnit::Nanosecond);

static FUNCTIONS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let clock = RowFunction {
        volatility: Volatility::Volatile,
        ..RowFunction::new("clock_timestamp", |args| none_taken(args, zoned()), clock_timestamp)
    };
    let mut functions = vec![
        RowFunction::new("date_trunc", truncated_type, date_trunc),
        RowFunction::new("extract", extracted_type, extract),
        RowFunction::new("date_part", part_type, extract),
        RowFunction::new("date_bin", bin_type, date_bin),
        RowFunction::new("age", age_type, age),
        RowFunction::new("timezone", timezone_type, timezone),
        RowFunction::new("make_time", make_time_type, make_time),
        RowFunction::new("make_date", make_date_type, make_date),
        RowFunction::new("make_timestamp", |args| six_numbers(args, plain()), make_timestamp),
        RowFunction::new("make_timestamptz", |args| six_numbers(args, zoned()), make_timestamp),
        RowFunction::new("make_interval", make_interval_type, make_interval),
        RowFunction::new("isfinite", isfinite_type, isfinite),
        clock,
    ];
    let justify: [(&'static str, Run); 3] = [
        ("justify_hours", |call| spans(call, Span::justify_hours)),
        ("justify_days", |call| spans(call, Span::justify_days)),
        ("justify_interval", |call| spans(call, Span::justify)),
    ];
    functions.extend(justify.map(|(name, run)| RowFunction::new(name, one_interval, run)));
    functions.into_iter().map(RowFunction::shared).collect()
});

/// The functions, some in the place of DataFusion's of the same name.
pub(crate) fn date_functions() -> &'static [Arc<ScalarUDF>] {
    &FUNCTIONS
}

pub(super) fn plain() -> DataType {
    ColumnType::Timestamp.arrow_type()
}

pub(super) fn zoned() -> DataType {
    ColumnType::TimestampTz.arrow_type()
}

pub(super) fn is_interval(ty: &DataType) -> bool {
    matches!(ty, DataType::Interval(_) | DataType::Duration(_))
}

fn is_time(ty: &DataType) -> bool {
    matches!(ty, DataType::Time32(_) | DataType::Time64(_))
}

fn is_zoned(ty: &DataType) -> bool {
    matches!(ty, DataType::Timestamp(_, Some(_)))
}

type Returned = Result<Option<arrow::datatypes::FieldRef>>;

fn none_taken(args: &ReturnFieldArgs<'_>, ty: DataType) -> Returned {
    if args.arg_fields.is_empty() { of(ty) } else { Ok(None) }
}

fn one_interval(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [ty] if is_interval(ty) || ty.is_null() => of(INTERVAL),
        _ => Ok(None),
    }
}

/// Times of a type as plain values.
pub(super) enum Times {
    Timestamp(TimestampMicrosecondArray, bool),
    Date(Date32Array),
    Clock(Time64NanosecondArray),
    Interval(IntervalMonthDayNanoArray),
    Difference(arrow::array::DurationMicrosecondArray),
    Nulls,
}

impl Times {
    pub(super) fn of(values: &ArrayRef) -> Result<Self, SqlError> {
        let unsupported = |ty: &DataType| {
            SqlError::new(FEATURE_NOT_SUPPORTED, format!("a time of type {ty} is not supported"))
        };
        Ok(match values.data_type() {
            DataType::Timestamp(_, zone) => {
                let zoned = zone.is_some();
                let micros =
                    cast(values, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
                Self::Timestamp(micros.as_primitive::<TimestampMicrosecondType>().clone(), zoned)
            }
            DataType::Date32 | DataType::Date64 => {
                let days = cast(values, &DataType::Date32)?;
                Self::Date(days.as_primitive::<Date32Type>().clone())
            }
            ty if is_time(ty) => {
                let clock = cast(values, &CLOCK)?;
                Self::Clock(clock.as_primitive::<Time64NanosecondType>().clone())
            }
            DataType::Interval(_) => {
                let spans = cast(values, &INTERVAL)?;
                Self::Interval(spans.as_primitive::<IntervalMonthDayNanoType>().clone())
            }
            DataType::Duration(_) => {
                let micros = cast(values, &DataType::Duration(TimeUnit::Microsecond))?;
                Self::Difference(micros.as_primitive::<DurationMicrosecondType>().clone())
            }
            DataType::Null => Self::Nulls,
            other => return Err(unsupported(other)),
        })
    }

    /// The time in a row that has one.
    pub(super) fn source(&self, row: usize) -> Source {
        match self {
            Self::Timestamp(micros, zoned) => Source::Timestamp(micros.value(row), *zoned),
            Self::Date(days) => Source::Date(days.value(row)),
            Self::Clock(nanos) => Source::Clock(nanos.value(row) / 1_000),
            Self::Interval(spans) => Source::Interval(Span::of_arrow(spans.value(row))),
            Self::Difference(micros) => Source::Interval(Span::of_difference(micros.value(row))),
            Self::Nulls => Source::Interval(Span::default()),
        }
    }

    /// Microseconds since 1970.
    fn micros(&self, row: usize) -> Result<i64, SqlError> {
        match self.source(row) {
            Source::Timestamp(micros, _) => Ok(micros),
            Source::Date(days) => times::midnight(days),
            Source::Clock(_) | Source::Interval(_) => Err(times::out_of_range("timestamp")),
        }
    }

    pub(super) fn span(&self, row: usize) -> Span {
        match self.source(row) {
            Source::Interval(span) => span,
            Source::Clock(micros) => Span { micros, ..Span::default() },
            Source::Timestamp(..) | Source::Date(_) => Span::default(),
        }
    }
}

/// Timestamps of a type.
fn stamps(
    call: &Call<'_>,
    micros: impl FnMut(usize) -> Result<Option<i64>, SqlError>,
) -> Result<ArrayRef, SqlError> {
    let array = call.each::<TimestampMicrosecondArray, i64>(micros)?;
    let array = array.as_primitive::<TimestampMicrosecondType>().clone();
    Ok(Arc::new(array.with_data_type(call.ty.clone())))
}

/// Intervals.
pub(super) fn each_span(
    call: &Call<'_>,
    mut span: impl FnMut(usize) -> Result<Span, SqlError>,
) -> Result<ArrayRef, SqlError> {
    let mut spans = IntervalMonthDayNanoArray::builder(call.rows);
    for row in 0..call.rows {
        match call.is_null(row) {
            true => spans.append_null(),
            false => spans.append_value(span(row)?.to_arrow()?),
        }
    }
    Ok(Arc::new(spans.finish()))
}

fn spans(call: &Call<'_>, change: fn(Span) -> Option<Span>) -> Result<ArrayRef, SqlError> {
    let times = Times::of(&call.values[0])?;
    let too_far = || times::out_of_range("interval");
    each_span(call, |row| change(times.span(row)).ok_or_else(too_far))
}

fn truncated_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [unit, ty] if is_text(unit) && is_interval(ty) => of(INTERVAL),
        // A date is the moment at which it begins.
        [unit, DataType::Date32 | DataType::Null] if is_text(unit) => of(zoned()),
        [unit, ty @ DataType::Timestamp(..)] if is_text(unit) => {
            of(if is_zoned(ty) { zoned() } else { plain() })
        }
        [unit, ty, zone] if is_text(unit) && is_zoned(ty) && is_text(zone) => of(zoned()),
        _ => Ok(None),
    }
}

fn date_trunc(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (units, times) = (call.texts(0)?, Times::of(&call.values[1])?);
    let ty = match &times {
        Times::Timestamp(_, false) => "timestamp without time zone",
        Times::Interval(_) | Times::Difference(_) => "interval",
        _ => "timestamp with time zone",
    };
    let mut named = Remembered::default();
    if ty == "interval" {
        return each_span(call, |row| {
            let name = units.value(row);
            times::truncate_span(named.field(name, ty)?, name, times.span(row))
        });
    }
    let zones = match call.values.len() {
        3 => Some(call.texts(2)?),
        _ => None,
    };
    stamps(call, |row| {
        let name = units.value(row);
        let (field, micros) = (named.field(name, ty)?, times.micros(row)?);
        let Some(zones) = &zones else { return times::truncate(field, name, micros).map(Some) };
        let zone = times::zone_asked_for(zones.value(row))?;
        let cut = times::truncate(field, name, times::local(micros, zone)?)?;
        times::universal(cut, zone).map(Some)
    })
}

/// The field that was asked for last, which is mostly the same in every row.
#[derive(Default)]
struct Remembered(Option<(String, Field)>);

impl Remembered {
    fn field(&mut self, name: &str, ty: &str) -> Result<Field, SqlError> {
        match &self.0 {
            Some((last, field)) if last == name => Ok(*field),
            _ => {
                let field = Field::named(name, ty)?;
                self.0 = Some((name.to_owned(), field));
                Ok(field)
            }
        }
    }
}

fn is_any_time(ty: &DataType) -> bool {
    let date = matches!(ty, DataType::Date32 | DataType::Timestamp(..) | DataType::Null);
    date || is_interval(ty) || is_time(ty)
}

/// `extract` is exact; how many digits its fields have is known from their name.
fn extracted_type(args: &ReturnFieldArgs<'_>) -> Returned {
    let [unit, ty] = types(args)[..] else { return Ok(None) };
    let name = args.scalar_arguments.first().copied().flatten();
    let Some(name) = name.and_then(|name| name.try_as_str().flatten()) else { return Ok(None) };
    if !is_text(unit) || !is_any_time(ty) {
        return Ok(None);
    }
    let field = Field::named(name, type_name(ty)).map_err(external)?;
    let (precision, scale) = field.size(*ty == DataType::Date32);
    of(DataType::Decimal128(precision, scale))
}

fn type_name(ty: &DataType) -> &'static str {
    match ty {
        DataType::Date32 => "date",
        DataType::Timestamp(_, None) => "timestamp without time zone",
        ty if is_time(ty) => "time without time zone",
        ty if is_interval(ty) => "interval",
        _ => "timestamp with time zone",
    }
}

fn part_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [unit, ty] if is_text(unit) && is_any_time(ty) => of(DataType::Float64),
        _ => Ok(None),
    }
}

/// Both `extract` and `date_part`, for which a date is a timestamp.
fn extract(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (names, times) = (call.texts(0)?, Times::of(&call.values[1])?);
    let exact = call.ty != &DataType::Float64;
    let ty = type_name(call.values[1].data_type());
    let mut named = Remembered::default();
    let mut number = |row: usize| -> Result<Number, SqlError> {
        let (name, mut source) = (names.value(row), times.source(row));
        if let (Source::Date(days), false) = (source, exact) {
            source = Source::Timestamp(times::midnight(days)?, false);
        }
        named.field(name, ty)?.of(source, name)
    };
    if !exact {
        return call.each::<Float64Array, f64>(|row| number(row).map(|n| Some(n.to_f64())));
    }
    let (precision, scale) = match call.ty {
        DataType::Decimal128(precision, scale) => (*precision, *scale),
        _ => (38, 0),
    };
    let values = call.each::<Decimal128Array, i128>(|row| {
        let number = number(row)?;
        // Fields of fewer digits than the type's have their last ones zero.
        let more = u32::try_from(i32::from(scale) - i32::from(number.scale)).unwrap_or(0);
        let units = number.units.checked_mul(10_i128.pow(more));
        let most = 10_u128.pow(u32::from(precision));
        units
            .filter(|units| units.unsigned_abs() < most)
            .map(Some)
            .ok_or_else(|| times::out_of_range("numeric"))
    })?;
    let values = values.as_primitive::<arrow::datatypes::Decimal128Type>().clone();
    Ok(Arc::new(values.with_data_type(call.ty.clone())))
}

fn bin_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [stride, ty, origin]
            if (is_interval(stride) || is_text(stride))
                && matches!(ty, DataType::Timestamp(..) | DataType::Date32 | DataType::Null)
                && (is_any_time(origin) || is_text(origin)) =>
        {
            let zoned_one = is_zoned(ty) || ty.is_null() || **ty == DataType::Date32;
            of(if zoned_one { zoned() } else { plain() })
        }
        _ => Ok(None),
    }
}

/// The times of an argument, which may be a text of the type `ty`.
fn times_or_text(call: &Call<'_>, argument: usize, ty: &DataType) -> Result<Times, SqlError> {
    let values = &call.values[argument];
    match is_text(values.data_type()) && !values.data_type().is_null() {
        true => Times::of(&times_of_texts(values, ty)?),
        false => Times::of(values),
    }
}

fn date_bin(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let strides = times_or_text(call, 0, &INTERVAL)?;
    let times = Times::of(&call.values[1])?;
    let origins = times_or_text(call, 2, call.ty)?;
    stamps(call, |row| {
        let stride = strides.span(row);
        if stride.months != 0 {
            let message = "timestamps cannot be binned into intervals containing months or years";
            return Err(SqlError::new(FEATURE_NOT_SUPPORTED, message));
        }
        let stride = i64::try_from(stride.length()).unwrap_or(i64::MAX);
        if stride <= 0 {
            let message = "stride must be greater than zero";
            return Err(SqlError::new("22008", message));
        }
        let (micros, origin) = (times.micros(row)?, origins.micros(row)?);
        let since = micros.checked_sub(origin).ok_or_else(|| times::out_of_range("timestamp"))?;
        let cut = micros.checked_sub(since.rem_euclid(stride));
        cut.map(Some).ok_or_else(|| times::out_of_range("timestamp"))
    })
}

fn age_type(args: &ReturnFieldArgs<'_>) -> Returned {
    let is_stamp = |(ty, constant): (&&DataType, &Option<&ScalarValue>)| match ty {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Null => true,
        ty => is_text(ty) && constant.is_some(),
    };
    match types(args).as_slice() {
        both @ [_, _] if both.iter().zip(args.scalar_arguments).all(is_stamp) => of(INTERVAL),
        _ => Ok(None),
    }
}

fn age(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let times = |values: &ArrayRef| match is_text(values.data_type()) {
        true => Times::of(&times_of_texts(values, &zoned())?),
        false => Times::of(values),
    };
    let (later, earlier) = (times(&call.values[0])?, times(&call.values[1])?);
    each_span(call, |row| times::age(later.micros(row)?, earlier.micros(row)?))
}

/// `timezone(zone, time)`, which is `time AT TIME ZONE zone`.
fn timezone_type(args: &ReturnFieldArgs<'_>) -> Returned {
    let is_zone = |ty: &DataType| is_text(ty) || is_interval(ty);
    match types(args).as_slice() {
        [zone, DataType::Timestamp(_, None)] if is_zone(zone) => of(zoned()),
        [zone, DataType::Timestamp(..) | DataType::Date32 | DataType::Null] if is_zone(zone) => {
            of(plain())
        }
        _ => Ok(None),
    }
}

/// By how many microseconds the zone that an interval is is ahead of UTC.
fn ahead_of_utc(zone: Span) -> Result<i64, SqlError> {
    if zone.months != 0 || zone.days != 0 {
        let zone = zone.written();
        let message = format!("interval time zone \"{zone}\" must not include months or days");
        return Err(SqlError::new(INVALID_PARAMETER_VALUE, message));
    }
    Ok(zone.micros / SECOND * SECOND)
}

fn timezone(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let times = Times::of(&call.values[1])?;
    let to_zoned = is_zoned(call.ty);
    if is_interval(call.values[0].data_type()) {
        let zones = Times::of(&call.values[0])?;
        return stamps(call, |row| {
            let (ahead, micros) = (ahead_of_utc(zones.span(row))?, times.micros(row)?);
            let moved = match (micros, to_zoned) {
                (i64::MAX | i64::MIN, _) => Some(micros),
                (_, true) => micros.checked_sub(ahead),
                (_, false) => micros.checked_add(ahead),
            };
            moved.map(Some).ok_or_else(|| times::out_of_range("timestamp"))
        });
    }
    let zones = call.texts(0)?;
    stamps(call, |row| {
        let (zone, micros) = (times::zone_asked_for(zones.value(row))?, times.micros(row)?);
        match to_zoned {
            true => times::universal(micros, zone).map(Some),
            false => times::local(micros, zone).map(Some),
        }
    })
}

fn numbers(args: &ReturnFieldArgs<'_>, count: usize, whole: usize) -> bool {
    let types = types(args);
    types.len() == count
        && types[..whole].iter().all(|ty| is_integer(ty))
        && types[whole..].iter().all(|ty| is_number(ty))
}

fn make_time_type(args: &ReturnFieldArgs<'_>) -> Returned {
    if numbers(args, 3, 2) { of(CLOCK) } else { Ok(None) }
}

fn make_date_type(args: &ReturnFieldArgs<'_>) -> Returned {
    if numbers(args, 3, 3) { of(DataType::Date32) } else { Ok(None) }
}

fn six_numbers(args: &ReturnFieldArgs<'_>, ty: DataType) -> Returned {
    if numbers(args, 6, 5) { of(ty) } else { Ok(None) }
}

fn make_interval_type(args: &ReturnFieldArgs<'_>) -> Returned {
    let count = args.arg_fields.len();
    if count <= 7 && numbers(args, count, count.min(6)) { of(INTERVAL) } else { Ok(None) }
}

fn field_beyond(what: &str, text: String) -> SqlError {
    SqlError::new("22008", format!("{what} field value out of range: {text}"))
}

/// Microseconds of hours, minutes and seconds.
fn clock_of(hours: i64, minutes: i64, seconds: f64) -> Option<i64> {
    let fits =
        (0..=24).contains(&hours) && (0..60).contains(&minutes) && (0.0..=60.0).contains(&seconds);
    let micros =
        || hours * HOUR + minutes * MINUTE + (seconds * SECOND as f64).round_ties_even() as i64;
    fits.then(micros).filter(|micros| *micros <= DAY)
}

fn make_time(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (hours, minutes, seconds) = (call.integers(0)?, call.integers(1)?, call.floats(2)?);
    call.each::<Time64NanosecondArray, i64>(|row| {
        let (hours, minutes, seconds) = (hours.value(row), minutes.value(row), seconds.value(row));
        match clock_of(hours, minutes, seconds) {
            Some(micros) => Ok(Some(micros * 1_000)),
            None => Err(field_beyond("time", format!("{hours}:{minutes:02}:{seconds:02}"))),
        }
    })
}

fn day_of(year: i64, month: i64, day: i64) -> Result<i64, SqlError> {
    // There is no year 0: a negative one is before Christ.
    let counted = if year < 0 { year + 1 } else { year };
    times::days_from(counted, month, day)
        .filter(|_| year != 0)
        .ok_or_else(|| field_beyond("date", format!("{year}-{month:02}-{day:02}")))
}

fn make_date(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let (years, months, days) = (call.integers(0)?, call.integers(1)?, call.integers(2)?);
    call.each::<Date32Array, i32>(|row| {
        let day = day_of(years.value(row), months.value(row), days.value(row))?;
        i32::try_from(day).map(Some).map_err(|_| times::out_of_range("date"))
    })
}

fn make_timestamp(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let whole = (0..5).map(|argument| call.integers(argument)).collect::<Result<Vec<_>, _>>()?;
    let seconds = call.floats(5)?;
    stamps(call, |row| {
        let part = |place: usize| -> i64 { Int64Array::value(&whole[place], row) };
        let day = day_of(part(0), part(1), part(2))?;
        let (hours, minutes, seconds) = (part(3), part(4), seconds.value(row));
        let clock = clock_of(hours, minutes, seconds);
        let clock = clock
            .ok_or_else(|| field_beyond("time", format!("{hours}:{minutes:02}:{seconds:02}")))?;
        let micros = times::micros_from(day, clock);
        micros.map(Some).ok_or_else(|| times::out_of_range("timestamp"))
    })
}

/// Years, months, weeks, days, hours, minutes and seconds, those that are not given 0.
fn make_interval(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let count = call.values.len();
    let whole =
        (0..count.min(6)).map(|argument| call.integers(argument)).collect::<Result<Vec<_>, _>>()?;
    let seconds = if count == 7 { Some(call.floats(6)?) } else { None };
    each_span(call, |row| {
        let part = |place: usize| whole.get(place).map_or(0, |part| part.value(row));
        let seconds = seconds.as_ref().map_or(0.0, |seconds| seconds.value(row));
        let sum = |a: i64, by: i64, b: i64| a.checked_mul(by)?.checked_add(b);
        let span = || {
            let clock = sum(part(4), 60, part(5))?.checked_mul(MINUTE)?;
            let seconds = (seconds * SECOND as f64).round_ties_even();
            let fits = seconds.is_finite() && seconds.abs() < 1e18;
            Some(Span {
                months: i32::try_from(sum(part(0), 12, part(1))?).ok()?,
                days: i32::try_from(sum(part(2), 7, part(3))?).ok()?,
                micros: clock.checked_add(fits.then_some(seconds as i64)?)?,
            })
        };
        span().ok_or_else(|| times::out_of_range("interval"))
    })
}

fn isfinite_type(args: &ReturnFieldArgs<'_>) -> Returned {
    match types(args).as_slice() {
        [ty] if is_any_time(ty) && !is_time(ty) => of(DataType::Boolean),
        _ => Ok(None),
    }
}

fn isfinite(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let times = Times::of(&call.values[0])?;
    call.each::<arrow::array::BooleanArray, bool>(|row| {
        Ok(Some(match times.source(row) {
            Source::Timestamp(micros, _) => !matches!(micros, i64::MAX | i64::MIN),
            Source::Date(days) => !matches!(days, i32::MAX | i32::MIN),
            Source::Clock(_) | Source::Interval(_) => true,
        }))
    })
}

fn clock_timestamp(call: &Call<'_>) -> Result<ArrayRef, SqlError> {
    let now = chrono::Utc::now().timestamp_micros();
    stamps(call, |_| Ok(Some(now)))
}
