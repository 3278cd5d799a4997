//! A total order for a query's rows: its own, then all columns.

/// The query with an order in which no two different rows are equal.
pub(super) fn whole(query: &str, columns: usize) -> String {
    let all: Vec<_> = (1..=columns).map(|column| column.to_string()).collect();
    let all = all.join(", ");
    if columns == 0 {
        return query.to_owned();
    }
    let outline = Outline::of(query);
    let (head, tail) = query.split_at(outline.end);
    // On a line of its own: a comment may be the last thing before.
    let joined = if outline.is_ordered { "," } else { "ORDER BY" };
    let space = if tail.is_empty() { "" } else { " " };
    format!("{}\n{joined} {all}{space}{tail}", head.trim_end())
}

/// Where a query's own order is, or would be.
struct Outline {
    is_ordered: bool,
    /// Where LIMIT and its like begin; the text's end if there is none.
    end: usize,
}

impl Outline {
    fn of(query: &str) -> Self {
        let mut outline = Self { is_ordered: false, end: query.len() };
        let mut before = String::new();
        for (at, word) in words(query) {
            let word = word.to_ascii_uppercase();
            match (before.as_str(), word.as_str()) {
                ("ORDER", "BY") => outline.is_ordered = true,
                (_, "LIMIT" | "OFFSET" | "FETCH") => {
                    outline.end = at;
                    break;
                }
                _ => {}
            }
            before = word;
        }
        outline
    }
}

/// The words outside of brackets, quotes and comments, with their places.
fn words(text: &str) -> Vec<(usize, &str)> {
    let bytes = text.as_bytes();
    let (mut found, mut depth, mut at) = (Vec::new(), 0_usize, 0);
    while at < bytes.len() {
        let rest = &text[at..];
        at += match bytes[at] {
            quote @ (b'\'' | b'"') => quoted(rest, quote),
            b'-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            b'$' => dollar_quoted(rest),
            b'(' => {
                depth += 1;
                1
            }
            b')' => {
                depth = depth.saturating_sub(1);
                1
            }
            c if c.is_ascii_alphabetic() || c == b'_' => {
                let is_inside = |c: char| !(c.is_alphanumeric() || c == '_' || c == '.');
                let end = rest.find(is_inside).unwrap_or(rest.len());
                if depth == 0 {
                    found.push((at, &rest[..end]));
                }
                end
            }
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
    }
    found
}

/// The length of a quoted text; a doubled quote is part of it.
fn quoted(text: &str, quote: u8) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        if bytes[at] == quote {
            if bytes.get(at + 1) != Some(&quote) {
                return at + 1;
            }
            at += 1;
        }
        at += 1;
    }
    bytes.len()
}

/// The length of `$tag$...$tag$`, or of the dollar.
fn dollar_quoted(text: &str) -> usize {
    let Some(end) = text[1..].find('$') else { return 1 };
    let tag = &text[..end + 2];
    let is_tag = tag[1..tag.len() - 1].chars().all(|c| c.is_alphanumeric() || c == '_');
    if !is_tag || tag[1..].starts_with(|c: char| c.is_ascii_digit()) {
        return 1;
    }
    text[tag.len()..].find(tag).map_or(text.len(), |close| close + 2 * tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_made_whole() {
        for (query, expected) in [
            ("SELECT a, b FROM t", "SELECT a, b FROM t\nORDER BY 1, 2"),
            ("SELECT a, b FROM t order by b DESC", "SELECT a, b FROM t order by b DESC\n, 1, 2"),
            ("SELECT a, b FROM t LIMIT 5", "SELECT a, b FROM t\nORDER BY 1, 2 LIMIT 5"),
            (
                "SELECT a, b FROM t ORDER BY a OFFSET 1",
                "SELECT a, b FROM t ORDER BY a\n, 1, 2 OFFSET 1",
            ),
            (
                "SELECT sum(b) OVER (ORDER BY c), d FROM (SELECT * FROM t ORDER BY 1 LIMIT 2) x",
                "SELECT sum(b) OVER (ORDER BY c), d FROM (SELECT * FROM t ORDER BY 1 LIMIT 2) x\n\
                 ORDER BY 1, 2",
            ),
            (
                "SELECT 'order by ''x', \"limit\" FROM t -- limit 1\n",
                "SELECT 'order by ''x', \"limit\" FROM t -- limit 1\nORDER BY 1, 2",
            ),
            ("SELECT $$ limit $$, 'é' FROM t", "SELECT $$ limit $$, 'é' FROM t\nORDER BY 1, 2"),
        ] {
            assert_eq!(whole(query, 2), expected, "{query}");
        }
    }
}
