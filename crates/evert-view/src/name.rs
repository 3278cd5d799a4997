//! Names of relations and views.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The schema that names without one belong to.
const PUBLIC: &str = "public";

/// `schema.name`; schema `public` is not shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    /// The schema: `public`, `evert`, or a source's name.
    pub schema: String,
    /// The name in its schema.
    pub name: String,
}

impl Name {
    /// A name in a schema.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// A name in schema `public`.
    pub fn public(name: impl Into<String>) -> Self {
        Self::new(PUBLIC, name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.schema == PUBLIC {
            f.write_str(&self.name)
        } else {
            write!(f, "{}.{}", self.schema, self.name)
        }
    }
}
