//! Which column of which relation a result's column is, for clients that edit what they read.

use arrow::datatypes::Field;

/// The keys of a field's metadata under which its origin is kept.
const RELATION: &str = "evert.origin.relation";
const COLUMN: &str = "evert.origin.column";

/// A result's column as a relation's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The relation's oid, as `pg_class` has it.
    pub relation: u32,
    /// The column's number there, from 1 on.
    pub column: i16,
}

impl Origin {
    /// Where a field comes from; `None` if it is computed.
    pub fn of_field(field: &Field) -> Option<Self> {
        let metadata = field.metadata();
        let relation = metadata.get(RELATION)?.parse().ok()?;
        let column = metadata.get(COLUMN)?.parse().ok()?;
        Some(Self { relation, column })
    }

    /// The field, which tells where it comes from.
    pub fn tell(self, field: Field) -> Field {
        let mut metadata = field.metadata().clone();
        metadata.insert(RELATION.to_owned(), self.relation.to_string());
        metadata.insert(COLUMN.to_owned(), self.column.to_string());
        field.with_metadata(metadata)
    }

    /// The field, which no longer tells where it comes from: what is kept elsewhere must not.
    pub fn untold(field: Field) -> Field {
        let mut metadata = field.metadata().clone();
        metadata.retain(|key, _| key != RELATION && key != COLUMN);
        field.with_metadata(metadata)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    #[test]
    fn a_field_tells_where_it_comes_from() {
        let field = Field::new("a", DataType::Int64, true);
        assert_eq!(Origin::of_field(&field), None);
        let origin = Origin { relation: 3_000_000_000, column: 2 };
        let told = origin.tell(field.clone());
        assert_eq!(Origin::of_field(&told), Some(origin));
        assert_eq!(told.data_type(), field.data_type());
        assert_eq!(Origin::untold(told), field);
    }
}
