//! `evert bench`: what this machine does with the log, the views and the doors.
//!
//! Every item runs several times; the median is shown with the extremes, the CPU time a record
//! took, and the peak of the process's memory, beside what the disk does by itself.

mod archive;
mod disk;
mod doors;
mod example;
mod follow;
mod log;
mod lookups;
mod machine;
mod nexmark;
mod payments;
mod produce;
mod report;
mod search;
mod sinks;
mod tuesday;
mod usage;
mod views;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use report::Report;

/// The flags of `evert bench`.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Append in process, produce through the Kafka door, replay
    Log(Flags),
    /// Fold decoded rows into views and publish them; follow a log
    Views(Flags),
    /// Rows by key beside a redis-server, messages about changes, search beside tantivy, archives,
    /// five views of flowing payments, and beside a Postgres lookups and sinks
    Doors(DoorFlags),
    /// Make a new view over a week of payments while payments flow and five views are fresh
    Tuesday(TuesdayFlags),
}

#[derive(Args, Clone, Debug)]
struct TuesdayFlags {
    #[command(flatten)]
    flags: Flags,
    /// Payments of the week before
    #[arg(long, value_name = "N", default_value_t = 20_000_000, value_parser = clap::value_parser!(u64).range(2_000..))]
    payments: u64,
    /// Payments a second while the view is made
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
}

#[derive(Args, Clone, Debug)]
struct DoorFlags {
    #[command(flatten)]
    flags: Flags,
    /// A Postgres to compare lookups with and to measure a sink with; tables named evert_bench_* come and go there
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
}

#[derive(Args, Clone, Debug)]
struct Flags {
    /// How often each item runs; the median is shown
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// A tenth of the records: a check that it works, not a measurement
    #[arg(long)]
    quick: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Measure in a scratch directory below this one, on the disk that counts
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// Runs a benchmark and prints its report on standard output.
///
/// # Errors
/// When the scratch directory cannot be used, or an item fails.
pub(crate) async fn run(args: BenchArgs) -> Result<()> {
    let report = tokio::task::spawn_blocking(move || match args.what {
        What::Log(flags) => measure("log", &flags, log::items),
        What::Views(flags) => measure("views", &flags, views::items),
        What::Tuesday(TuesdayFlags { flags, payments, rate }) => {
            measure("tuesday", &Flags { runs: 1, ..flags }, |bench, report| {
                let payments = bench.records(usize::try_from(payments)?);
                tuesday::items(bench, report, payments, rate)
            })
        }
        What::Doors(DoorFlags { flags, postgres }) => measure("doors", &flags, |bench, report| {
            doors::items(bench, report)?;
            search::items(bench, report)?;
            archive::items(bench, report)?;
            example::items(bench, report)?;
            match &postgres {
                Some(url) => {
                    lookups::items(bench, report, url)?;
                    sinks::items(bench, report, url)
                }
                None => Ok(()),
            }
        }),
    });
    report.await??.print()
}

/// What the items of a benchmark need.
struct Bench {
    scratch: Scratch,
    runs: u32,
    quick: bool,
    progress: ProgressBar,
}

impl Bench {
    /// A number of records, less if it is to be quick.
    fn records(&self, records: usize) -> usize {
        if self.quick { records / 10 } else { records }
    }

    /// Says what is running.
    fn begin(&self, item: &str) {
        self.progress.set_message(item.to_owned());
        self.progress.tick();
    }
}

fn measure(
    what: &'static str,
    flags: &Flags,
    items: impl Fn(&Bench, &mut Report) -> Result<()>,
) -> Result<Report> {
    let progress = ProgressBar::new_spinner();
    progress.set_style(ProgressStyle::with_template("{spinner} {msg} [{elapsed}]")?);
    let bench = Bench {
        scratch: Scratch::below(&flags.dir)?,
        runs: flags.runs,
        quick: flags.quick,
        progress,
    };
    bench.begin("the disk by itself");
    let disk = disk::probe(bench.scratch.path(), flags.quick)?;
    let machine = machine::Machine::describe(bench.scratch.path());
    let mut report = Report::new(what, flags, machine, disk);
    items(&bench, &mut report)?;
    bench.progress.finish_and_clear();
    Ok(report)
}

/// A directory that is gone when the benchmark is.
struct Scratch(PathBuf);

impl Scratch {
    fn below(dir: &Path) -> Result<Self> {
        let path = dir.join(format!("evert-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "scratch files are left behind");
        }
    }
}
