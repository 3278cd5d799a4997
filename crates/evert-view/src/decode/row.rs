//! A row from a JSON object: members found by name, values typed by column.

use std::borrow::Cow;

use evert_model::RowSchema;

use super::cell::{Cell, Json, JsonColumns};

/// How deep a fact's JSON may nest: what reads rows after this takes 128 levels, of which a row is one.
const DEPTH_MAX: usize = 100;

/// Why a record is bad whose text has U+0000 in it: what is read out through Postgres's protocol, or
/// kept in a Postgres, would be cut there or refused.
pub(super) const NO_NUL: &str = "a text cannot hold U+0000";

/// Reads rows of one schema.
pub(crate) struct RowReader {
    schema: RowSchema,
    columns: JsonColumns,
    any_text: bool,
}

impl RowReader {
    pub(crate) fn new(schema: RowSchema, columns: JsonColumns) -> Self {
        Self { schema, columns, any_text: false }
    }

    /// Reads any text that JSON can hold: for what comes from rows, not from a record.
    pub(crate) fn of_any_text(self) -> Self {
        Self { any_text: true, ..self }
    }

    pub(crate) fn schema(&self) -> &RowSchema {
        &self.schema
    }

    /// The object's members as one cell a column; members without a column are ignored, columns
    /// without a member are NULL.
    pub(crate) fn read<'a>(&self, object: &'a str) -> Result<Vec<Cell<'a>>, String> {
        let cells = self.members(object, |_| true)?;
        for (column, cell) in self.schema.columns.iter().zip(&cells) {
            if !column.nullable && *cell == Cell::Null {
                return Err(format!("column \"{}\" is NULL or missing", column.name));
            }
        }
        Ok(cells)
    }

    /// The cells of the key's columns only, from an object that may hold no others.
    pub(crate) fn read_key<'a>(&self, object: &'a str) -> Result<Vec<Cell<'a>>, String> {
        let cells = self.members(object, |index| self.schema.key.contains(&index))?;
        for &index in &self.schema.key {
            if cells[index] == Cell::Null {
                let name = &self.schema.columns[index].name;
                return Err(format!("key column \"{name}\" is NULL or missing"));
            }
        }
        Ok(cells)
    }

    fn members<'a>(
        &self,
        object: &'a str,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<Vec<Cell<'a>>, String> {
        let mut cells = vec![Cell::Null; self.schema.columns.len()];
        // Records of one producer mostly list their members in one order.
        let mut expected = 0;
        for_each_member(object, |name, raw| {
            let Some(index) = self.find(name, expected).filter(|&index| wanted(index)) else {
                return Ok(());
            };
            expected = index + 1;
            let column = &self.schema.columns[index];
            let bad = |why: &str| format!("column \"{}\": {why}", column.name);
            cells[index] =
                Json::of(raw).to_cell(column.ty, self.columns).map_err(|why| bad(&why))?;
            match self.any_text || !cells[index].has_nul() {
                true => Ok(()),
                false => Err(bad(NO_NUL)),
            }
        })?;
        Ok(cells)
    }

    fn find(&self, name: &str, expected: usize) -> Option<usize> {
        match self.schema.columns.get(expected) {
            Some(column) if column.name == name => Some(expected),
            _ => self.schema.index_of(name),
        }
    }
}

/// Calls `visit` with each member's name and raw value, in order.
pub(crate) fn for_each_member<'a>(
    object: &'a str,
    mut visit: impl FnMut(&str, &'a str) -> Result<(), String>,
) -> Result<(), String> {
    let Some(inside) = object.trim_ascii_start().strip_prefix('{') else {
        return Err("the value is not a JSON object".into());
    };
    if is_too_deep(object) {
        return Err(format!("the JSON nests deeper than {DEPTH_MAX} levels"));
    }
    let mut rest = inside;
    for member in sonic_rs::to_object_iter(object) {
        let (name, value) = member.map_err(|error| malformed(&error))?;
        // Values are slices of the object, so that nothing is copied here.
        let Cow::Borrowed(raw) = value.as_raw_cow() else {
            return Err("malformed JSON: a value is not part of the text".into());
        };
        rest = &object[raw.as_ptr() as usize - object.as_ptr() as usize + raw.len()..];
        visit(&name, raw)?;
    }
    if rest.trim_ascii() == "}" {
        return Ok(());
    }
    Err("malformed JSON: something follows the object".into())
}

/// Whether objects and arrays nest so deep that the parser, which recurses, might run out of stack.
pub(super) fn is_too_deep(json: &str) -> bool {
    let opens = |byte: &u8| matches!(byte, b'[' | b'{');
    if json.len() <= DEPTH_MAX
        || json.as_bytes().iter().filter(|byte| opens(byte)).count() <= DEPTH_MAX
    {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return true;
        }
    }
    false
}

fn malformed(error: &sonic_rs::Error) -> String {
    // The library's text goes on with a drawing of the place; its first line says what it is.
    let text = error.to_string();
    format!("malformed JSON: {}", text.lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn json_that_nests_too_deep_is_an_error_of_its_row() {
        let visit = |json: &str| for_each_member(json, |_, _| Ok(()));
        assert_eq!(visit(&nested(DEPTH_MAX - 1)), Ok(()));
        let why = Err("the JSON nests deeper than 100 levels".to_owned());
        assert_eq!(visit(&nested(DEPTH_MAX)), why);
        // As deep as a record can be.
        assert_eq!(visit(&nested(500_000)), why);
        // Width is not depth, and text is neither.
        let wide = format!("{{\"a\":[{}1]}}", "[],".repeat(5000));
        assert_eq!(visit(&wide), Ok(()));
        let text = format!("{{\"a\":\"\\\"{}\"}}", "[".repeat(5000));
        assert_eq!(visit(&text), Ok(()));
    }
}
