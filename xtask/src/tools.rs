//! Tools: what the end-to-end tests need beside cargo, installed when absent.
//!
//! Debian packages are found by the program that each brings, so that a machine which has the
//! program some other way is left alone. A tool that stays absent is a failure, never a skip.

use crate::step::{self, run};
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A Debian package and the sign that what it brings is there.
struct Tool {
    package: &'static str,
    present: fn() -> bool,
}

const TOOLS: &[Tool] = &[
    Tool { package: "postgresql", present: || postgres_program("initdb") },
    Tool { package: "postgresql-contrib", present: || postgres_program("pgbench") },
    Tool { package: "postgresql-client", present: || on_path("psql") },
    Tool { package: "kcat", present: || on_path("kcat") },
    Tool { package: "redis-tools", present: || on_path("redis-cli") },
    Tool { package: "redis-server", present: || on_path("redis-server") },
    Tool { package: "nodejs", present: || on_path("node") },
    Tool { package: "npm", present: || on_path("npm") },
    Tool { package: "python3", present: || on_path("python3") },
    Tool { package: "python3-venv", present: || python_has("ensurepip") },
];

/// Installs the Debian packages whose programs are absent.
pub(crate) fn install_packages() -> Result<()> {
    let absent = absent_packages();
    if absent.is_empty() {
        println!("    all there");
        return Ok(());
    }
    println!("    absent: {}", absent.join(" "));
    if !on_path("apt-get") {
        bail!("install the equivalents of these Debian packages: {}", absent.join(" "));
    }
    run(apt().args(["update", "-q"]))?;
    run(apt().args(["install", "-q", "-y", "--no-install-recommends"]).args(&absent))?;
    let still = absent_packages();
    if !still.is_empty() {
        bail!("installed, but their programs are not found: {}", still.join(" "));
    }
    Ok(())
}

/// Makes the Python environment and returns its interpreter.
pub(crate) fn install_python(workspace: &Workspace) -> Result<PathBuf> {
    let requirements = workspace.root.join("tests/requirements.txt");
    let venv = workspace.tools().join("venv");
    let python = venv.join("bin/python");
    when_changed(&venv, &requirements, || {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(&requirements))
    })?;
    Ok(python)
}

/// Installs the Node clients.
///
/// Node looks for packages from a script's own directory upwards, so they lie beside the tests, in
/// a directory that git ignores.
pub(crate) fn install_node(workspace: &Workspace) -> Result<()> {
    let tests = workspace.root.join("tests");
    when_changed(&tests.join("node_modules"), &tests.join("package-lock.json"), || {
        run(Command::new("npm").current_dir(&tests).args(["ci", "--no-audit", "--no-fund"]))
    })
}

/// Runs `install` unless `directory` was installed from what `list` still says.
fn when_changed(directory: &Path, list: &Path, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let wanted = fs::read_to_string(list).with_context(|| format!("{}", list.display()))?;
    let stamp = directory.join(".installed-from");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        println!("    already installed");
        return Ok(());
    }
    install()?;
    fs::write(&stamp, wanted).with_context(|| format!("{}", stamp.display()))
}

fn absent_packages() -> Vec<&'static str> {
    TOOLS.iter().filter(|tool| !(tool.present)()).map(|tool| tool.package).collect()
}

/// `apt-get`, through `sudo` unless this is root.
fn apt() -> Command {
    let root = step::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    let mut command = Command::new(if root { "env" } else { "sudo" });
    if !root {
        command.arg("env");
    }
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    command
}

fn on_path(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Whether a Postgres server program is on the path or where Debian keeps it.
fn postgres_program(program: &str) -> bool {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    on_path(program) || versions.into_iter().any(|v| v.path().join("bin").join(program).is_file())
}

fn python_has(module: &str) -> bool {
    Command::new("python3")
        .args(["-c", &format!("import venv, {module}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installs_once_for_each_list() {
        let directory = std::env::temp_dir().join(format!("evert-tools-{}", std::process::id()));
        fs::create_dir_all(directory.join("venv")).unwrap();
        let (target, list) = (directory.join("venv"), directory.join("list"));
        let mut installs = 0;
        for wanted in ["a", "a", "b"] {
            fs::write(&list, wanted).unwrap();
            when_changed(&target, &list, || {
                installs += 1;
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(installs, 2);
        let failed = when_changed(&target, &list.with_extension("absent"), || Ok(()));
        assert!(failed.is_err());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_failed_install_is_tried_again() {
        let directory = std::env::temp_dir().join(format!("evert-retry-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let list = directory.join("list");
        fs::write(&list, "a").unwrap();
        when_changed(&directory, &list, || bail!("no network")).unwrap_err();
        let mut installed = false;
        when_changed(&directory, &list, || {
            installed = true;
            Ok(())
        })
        .unwrap();
        assert!(installed);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn programs_are_looked_for() {
        assert!(on_path("sh"));
        assert!(!on_path("no-such-program-here"));
    }
}
