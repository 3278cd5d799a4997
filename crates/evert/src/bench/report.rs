//! Figures of a benchmark, as a table or as JSON.

use std::time::{Duration, Instant};

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::disk::{Disk, percentile};
use super::machine::Machine;
use super::usage::Taken;
use super::{Bench, Flags, usage};

/// All figures of one benchmark.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    bench: &'static str,
    command: String,
    runs: u32,
    quick: bool,
    machine: Machine,
    disk: Disk,
    items: Vec<Item>,
    #[serde(skip)]
    json: bool,
}

/// One line: what ran and what it took.
#[derive(Debug, Serialize)]
struct Item {
    name: String,
    durability: &'static str,
    records: usize,
    #[serde(flatten)]
    rate: Option<Rate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<Latency>,
    cpu_us_per_record: Option<f64>,
    memory_peak_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Rate {
    records_s: f64,
    records_s_min: f64,
    records_s_max: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mb_s: Option<f64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Latency {
    p50_us: f64,
    p99_us: f64,
}

/// What an item does once.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The time that counts, without preparation.
    pub(super) elapsed: Duration,
    /// Records done in it.
    pub(super) records: usize,
    /// Payload bytes of the records, where they have bytes.
    pub(super) bytes: Option<u64>,
    /// How long each request or tick took, where that is measured.
    pub(super) latencies: Vec<Duration>,
    /// What another process took, where that did the work.
    pub(super) taken: Option<Taken>,
}

impl Outcome {
    /// Records done since `start`.
    pub(super) fn since(start: Instant, records: usize) -> Self {
        Self { elapsed: start.elapsed(), records, ..Self::default() }
    }
}

/// How an acknowledged record is kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Durability {
    /// fdatasync before the acknowledgement.
    Synced,
    /// Nothing is written.
    Memory,
    /// Nothing is written; what is read was synced before.
    Read,
}

impl Durability {
    fn name(self) -> &'static str {
        match self {
            Self::Synced => "fdatasync before ack",
            Self::Memory => "in memory",
            Self::Read => "reads",
        }
    }
}

impl Report {
    pub(super) fn new(bench: &'static str, flags: &Flags, machine: Machine, disk: Disk) -> Self {
        let quick = if flags.quick { " --quick" } else { "" };
        Self {
            bench,
            command: format!("evert bench {bench} --runs {}{quick}", flags.runs),
            runs: flags.runs,
            quick: flags.quick,
            machine,
            disk,
            items: Vec::new(),
            json: flags.json,
        }
    }

    /// Runs an item as often as asked and adds its line. Only latencies count where an item
    /// gives records no rate: `rate` false.
    pub(super) fn item(
        &mut self,
        bench: &Bench,
        name: &str,
        durability: Durability,
        rate: bool,
        mut once: impl FnMut() -> Result<Outcome>,
    ) -> Result<()> {
        let mut outcomes = Vec::new();
        usage::forget_peak();
        let (mut cpu, mut counted, mut elsewhere) = (Duration::ZERO, 0, None);
        for run in 1..=bench.runs {
            bench.begin(&format!("{name} ({run} of {})", bench.runs));
            let before = usage::cpu_time();
            let outcome = once()?;
            let here = before.zip(usage::cpu_time()).map(|(a, b)| b.saturating_sub(a));
            if let Some(spent) = outcome.taken.map_or(here, |taken| taken.cpu) {
                cpu += spent;
                counted += outcome.records;
            }
            elsewhere = outcome.taken;
            outcomes.push(outcome);
        }
        let item = Item::new(name, durability, rate, &mut outcomes);
        self.items.push(Item {
            cpu_us_per_record: (counted > 0).then(|| cpu.as_secs_f64() * 1e6 / counted as f64),
            memory_peak_bytes: elsewhere.map_or_else(usage::memory_peak, |t| t.memory_peak),
            ..item
        });
        Ok(())
    }

    /// Adds a line for what was measured once, beside other things.
    pub(super) fn measured(
        &mut self,
        name: &str,
        durability: Durability,
        rate: bool,
        outcome: Outcome,
    ) {
        self.items.push(Item::new(name, durability, rate, &mut [outcome]));
    }

