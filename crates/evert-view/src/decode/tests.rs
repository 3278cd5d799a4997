//! Records in, rows out: what each format takes and refuses.

use arrow::util::pretty::pretty_format_batches;
use evert_model::{
    BatchBuilder, Column, ColumnType, Compression, ItemType, RowSchema, TimestampMs, TopicId,
};

use super::*;
use crate::Name;
use crate::encode::{RowChange, encode};
use crate::{Defaults, Lengths};

fn schema(columns: &[(&str, ColumnType)], key: &[usize]) -> RowSchema {
    let columns = columns
        .iter()
        .map(|(name, ty)| Column { name: (*name).into(), ty: *ty, nullable: true })
        .collect();
    RowSchema { columns, key: key.to_vec() }
}

fn relation(kind: RelationKind, format: Format, schema: RowSchema) -> Relation {
    Relation {
        name: Name::public("t"),
        kind,
        schema,
        topic: "t".into(),
        topic_id: TopicId::new(uuid::Uuid::nil()),
        format,
        conflict_is_error: false,
        lengths: Lengths::new(),
        defaults: Defaults::new(),
        source: None,
        started_from: None,
    }
}

type Fact<'a> = (Option<&'a str>, Option<&'a str>);

/// What the records do, and why those that are bad are.
fn decode(relation: &Relation, records: &[Fact<'_>]) -> (Vec<Event>, Vec<String>) {
    let mut batch = BatchBuilder::new(Compression::None);
    for (key, value) in records {
        let (key, value) = (key.map(str::as_bytes), value.map(str::as_bytes));
        batch.push(TimestampMs::new(0), key, value, &[]);
    }
    let batch = batch.build();
    let payload = batch.payload(1 << 20).expect("reads");
    let mut decoder = Decoder::new(relation);
    let reasons = batch
        .records(&payload)
        .filter_map(|record| decoder.push(&record.expect("a good batch")).err());
    let reasons = reasons.collect();
    (decoder.take(), reasons)
}

fn show(events: &[Event]) -> String {
    let lines = events.iter().map(|event| match event {
        Event::Rows(rows) => table(rows),
        Event::Upsert(batch) => format!("{}\nlive {:?}", table(&batch.rows), bits(&batch.live)),
        Event::Change(delta) => {
            format!("{}\nweights {:?}", table(&delta.rows), delta.weights.values())
        }
        Event::Truncate => "truncate".into(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn table(rows: &RecordBatch) -> String {
    pretty_format_batches(std::slice::from_ref(rows)).expect("prints").to_string()
}

fn bits(live: &BooleanArray) -> Vec<bool> {
    live.iter().map(|bit| bit == Some(true)).collect()
}

#[test]
fn a_stream_takes_every_type() {
    use ColumnType::*;
    let columns = [
        ("b", Boolean),
        ("i2", Int16),
        ("i4", Int32),
        ("i8", Int64),
        ("f4", Float32),
        ("f8", Float64),
        ("n", Decimal { precision: 8, scale: 2 }),
        ("s", Text),
        ("y", Bytes),
        ("d", Date),
        ("ts", Timestamp),
        ("tz", TimestampTz),
        ("j", Json),
        ("u", Uuid),
    ];
    let stream = relation(RelationKind::Stream, Format::Json, schema(&columns, &[]));
    let value = r#" {"b":true,"i2":-7,"i4":1,"i8":9007199254740993,"f4":1.5,"f8":"Infinity",
        "n":"12.345","s":"a\"\u00e9","y":"AQI=","d":"2024-02-29","ts":"2024-01-02 03:04:05",
        "tz":1700000000000,"j":{"a":[1, 2]},"u":"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "unknown":[1]} "#;
    let (events, reasons) = decode(&stream, &[(None, Some(value)), (None, Some("{}"))]);
    assert_eq!(reasons, Vec::<String>::new());
    let [Event::Rows(rows)] = &events[..] else { panic!("{}", show(&events)) };
    assert_eq!(rows.num_rows(), 2);
    let text = table(rows);
    for cell in [
        "9007199254740993",
        "inf",
        "12.35",
        "a\"é",
        "0102",
        "2024-02-29",
        "2024-01-02T03:04:05",
        "2023-11-14T22:13:20Z",
        "{\"a\":[1, 2]}",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    ] {
        assert!(text.contains(cell), "{cell} in\n{text}");
    }
}

#[test]
fn bad_records_say_why() {
    use ColumnType::*;
    let mut schema = schema(&[("id", Int64), ("n", Int16), ("at", Timestamp)], &[]);
    schema.columns[0].nullable = false;
    let stream = relation(RelationKind::Stream, Format::Json, schema);
    let values = [
        r#"{"id":1"#,
        r#"{"id":1} x"#,
        "[1]",
        "",
        r#"{"id":"1"}"#,
        r#"{"id":1.5}"#,
        r#"{"n":1}"#,
        r#"{"id":1,"n":40000}"#,
        r#"{"id":1,"at":"soon"}"#,
        r#"{"id":1}"#,
    ];
    let records: Vec<Fact<'_>> = values.iter().map(|value| (None, Some(*value))).collect();
    let (events, reasons) = decode(&stream, &records);
    assert_eq!(reasons.len(), 9, "{reasons:#?}");
    assert!(reasons[4].contains("column \"id\": string \"1\" is not bigint"), "{reasons:#?}");
    assert!(reasons[6].contains("\"id\" is NULL or missing"), "{reasons:#?}");
    let [Event::Rows(rows)] = &events[..] else { panic!("one good row") };
    assert_eq!(rows.num_rows(), 1);
}

#[test]
fn a_table_follows_its_keys() {
    let table = relation(
        RelationKind::Table,
        Format::Json,
        schema(&[("id", ColumnType::Int64), ("v", ColumnType::Text)], &[0]),
    );
    let (events, reasons) = decode(
        &table,
        &[
            (Some("1"), Some(r#"{"id":1,"v":"a"}"#)),
            (Some("1"), None),
            (Some("2"), Some(r#"{"id":3,"v":"b"}"#)),
            (Some("4"), Some("nonsense")),
            (Some("x"), Some(r#"{"id":5,"v":"b"}"#)),
            (None, Some(r#"{"id":6,"v":"b"}"#)),
        ],
    );
    // The key of a bad record loses its row; a record without a usable key does nothing.
    let [Event::Upsert(batch)] = &events[..] else { panic!("{}", show(&events)) };
    assert_eq!(bits(&batch.live), [true, false, false, false], "{}", show(&events));
    assert_eq!(reasons.len(), 4, "{reasons:#?}");
}

#[test]
fn a_text_with_nul_is_no_text() {
    let columns = [("s", ColumnType::Text), ("a", ColumnType::Array(ItemType::Text))];
    let columns = [&columns[..], &[("j", ColumnType::Json)]].concat();
    let table = relation(RelationKind::Table, Format::Json, schema(&columns, &[0]));
    let (events, reasons) = decode(
        &table,
        &[
            (Some("x"), Some(r#"{"s":"x","a":["a\u0000"]}"#)),
            (Some("a\0b"), Some(r#"{"s":"a\u0000b"}"#)),
            (Some("y"), Some("{\"s\":\"y\",\"j\":\"\0\"}")),
            // The escape is text of JSON, as it is to Postgres's type json.
            (Some("z"), Some(r#"{"s":"z","j":{"k":"\u0000"}}"#)),
        ],
    );
    let [Event::Upsert(batch)] = &events[..] else { panic!("{}", show(&events)) };
    assert_eq!(bits(&batch.live), [false, false, true], "{}", show(&events));
    assert_eq!(reasons[0], "column \"a\": a text cannot hold U+0000");
    assert_eq!(reasons[1], "the record's key: a text cannot hold U+0000");
    assert_eq!(reasons.len(), 3, "{reasons:#?}");
}

#[test]
fn elements_of_an_array_are_of_its_type() {
    let columns = [("a", ColumnType::Array(ItemType::Int16))];
    let stream = relation(RelationKind::Stream, Format::Json, schema(&columns, &[]));
    let values =
        [r#"{"a":[1,40000]}"#, r#"{"a":"{1}"}"#, r#"{"a":[[1]]}"#, r#"{"a":[1,]}"#, r#"{"a":{}}"#];
    let records: Vec<Fact<'_>> = values.iter().map(|value| (None, Some(*value))).collect();
    let (events, reasons) = decode(&stream, &records);
    assert!(events.is_empty(), "{}", show(&events));
    let expected = "column \"a\": array [1,40000] is not smallint[]: number 40000 is not smallint";
    assert_eq!(reasons[0], expected);
    assert_eq!(reasons[1], "column \"a\": string \"{1}\" is not smallint[]");
    assert_eq!(reasons.len(), 5, "{reasons:#?}");
}

#[test]
fn a_key_may_be_an_array() {
    let columns = [("a", ColumnType::Array(ItemType::Text)), ("n", ColumnType::Int64)];
    let table = relation(RelationKind::Table, Format::Json, schema(&columns, &[0]));
    let (events, reasons) = decode(
        &table,
        &[
            (Some(r#"["x","y"]"#), Some(r#"{"a":["x","y"],"n":1}"#)),
            (Some(r#"["x"]"#), None),
            (Some(r#"["x"] y"#), None),
            (Some("x"), None),
            (Some(&"[".repeat(1 << 16)), None),
        ],
    );
    let [Event::Upsert(batch)] = &events[..] else { panic!("{}", show(&events)) };
    assert_eq!(bits(&batch.live), [true, false], "{}", show(&events));
    assert_eq!(reasons.len(), 3, "{reasons:#?}");
}

#[test]
fn debezium_images() {
    let columns = [("id", ColumnType::Int64), ("v", ColumnType::Json)];
    let values = [
        r#"{"before":null,"after":{"id":1,"v":"{\"a\":1}"},"op":"r","source":{"lsn":"0/1"}}"#,
        r#"{"before":{"id":1},"after":{"id":2,"v":null},"op":"u"}"#,
        r#"{"op":"t"}"#,
        r#"{"before":{"id":2,"v":null},"after":null,"op":"d"}"#,
        r#"{"before":null,"after":null,"op":"c"}"#,
    ];
    let records: Vec<Fact<'_>> = values.iter().map(|value| (None, Some(*value))).collect();

    let table = relation(RelationKind::Table, Format::Debezium, schema(&columns, &[0]));
    let (events, reasons) = decode(&table, &records);
    let [Event::Upsert(before), Event::Truncate, Event::Upsert(after)] = &events[..] else {
        panic!("{}", show(&events))
    };
    assert_eq!(bits(&before.live), [true, false, true], "{}", show(&events));
    assert_eq!(bits(&after.live), [false]);
    assert_eq!(reasons.len(), 1, "{reasons:#?}");

    let bag = relation(RelationKind::Bag, Format::Debezium, schema(&columns, &[]));
    let (events, _) = decode(&bag, &records);
    let [Event::Change(before), Event::Truncate, Event::Change(_)] = &events[..] else {
        panic!("{}", show(&events))
    };
    assert_eq!(before.weights.values(), &[1, -1, 1]);
}

#[test]
fn what_is_encoded_is_decoded_to_the_same_rows() {
    use ColumnType::*;
    let columns = [
        ("id", Int64),
        ("k", Text),
        ("b", Boolean),
        ("f4", Float32),
        ("f8", Float64),
        ("n", Decimal { precision: 8, scale: 3 }),
        ("y", Bytes),
        ("d", Date),
        ("ts", Timestamp),
        ("tz", TimestampTz),
        ("j", Json),
        ("u", Uuid),
        ("at", Array(ItemType::Text)),
        ("an", Array(ItemType::Decimal { precision: 5, scale: 1 })),
        ("af", Array(ItemType::Float64)),
        ("ad", Array(ItemType::TimestampTz)),
        ("ay", Array(ItemType::Bytes)),
    ];
    let values = [
        r#"{"id":-1,"k":"a \"b\"\n","b":false,"f4":0.1,"f8":"NaN","n":"-0.005","y":"","d":"infinity",
            "ts":"-infinity","tz":"1969-12-31T23:59:59.999999Z","j":{"x":"\""},
            "u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "at": [ "", null, "[\"",",}"],
            "an":[1.25,"-3"],"af":["NaN",-0.0,1e300],"ad":["infinity","2026-11-21T00:00:00Z"],
            "ay":["AQI="]}"#,
        r#"{"id":2,"k":"","at":[],"an":[null]}"#,
    ];
    for key in [vec![0], vec![0, 1]] {
        let keyed = relation(RelationKind::Table, Format::Json, schema(&columns, &key));
        let mut wide = keyed.clone();
        wide.kind = RelationKind::Stream;
        let records: Vec<Fact<'_>> = values.iter().map(|value| (None, Some(*value))).collect();
        let (events, reasons) = decode(&wide, &records);
        assert_eq!(reasons, Vec::<String>::new());
        let [Event::Rows(rows)] = &events[..] else { panic!("{}", show(&events)) };

        let changes = [RowChange::Put(rows.clone()), RowChange::Delete(rows.clone())];
        let parts = encode(&keyed, 1, 0, TimestampMs::new(0), &changes).expect("encodes");
        let mut decoder = Decoder::new(&keyed);
        for part in &parts {
            let payload = part.batch.payload(1 << 20).expect("reads");
            for record in part.batch.records(&payload) {
                decoder.push(&record.expect("a good batch")).expect("a good record");
            }
        }
        let events = decoder.take();
        let [Event::Upsert(batch)] = &events[..] else { panic!("{}", show(&events)) };
        assert_eq!(bits(&batch.live), [true, true, false, false]);
        let back = batch.rows.slice(0, 2);
        assert_eq!(table(&back), table(rows));
    }
}

#[test]
fn a_key_that_is_no_number_is_a_key() {
    let columns = [("f", ColumnType::Float64), ("v", ColumnType::Int32)];
    let table = relation(RelationKind::Table, Format::Json, schema(&columns, &[0]));
    let records = [
        (Some("NaN"), Some(r#"{"f":"NaN","v":1}"#)),
        (Some("Infinity"), Some(r#"{"f":"Infinity"}"#)),
    ];
    let (events, reasons) = decode(&table, &records);
    assert_eq!(reasons, Vec::<String>::new());
    let [Event::Upsert(batch)] = &events[..] else { panic!("{}", show(&events)) };
    assert_eq!(bits(&batch.live), [true, true]);
}
