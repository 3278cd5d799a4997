//! Battery: the reliability tests, with as many cycles and seeds as a release asks for.

use crate::step::Steps;
use crate::workspace::Workspace;
use crate::{test, tools};
use anyhow::Result;

/// Cycles of kill -9 that `cargo xtask test` runs.
const KILL9_CYCLES: u32 = 20;
/// Seeds of power loss that `cargo xtask test` runs.
const POWER_LOSS_SEEDS: u32 = 1_000;
/// Random views that are compared with Postgres; `cargo xtask test` compares 5,000.
const WITNESS_QUERIES: u32 = 100_000;
/// Rebuilds of views, of every kind in turn, while all doors are compared; `cargo xtask test` does 8.
const SAME_ROWS_CYCLES: u32 = 8;
/// How long the bank is under load.
const BANK_SECONDS: u32 = 300;

/// Runs what `test` runs of crashes, `times` as long.
pub(crate) fn run(workspace: &Workspace, steps: &mut Steps, times: u32) -> Result<()> {
    steps.take("install: Debian packages", tools::install_packages)?;
    let seeds = POWER_LOSS_SEEDS.saturating_mul(times).to_string();
    steps.command(
        "test: crates",
        workspace
            .cargo()
            .args(["test", "--release", "--locked", "--workspace"])
            .env("EVERT_SEEDS", seeds)
            .env("EVERT_WITNESS_QUERIES", WITNESS_QUERIES.to_string()),
    )?;
    let environment = [
        ("EVERT_KILL9_CYCLES", KILL9_CYCLES.saturating_mul(times).to_string()),
        ("EVERT_SAME_ROWS_CYCLES", SAME_ROWS_CYCLES.saturating_mul(times).to_string()),
        ("EVERT_TEST_TIMEOUT_FACTOR", times.to_string()),
        ("EVERT_BANK_SECONDS", BANK_SECONDS.to_string()),
    ];
    let paths = ["test_kill9.py", "test_bank.py", "test_views.py", "test_same_rows.py"];
    let paths = paths.map(str::to_owned);
    test::end_to_end(workspace, steps, &paths, &environment)
}
