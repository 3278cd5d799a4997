//! `evert`: one durable log of facts, and every view folded from it.

mod adapter;
mod bench;
mod client;
mod demo;
mod export;
mod lake;
mod output;
mod searching;
mod serve;
mod settings;
mod sql_shell;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use evert_env::spill::Spilling;
use mimalloc::MiMalloc;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: Spilling<MiMalloc> = Spilling::over(MiMalloc);

/// One durable, totally ordered log of facts, and every view folded from it.
#[derive(Parser)]
#[command(name = "evert", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a data directory: prints "evert ready" with the addresses once every door is open
    Serve(settings::Settings),
    /// Run the payments example: an embedded server, payments from a generator or a Postgres, live views
    Demo(demo::DemoArgs),
    /// Run SQL against a server, from -c, standard input or a prompt
    Sql(sql_shell::SqlArgs),
    /// Write a query's rows as of a moment into a file, the same whenever it is made
    Export(export::ExportArgs),
    /// Views of a running server: list, show, rebuild, verify, pause, resume, drop
    View(client::ViewArgs),
    /// Topics of a running server: list, show, create, delete
    Topic(client::TopicArgs),
    /// Consumer groups of a running server: list, show
    Group(client::GroupArgs),
    /// Append the lines of standard input to a topic
    Produce(client::ProduceArgs),
    /// Print a topic's records
    Consume(client::ConsumeArgs),
    /// Measure this machine: the log, the views
    Bench(bench::BenchArgs),
}

/// A thread's stack: expressions are walked over by recursion, and clients write thousands of
/// conditions. Only what is used of it takes memory.
const STACK_BYTES: usize = 64 << 20;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        // Who read the output has what they wanted.
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // What went wrong and why, without the backtrace that RUST_BACKTRACE asks for: it is a
            // panic's.
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let filter = EnvFilter::try_from_env("EVERT_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    // The only provider in the build; a second installation would be a programming error.
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("no other TLS provider is installed");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .build()?;
    runtime.block_on(async {
        match Cli::parse().command {
            Command::Serve(settings) => serve::run(settings).await?,
            Command::Demo(args) => demo::run(args).await?,
            Command::Export(args) => export::run(args).await?,
            Command::Bench(args) => bench::run(args).await?,
            Command::View(args) => return client::view(args).await,
            Command::Topic(args) => client::topic(args).await?,
            Command::Group(args) => client::group(args).await?,
            Command::Produce(args) => client::produce(args).await?,
            Command::Consume(args) => client::consume(args).await?,
            Command::Sql(args) => return sql_shell::run(args).await,
        }
        Ok(ExitCode::SUCCESS)
    })
}
