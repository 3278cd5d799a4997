//! The workspace: where it lies, where it builds to, and its crates as cargo describes them.

use crate::step;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One dependency that a crate of the workspace declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dependency {
    /// The dependency's package name.
    pub(crate) name: String,
    /// Whether only tests, benches and examples see it.
    pub(crate) dev: bool,
}

/// One crate of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) dependencies: Vec<Dependency>,
}

/// The workspace that this program was started in.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn load() -> Result<Self> {
        let mut command = cargo(Path::new("."));
        let text = step::output(command.args(["metadata", "--format-version=1", "--no-deps"]))?;
        Self::parse(&text).context("cannot read the output of cargo metadata")
    }

    fn parse(text: &str) -> Result<Self> {
        let metadata: Value = serde_json::from_str(text)?;
        let path = |key: &str| -> Result<PathBuf> {
            Ok(metadata[key].as_str().with_context(|| format!("no {key}"))?.into())
        };
        let packages = metadata["packages"].as_array().context("no packages")?;
        Ok(Self {
            root: path("workspace_root")?,
            target: path("target_directory")?,
            packages: packages.iter().map(parse_package).collect::<Result<_>>()?,
        })
    }

    /// A cargo command in the workspace's root.
    pub(crate) fn cargo(&self) -> Command {
        cargo(&self.root)
    }

    /// Where the tests' tools are installed: outside the sources, kept between runs.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("test-tools")
    }

    /// The release binary.
    pub(crate) fn binary(&self) -> PathBuf {
        self.target.join("release").join("evert")
    }
}

/// Cargo, without what it has told this program of itself: build scripts that look at the same
/// variables would run again after each call of cargo by hand, and half of all dependencies with
/// them.
fn cargo(directory: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(directory);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

fn parse_package(package: &Value) -> Result<Package> {
    let name = package["name"].as_str().context("a package without a name")?.to_owned();
    let dependencies = package["dependencies"]
        .as_array()
        .with_context(|| format!("{name}: no dependencies"))?
        .iter()
        .map(|dependency| {
            let name = dependency["name"].as_str().context("a dependency without a name")?;
            Ok(Dependency { name: name.to_owned(), dev: dependency["kind"] == "dev" })
        })
        .collect::<Result<_>>()?;
    Ok(Package { name, dependencies })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_cargo_prints() {
        let workspace = Workspace::parse(
            r#"{"workspace_root": "/src", "target_directory": "/out", "packages": [
                {"name": "a", "dependencies": [
                    {"name": "b", "kind": null}, {"name": "c", "kind": "dev"}]}]}"#,
        )
        .unwrap();
        assert_eq!(workspace.binary(), Path::new("/out/release/evert"));
        let [package] = &workspace.packages[..] else { panic!("one package") };
        assert_eq!(package.name, "a");
        assert_eq!(
            package.dependencies,
            [
                Dependency { name: "b".into(), dev: false },
                Dependency { name: "c".into(), dev: true }
            ]
        );
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        assert!(Workspace::parse("{}").is_err());
        assert!(Workspace::parse(r#"{"workspace_root": "/", "target_directory": "/"}"#).is_err());
    }
}
