//! The lock file: one version of what must be one, none of what must be absent.

use std::collections::BTreeMap;

/// Two versions of one of these would be two worlds of types, or two copies of a large library.
const ONE_VERSION: &[&str] =
    &["arrow", "datafusion", "object_store", "parquet", "ring", "rustls", "sqlparser", "tokio"];

/// These need a C++ compiler, cmake, clang, protoc or a system library to build.
const BANNED: &[&str] = &[
    "aws-lc-fips-sys",
    "aws-lc-rs",
    "aws-lc-sys",
    "bindgen",
    "boring-sys",
    "clang-sys",
    "cmake",
    "native-tls",
    "openssl",
    "openssl-src",
    "openssl-sys",
    "prost-build",
    "protobuf-codegen",
    "protobuf-src",
    "protoc-bin-vendored",
    "tonic-build",
];

/// Where every dependency comes from.
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What is wrong with the text of a `Cargo.lock`.
pub(super) fn findings(lock: &str) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut findings = Vec::new();
    let mut name = "";
    for line in lock.lines() {
        match line.split_once(" = ") {
            Some(("name", value)) => name = unquoted(value),
            // The file's own format version comes before the first name and has no quotes.
            Some(("version", value)) if value.starts_with('"') => {
                versions.entry(name).or_default().push(unquoted(value));
            }
            Some(("source", value)) if unquoted(value) != SOURCE => {
                findings.push(format!("{name} comes from {}", unquoted(value)));
            }
            _ => {}
        }
    }
    for (name, versions) in versions {
        if BANNED.contains(&name) {
            findings.push(format!("{name} is banned"));
        }
        if ONE_VERSION.contains(&name) && versions.len() > 1 {
            findings.push(format!("{name} has several versions: {}", versions.join(", ")));
        }
    }
    findings
}

fn unquoted(value: &str) -> &str {
    value.trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(packages: &[(&str, &str)]) -> String {
        let packages = packages.iter().map(|(name, version)| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"{SOURCE}\"\ndependencies = [\n \"x\",\n]\n\n")
        });
        format!("version = 4\n\n{}", packages.collect::<String>())
    }

    #[test]
    fn different_versions_of_ordinary_crates_pass() {
        assert_eq!(findings(&lock(&[("arrow", "58.0"), ("a", "1"), ("a", "2")])).len(), 0);
    }

    #[test]
    fn two_arrows_are_found() {
        let found = findings(&lock(&[("arrow", "58.0.0"), ("arrow", "59.0.0")]));
        assert_eq!(found, ["arrow has several versions: 58.0.0, 59.0.0"]);
    }

    #[test]
    fn banned_crates_are_found() {
        for name in BANNED {
            assert_eq!(findings(&lock(&[(name, "1.0")])), [format!("{name} is banned")]);
        }
    }

    #[test]
    fn other_registries_are_found() {
        let text = lock(&[("a", "1")]).replace("github.com/rust-lang", "mirror.example");
        assert_eq!(findings(&text).len(), 1);
    }
}
