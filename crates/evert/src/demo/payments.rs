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

/// The table that a generator's records go into.
pub(crate) const TABLE: &str = "CREATE TABLE IF NOT EXISTS payments (
       payment_id BIGINT PRIMARY KEY, merchant_id TEXT, amount NUMERIC(12,2), status TEXT,
       email TEXT, card_hash TEXT, card_last4 TEXT, paid_at TIMESTAMP)";

/// The statements that make merchants, and the views over a relation of payments.
pub(crate) fn views_sql(payments: &str) -> [String; 7] {
    [
        "CREATE TABLE IF NOT EXISTS merchants (
           merchant_id TEXT PRIMARY KEY, name TEXT, city TEXT)"
            .to_owned(),
        // The dashboard, and rows by key for applications.
        format!(
            "CREATE MATERIALIZED VIEW IF NOT EXISTS merchant_today AS
               SELECT merchant_id, count(*) AS payments, sum(amount) AS captured
               FROM {payments} WHERE status = 'captured' AND paid_at::date = current_date
               GROUP BY merchant_id"
        ),
        format!(
            "CREATE MATERIALIZED VIEW IF NOT EXISTS by_city AS
               SELECT m.city,
                      count(*) FILTER (WHERE p.status = 'captured') AS captured,
                      sum(CASE WHEN p.status = 'captured' THEN p.amount ELSE 0 END) AS captured_amount,
                      count(*) FILTER (WHERE p.status = 'failed') AS failed,
                      sum(CASE WHEN p.status = 'failed' THEN p.amount ELSE 0 END) AS failed_amount,
                      count(*) FILTER (WHERE p.status = 'refunded') AS refunded,
                      sum(CASE WHEN p.status = 'refunded' THEN p.amount ELSE 0 END) AS refunded_amount
               FROM {payments} p JOIN merchants m ON p.merchant_id = m.merchant_id
               GROUP BY m.city"
        ),
        // Fraud: rows leave as time passes.
        format!(
            "CREATE MATERIALIZED VIEW IF NOT EXISTS card_last_minute AS
               SELECT card_hash, card_last4, count(*) AS payments, sum(amount) AS amount
               FROM {payments} WHERE paid_at > now() - INTERVAL '60 seconds'
               GROUP BY card_hash, card_last4"
        ),
        // Settlement: read as of a moment.
        format!(
            "CREATE MATERIALIZED VIEW IF NOT EXISTS settlement AS
               SELECT merchant_id, sum(amount) AS captured
               FROM {payments} WHERE status = 'captured' GROUP BY merchant_id"
        ),
        format!(
            "CREATE SEARCH INDEX IF NOT EXISTS payments_search
               ON {payments} (email, payment_id, card_last4, status, paid_at) WITH (email = 'text')"
        ),
        format!("CREATE ARCHIVE IF NOT EXISTS payments_archive ON {payments} TO 'payments'"),
    ]
}

/// What the demo folds from the log, and verifies at the end.
pub(crate) const VIEWS: [&str; 6] = [
    "merchant_today",
    "by_city",
    "card_last_minute",
    "settlement",
    "payments_search",
    "payments_archive",
];
/// Those of them that the fold keeps: their freshness is measured.
pub(crate) const FOLDED: usize = 4;

/// The INSERT that makes the merchants.
pub(crate) fn merchants_sql() -> String {
    let rows = (0..MERCHANTS).map(|id| {
        let city = CITIES[id as usize % CITIES.len()];
        format!("('m{id}', 'Merchant {id}', '{city}')")
    });
    format!("INSERT INTO merchants VALUES {}", rows.collect::<Vec<_>>().join(", "))
}

#[derive(Clone, Copy)]
struct Made {
    id: u64,
    merchant: u32,
    cents: u32,
    micros: i64,
}

/// A payment as it is from now on.
pub(crate) struct Payment {
    pub(crate) id: u64,
    merchant: u32,
    cents: u32,
    micros: i64,
    status: &'static str,
}

