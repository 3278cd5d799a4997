//! The language of `simple_query_string`: no text is an error in it.
//!
//! `+` and, `|` or, `-` not, `"phrase"~n`, `word~n`, `prefix*`, parentheses. Sans-io.

use tantivy::query::Occur;

use super::syntax::{Leaf, Node, group};

const DEPTH_MAX: usize = 20;
/// What follows after so many clauses is not looked for.
const CLAUSES_MAX: usize = 1024;

/// Reads a simple query string; clauses without an operator between them are joined by `default`.
pub(super) fn parse(text: &str, default: Occur) -> Node {
    let mut parser = Parser { rest: text, default, clauses: 0 };
    let mut clauses = Vec::new();
    while !parser.rest.is_empty() {
        clauses.extend(parser.list(0));
        // A parenthesis that closes nothing.
        parser.rest = parser.rest.strip_prefix(')').unwrap_or(parser.rest);
    }
    group(clauses)
}

struct Parser<'a> {
    rest: &'a str,
    default: Occur,
    clauses: usize,
}

impl Parser<'_> {
    fn list(&mut self, depth: usize) -> Vec<(Occur, Node)> {
        let mut clauses: Vec<(Occur, Node)> = Vec::new();
        // The operator before the next clause, where it says how both sides are joined.
        let mut join = None;
        let mut negated = false;
        while let Some(c) = self.rest.chars().next() {
            match c {
                ')' => break,
                '+' => join = Some(Occur::Must),
                '|' => join = Some(Occur::Should),
                '-' => negated = true,
                c if c.is_whitespace() => {}
                _ => {
                    let Some(node) = self.clause(depth) else { continue };
                    self.clauses += 1;
                    if self.clauses > CLAUSES_MAX {
                        self.rest = "";
                        break;
                    }
                    let occur = join.take().unwrap_or(self.default);
                    if let Some((before, _)) = clauses.last_mut()
                        && *before != Occur::MustNot
                        && occur != self.default
                    {
                        *before = occur;
                    }
                    let occur = if negated { Occur::MustNot } else { occur };
                    negated = false;
                    clauses.push((occur, node));
                    continue;
                }
            }
            self.rest = &self.rest[c.len_utf8()..];
        }
        clauses
    }

    fn clause(&mut self, depth: usize) -> Option<Node> {
        if let Some(inside) = self.rest.strip_prefix('(') {
            self.rest = inside;
            if depth >= DEPTH_MAX {
                return None;
            }
            let clauses = self.list(depth + 1);
            self.rest = self.rest.strip_prefix(')').unwrap_or(self.rest);
            return (!clauses.is_empty()).then(|| group(clauses));
        }
        if let Some(inside) = self.rest.strip_prefix('"')
            && let Some(end) = inside.find('"')
        {
            let text = inside[..end].to_owned();
            self.rest = &inside[end + 1..];
            let slop = self.tilde().flatten().unwrap_or(0);
            return Some(Node::Leaf(None, Leaf::Phrase(text, slop)));
        }
        let mut word = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => word.extend(chars.next().map(|(_, c)| c)),
                '"' if at == 0 => {}
                c if c.is_whitespace() || "\"()|+~".contains(c) => {
                    end = at;
                    break;
                }
                c => word.push(c),
            }
        }
        self.rest = &self.rest[end..];
        let leaf = match (word.strip_suffix('*'), self.tilde()) {
            (_, Some(changes)) => Leaf::Fuzzy(word, changes.map(|changes| changes.min(2) as u8)),
            (Some(prefix), None) if !prefix.is_empty() => Leaf::Glob(glob_of(prefix) + "*"),
            (_, None) => Leaf::Words(word),
        };
        Some(Node::Leaf(None, leaf))
    }

    /// `~` and a number, if there is one.
    fn tilde(&mut self) -> Option<Option<u32>> {
        let after = self.rest.strip_prefix('~')?;
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        self.rest = &after[digits..];
        Some(after[..digits].parse().ok())
    }
}

fn glob_of(text: &str) -> String {
    let mut pattern = String::new();
    for c in text.chars() {
        if matches!(c, '*' | '?' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Node {
        Node::Leaf(None, Leaf::Words(text.into()))
    }

    #[test]
    fn operators_stand_between_clauses() {
        use Occur::{Must, MustNot, Should};
        let read = |text| parse(text, Should);
        assert_eq!(read("a b"), Node::Group(vec![(Should, words("a")), (Should, words("b"))]));
        assert_eq!(read("a + b"), Node::Group(vec![(Must, words("a")), (Must, words("b"))]));
        assert_eq!(read("a -b"), Node::Group(vec![(Should, words("a")), (MustNot, words("b"))]));
        assert_eq!(read("ri*"), Node::Leaf(None, Leaf::Glob("ri*".into())));
        assert_eq!(read("\"a b\"~1"), Node::Leaf(None, Leaf::Phrase("a b".into(), 1)));
        assert_eq!(read("riya~1"), Node::Leaf(None, Leaf::Fuzzy("riya".into(), Some(1))));
        let or = Node::Group(vec![(Should, words("a")), (Should, words("b"))]);
        assert_eq!(parse("(a | b) c", Must), Node::Group(vec![(Must, or), (Must, words("c"))]));
    }

    #[test]
    fn every_text_can_be_read() {
        let mut random = fastrand::Rng::with_seed(8);
        let pieces = ["a", "é", "(", ")", "\"", "*", "\\", "~", "1", "-", "+", "|", " "];
        for _ in 0..20_000 {
            let length = random.usize(0..14);
            let text: String = (0..length).map(|_| pieces[random.usize(0..pieces.len())]).collect();
            parse(&text, Occur::Should);
        }
        parse(&"(".repeat(100_000), Occur::Should);
    }
}
