//! Every type in text and in binary, both ways.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray,
    DurationMicrosecondArray, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    ListArray, NullArray, RecordBatch, StringArray, StringViewArray, StructArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int8Type, Int32Type, Schema};
use evert_model::{Column, ColumnType, RowSchema};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::types::{Timestamp, Type};

use super::TestDoor;

const DAY: i64 = 86_400_000_000;

/// A value and a NULL of every column type, with the value's text.
fn columns() -> Vec<(ColumnType, ArrayRef, &'static str)> {
    let timestamp = || TimestampMicrosecondArray::from(vec![Some(DAY + 1_500_000), None]);
    let decimal = Decimal128Array::from(vec![Some(-1_234_567), None]);
    let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    vec![
        (ColumnType::Boolean, Arc::new(BooleanArray::from(vec![Some(true), None])), "t"),
        (ColumnType::Int16, Arc::new(Int16Array::from(vec![Some(-7), None])), "-7"),
        (ColumnType::Int32, Arc::new(Int32Array::from(vec![Some(i32::MIN), None])), "-2147483648"),
        (
            ColumnType::Int64,
            Arc::new(Int64Array::from(vec![Some(i64::MAX), None])),
            "9223372036854775807",
        ),
        (ColumnType::Float32, Arc::new(Float32Array::from(vec![Some(1.5e-7), None])), "1.5e-07"),
        (ColumnType::Float64, Arc::new(Float64Array::from(vec![Some(0.1), None])), "0.1"),
        (
            ColumnType::Decimal { precision: 10, scale: 2 },
            Arc::new(decimal.with_precision_and_scale(10, 2).expect("legal")),
            "-12345.67",
        ),
        (ColumnType::Text, Arc::new(StringViewArray::from(vec![Some("naïve"), None])), "naïve"),
        (
            ColumnType::Bytes,
            Arc::new(BinaryArray::from_opt_vec(vec![Some(&[0, 255][..]), None])),
            "\\x00ff",
        ),
        (ColumnType::Date, Arc::new(Date32Array::from(vec![Some(-1), None])), "1969-12-31"),
        (ColumnType::Timestamp, Arc::new(timestamp()), "1970-01-02 00:00:01.5"),
        (
            ColumnType::TimestampTz,
            Arc::new(timestamp().with_timezone("UTC")),
            "1970-01-02 00:00:01.5+00",
        ),
        (
            ColumnType::Json,
            Arc::new(StringViewArray::from(vec![Some("{\"a\": 1}"), None])),
            "{\"a\": 1}",
        ),
        (ColumnType::Uuid, Arc::new(StringViewArray::from(vec![Some(uuid), None])), uuid),
    ]
}

async fn door_with(name: &str, batch: RecordBatch) -> TestDoor {
    let door = TestDoor::open().await;
    door.engine.tables.lock().expect("unharmed").insert(name.to_owned(), batch);
    door
}

fn typed_batch() -> RecordBatch {
    let columns = columns();
    let named = columns.iter().enumerate().map(|(index, (ty, ..))| Column {
        name: format!("c{index}"),
        ty: *ty,
        nullable: true,
    });
    let schema = RowSchema { columns: named.collect(), key: Vec::new() }.to_arrow();
    RecordBatch::try_new(schema, columns.into_iter().map(|(_, array, _)| array).collect())
        .expect("columns fit their schema")
}

/// The texts of all values of a table.
async fn texts(door: &TestDoor, name: &str) -> Vec<Vec<Option<String>>> {
    let client = door.client().await;
    let messages = client.simple_query(&format!("TABLE {name}")).await.expect("rows");
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| (0..row.len()).map(|c| row.get(c).map(str::to_owned)).collect()).collect()
}

#[tokio::test]
async fn every_column_type_as_text() {
    let door = door_with("typed", typed_batch()).await;
    let rows = texts(&door, "typed").await;
    for (index, (ty, _, text)) in columns().into_iter().enumerate() {
        assert_eq!(rows[0][index].as_deref(), Some(text), "{ty:?}");
        assert_eq!(rows[1][index], None, "{ty:?}");
    }
}

