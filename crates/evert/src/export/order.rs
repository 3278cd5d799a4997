//! A total order for a query's rows: its own, then all columns; and what is no query.

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
        for (at, word) in words(query).into_iter().filter_map(Word::outside) {
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

/// What is wrong with a text that is not one SELECT without a moment of its own.
pub(super) fn mistake(query: &str) -> Option<&'static str> {
    let words = words(query);
    let word = |word: &Word<'_>| word.text.to_ascii_uppercase();
    let begins = words.first().map(word);
    let is_query = matches!(begins.as_deref(), Some("SELECT" | "WITH" | "VALUES" | "TABLE"));
    if !is_query || words.iter().any(|word| word.text == ";") {
        return Some("the query must be one SELECT");
    }
    let outside: Vec<_> = words.iter().filter(|word| word.depth == 0).map(word).collect();
    let is_as_of = |words: &[String]| {
        words[0] == "AS"
            && words[1] == "OF"
            && matches!(words[2].as_str(), "POSITION" | "TIMESTAMP")
    };
    outside.windows(3).any(is_as_of).then_some(
        "the query has an AS OF of its own: leave it out, the moment is what --as-of says",
    )
}

/// A word, or a semicolon.
struct Word<'a> {
    at: usize,
    text: &'a str,
    /// In how many brackets.
    depth: usize,
}

impl<'a> Word<'a> {
    /// A word that is not in brackets, with its place.
    fn outside(self) -> Option<(usize, &'a str)> {
        (self.depth == 0).then_some((self.at, self.text))
    }
}

/// The words outside of quotes and comments.
fn words(text: &str) -> Vec<Word<'_>> {
    let bytes = text.as_bytes();
    let (mut found, mut depth, mut at) = (Vec::new(), 0_usize, 0);
    while at < bytes.len() {
        let rest = &text[at..];
        at += match bytes[at] {
            quote @ (b'\'' | b'"') => quoted(rest, quote),
            b'-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            b'$' => dollar_quoted(rest),
            b';' => {
                found.push(Word { at, text: &rest[..1], depth });
                1
            }
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
                found.push(Word { at, text: &rest[..end], depth });
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
    fn only_one_select_is_a_query() {
        for query in [
            "SELECT 1",
            "-- all\n(SELECT ';' AS of) UNION SELECT 2",
            "WITH a AS (SELECT 1) TABLE a",
            "SELECT a AS of FROM t",
        ] {
            assert_eq!(mistake(query), None, "{query}");
        }
        for query in ["", "DELETE FROM t", "SELECT 1; SELECT 2", "EXPLAIN SELECT 1", "( ; )"] {
            assert_eq!(mistake(query), Some("the query must be one SELECT"), "{query}");
        }
        let own = mistake("SELECT * FROM t as of position 4").expect("refused");
        assert!(own.contains("--as-of"), "{own}");
    }

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