    /// Prints the report on standard output.
    pub(super) fn print(&self) -> Result<()> {
        if self.json {
            println!("{}", serde_json::to_string_pretty(self)?);
            return Ok(());
        }
        println!("{}\n", self.command);
        println!("machine  {}", self.machine);
        let Disk { sequential_write_mb_s, fdatasync_p50_us, fdatasync_p99_us } = &self.disk;
        println!(
            "disk     {sequential_write_mb_s:.0} MB/s written in sequence; 4 KiB and fdatasync \
             {fdatasync_p50_us:.0} us (p99 {fdatasync_p99_us:.0})"
        );
        let runs = if self.runs == 1 { "one run" } else { "medians (and extremes) of all runs" };
        println!(
            "shown    {runs}; CPU of the whole process, preparation included, or of the server \
             that is asked\n"
        );
        println!("{}", self.table());
        Ok(())
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN).set_header([
            "what ran",
            "durability",
            "records",
            "records/s",
            "MB/s",
            "p50",
            "p99",
            "CPU/record",
            "peak memory",
        ]);
        for item in &self.items {
            table.add_row(item.cells());
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

impl Item {
    /// Medians of `outcomes`, which are at least one; CPU and memory are not known yet.
    fn new(name: &str, durability: Durability, rate: bool, outcomes: &mut [Outcome]) -> Self {
        Self {
            name: name.to_owned(),
            durability: durability.name(),
            records: outcomes[0].records,
            rate: rate.then(|| median_rate(outcomes)),
            latency: latency(outcomes),
            cpu_us_per_record: None,
            memory_peak_bytes: None,
        }
    }

    fn cells(&self) -> [String; 9] {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let rate = self.rate.map(|rate| {
            let [median, min, max] =
                [rate.records_s, rate.records_s_min, rate.records_s_max].map(thousands);
            if min == max { median } else { format!("{median} ({min} to {max})") }
        });
        [
            self.name.clone(),
            self.durability.to_owned(),
            thousands(self.records as f64),
            or_dash(rate),
            or_dash(self.rate.and_then(|rate| rate.mb_s).map(|rate| format!("{rate:.0}"))),
            or_dash(self.latency.map(|latency| duration(latency.p50_us))),
            or_dash(self.latency.map(|latency| duration(latency.p99_us))),
            or_dash(self.cpu_us_per_record.map(|us| format!("{us:.2} us"))),
            or_dash(self.memory_peak_bytes.map(|bytes| format!("{} MiB", bytes >> 20))),
        ]
    }
}

fn median_rate(outcomes: &[Outcome]) -> Rate {
    let mut by_rate: Vec<_> = outcomes
        .iter()
        .map(|outcome| (outcome.records as f64 / outcome.elapsed.as_secs_f64(), outcome))
        .collect();
    by_rate.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (records_s, outcome) = by_rate[by_rate.len() / 2];
    let mb_s = outcome.bytes.map(|bytes| bytes as f64 / 1e6 / outcome.elapsed.as_secs_f64());
    Rate {
        records_s,
        records_s_min: by_rate[0].0,
        records_s_max: by_rate[by_rate.len() - 1].0,
        mb_s,
    }
}

/// Percentiles of all runs together.
fn latency(outcomes: &mut [Outcome]) -> Option<Latency> {
    let mut all: Vec<Duration> =
        outcomes.iter_mut().flat_map(|outcome| outcome.latencies.drain(..)).collect();
    if all.is_empty() {
        return None;
    }
    let [p50_us, p99_us] = [50, 99].map(|p| percentile(&mut all, p).as_secs_f64() * 1e6);
    Some(Latency { p50_us, p99_us })
}

fn duration(microseconds: f64) -> String {
    match microseconds {
        us if us < 1000.0 => format!("{us:.0} us"),
        us => format!("{:.2} ms", us / 1e3),
    }
}

/// 1234567 as "1,234,567".
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let shown = [0.0, 999.0, 1000.0, 1_234_567.4].map(thousands);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn the_median_run_is_shown() {
        let outcome = |seconds| Outcome {
            elapsed: Duration::from_secs(seconds),
            records: 100,
            bytes: Some(50_000_000),
            latencies: vec![Duration::from_micros(seconds)],
            ..Outcome::default()
        };
        let mut outcomes = [outcome(10), outcome(1), outcome(5)];
        let rate = median_rate(&outcomes);
        assert_eq!((rate.records_s, rate.records_s_min, rate.records_s_max), (20.0, 10.0, 100.0));
        assert_eq!(rate.mb_s, Some(10.0));
        let latency = latency(&mut outcomes).unwrap();
        assert!((latency.p50_us - 5.0).abs() < 0.001);
    }
}
