//! Bench: the binary's own benchmarks, in the profile that ships.

use crate::step::Steps;
use crate::tools;
use crate::workspace::Workspace;
use anyhow::Result;
use std::process::Command;

/// Builds, then measures the log, the views and the doors, and lookups beside Postgres's.
pub(crate) fn run(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.command("build", workspace.cargo().args(["build", "--release", "--locked"]))?;
    for what in ["log", "views", "doors"] {
        let mut command = Command::new(workspace.binary());
        steps.command(&format!("bench: {what}"), command.args(["bench", what]))?;
    }
    steps.take("install: Debian packages", tools::install_packages)?;
    let python = tools::install_python(workspace)?;
    let mut command = Command::new(python);
    command.arg(workspace.root.join("tests/lookups.py")).env("EVERT_BIN", workspace.binary());
    steps.command("bench: lookups", &mut command)
}
