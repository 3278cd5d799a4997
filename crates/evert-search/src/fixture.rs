//! Payments in an index in memory, for tests.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Int32Array, Int64Builder, ListBuilder,
    RecordBatch, StringViewArray, StringViewBuilder, TimestampMicrosecondArray,
};
use chrono::DateTime;
use serde_json::Value;
use tantivy::{Index, Searcher};

use crate::analyzer;
use crate::document::{DocumentWriter, document};
use crate::mapping::Mapping;
use crate::mapping::tests::{mapping, payments};
use crate::request::Request;
use crate::search::Target;

pub(crate) struct Fixture {
    pub(crate) mapping: Mapping,
    pub(crate) searcher: Searcher,
}

/// (id, email, status, cents, attempts, live, paid at)
type Payment = (&'static str, &'static str, &'static str, i128, Option<i32>, bool, &'static str);

const PAYMENTS: [Payment; 6] = [
    ("p1", "riya.sharma@example.com", "failed", 1250, Some(1), true, "2024-01-15T10:00:00.123456Z"),
    ("p2", "riya.sharma@example.com", "captured", 9900, Some(2), true, "2024-01-16T10:30:00Z"),
    (
        "p3",
        "arjun@shop.test payment failed twice",
        "failed",
        500,
        Some(3),
        true,
        "2024-02-01T00:00:00Z",
    ),
    ("p4", "meera rao", "captured", 100_000, None, false, "2024-02-29T23:59:59.999Z"),
    ("p5", "rao meera", "pending", 42, Some(5), true, "2024-03-10T12:00:00Z"),
    ("p6", "Riya Kapoor", "captured", 1250, Some(6), false, "2024-03-31T20:00:00Z"),
];

impl Fixture {
    /// Two segments of payments.
    pub(crate) fn new() -> Self {
        let mapping = mapping();
        let index = Index::create_in_ram(mapping.schema.clone());
        analyzer::register(index.tokenizers());
        let mut writer = index.writer_with_num_threads(1, 15 << 20).unwrap();
        let documents = DocumentWriter::new(&mapping);
        for part in [&PAYMENTS[..4], &PAYMENTS[4..]] {
            let rows = rows(part);
            let (mut id, mut source) = (String::new(), String::new());
            for row in 0..rows.num_rows() {
                documents.key(&rows, row, &mut id);
                documents.source(&rows, row, &mut source);
                writer.add_document(document(&mapping, &rows, row, &id, &source)).unwrap();
            }
            writer.commit().unwrap();
        }
        writer.wait_merging_threads().unwrap();
        let searcher = index.reader().unwrap().searcher();
        Self { mapping, searcher }
    }

    pub(crate) fn target(&self) -> Target<'_> {
        let now = micros("2024-04-01T00:00:00Z");
        Target { index: "payments", mapping: &self.mapping, searcher: &self.searcher, now }
    }

    /// The answer to a request.
    pub(crate) fn search(&self, body: &Value) -> Value {
        let request = Request::parse(body.to_string().as_bytes(), &[]).expect("a request");
        let answer = self.target().search(&request).expect("an answer");
        serde_json::from_str(&answer).expect("JSON")
    }

    /// The ids that a query finds, sorted.
    pub(crate) fn ids(&self, query: &Value) -> Vec<String> {
        let mut ids = ids(&self.search(&serde_json::json!({ "query": query })));
        ids.sort();
        ids
    }

    /// What is wrong with a query.
    pub(crate) fn refusal(&self, body: &Value) -> (u16, String) {
        let refused = Request::parse(body.to_string().as_bytes(), &[])
            .and_then(|request| self.target().search(&request));
        let error = refused.expect_err("it is refused");
        (error.status, format!("{}: {}", error.kind, error.reason))
    }
}

/// The ids of an answer, in its order.
pub(crate) fn ids(answer: &Value) -> Vec<String> {
    let hits = answer["hits"]["hits"].as_array().expect("hits");
    hits.iter().map(|hit| hit["_id"].as_str().unwrap().to_owned()).collect()
}

fn micros(text: &str) -> i64 {
    DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
}

fn rows(payments_of: &[Payment]) -> RecordBatch {
    let text = |of: fn(&Payment) -> &str| -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(payments_of.iter().map(of)))
    };
    let amounts = Decimal128Array::from_iter_values(payments_of.iter().map(|it| it.3));
    let paid = payments_of.iter().map(|it| micros(it.6));
    // p3 has the tags "of p3" and "vip lounge", and parts of 1 and 499 cents.
    let mut tags = ListBuilder::new(StringViewBuilder::new());
    let mut parts = ListBuilder::new(Int64Builder::new());
    for payment in payments_of {
        let vip = if payment.4 > Some(2) { "vip lounge" } else { "plain" };
        tags.append_value([Some(format!("of {}", payment.0)), None, Some(vip.to_owned())]);
        parts.append_value([Some(1), Some(payment.3 as i64 - 1)]);
    }
    let columns: Vec<ArrayRef> = vec![
        text(|it| it.0),
        text(|it| it.1),
        text(|it| it.2),
        Arc::new(amounts.with_precision_and_scale(12, 2).unwrap()),
        Arc::new(Int32Array::from_iter(payments_of.iter().map(|it| it.4))),
        Arc::new(BooleanArray::from_iter(payments_of.iter().map(|it| Some(it.5)))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(paid).with_timezone("UTC")),
        Arc::new(BinaryArray::from_iter_values(payments_of.iter().map(|_| b"x"))),
        Arc::new(tags.finish()),
        Arc::new(parts.finish()),
    ];
    RecordBatch::try_new(payments().to_arrow(), columns).unwrap()
}
