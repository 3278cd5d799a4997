//! Edges: which crate may name which. Data flows log, fold, view, door; dependencies point back.

use crate::workspace::Package;

/// The workspace's crates, with the workspace's crates that each may depend on.
const MAY_USE: &[(&str, &[&str])] = &[
    ("evert-model", &[]),
    ("evert-env", &["evert-model"]),
    ("evert-log", &["evert-model", "evert-env"]),
    ("evert-fold", &["evert-model"]),
    ("evert-view", &["evert-model", "evert-env", "evert-log", "evert-fold"]),
    ("evert-script", &["evert-model", "evert-env"]),
    ("evert-sql", &["evert-model", "evert-log", "evert-view", "evert-fold", "evert-script"]),
    ("evert-cdc", &["evert-model", "evert-log", "evert-view"]),
    ("evert-door", &["evert-model", "evert-env", "evert-log", "evert-view"]),
    ("evert-search", &["evert-model", "evert-env", "evert-log", "evert-view"]),
    ("evert-archive", &["evert-model", "evert-env", "evert-log", "evert-view"]),
    ("evert-sink", &["evert-model", "evert-env", "evert-log", "evert-view"]),
    (
        "evert",
        &[
            "evert-model",
            "evert-env",
            "evert-log",
            "evert-fold",
            "evert-view",
            "evert-sql",
            "evert-cdc",
            "evert-door",
            "evert-search",
            "evert-archive",
            "evert-sink",
        ],
    ),
    ("xtask", &[]),
];

/// Libraries that belong to few crates, with those crates. The binary may use them as a client of
/// its own doors, in benches and the demo.
const OWNED: &[(&str, &[&str])] = &[
    ("datafusion", &["evert-sql"]),
    ("sqlparser", &["evert-sql"]),
    ("datafusion-common", &["evert-fold", "evert-sql"]),
    ("datafusion-expr-common", &["evert-fold", "evert-sql"]),
    ("datafusion-physical-expr", &["evert-fold", "evert-sql"]),
    ("datafusion-physical-expr-common", &["evert-fold", "evert-sql"]),
    ("kafka-protocol", &["evert-door", "evert"]),
    ("pgwire", &["evert-door"]),
    ("arrow-pg", &["evert-door"]),
    ("pgwire-replication", &["evert-cdc"]),
    ("pg_walstream", &["evert-cdc"]),
    ("tantivy", &["evert-search"]),
    ("iceberg", &["evert-archive"]),
    ("krafka", &["evert-sink"]),
    ("rquickjs", &["evert-script"]),
    ("redis", &["evert-sink"]),
];

/// Crates without I/O or async, and the libraries that would bring them.
const PURE: &[&str] = &["evert-model", "evert-fold"];
const IMPURE: &[&str] = &["tokio", "rustix", "tracing", "async-trait", "futures", "tempfile"];

/// What breaks the table. Dev-dependencies may go anywhere.
pub(super) fn findings(packages: &[Package]) -> Vec<String> {
    let mut findings = Vec::new();
    for package in packages {
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == package.name) else {
            findings.push(format!("{}: not in the table of crates", package.name));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|dependency| !dependency.dev) {
            if let Some(why) = refusal(&package.name, &dependency.name, allowed) {
                findings.push(format!("{} depends on {}: {why}", package.name, dependency.name));
            }
        }
    }
    findings
}

fn refusal(package: &str, dependency: &str, allowed: &[&str]) -> Option<String> {
    if MAY_USE.iter().any(|(name, _)| *name == dependency) {
        let known = allowed.contains(&dependency);
        return (!known).then(|| format!("it may use {}", list(allowed)));
    }
    if let Some((_, owners)) = OWNED.iter().find(|(name, _)| *name == dependency) {
        return (!owners.contains(&package)).then(|| format!("it belongs to {}", list(owners)));
    }
    let impure = PURE.contains(&package) && IMPURE.contains(&dependency);
    impure.then(|| "the crate does no I/O".to_owned())
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "no crate of the workspace".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn package(name: &str, dependencies: &[&str], dev: bool) -> Package {
        let dependencies =
            dependencies.iter().map(|name| Dependency { name: (*name).to_owned(), dev }).collect();
        Package { name: name.to_owned(), dependencies }
    }

    #[test]
    fn the_designed_edges_pass() {
        let packages = [
            package("evert-model", &["arrow", "bytes"], false),
            package("evert-log", &["evert-model", "evert-env", "tokio"], false),
            package("evert-fold", &["evert-model", "datafusion-physical-expr"], false),
            package("evert-sql", &["evert-view", "datafusion"], false),
        ];
        assert_eq!(findings(&packages), Vec::<String>::new());
    }

    #[test]
    fn an_edge_against_the_flow_is_found() {
        let found = findings(&[package("evert-fold", &["evert-log"], false)]);
        assert_eq!(found, ["evert-fold depends on evert-log: it may use evert-model"]);
        assert_eq!(findings(&[package("evert-model", &["evert-env"], false)]).len(), 1);
        assert_eq!(findings(&[package("evert-door", &["evert-sql"], false)]).len(), 1);
        assert_eq!(findings(&[package("evert-cdc", &["evert-fold"], false)]).len(), 1);
    }

    #[test]
    fn datafusion_stays_in_sql() {
        let found = findings(&[package("evert-fold", &["datafusion"], false)]);
        assert_eq!(found, ["evert-fold depends on datafusion: it belongs to evert-sql"]);
    }

    #[test]
    fn the_fold_does_no_io() {
        assert_eq!(findings(&[package("evert-fold", &["tokio"], false)]).len(), 1);
    }

    #[test]
    fn tests_may_name_what_they_need() {
        let packages = [package("evert-fold", &["evert-log", "tokio"], true)];
        assert_eq!(findings(&packages), Vec::<String>::new());
    }

    #[test]
    fn an_unknown_crate_is_found() {
        assert_eq!(findings(&[package("evert-misc", &[], false)]).len(), 1);
    }
}
