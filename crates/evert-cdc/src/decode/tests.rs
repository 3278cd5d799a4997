//! The decoder alone, on messages that a server would not send as well.

use bytes::Bytes;
use evert_model::ColumnType;
use pg_walstream::{ColumnData, ColumnInfo, LogicalReplicationMessage as Message, TupleData};

use super::*;
use crate::definition::SourceColumn;

fn tables() -> Vec<Table> {
    let column = |name: &str, ty, type_oid| SourceColumn {
        name: name.into(),
        ty,
        type_oid,
        type_modifier: -1,
    };
    let columns = vec![column("id", ColumnType::Int32, 23), column("body", ColumnType::Text, 25)];
    let table = |name: &str, key: &[usize]| Table {
        schema: "public".into(),
        name: name.into(),
        columns: columns.clone(),
        key: key.to_vec(),
    };
    vec![table("items", &[0]), table("bag", &[])]
}

fn relation(id: u32, name: &str, identity: u8, columns: &[(&str, u32, bool)]) -> Message {
    let column = |(name, oid, key): &(&str, u32, bool)| {
        ColumnInfo::new(u8::from(*key), (*name).to_owned(), *oid, -1)
    };
    Message::Relation {
        relation_id: id,
        namespace: "public".into(),
        relation_name: name.into(),
        replica_identity: identity,
        columns: columns.iter().map(column).collect(),
    }
}

fn items() -> Message {
    relation(1, "items", b'd', &[("id", 23, true), ("body", 25, false)])
}

fn tuple(cells: &[&str]) -> TupleData {
    let cell = |text: &&str| match *text {
        "NULL" => ColumnData::null(),
        "?" => ColumnData::unchanged(),
        text => ColumnData::text(text.as_bytes().to_vec()),
    };
    TupleData::new(cells.iter().map(cell).collect())
}

fn bytes(message: &Message) -> Bytes {
    pg_walstream::encode_message_to_bytes(message, 1).freeze()
}

fn update(new: &[&str]) -> Message {
    Message::Update { relation_id: 1, old_tuple: None, new_tuple: tuple(new), key_type: None }
}

fn open() -> Decoder {
    let mut decoder = Decoder::new(tables(), Lsn::new(100));
    decoder.begin(Lsn::new(200), 7, 0).unwrap();
    decoder
}

fn said(outcome: Result<Outcome, DecodeError>) -> String {
    outcome.unwrap_err().to_string()
}

#[test]
fn a_table_that_changed_stops_the_stream() {
    for (columns, identity, why) in [
        (&[("id", 23, true)][..], b'd', "column \"body\" is gone"),
        (&[("id", 20, true), ("body", 25, false)], b'd', "column \"id\" has another type"),
        (&[("id", 23, false), ("body", 25, true)], b'i', "key column \"id\" is not part of"),
        (&[("id", 23, false), ("body", 25, false)], b'n', "key column \"id\" is not part of"),
    ] {
        let outcome = open().message(bytes(&relation(1, "items", identity, columns)));
        let text = said(outcome);
        assert!(text.contains("public.items has changed") && text.contains(why), "{text}");
    }
    let bag = relation(2, "bag", b'd', &[("id", 23, false), ("body", 25, false)]);
    assert!(said(open().message(bytes(&bag))).contains("REPLICA IDENTITY is no longer FULL"));
    // Text of another length is still text, and other tables are nobody's business.
    let mut decoder = open();
    let longer = relation(1, "items", b'd', &[("id", 23, true), ("body", 1043, false)]);
    decoder.message(bytes(&longer)).unwrap();
    decoder.message(bytes(&relation(9, "other", b'n', &[]))).unwrap();
    assert_eq!(decoder.take_warnings(), Vec::<String>::new());
}

#[test]
fn messages_out_of_place_are_refused() {
    let insert = Message::Insert { relation_id: 1, tuple: tuple(&["1", "x"]) };
    let mut closed = Decoder::new(tables(), Lsn::new(100));
    assert!(said(closed.message(bytes(&insert))).contains("outside of a transaction"));
    assert!(closed.commit(Lsn::new(1)).is_err());
    assert!(said(open().message(bytes(&insert))).contains("not described"));
    assert!(open().begin(Lsn::new(300), 8, 0).is_err());
    let mut decoder = open();
    decoder.message(bytes(&items())).unwrap();
    let short = Message::Insert { relation_id: 1, tuple: tuple(&["1"]) };
    assert!(said(decoder.message(bytes(&short))).contains("another number of columns"));
    let lacking = Message::Insert { relation_id: 1, tuple: tuple(&["1", "?"]) };
    assert!(said(decoder.message(bytes(&lacking))).contains("leaves a value out"));
    assert!(said(decoder.message(Bytes::new())).contains("not understood"));
}

