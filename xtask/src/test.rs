//! Test: everything from a fresh clone on a fresh machine, or the parts asked for.

use crate::step::Steps;
use crate::workspace::Workspace;
use crate::{tidy, tools};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What one run does.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    tidy: bool,
    rust: bool,
    /// Paths for pytest, below `tests/`.
    end_to_end: Vec<String>,
}

/// Installs, builds and tests.
pub(crate) fn run(workspace: &Workspace, steps: &mut Steps, parts: &[String]) -> Result<()> {
    let plan = plan(parts, &end_to_end_parts(&workspace.root.join("tests"))?)?;
    steps.take("install: Debian packages", tools::install_packages)?;
    if plan.tidy {
        tidy::run(workspace, steps)?;
    }
    if plan.rust {
        rust(workspace, steps)?;
    }
    if !plan.end_to_end.is_empty() {
        end_to_end(workspace, steps, &plan.end_to_end, &[])?;
    }
    Ok(())
}

/// Builds and runs the tests of every crate.
pub(crate) fn rust(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    build(workspace, steps)?;
    steps.command(
        "test: crates",
        workspace.cargo().args(["test", "--release", "--locked", "--workspace"]),
    )
}

/// Runs pytest with the release binary.
pub(crate) fn end_to_end(
    workspace: &Workspace,
    steps: &mut Steps,
    paths: &[String],
    environment: &[(&str, String)],
) -> Result<()> {
    let mut python = None;
    steps.take("install: Python clients", || {
        python = Some(tools::install_python(workspace)?);
        Ok(())
    })?;
    steps.take("install: Node clients", || tools::install_node(workspace))?;
    build(workspace, steps)?;
    let mut pytest = Command::new(python.context("no Python environment")?);
    pytest
        .current_dir(workspace.root.join("tests"))
        .args(["-m", "pytest", "--durations=15", "-p", "no:cacheprovider"])
        .args(paths)
        .env("EVERT_BIN", workspace.binary())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(environment.iter().map(|(name, value)| (name, value)));
    steps.command("test: end to end", &mut pytest)
}

/// Builds the binary exactly as a user does.
///
/// All features are the same as in the tests' build, so that every library compiles once.
fn build(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.command("build", workspace.cargo().args(["build", "--release", "--locked"]))
}

/// The names under `tests/` that can be asked for, with their paths for pytest.
pub(crate) fn end_to_end_parts(tests: &Path) -> Result<Vec<(String, String)>> {
    let mut parts = Vec::new();
    for entry in fs::read_dir(tests).with_context(|| format!("{}", tests.display()))? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        if file == "clients" {
            parts.push((file.clone(), file));
        } else if let Some(name) =
            file.strip_prefix("test_").and_then(|rest| rest.strip_suffix(".py"))
        {
            parts.push((name.to_owned(), file));
        }
    }
    parts.sort();
    Ok(parts)
}

fn plan(asked: &[String], known: &[(String, String)]) -> Result<Plan> {
    if asked.is_empty() {
        let end_to_end = known.iter().map(|(_, path)| path.clone()).collect();
        return Ok(Plan { tidy: true, rust: true, end_to_end });
    }
    let mut plan = Plan::default();
    for part in asked {
        match part.as_str() {
            "tidy" => plan.tidy = true,
            "rust" => plan.rust = true,
            name => match known.iter().find(|(known, _)| known == name) {
                Some((_, path)) => plan.end_to_end.push(path.clone()),
                None => {
                    let names: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
                    bail!("no part {name}; there are: tidy, rust, {}", names.join(", "));
                }
            },
        }
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<(String, String)> {
        [("bank", "test_bank.py"), ("clients", "clients")]
            .map(|(name, path)| (name.to_owned(), path.to_owned()))
            .to_vec()
    }

    #[test]
    fn everything_by_default() {
        let all = plan(&[], &known()).unwrap();
        assert!(all.tidy && all.rust);
        assert_eq!(all.end_to_end, ["test_bank.py", "clients"]);
    }

    #[test]
    fn only_what_was_asked_for() {
        let bank = plan(&["bank".to_owned()], &known()).unwrap();
        let expected = Plan { end_to_end: vec!["test_bank.py".to_owned()], ..Plan::default() };
        assert_eq!(bank, expected);
        assert!(plan(&["rust".to_owned()], &known()).unwrap().rust);
    }

    #[test]
    fn an_unknown_part_is_refused_with_the_known_ones() {
        let error = plan(&["bnak".to_owned()], &known()).unwrap_err().to_string();
        assert!(error.contains("bnak") && error.contains("bank"), "{error}");
    }
}
