//! Bench: the binary's own benchmarks, in the profile that ships.

use crate::step::Steps;
use crate::workspace::Workspace;
use anyhow::Result;
use std::process::Command;

/// Builds, then measures the log, the views and the doors.
pub(crate) fn run(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.command("build", workspace.cargo().args(["build", "--release", "--locked"]))?;
    for what in ["log", "views", "doors"] {
        let mut command = Command::new(workspace.binary());
        steps.command(&format!("bench: {what}"), command.args(["bench", what]))?;
    }
    Ok(())
}
