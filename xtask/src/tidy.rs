//! Tidy: what the compiler does not check about the sources.
//!
//! Owns: the rules and their order. Each rule is a pure function from what it reads to a list of
//! findings, so that it is tested without a workspace.

mod edges;
mod files;
mod lock;

use crate::step::{self, Steps};
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::process::Command;

/// Runs every rule; the first rule with findings ends the run.
pub(crate) fn run(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.take("tidy: crate edges", || report(edges::findings(&workspace.packages)))?;
    steps.take("tidy: locked dependencies", || {
        let path = workspace.root.join("Cargo.lock");
        report(lock::findings(&fs::read_to_string(path).context("cannot read Cargo.lock")?))
    })?;
    steps.take("tidy: tracked files", || tracked_files(workspace))?;
    steps.command("tidy: format", workspace.cargo().args(["fmt", "--all", "--check"]))?;
    steps.command(
        "tidy: lints",
        workspace.cargo().args([
            "clippy",
            "--release",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    )
}

fn tracked_files(workspace: &Workspace) -> Result<()> {
    let listing =
        step::output(Command::new("git").current_dir(&workspace.root).args(["ls-files", "-z"]))?;
    let mut findings = Vec::new();
    for path in listing.split('\0').filter(|path| !path.is_empty()) {
        findings.extend(files::name_finding(path));
        // A file that is tracked but deleted in the work tree has no contents to judge.
        if let Ok(contents) = fs::read(workspace.root.join(path)) {
            findings.extend(files::content_findings(path, &contents));
        }
    }
    report(findings)
}

fn report(findings: Vec<String>) -> Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    for finding in &findings {
        println!("    {finding}");
    }
    bail!("{} finding(s)", findings.len())
}
