//! Nexmark's queries as views, while its events come.
//!
//! q12 counts bids by windows of processing time: the machine's clock at the moment a bid happens
//! to be processed. A view may not depend on it, because a replay could not repeat it, so there is
//! none; q11 and q5 do the same by the events' own time.

use evert_model::ColumnType::{Int64, Text, Timestamp};
use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::Event;

use crate::replay::{Change, History, Source};

const EVENTS: usize = 12_000;
const STEPS: usize = 6;

/// A query's name, its view, the batch query where windows have no stock function, and what makes
/// the batch answer's order total where the original leaves ties open.
struct Nexmark {
    name: &'static str,
    view: &'static str,
    batch: Option<&'static str>,
    ties: Option<(&'static str, &'static str)>,
}

macro_rules! query {
    ($name:literal) => {
        Nexmark {
            name: $name,
            view: include_str!(concat!("../nexmark/", $name, ".sql")),
            batch: None,
            ties: None,
        }
    };
    ($name:literal, windows) => {
        Nexmark {
            batch: Some(include_str!(concat!("../nexmark/", $name, ".batch.sql"))),
            ..query!($name)
        }
    };
    ($name:literal, $order:literal, $total:literal) => {
        Nexmark { ties: Some(($order, $total)), ..query!($name) }
    };
}

const QUERIES: [Nexmark; 22] = [
    query!("q0"),
    query!("q1"),
    query!("q2"),
    query!("q3"),
    query!("q4"),
    query!("q5", windows),
    query!(
        "q6",
        "ORDER BY b.price DESC, b.date_time",
        "ORDER BY b.price DESC, b.date_time, b.extra"
    ),
    query!("q7", windows),
    query!("q8", windows),
    query!(
        "q9",
        "ORDER BY b.price DESC, b.date_time",
        "ORDER BY b.price DESC, b.date_time, b.extra"
    ),
    query!("q10"),
    query!("q11", windows),
    query!("q13"),
    query!("q14"),
    query!("q15"),
    query!("q16"),
    query!("q17"),
    query!("q18", "ORDER BY date_time DESC", "ORDER BY date_time DESC, extra"),
    query!("q19", "ORDER BY price DESC", "ORDER BY price DESC, extra"),
    query!("q20"),
    query!("q21"),
    query!("q22"),
];

/// A moment in milliseconds as text.
fn moment(millis: u64) -> String {
    let at = chrono::DateTime::from_timestamp_millis(millis as i64).expect("this century");
    at.format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

fn history() -> History {
    // 30 seconds at this rate, some of them out of order.
    let config = NexmarkConfig {
        base_time: 1_767_347_990_000,
        first_rate: EVENTS / 30,
        next_rate: EVENTS / 30,
        out_of_order_group_size: 7,
        ..NexmarkConfig::default()
    };
    let (mut people, mut auctions, mut bids) = (Vec::new(), Vec::new(), Vec::new());
    // Until which row of each source the events of a step go.
    let mut ends = vec![[0; 3]];
    for (number, event) in EventGenerator::new(config).take(EVENTS).enumerate() {
        match event {
            Event::Person(p) => people.push(vec![
                p.id.to_string(),
                p.name,
                p.email_address,
                p.credit_card,
                p.city,
                p.state,
                moment(p.date_time),
                p.extra,
            ]),
            Event::Auction(a) => auctions.push(vec![
                a.id.to_string(),
                a.item_name,
                a.description,
                a.initial_bid.to_string(),
                a.reserve.to_string(),
                moment(a.date_time),
                moment(a.expires),
                a.seller.to_string(),
                a.category.to_string(),
                a.extra,
            ]),
            Event::Bid(b) => bids.push(vec![
                b.auction.to_string(),
                b.bidder.to_string(),
                b.price.to_string(),
                b.channel,
                b.url,
                moment(b.date_time),
                b.extra,
            ]),
        }
        if (number + 1) % (EVENTS / STEPS) == 0 {
            ends.push([people.len(), auctions.len(), bids.len()]);
        }
    }
    let side: Vec<Vec<String>> =
        (0..10_000).map(|key| vec![key.to_string(), format!("value {key}")]).collect();
    let side_rows = side.len() as u32;
    let sources = vec![
        Source::new(
            "person",
            &[
                ("id", Int64),
                ("name", Text),
                ("email_address", Text),
                ("credit_card", Text),
                ("city", Text),
                ("state", Text),
                ("date_time", Timestamp),
                ("extra", Text),
            ],
            vec![],
            &people,
        ),
        Source::new(
            "auction",
            &[
                ("id", Int64),
                ("item_name", Text),
                ("description", Text),
                ("initial_bid", Int64),
                ("reserve", Int64),
                ("date_time", Timestamp),
                ("expires", Timestamp),
                ("seller", Int64),
                ("category", Int64),
                ("extra", Text),
            ],
            vec![],
            &auctions,
        ),
        Source::new(
            "bid",
            &[
                ("auction", Int64),
                ("bidder", Int64),
                ("price", Int64),
                ("channel", Text),
                ("url", Text),
                ("date_time", Timestamp),
                ("extra", Text),
            ],
            vec![],
            &bids,
        ),
        Source::new("side_input", &[("key", Int64), ("value", Text)], vec![0], &side),
    ];
    let steps = ends.windows(2).enumerate().map(|(step, ends)| {
        let mut changes: Vec<Change> = (0..3)
            .map(|source| Change {
                source,
                rows: (ends[0][source] as u32..ends[1][source] as u32).collect(),
                weight: 1,
            })
            .collect();
        if step == 1 {
            changes.push(Change { source: 3, rows: (0..side_rows).collect(), weight: 1 });
        }
        changes
    });
    let steps = steps.collect();
    History { sources, steps }
}

#[test]
fn nexmark_views_equal_the_batch_answer() {
    let history = history();
    let batches = history.batches();
    let mut wrong = Vec::new();
    for query in QUERIES {
        let start = std::time::Instant::now();
        let total = match query.ties {
            Some((order, total)) => {
                assert!(query.view.contains(order), "{} has no {order}", query.name);
                query.view.replace(order, total)
            }
            None => query.view.to_owned(),
        };
        let batch = query.batch.unwrap_or(&total);
        match history.check(&total, batch, &batches) {
            Ok(rows) => {
                println!("{}: {rows} rows, {:.1?}", query.name, start.elapsed());
                assert!(rows > 0, "{} shows nothing", query.name);
            }
            Err(what) => {
                println!("{}: {what}", query.name);
                wrong.push(query.name);
            }
        }
    }
    assert!(wrong.is_empty(), "wrong: {wrong:?}");
}
