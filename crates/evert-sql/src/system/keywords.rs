//! What is the same everywhere and is asked for as rows: `pg_get_keywords()`, `pg_timezone_names`.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::SystemTable;
use super::rows::{Builder, Kind::Bool, Kind::Text};
use crate::engine::Inner;

/// Postgres 15's keywords: each with its category, and whether it may be a name without AS.
const KEYWORDS: &str = include_str!("keywords.txt");

/// Those that are not unreserved.
static QUOTED: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    let quoted = |line: &'static str| {
        let (word, category) = line.split_once(' ')?;
        (!category.starts_with('U')).then_some(word)
    };
    KEYWORDS.lines().filter_map(quoted).collect()
});

/// Whether a word is a name only in quotes.
pub(crate) fn needs_quotes(word: &str) -> bool {
    QUOTED.contains(word)
}

pub(super) const TABLES: &[SystemTable] = &[
    SystemTable {
        schema: "pg_catalog",
        name: "pg_get_keywords",
        columns: &[
            ("word", Text),
            ("catcode", Text),
            ("barelabel", Bool),
            ("catdesc", Text),
            ("baredesc", Text),
        ],
        fill: keywords,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_timezone_names",
        columns: &[("name", Text), ("abbrev", Text), ("utc_offset", Text), ("is_dst", Bool)],
        fill: zones,
    },
];

fn keywords(_: &Inner, rows: &mut Builder) {
    for line in KEYWORDS.lines() {
        let mut parts = line.split(' ');
        let (Some(word), Some(category), Some(label)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let described = match category {
            "U" => "unreserved",
            "C" => "unreserved (cannot be function or type name)",
            "T" => "reserved (can be function or type name)",
            _ => "reserved",
        };
        let is_bare = label == "B";
        let bare = if is_bare { "can be bare label" } else { "requires AS" };
        let row = vec![word.into(), category.into(), is_bare.into(), described.into(), bare.into()];
        rows.push(row);
    }
}

/// Sessions live in UTC, by whatever name.
fn zones(_: &Inner, rows: &mut Builder) {
    let zones = ["UTC", "Etc/UTC", "Etc/Universal", "Etc/Zulu", "UCT", "Universal", "Zulu"];
    for name in zones {
        rows.push(vec![name.into(), "UTC".into(), "00:00:00".into(), false.into()]);
    }
    for name in ["GMT", "Etc/GMT", "Etc/Greenwich", "Greenwich"] {
        rows.push(vec![name.into(), "GMT".into(), "00:00:00".into(), false.into()]);
    }
}
