//! Tuesday: somebody asks a new question of a week of payments, while everything runs.
//!
//! Measures how long the new view takes to be live, and what that does to the freshness of the
//! others.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use evert_view::{Name, ViewState, Views};
use tokio::runtime::Handle;

use super::Bench;
use super::disk::percentile;
use super::example::{KINDS, World};
use super::report::{Durability, Outcome, Report};
use crate::demo::payments::Payments;

const QUESTION: &str = "CREATE MATERIALIZED VIEW bengaluru_last_hour AS \
     SELECT p.merchant_id, count(*) AS payments, sum(p.amount) AS amount \
     FROM payments p JOIN merchants m ON p.merchant_id = m.merchant_id \
     WHERE m.city = 'Bengaluru' AND p.paid_at > now() - INTERVAL '1 hour' \
     GROUP BY p.merchant_id";
const VIEW: &str = "bengaluru_last_hour";
/// How long payments flow before anything counts: what was made of a week is still being merged.
const SETTLE: Duration = Duration::from_secs(30);
/// How long they flow then, before the question.
const BEFORE: Duration = Duration::from_secs(20);
const TOLD_EVERY: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A week of `payments`, `rate` more a second, and the question.
pub(super) fn items(bench: &Bench, report: &mut Report, payments: usize, rate: u32) -> Result<()> {
    let dir = bench.scratch.path().join("tuesday");
    Handle::current().block_on(tuesday(bench, report, &dir, (payments, rate)))
}

async fn tuesday(
    bench: &Bench,
    report: &mut Report,
    dir: &std::path::Path,
    (payments, rate): (usize, u32),
) -> Result<()> {
    let world = World::start(dir).await?;
    let mut made = Payments::new(7, 1);
    say(bench, "a week of payments is appended");
    let begun = Instant::now();
    world.append_history(payments, &mut made).await?;
    let appended = Outcome::since(begun, payments);
    report.measured("a week of payments, appended", Durability::Synced, true, appended);
    say(bench, "five views read it");
    for (name, elapsed) in world.create_views().await? {
        let read = Outcome { elapsed, records: payments, ..Outcome::default() };
        let name = format!("made over it, with the others: {name}");
        report.measured(&name, Durability::Synced, true, read);
    }

    say(bench, &format!("{rate} payments a second"));
    let load = world.load(rate, made);
    tokio::time::sleep(if bench.quick { SETTLE / 10 } else { SETTLE }).await;
    load.next_phase();
    tokio::time::sleep(BEFORE).await;
    load.next_phase();
    let begun = Instant::now();
    world.client().batch_execute(QUESTION).await?;
    live(bench, world.views()).await?;
    let live = Outcome::since(begun, payments);
    load.next_phase();
    let rows: i64 =
        world.client().query_one(&format!("SELECT count(*) FROM {VIEW}"), &[]).await?.get(0);
    say(bench, &format!("live after {:.1} s, {rows} rows", live.elapsed.as_secs_f64()));
    let replay = live.elapsed;
    report.measured("CREATE MATERIALIZED VIEW until it is live", Durability::Read, true, live);
    let loaded = load.end().await?;
    for ((kind, _), mut phases) in KINDS.into_iter().zip(loaded.late) {
        phases.resize_with(3, Vec::new);
        let [mut before, mut during, _] =
            <[_; 3]>::try_from(phases).ok().context("a load has three phases")?;
        let ratio = ratio(&mut during, &mut before);
        let shown = |latencies, elapsed| Outcome { elapsed, latencies, ..Outcome::default() };
        let name = format!("freshness before: {kind}");
        report.measured(&name, Durability::Synced, false, shown(before, BEFORE));
        let name = format!("freshness during the replay: {kind} (p99 {ratio})");
        report.measured(&name, Durability::Synced, false, shown(during, replay));
    }
    world.stop().await?;
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

/// How many times later the slowest of a hundred were.
fn ratio(during: &mut [Duration], before: &mut [Duration]) -> String {
    if during.is_empty() || before.is_empty() {
        return "too short to tell".to_owned();
    }
    let [during, before] = [percentile(during, 99), percentile(before, 99)];
    format!("{:.1}x", during.as_secs_f64() / before.as_secs_f64().max(1e-6))
}

/// Waits until the new view is live, and tells how far it is.
async fn live(bench: &Bench, views: &Views) -> Result<()> {
    let (begun, mut told) = (Instant::now(), Instant::now());
    loop {
        let status = views.status().into_iter().find(|status| status.name == Name::public(VIEW));
        let status = status.with_context(|| format!("{VIEW} is not there"))?;
        match &status.state {
            ViewState::Live | ViewState::Behind => return Ok(()),
            ViewState::Failed(why) => bail!("{VIEW} failed: {why}"),
            state => {
                if told.elapsed() > TOLD_EVERY {
                    told = Instant::now();
                    let rate = status.progress.and_then(|progress| progress.rate);
                    let rate = rate.map(|rate| format!(", {rate}/s")).unwrap_or_default();
                    let passed = begun.elapsed().as_secs_f64();
                    say(bench, &format!("{VIEW} after {passed:.0} s: {state}{rate}"));
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Where a terminal has a line that changes, others get lines.
fn say(bench: &Bench, what: &str) {
    bench.begin(what);
    if !std::io::stderr().is_terminal() {
        eprintln!("tuesday: {what}");
    }
}
