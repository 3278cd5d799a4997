//! Changes become records: Debezium's envelope, gathered into batches by table.
//!
//! Owns: the envelope's JSON, the ordinal that numbers a transaction's records, batch sizes.
//! Not here: where changes come from (`copy`, `decode`), and what is done with the batches.
//!
//! Invariants
//! - Batches of one table come out in the order of their changes.
//! - A key that changes is a deletion of the old one and an insertion of the new one.
//!
//! Deletions are not followed by a tombstone: a topic of a source keeps everything by default,
//! and views read the envelope.
//! Source: Debezium's connector documentation, "Change event values".

use std::fmt::Write as _;

use evert_model::{BatchBuilder, Compression, EncodedBatch, Lsn, TimestampMs};

use crate::definition::Table;
use crate::row::{BadValue, Cell, RowWriter, put_string};

/// Uncompressed bytes after which a batch is closed.
const BATCH_BYTES: usize = 256 << 10;

/// What happened to a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'a> {
    /// The initial copy found it.
    Read(&'a [Cell]),
    Insert(&'a [Cell]),
    /// `before` is there if the whole old row is known.
    Update {
        before: Option<&'a [Cell]>,
        after: &'a [Cell],
    },
    /// The whole old row.
    Delete(&'a [Cell]),
    /// A row of which only the key's cells are known.
    DeleteKey(&'a [Cell]),
    /// An update of this key whose new row cannot be known: a bad record on purpose, so that it
    /// shows among the errors.
    Lost(&'a [Cell]),
    /// Every row of the table left.
    Truncate,
}

/// Where a transaction's changes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Where its commit is in the write-ahead log.
    pub(crate) lsn: Lsn,
    /// `None` for the initial copy.
    pub(crate) xid: Option<u32>,
    /// When it committed, in microseconds since 1970-01-01 UTC.
    pub(crate) committed_us: i64,
}

/// A batch for the topic of the table with this index.
#[derive(Clone, Debug)]
pub(crate) struct TableBatch {
    pub(crate) table: usize,
    pub(crate) batch: EncodedBatch,
}

/// Writes the records of one transaction after the other.
pub(crate) struct Envelopes {
    tables: Vec<TableWriter>,
    compression: Compression,
    origin: String,
    committed: TimestampMs,
    ordinal: u64,
    closed: Vec<TableBatch>,
    closed_bytes: usize,
    key: String,
    value: String,
}

struct TableWriter {
    rows: RowWriter,
    keyed: bool,
    /// The table's name as JSON.
    name: String,
    open: Option<BatchBuilder>,
}

impl Envelopes {
    pub(crate) fn new(tables: &[Table], compression: Compression) -> Self {
        let writers = tables.iter().map(|table| {
            let mut name = String::new();
            put_string(&mut name, &table.source_name());
            let keyed = !table.key.is_empty();
            TableWriter { rows: RowWriter::new(table), keyed, name, open: None }
        });
        Self {
            tables: writers.collect(),
            compression,
            origin: String::new(),
            committed: TimestampMs::new(0),
            ordinal: 0,
            closed: Vec::new(),
            closed_bytes: 0,
            key: String::new(),
            value: String::new(),
        }
    }

    /// Starts a transaction. What the one before it left is dropped.
    pub(crate) fn begin(&mut self, origin: Origin) {
        let Origin { lsn, xid, committed_us } = origin;
        self.origin.clear();
        let _ = write!(self.origin, "\"lsn\":\"{}\",\"ts_us\":{committed_us}", lsn.to_postgres());
        if let Some(xid) = xid {
            let _ = write!(self.origin, ",\"txid\":{xid}");
        }
        self.committed = TimestampMs::new(committed_us.div_euclid(1000));
        self.ordinal = 0;
        self.closed.clear();
        self.closed_bytes = 0;
        for table in &mut self.tables {
            table.open = None;
        }
    }

    /// How many records the transaction has so far.
    pub(crate) fn records(&self) -> u64 {
        self.ordinal
    }

    /// The bytes of the batches that are ready to be taken.
    pub(crate) fn closed_bytes(&self) -> usize {
        self.closed_bytes
    }

    /// The batches that are ready; the transaction goes on.
    pub(crate) fn take_closed(&mut self) -> Vec<TableBatch> {
        self.closed_bytes = 0;
        std::mem::take(&mut self.closed)
    }

    /// All batches that are left: the transaction is complete.
    pub(crate) fn finish(&mut self) -> Vec<TableBatch> {
        for table in 0..self.tables.len() {
            self.close(table);
        }
        self.take_closed()
    }

    /// Adds one change of the table with index `table`.
    pub(crate) fn push(&mut self, table: usize, change: Change<'_>) -> Result<(), BadValue> {
        self.key.clear();
        self.value.clear();
        let Self { tables, key, value, .. } = self;
        let writer = &tables[table];
        let rows = &writer.rows;
        value.push_str("{\"before\":");
        match change {
            Change::Update { before: Some(row), .. } | Change::Delete(row) => {
                rows.put_row(value, row)?;
            }
            Change::DeleteKey(row) | Change::Lost(row) => rows.put_key(value, row)?,
            _ => value.push_str("null"),
        }
        value.push_str(",\"after\":");
        match change {
            Change::Read(row) | Change::Insert(row) | Change::Update { after: row, .. } => {
                rows.put_row(value, row)?;
            }
            _ => value.push_str("null"),
        }
        let (op, row) = match change {
            Change::Read(row) => ('r', Some(row)),
            Change::Insert(row) => ('c', Some(row)),
            Change::Update { after: row, .. } | Change::Lost(row) => ('u', Some(row)),
            Change::Delete(row) | Change::DeleteKey(row) => ('d', Some(row)),
            Change::Truncate => ('t', None),
        };
        let _ = write!(
            value,
            ",\"op\":\"{op}\",\"source\":{{{},\"ordinal\":{},\"table\":{}}},\"ts_ms\":{}}}",
            self.origin,
            self.ordinal,
            writer.name,
            self.committed.get(),
        );
        let keyed = row.filter(|_| writer.keyed);
        if let Some(row) = keyed {
            rows.put_key(key, row)?;
        }
        self.append(table, keyed.is_some());
        Ok(())
    }

    fn append(&mut self, table: usize, keyed: bool) {
        let compression = self.compression;
        let open = &mut self.tables[table].open;
        let builder = open.get_or_insert_with(|| BatchBuilder::new(compression));
        let key = keyed.then_some(self.key.as_bytes());
        builder.push(self.committed, key, Some(self.value.as_bytes()), &[]);
        self.ordinal += 1;
        if builder.payload_bytes() >= BATCH_BYTES {
            self.close(table);
        }
    }

    fn close(&mut self, table: usize) {
        let Some(builder) = self.tables[table].open.take() else { return };
        let batch = builder.build();
        self.closed_bytes += batch.bytes().len();
        self.closed.push(TableBatch { table, batch });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use evert_model::ColumnType;

    use super::*;
    use crate::definition::SourceColumn;

    fn table(key: &[usize]) -> Table {
        let column =
            |name: &str, ty| SourceColumn { name: name.into(), ty, type_oid: 0, type_modifier: -1 };
        Table {
            schema: "public".into(),
            name: "t".into(),
            columns: vec![column("id", ColumnType::Int32), column("v", ColumnType::Text)],
            key: key.to_vec(),
        }
    }

    fn records(batches: &[TableBatch]) -> Vec<(Option<String>, String)> {
        let mut found = Vec::new();
        for batch in batches {
            let payload = batch.batch.payload(usize::MAX).unwrap();
            for record in batch.batch.records(&payload) {
                let record = record.unwrap();
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                found.push((record.key.map(text), text(record.value.unwrap())));
            }
        }
        found
    }

    #[test]
    fn every_kind_of_change() {
        let mut envelopes = Envelopes::new(&[table(&[0])], Compression::None);
        let lsn = Lsn::parse("0/16B3748").unwrap();
        envelopes.begin(Origin { lsn, xid: Some(7), committed_us: 1_700_000_000_000_123 });
        let row = [Some(Bytes::from_static(b"1")), Some(Bytes::from_static(b"x"))];
        let key = [Some(Bytes::from_static(b"1")), None];
        for change in [
            Change::Insert(&row),
            Change::Update { before: None, after: &row },
            Change::DeleteKey(&key),
            Change::Lost(&key),
            Change::Truncate,
        ] {
            envelopes.push(0, change).unwrap();
        }
        let tail = |op, n| {
            format!(
                "\"op\":\"{op}\",\"source\":{{\"lsn\":\"0/16B3748\",\"ts_us\":1700000000000123,\
                 \"txid\":7,\"ordinal\":{n},\"table\":\"public.t\"}},\"ts_ms\":1700000000000}}"
            )
        };
        let row = "{\"id\":1,\"v\":\"x\"}";
        let key = Some("{\"id\":1}".to_owned());
        assert_eq!(envelopes.records(), 5);
        assert_eq!(
            records(&envelopes.finish()),
            [
                (key.clone(), format!("{{\"before\":null,\"after\":{row},{}", tail('c', 0))),
                (key.clone(), format!("{{\"before\":null,\"after\":{row},{}", tail('u', 1))),
                (key.clone(), format!("{{\"before\":{{\"id\":1}},\"after\":null,{}", tail('d', 2))),
                (key, format!("{{\"before\":{{\"id\":1}},\"after\":null,{}", tail('u', 3))),
                (None, format!("{{\"before\":null,\"after\":null,{}", tail('t', 4))),
            ]
        );
    }

    #[test]
    fn a_bag_has_no_keys_and_batches_close_by_size() {
        let mut envelopes = Envelopes::new(&[table(&[])], Compression::None);
        envelopes.begin(Origin { lsn: Lsn::new(1), xid: None, committed_us: 0 });
        let row = [Some(Bytes::from_static(b"1")), Some(Bytes::from(vec![b'x'; 1000]))];
        for _ in 0..1000 {
            envelopes.push(0, Change::Read(&row)).unwrap();
        }
        assert!(envelopes.closed_bytes() >= BATCH_BYTES);
        let mut batches = envelopes.take_closed();
        batches.extend(envelopes.finish());
        let all = records(&batches);
        assert_eq!(all.len(), 1000);
        for (n, (key, value)) in all.iter().enumerate() {
            assert_eq!(*key, None);
            assert!(value.contains(&format!("\"ordinal\":{n},")), "{value}");
        }
    }
}
