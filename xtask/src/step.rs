//! Steps: named pieces of work, announced before and timed after.

use anyhow::{Context, Result, bail};
use std::process::Command;
use std::time::{Duration, Instant};

/// The steps taken so far.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<Done>,
}

struct Done {
    name: String,
    took: Duration,
    passed: bool,
}

impl Steps {
    /// Does one step; its failure is returned with the step's name.
    pub(crate) fn take(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        println!("==> {name}");
        let started = Instant::now();
        let outcome = work();
        let took = started.elapsed();
        println!("<== {name}: {} in {:.1} s", verdict(outcome.is_ok()), took.as_secs_f64());
        self.done.push(Done { name: name.to_owned(), took, passed: outcome.is_ok() });
        outcome.with_context(|| format!("step failed: {name}"))
    }

    /// Runs one command as a step.
    pub(crate) fn command(&mut self, name: &str, command: &mut Command) -> Result<()> {
        self.take(name, || run(command))
    }

    /// Prints what each step took, in order.
    pub(crate) fn print_summary(&self) {
        println!();
        for step in &self.done {
            println!("{:>8.1} s  {}  {}", step.took.as_secs_f64(), verdict(step.passed), step.name);
        }
        let total: Duration = self.done.iter().map(|step| step.took).sum();
        println!("{:>8.1} s  in all", total.as_secs_f64());
    }
}

fn verdict(passed: bool) -> &'static str {
    if passed { "ok    " } else { "FAILED" }
}

/// Runs a command with this process's terminal, and fails when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    println!("    {shown}");
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Runs a command and returns what it wrote to stdout.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{shown}: its output is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_fails_its_step_and_is_named() {
        let mut steps = Steps::default();
        steps.command("true", &mut Command::new("true")).unwrap();
        let error = steps.command("no luck", &mut Command::new("false")).unwrap_err();
        assert!(error.to_string().contains("no luck"));
        assert_eq!(steps.done.iter().map(|step| step.passed).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn a_missing_program_is_a_failure() {
        let error = run(&mut Command::new("/nonexistent/program")).unwrap_err();
        assert!(error.to_string().contains("cannot start"));
    }
}
