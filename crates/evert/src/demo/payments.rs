//! The payments of the demo: merchants, and payments that are captured, fail and are refunded.

use std::fmt::Write as _;

use evert_model::{BatchBuilder, Compression, EncodedBatch, TimestampMs};

const CITIES: [&str; 6] = ["Bengaluru", "Mumbai", "Delhi", "Chennai", "Pune", "Kolkata"];
const NAMES: [&str; 8] =
    ["riya.", "arjun.", "meera.", "kabir.", "anaya.", "vihaan.", "isha.", "rohan."];
const MERCHANTS: u32 = 60;
const CUSTOMERS: u64 = 5000;
/// Of a hundred new payments, how many are captured; the rest fail.
const CAPTURED_PERCENT: u32 = 88;
/// One fact in this many refunds an earlier payment.
const REFUND_EVERY: u32 = 25;
/// How many captured payments are remembered as refundable.
const REFUNDABLE_MAX: usize = 10_000;

/// The statements that set the demo up.
pub(super) const SETUP: [&str; 8] = [
    "CREATE TABLE IF NOT EXISTS merchants (
       merchant_id TEXT PRIMARY KEY, name TEXT, city TEXT)",
    "CREATE TABLE IF NOT EXISTS payments (
       payment_id BIGINT PRIMARY KEY, merchant_id TEXT, amount NUMERIC(12,2), status TEXT,
       email TEXT, card_hash TEXT, card_last4 TEXT, paid_at TIMESTAMP)",
    // The dashboard, and rows by key for applications.
    "CREATE MATERIALIZED VIEW IF NOT EXISTS merchant_today AS
       SELECT merchant_id, count(*) AS payments, sum(amount) AS captured
       FROM payments WHERE status = 'captured' AND paid_at::date = current_date
       GROUP BY merchant_id",
    "CREATE MATERIALIZED VIEW IF NOT EXISTS by_city AS
       SELECT m.city,
              count(*) FILTER (WHERE p.status = 'captured') AS captured,
              sum(CASE WHEN p.status = 'captured' THEN p.amount ELSE 0 END) AS captured_amount,
              count(*) FILTER (WHERE p.status = 'failed') AS failed,
              sum(CASE WHEN p.status = 'failed' THEN p.amount ELSE 0 END) AS failed_amount,
              count(*) FILTER (WHERE p.status = 'refunded') AS refunded,
              sum(CASE WHEN p.status = 'refunded' THEN p.amount ELSE 0 END) AS refunded_amount
       FROM payments p JOIN merchants m ON p.merchant_id = m.merchant_id
       GROUP BY m.city",
    // Fraud: rows leave as time passes.
    "CREATE MATERIALIZED VIEW IF NOT EXISTS card_last_minute AS
       SELECT card_hash, card_last4, count(*) AS payments, sum(amount) AS amount
       FROM payments WHERE paid_at > now() - INTERVAL '60 seconds'
       GROUP BY card_hash, card_last4",
    // Settlement: read as of a moment.
    "CREATE MATERIALIZED VIEW IF NOT EXISTS settlement AS
       SELECT merchant_id, sum(amount) AS captured
       FROM payments WHERE status = 'captured' GROUP BY merchant_id",
    "CREATE SEARCH INDEX IF NOT EXISTS payments_search
       ON payments (email, payment_id, card_last4, status, paid_at) WITH (email = 'text')",
    "CREATE ARCHIVE IF NOT EXISTS payments_archive ON payments TO 'payments'",
];

/// What the demo folds from the log, and verifies at the end.
pub(super) const VIEWS: [&str; 6] = [
    "merchant_today",
    "by_city",
    "card_last_minute",
    "settlement",
    "payments_search",
    "payments_archive",
];
/// Those of them that the fold keeps: their freshness is measured.
pub(super) const FOLDED: usize = 4;

/// The INSERT that makes the merchants.
pub(super) fn merchants_sql() -> String {
    let rows = (0..MERCHANTS).map(|id| {
        let city = CITIES[id as usize % CITIES.len()];
        format!("('m{id}', 'Merchant {id}', '{city}')")
    });
    format!("INSERT INTO merchants VALUES {}", rows.collect::<Vec<_>>().join(", "))
}

struct Captured {
    id: u64,
    merchant: u32,
    cents: u32,
    micros: i64,
}

/// Makes payments, the same from the same seed.
pub(super) struct Payments {
    random: fastrand::Rng,
    next_id: u64,
    refundable: Vec<Captured>,
    text: String,
}

impl Payments {
    /// Payments from `first_id` on.
    pub(super) fn new(seed: u64, first_id: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { random, next_id: first_id, refundable: Vec::new(), text: String::new() }
    }

    /// `count` facts at the time `micros` (since 1970-01-01 UTC), as one batch.
    pub(super) fn batch(&mut self, count: u32, micros: i64) -> EncodedBatch {
        let mut batch = BatchBuilder::new(Compression::None);
        for _ in 0..count {
            let refund = self.random.u32(..REFUND_EVERY) == 0 && !self.refundable.is_empty();
            let id = if refund { self.refund() } else { self.pay(micros) };
            let key = id.to_string();
            let timestamp = TimestampMs::new(micros / 1000);
            batch.push(timestamp, Some(key.as_bytes()), Some(self.text.as_bytes()), &[]);
        }
        batch.build()
    }

    fn pay(&mut self, micros: i64) -> u64 {
        let payment = Captured {
            id: self.next_id,
            merchant: self.random.u32(..MERCHANTS),
            cents: self.random.u32(5_000..2_000_000),
            micros,
        };
        self.next_id += 1;
        let captured = self.random.u32(..100) < CAPTURED_PERCENT;
        self.write(&payment, if captured { "captured" } else { "failed" });
        let id = payment.id;
        if captured && self.refundable.len() < REFUNDABLE_MAX {
            self.refundable.push(payment);
        }
        id
    }

    fn refund(&mut self) -> u64 {
        let index = self.random.usize(..self.refundable.len());
        let payment = self.refundable.swap_remove(index);
        self.write(&payment, "refunded");
        payment.id
    }

    fn write(&mut self, payment: &Captured, status: &str) {
        let Captured { id, merchant, cents, micros } = payment;
        // The same customer, and so the same card, for every payment of an id.
        let customer = (id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) % CUSTOMERS;
        self.text.clear();
        write!(
            self.text,
            "{{\"payment_id\":{id},\"merchant_id\":\"m{merchant}\",\"amount\":{}.{:02},\
             \"status\":\"{status}\",\"email\":\"{}{customer}@example.com\",\
             \"card_hash\":\"{:016x}\",\"card_last4\":\"{:04}\",\"paid_at\":\"{}\"}}",
            cents / 100,
            cents % 100,
            NAMES[customer as usize % NAMES.len()],
            customer.wrapping_mul(0x1000_0000_01B3),
            customer % 10_000,
            timestamp(*micros),
        )
        .expect("writing into a string cannot fail");
    }
}

fn timestamp(micros: i64) -> impl std::fmt::Display {
    chrono::DateTime::from_timestamp_micros(micros)
        .unwrap_or_default()
        .format("%Y-%m-%dT%H:%M:%S%.6f")
}