#[tokio::test]
async fn every_column_type_as_binary() {
    let door = door_with("typed", typed_batch()).await;
    let client = door.client().await;
    let rows = client.query("TABLE typed", &[]).await.expect("rows");
    let types: Vec<_> = rows[0].columns().iter().map(|column| column.type_().clone()).collect();
    assert_eq!(
        types,
        [
            Type::BOOL,
            Type::INT2,
            Type::INT4,
            Type::INT8,
            Type::FLOAT4,
            Type::FLOAT8,
            Type::NUMERIC,
            Type::TEXT,
            Type::BYTEA,
            Type::DATE,
            Type::TIMESTAMP,
            Type::TIMESTAMPTZ,
            Type::JSON,
            Type::UUID,
        ]
    );
    let row = &rows[0];
    assert!(row.get::<_, bool>(0));
    assert_eq!(row.get::<_, i16>(1), -7);
    assert_eq!(row.get::<_, i32>(2), i32::MIN);
    assert_eq!(row.get::<_, i64>(3), i64::MAX);
    assert_eq!(row.get::<_, f32>(4), 1.5e-7);
    assert_eq!(row.get::<_, f64>(5), 0.1);
    assert_eq!(row.get::<_, &str>(7), "naïve");
    assert_eq!(row.get::<_, &[u8]>(8), [0, 255]);
    let date = chrono::NaiveDate::from_ymd_opt(1969, 12, 31).expect("a date");
    assert_eq!(row.get::<_, chrono::NaiveDate>(9), date);
    let moment = chrono::DateTime::from_timestamp_micros(DAY + 1_500_000).expect("a moment");
    assert_eq!(row.get::<_, chrono::NaiveDateTime>(10), moment.naive_utc());
    assert_eq!(row.get::<_, chrono::DateTime<chrono::Utc>>(11), moment);
    assert_eq!(row.get::<_, serde_json::Value>(12), serde_json::json!({"a": 1}));
    assert_eq!(row.get::<_, uuid::Uuid>(13).to_string(), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
    assert!((0..14).filter(|c| *c != 6).all(|column| match column {
        0 => rows[1].get::<_, Option<bool>>(column).is_none(),
        7 => rows[1].get::<_, Option<&str>>(column).is_none(),
        13 => rows[1].get::<_, Option<uuid::Uuid>>(column).is_none(),
        _ => true,
    }));
}

#[tokio::test]
async fn infinity_is_no_date_but_a_word() {
    let batch = RecordBatch::try_from_iter([
        ("d", Arc::new(Date32Array::from(vec![i32::MAX, i32::MIN])) as ArrayRef),
        ("t", Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX, i64::MIN]))),
    ])
    .expect("two columns");
    let door = door_with("ends", batch).await;
    let rows = texts(&door, "ends").await;
    assert_eq!(rows[0], [Some("infinity".into()), Some("infinity".into())]);
    assert_eq!(rows[1], [Some("-infinity".into()), Some("-infinity".into())]);
    let rows = door.client().await.query("TABLE ends", &[]).await.expect("rows");
    type Moment = Timestamp<chrono::NaiveDateTime>;
    assert_eq!(rows[0].get::<_, Moment>(1), Timestamp::PosInfinity);
    assert_eq!(rows[1].get::<_, Moment>(1), Timestamp::NegInfinity);
}