#[test]
fn a_transaction_that_is_in_the_log_is_skipped() {
    let mut decoder = Decoder::new(tables(), Lsn::new(100));
    decoder.begin(Lsn::new(90), 7, 0).unwrap();
    decoder.message(bytes(&items())).unwrap();
    // It would ask for a row; nobody may have it any more.
    assert!(matches!(decoder.message(bytes(&update(&["1", "?"]))), Ok(Outcome::Taken)));
    assert!(decoder.commit(Lsn::new(100)).unwrap().is_none());
    decoder.begin(Lsn::new(100), 8, 0).unwrap();
    let insert = Message::Insert { relation_id: 1, tuple: tuple(&["1", "x"]) };
    decoder.message(bytes(&insert)).unwrap();
    let finished = decoder.commit(Lsn::new(120)).unwrap().unwrap();
    assert_eq!((finished.records, finished.end), (1, Lsn::new(120)));
}

#[test]
fn a_value_that_was_left_out_is_asked_for_once() {
    let mut decoder = open();
    decoder.message(bytes(&items())).unwrap();
    let Ok(Outcome::Wanted(wanted)) = decoder.message(bytes(&update(&["1", "?"]))) else {
        panic!("the row was not asked for");
    };
    assert_eq!((wanted.table, &wanted.key[0]), (0, &Some(Bytes::from_static(b"1"))));
    let known = [Some(Bytes::from_static(b"1")), Some(Bytes::from(vec![b'b'; 3000]))];
    decoder.supply(wanted, Some(&known)).unwrap();
    // Now the transaction itself knows.
    assert!(matches!(decoder.message(bytes(&update(&["1", "?"]))), Ok(Outcome::Taken)));
    let finished = decoder.commit(Lsn::new(220)).unwrap().unwrap();
    let payload = finished.batches[0].batch.payload(usize::MAX).unwrap();
    for record in finished.batches[0].batch.records(&payload) {
        let envelope: serde_json::Value =
            serde_json::from_slice(record.unwrap().value.unwrap()).unwrap();
        assert_eq!(envelope["after"]["body"].as_str().map(str::len), Some(3000));
    }
}

#[test]
fn garbage_is_an_error_and_never_a_panic() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let old =
        |key| Message::Delete { relation_id: 1, old_tuple: tuple(&["1", "x"]), key_type: key };
    let valid: Vec<Bytes> = [
        items(),
        relation(2, "bag", b'f', &[("id", 23, true), ("body", 25, true)]),
        Message::Insert { relation_id: 1, tuple: tuple(&["1", "some text"]) },
        Message::Insert { relation_id: 2, tuple: tuple(&["NULL", "some text"]) },
        update(&["1", "?"]),
        Message::Update {
            relation_id: 1,
            old_tuple: Some(tuple(&["1", "NULL"])),
            new_tuple: tuple(&["2", "?"]),
            key_type: Some('K'),
        },
        old('K'),
        old('O'),
        Message::Truncate { relation_ids: vec![1, 2], flags: 0 },
    ]
    .iter()
    .map(bytes)
    .collect();
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut decoder = open();
        for message in &valid[..2] {
            decoder.message(message.clone()).unwrap();
        }
        for _ in 0..8 {
            let mut message = valid[random.usize(..valid.len())].to_vec();
            match random.u8(..4) {
                0 => message.truncate(random.usize(..message.len())),
                1 => message = (0..random.usize(..64)).map(|_| random.u8(..)).collect(),
                2 => {
                    let at = random.usize(..message.len());
                    message[at] = random.u8(..);
                }
                _ => {}
            }
            match decoder.message(message.into()) {
                Ok(Outcome::Taken) => {}
                Ok(Outcome::Wanted(wanted)) => decoder.supply(wanted, None).unwrap(),
                Err(_) => refused += 1,
            }
        }
        let _ = decoder.commit(Lsn::new(random.u64(..)));
    }
    assert!(refused > 1000, "only {refused} messages were damaged");
}
