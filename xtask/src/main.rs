//! Development tasks: `cargo xtask tidy`, `test`, `bench` and `battery`.

mod battery;
mod bench;
mod step;
mod test;
mod tidy;
mod tools;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};
use step::Steps;
use workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development tasks of Evert")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check crate edges, dependencies, file names, formatting and lints.
    Tidy,
    /// Install what the tests need, build, and run every test.
    Test {
        /// Run only these parts: tidy, rust, clients, or the name of a file as in tests/test_NAME.py.
        parts: Vec<String>,
    },
    /// Run the benchmarks on this machine.
    Bench,
    /// Run the reliability tests at the length that a release needs.
    Battery {
        /// How many times more cycles and seeds than `test` runs.
        #[arg(long, default_value_t = 50)]
        times: u32,
    },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let workspace = Workspace::load()?;
    let mut steps = Steps::default();
    let outcome = match cli.task {
        Task::Tidy => tidy::run(&workspace, &mut steps),
        Task::Test { parts } => test::run(&workspace, &mut steps, &parts),
        Task::Bench => bench::run(&workspace, &mut steps),
        Task::Battery { times } => battery::run(&workspace, &mut steps, times),
    };
    steps.print_summary();
    outcome
}