#[tokio::test]
async fn types_of_arrow_that_no_column_has() {
    let words: DictionaryArray<Int8Type> = ["a", "b"].into_iter().collect();
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
    let list_field = Arc::new(Field::new_list_field(DataType::Utf8, true));
    let texts_list = ListArray::new(
        list_field,
        arrow::buffer::OffsetBuffer::from_lengths([3, 0]),
        Arc::new(StringArray::from(vec![Some("a b"), Some("q\"\\"), Some("NULL")])),
        None,
    );
    let point = StructArray::from(vec![(
        Arc::new(Field::new("x", DataType::Int32, true)),
        Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef,
    )]);
    let batch = RecordBatch::try_from_iter([
        ("dictionary", Arc::new(words) as ArrayRef),
        ("list", Arc::new(list)),
        ("texts", Arc::new(texts_list)),
        ("struct", Arc::new(point)),
        ("null", Arc::new(NullArray::new(2))),
        ("unsigned", Arc::new(UInt64Array::from(vec![u64::MAX, 0]))),
        ("nanos", Arc::new(TimestampNanosecondArray::from(vec![1_500, 0]))),
        ("duration", Arc::new(DurationMicrosecondArray::from(vec![90_000_000, 0]))),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![3_600_000_000, 0]))),
    ])
    .expect("columns of two rows");
    let door = door_with("odd", batch).await;
    let rows = texts(&door, "odd").await;
    let first: Vec<_> = rows[0].iter().map(|text| text.as_deref().unwrap_or("-")).collect();
    assert_eq!(
        first,
        [
            "a",
            "{1,NULL}",
            r#"{"a b","q\"\\","NULL"}"#,
            "{x: 1}",
            "-",
            "18446744073709551615",
            "1970-01-01 00:00:00.000001",
            "00:01:30",
            "01:00:00",
        ]
    );
    assert_eq!((&rows[1][1], rows[1][2].as_deref()), (&None, Some("{}")));
    let row = &door.client().await.query("TABLE odd", &[]).await.expect("rows")[0];
    assert_eq!(row.get::<_, &str>(0), "a");
    assert_eq!(row.get::<_, Vec<Option<i32>>>(1), [Some(1), None]);
    assert_eq!(row.get::<_, Vec<&str>>(2), ["a b", "q\"\\", "NULL"]);
}

#[tokio::test]
async fn parameters_come_back_as_they_went() {
    let door = TestDoor::open().await;
    let client = door.client().await;
    let types = [
        Type::BOOL,
        Type::INT2,
        Type::INT4,
        Type::INT8,
        Type::FLOAT4,
        Type::FLOAT8,
        Type::TEXT,
        Type::BYTEA,
        Type::DATE,
        Type::TIMESTAMP,
        Type::TIMESTAMPTZ,
        Type::INT4_ARRAY,
    ];
    let echo = client.prepare_typed("ECHO 12", &types).await.expect("prepares");
    let moment = chrono::DateTime::from_timestamp_micros(-DAY - 1).expect("a moment");
    let (date, naive) = (moment.date_naive(), moment.naive_utc());
    let row = client
        .query_one(
            &echo,
            &[
                &true,
                &-1_i16,
                &2_i32,
                &i64::MIN,
                &1.5_f32,
                &-0.1_f64,
                &"text",
                &vec![1_u8, 0],
                &date,
                &naive,
                &moment,
                &vec![Some(1), None],
            ],
        )
        .await
        .expect("a row");
    assert!(row.get::<_, bool>(0));
    assert_eq!(row.get::<_, i16>(1), -1);
    assert_eq!(row.get::<_, i32>(2), 2);
    assert_eq!(row.get::<_, i64>(3), i64::MIN);
    assert_eq!(row.get::<_, f32>(4), 1.5);
    assert_eq!(row.get::<_, f64>(5), -0.1);
    assert_eq!(row.get::<_, &str>(6), "text");
    assert_eq!(row.get::<_, &[u8]>(7), [1, 0]);
    assert_eq!(row.get::<_, chrono::NaiveDate>(8), date);
    assert_eq!(row.get::<_, chrono::NaiveDateTime>(9), naive);
    assert_eq!(row.get::<_, chrono::DateTime<chrono::Utc>>(10), moment);
    assert_eq!(row.get::<_, Vec<Option<i32>>>(11), [Some(1), None]);
    let nothing = client.query_one("ECHO 1", &[&Option::<&str>::None]).await.expect("a row");
    assert_eq!(nothing.get::<_, Option<&str>>(0), None);
}

#[tokio::test]
async fn an_inferred_numeric_is_not_rounded_to_its_context() {
    let schema = Schema::new(vec![Field::new("x", DataType::Int32, true)]);
    let door = door_with("unused", RecordBatch::new_empty(Arc::new(schema))).await;
    let client = door.client().await;
    let statement = client.prepare("ECHO 1 DECIMAL").await.expect("prepares");
    assert_eq!(statement.params(), [Type::NUMERIC]);
    let modifier = statement.columns()[0].type_modifier();
    assert_eq!(modifier & 0xffff, 10 + 4, "ten digits after the point");
}
