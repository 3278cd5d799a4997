//! Tracked files: names that say nothing, and paths of somebody's machine.

use std::path::Path;

/// A file of this name has no owner of its facts: code lives with its noun.
const EMPTY_NAMES: &[&str] = &["common", "helper", "helpers", "misc", "util", "utils"];

/// Directories of machines that sources were written on. Split so that this file passes.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// What is wrong with a file's path, the stem of the file and each directory alike.
pub(super) fn name_finding(path: &str) -> Option<String> {
    let empty = Path::new(path).iter().any(|part| {
        let stem = Path::new(part).file_stem().unwrap_or(part);
        EMPTY_NAMES.iter().any(|name| stem.eq_ignore_ascii_case(name))
    });
    empty.then(|| format!("{path}: a name that says nothing; name the noun that it owns"))
}

/// What is wrong with a file's contents, line by line.
pub(super) fn content_findings(path: &str, contents: &[u8]) -> Vec<String> {
    let Ok(text) = std::str::from_utf8(contents) else { return Vec::new() };
    text.lines()
        .enumerate()
        .filter_map(|(index, line)| {
            let found = MACHINE_PATHS.iter().find(|machine| names_path(line, machine))?;
            Some(format!("{path}:{}: a machine's path: {found}", index + 1))
        })
        .collect()
}

/// Whether the line holds the path from the root of a machine, and not a part of a longer one.
fn names_path(line: &str, machine: &str) -> bool {
    line.match_indices(machine).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '}'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_meaning_are_found() {
        for path in ["src/utils.rs", "a/helpers/mod.rs", "tests/common/mod.rs", "Misc.py"] {
            assert!(name_finding(path).is_some(), "{path}");
        }
        for path in ["src/segment.rs", "src/common_prefix.rs", "docs/utility.md"] {
            assert!(name_finding(path).is_none(), "{path}");
        }
    }

    #[test]
    fn machine_paths_are_found_with_their_line() {
        let text = format!("fine\nsee {}x\n", MACHINE_PATHS[0]);
        let found = content_findings("a.md", text.as_bytes());
        assert_eq!(found, [format!("a.md:2: a machine's path: {}", MACHINE_PATHS[0])]);
    }

    #[test]
    fn longer_paths_pass() {
        let text = format!("https://example.org{}x", MACHINE_PATHS[0]);
        assert_eq!(content_findings("a.md", text.as_bytes()).len(), 0);
        assert_eq!(content_findings("binary", &[0xff, 0xfe]).len(), 0);
    }
}
