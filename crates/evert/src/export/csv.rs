//! CSV with a header: NULL is nothing, an empty text is `""`, lines end in a line feed.
//!
//! Format: RFC 4180, but for the line's end.

use std::io::Write;

use anyhow::Result;
use tokio_postgres::Column;

use super::Sink;

pub(super) struct CsvFile {
    out: Box<dyn Write + Send>,
    line: String,
}

impl CsvFile {
    pub(super) fn begin(out: Box<dyn Write + Send>, columns: &[Column]) -> Result<Self> {
        let mut file = Self { out, line: String::new() };
        let names: Vec<_> = columns.iter().map(|column| Some(column.name())).collect();
        file.row(&names)?;
        Ok(file)
    }
}

impl Sink for CsvFile {
    fn row(&mut self, values: &[Option<&str>]) -> Result<()> {
        self.line.clear();
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.line.push(',');
            }
            if let Some(value) = value {
                push(&mut self.line, value);
            }
        }
        self.line.push('\n');
        Ok(self.out.write_all(self.line.as_bytes())?)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

fn push(line: &mut String, value: &str) {
    if !value.is_empty() && !value.contains([',', '"', '\n', '\r']) {
        line.push_str(value);
        return;
    }
    line.push('"');
    line.push_str(&value.replace('"', "\"\""));
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_need_quotes_have_them() {
        let mut line = String::new();
        for value in ["a", "", "b,c", "d\"e", "f\ng"] {
            push(&mut line, value);
            line.push(';');
        }
        assert_eq!(line, "a;\"\";\"b,c\";\"d\"\"e\";\"f\ng\";");
    }
}
