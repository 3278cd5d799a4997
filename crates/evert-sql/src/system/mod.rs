//! System relations.

use evert_view::Name;

/// Whether a name is a system relation's.
pub(crate) fn exists(name: &Name) -> bool {
    matches!(name.schema.as_str(), "evert" | "information_schema" | "pg_catalog")
}