/// Makes payments, the same from the same seed.
pub(crate) struct Payments {
    random: fastrand::Rng,
    next_id: u64,
    refundable: Vec<Made>,
}

impl Payments {
    /// Payments from `first_id` on.
    pub(crate) fn new(seed: u64, first_id: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { random, next_id: first_id, refundable: Vec::new() }
    }

    /// `count` facts at the time `micros` (since 1970-01-01 UTC), as one batch.
    pub(crate) fn batch(&mut self, count: u32, micros: i64) -> EncodedBatch {
        let mut batch = BatchBuilder::new(Compression::None);
        let mut text = String::new();
        for _ in 0..count {
            let payment = self.next(micros);
            let key = payment.id.to_string();
            text.clear();
            payment.write_json(&mut text);
            let timestamp = TimestampMs::new(micros / 1000);
            batch.push(timestamp, Some(key.as_bytes()), Some(text.as_bytes()), &[]);
        }
        batch.build()
    }

    /// A new payment, or an earlier one that is refunded.
    pub(crate) fn next(&mut self, micros: i64) -> Payment {
        let refund = self.random.u32(..REFUND_EVERY) == 0 && !self.refundable.is_empty();
        if refund {
            let index = self.random.usize(..self.refundable.len());
            return self.refundable.swap_remove(index).with("refunded");
        }
        let made = Made {
            id: self.next_id,
            merchant: self.random.u32(..MERCHANTS),
            cents: self.random.u32(5_000..2_000_000),
            micros,
        };
        self.next_id += 1;
        if self.random.u32(..100) >= CAPTURED_PERCENT {
            return made.with("failed");
        }
        if self.refundable.len() < REFUNDABLE_MAX {
            self.refundable.push(made);
        }
        made.with("captured")
    }
}

impl Made {
    fn with(self, status: &'static str) -> Payment {
        let Self { id, merchant, cents, micros } = self;
        Payment { id, merchant, cents, micros, status }
    }
}

impl Payment {
    pub(crate) fn is_refund(&self) -> bool {
        self.status == "refunded"
    }

    /// As a record's value.
    fn write_json(&self, text: &mut String) {
        let Self { id, merchant, status, .. } = self;
        let [amount, email, hash, last4, paid_at] = self.cells();
        write!(
            text,
            "{{\"payment_id\":{id},\"merchant_id\":\"m{merchant}\",\"amount\":{amount},\
             \"status\":\"{status}\",\"email\":\"{email}\",\"card_hash\":\"{hash}\",\
             \"card_last4\":\"{last4}\",\"paid_at\":\"{paid_at}\"}}",
        )
        .expect("writing into a string cannot fail");
    }

    /// As a row of VALUES.
    pub(crate) fn write_values(&self, text: &mut String) {
        let Self { id, merchant, status, .. } = self;
        let [amount, email, hash, last4, paid_at] = self.cells();
        write!(
            text,
            "({id}, 'm{merchant}', {amount}, '{status}', '{email}', '{hash}', '{last4}', \
             '{paid_at}')",
        )
        .expect("writing into a string cannot fail");
    }

    /// Amount, email, the card's hash and last digits, and when it was paid.
    fn cells(&self) -> [String; 5] {
        // The same customer, and so the same card, for every payment of an id.
        let customer = (self.id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) % CUSTOMERS;
        let name = NAMES[customer as usize % NAMES.len()];
        let paid_at = chrono::DateTime::from_timestamp_micros(self.micros).unwrap_or_default();
        [
            format!("{}.{:02}", self.cents / 100, self.cents % 100),
            format!("{name}{customer}@example.com"),
            format!("{:016x}", customer.wrapping_mul(0x1000_0000_01B3)),
            format!("{:04}", customer % 10_000),
            paid_at.format("%Y-%m-%dT%H:%M:%S%.6f").to_string(),
        ]
    }
}
