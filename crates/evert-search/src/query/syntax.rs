//! The language of `query_string`: Lucene's, read into a tree.
//!
//! AND binds stronger than OR, as everywhere but in Lucene. Sans-io: text in, tree out.

use tantivy::query::Occur;

/// How deep parentheses may be nested.
const DEPTH_MAX: usize = 20;
/// Clauses of one text.
const CLAUSES_MAX: usize = 1024;

/// A query string's tree.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// `*:*`
    All,
    /// `_exists_:field`, `field:*`
    Exists(String),
    /// One thing to look for, in a field or in the default ones.
    Leaf(Option<String>, Leaf),
    Group(Vec<(Occur, Node)>),
    Boost(Box<Node>, f32),
}

/// See [`Node::Leaf`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Leaf {
    Words(String),
    Phrase(String, u32),
    /// With `*` and `?`; literal ones are escaped.
    Glob(String),
    Regex(String),
    /// With how many changes, if it says so.
    Fuzzy(String, Option<u8>),
    /// The ends, each with whether it belongs to the range.
    Range(Option<(String, bool)>, Option<(String, bool)>),
}

/// Reads a query string; clauses without an operator between them are joined by `default`.
///
/// # Errors
/// What is wrong with the text, and at which byte.
pub(super) fn parse(text: &str, default: Occur) -> Result<Node, String> {
    let mut parser = Parser { text, at: 0, default, clauses: 0 };
    let node = parser.list(None, 0)?;
    if parser.at < text.len() {
        return Err(parser.unexpected());
    }
    Ok(node)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    default: Occur,
    clauses: usize,
}

/// A clause with the `+`, `-` or NOT before it.
type Signed = (Option<Occur>, Node);

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// An operator that is a word of its own.
    fn eat_word(&mut self, word: &str) -> bool {
        let Some(after) = self.rest().strip_prefix(word) else { return false };
        let ends = after.chars().next().is_none_or(|c| c.is_whitespace() || c == '(');
        if ends {
            self.at += word.len();
        }
        ends
    }

    fn unexpected(&self) -> String {
        match self.peek() {
            Some(c) => format!("unexpected [{c}] at byte {}", self.at),
            None => "unexpected end".into(),
        }
    }

    fn list(&mut self, field: Option<&str>, depth: usize) -> Result<Node, String> {
        if depth > DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX}"));
        }
        let mut clauses = Vec::new();
        loop {
            self.skip_space();
            if self.peek().is_none_or(|c| c == ')') {
                break;
            }
            let (occur, node) = self.any(field, depth)?;
            clauses.push((occur.unwrap_or(self.default), node));
        }
        Ok(group(clauses))
    }

    /// Clauses with OR between them.
    fn any(&mut self, field: Option<&str>, depth: usize) -> Result<Signed, String> {
        let first = self.all(field, depth)?;
        let mut clauses = Vec::new();
        loop {
            self.skip_space();
            if !(self.eat_word("OR") || self.eat("||")) {
                break;
            }
            clauses.push(self.all(field, depth)?);
        }
        if clauses.is_empty() {
            return Ok(first);
        }
        clauses.insert(0, first);
        let should = |(occur, node)| match occur {
            Some(Occur::MustNot) => (Occur::Should, Node::Group(vec![(Occur::MustNot, node)])),
            occur => (occur.unwrap_or(Occur::Should), node),
        };
        Ok((None, group(clauses.into_iter().map(should).collect())))
    }

    /// Clauses with AND between them.
    fn all(&mut self, field: Option<&str>, depth: usize) -> Result<Signed, String> {
        let first = self.signed(field, depth)?;
        let mut clauses = Vec::new();
        loop {
            self.skip_space();
            if !(self.eat_word("AND") || self.eat("&&")) {
                break;
            }
            clauses.push(self.signed(field, depth)?);
        }
        if clauses.is_empty() {
            return Ok(first);
        }
        clauses.insert(0, first);
        let must = |(occur, node): Signed| (occur.unwrap_or(Occur::Must), node);
        Ok((None, group(clauses.into_iter().map(must).collect())))
    }

    fn signed(&mut self, field: Option<&str>, depth: usize) -> Result<Signed, String> {
        self.skip_space();
        let occur = match self.peek() {
            Some('+') => Some(Occur::Must),
            Some('-' | '!') => Some(Occur::MustNot),
            _ if self.eat_word("NOT") => {
                self.skip_space();
                return Ok((Some(Occur::MustNot), self.clause(field, depth)?));
            }
            _ => None,
        };
        if occur.is_some() {
            self.at += 1;
        }
        Ok((occur, self.clause(field, depth)?))
    }

    fn clause(&mut self, field: Option<&str>, depth: usize) -> Result<Node, String> {
        self.clauses += 1;
        if self.clauses > CLAUSES_MAX {
            return Err(format!("more than {CLAUSES_MAX} clauses"));
        }
        self.skip_space();
        if let Some(name) = self.field_name() {
            return self.in_field(name, depth);
        }
        self.value(field, depth)
    }

    /// `name:`, if that is what follows.
    fn field_name(&mut self) -> Option<String> {
        let begin = self.at;
        let mut name = String::new();
        while let Some(c) = self.peek() {
            match c {
                ':' if !name.is_empty() => {
                    self.at += 1;
                    return Some(name);
                }
                '\\' => {
                    self.at += 1;
                    let Some(c) = self.peek() else { break };
                    name.push(c);
                    self.at += c.len_utf8();
                }
                c if c.is_alphanumeric() || "_.*-@".contains(c) => {
                    name.push(c);
                    self.at += c.len_utf8();
                }
                _ => break,
            }
        }
        self.at = begin;
        None
    }

    fn in_field(&mut self, name: String, depth: usize) -> Result<Node, String> {
        if name == "*" && self.eat("*") {
            return self.boosted(Node::All);
        }
        if name == "_exists_" {
            let (field, _) = self.word();
            return Ok(Node::Exists(field));
        }
        let ops =
            [(">=", true, true), (">", true, false), ("<=", false, true), ("<", false, false)];
        for (op, lower, included) in ops {
            if self.eat(op) {
                let (value, _) = self.word();
                let end = Some((value, included));
                let range = if lower { Leaf::Range(end, None) } else { Leaf::Range(None, end) };
                return self.boosted(Node::Leaf(Some(name), range));
            }
        }
        match self.value(Some(&name), depth)? {
            Node::Leaf(Some(field), Leaf::Glob(pattern)) if pattern == "*" => {
                Ok(Node::Exists(field))
            }
            node => Ok(node),
        }
    }

    fn value(&mut self, field: Option<&str>, depth: usize) -> Result<Node, String> {
        let named = |leaf| Node::Leaf(field.map(str::to_owned), leaf);
        let node = match self.peek() {
            Some('(') => {
                self.at += 1;
                let node = self.list(field, depth + 1)?;
                if !self.eat(")") {
                    return Err("a parenthesis is not closed".into());
                }
                node
            }
            Some('"') => {
                self.at += 1;
                let text = self.until('"')?;
                let slop = if self.eat("~") { self.number().unwrap_or(0.0) } else { 0.0 };
                named(Leaf::Phrase(text, slop as u32))
            }
            Some('/') => {
                self.at += 1;
                named(Leaf::Regex(self.until('/')?))
            }
            Some('[' | '{') => named(self.range()?),
            Some(_) => {
                let (word, glob) = self.word();
                if word.is_empty() || matches!(word.as_str(), "AND" | "OR" | "NOT") {
                    return Err(self.unexpected());
                }
                match glob {
                    true if word == "*" && field.is_none() => Node::All,
                    true => named(Leaf::Glob(word)),
                    false if self.eat("~") => {
                        let changes = self.number().map(|number| (number as u8).min(2));
                        named(Leaf::Fuzzy(word, changes))
                    }
                    false => named(Leaf::Words(word)),
                }
            }
            None => return Err(self.unexpected()),
        };
        self.boosted(node)
    }

    fn boosted(&mut self, node: Node) -> Result<Node, String> {
        if !self.eat("^") {
            return Ok(node);
        }
        match self.number() {
            Some(boost) if boost >= 0.0 => Ok(Node::Boost(Box::new(node), boost)),
            _ => Err(self.unexpected()),
        }
    }

    fn number(&mut self) -> Option<f32> {
        let digits = |c: char| c.is_ascii_digit() || c == '.';
        let length = self.rest().find(|c| !digits(c)).unwrap_or(self.rest().len());
        let number = self.rest()[..length].parse().ok()?;
        self.at += length;
        Some(number)
    }

    /// A text up to `end`, in which `\` takes the next character as it is.
    fn until(&mut self, end: char) -> Result<String, String> {
        let mut text = String::new();
        while let Some(c) = self.peek() {
            self.at += c.len_utf8();
            match c {
                '\\' => {
                    let Some(escaped) = self.peek() else { break };
                    self.at += escaped.len_utf8();
                    if end == '/' && escaped != '/' {
                        text.push('\\');
                    }
                    text.push(escaped);
                }
                c if c == end => return Ok(text),
                c => text.push(c),
            }
        }
        Err(format!("[{end}] is not closed"))
    }

    /// `[a TO b]`, with braces for ends that do not belong to it.
    fn range(&mut self) -> Result<Leaf, String> {
        let lower_included = self.peek() == Some('[');
        self.at += 1;
        let lower = self.end_of_range()?;
        self.skip_space();
        if !self.eat_word("TO") {
            return Err(self.unexpected());
        }
        let upper = self.end_of_range()?;
        self.skip_space();
        let upper_included = match self.peek() {
            Some(']') => true,
            Some('}') => false,
            _ => return Err(self.unexpected()),
        };
        self.at += 1;
        let open = |end: String, included| (end != "*").then_some((end, included));
        Ok(Leaf::Range(open(lower, lower_included), open(upper, upper_included)))
    }

    fn end_of_range(&mut self) -> Result<String, String> {
        self.skip_space();
        if self.eat("\"") {
            return self.until('"');
        }
        let length = self.rest().find(|c: char| c.is_whitespace() || "]}".contains(c));
        let (end, _) = self.rest().split_at(length.unwrap_or(self.rest().len()));
        self.at += end.len();
        if end.is_empty() { Err(self.unexpected()) } else { Ok(end.to_owned()) }
    }

    /// A word, and whether it has wildcards; in one that has, literal ones stay escaped.
    fn word(&mut self) -> (String, bool) {
        let mut plain = String::new();
        let mut pattern = String::new();
        let mut glob = false;
        while let Some(c) = self.peek() {
            if c.is_whitespace() || "\"()[]{}^~".contains(c) {
                break;
            }
            self.at += c.len_utf8();
            let c = match c {
                '*' | '?' => {
                    glob = true;
                    pattern.push(c);
                    plain.push(c);
                    continue;
                }
                '\\' => match self.peek() {
                    Some(escaped) => {
                        self.at += escaped.len_utf8();
                        escaped
                    }
                    None => '\\',
                },
                c => c,
            };
            if matches!(c, '*' | '?' | '\\') {
                pattern.push('\\');
            }
            pattern.push(c);
            plain.push(c);
        }
        if glob { (pattern, true) } else { (plain, false) }
    }
}

/// One clause stands for itself.
pub(super) fn group(mut clauses: Vec<(Occur, Node)>) -> Node {
    match clauses.as_slice() {
        [(Occur::Must | Occur::Should, _)] => clauses.remove(0).1,
        _ => Node::Group(clauses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Node {
        Node::Leaf(None, Leaf::Words(text.into()))
    }

    fn read(text: &str) -> Node {
        parse(text, Occur::Should).unwrap()
    }

    #[test]
    fn operators_combine_as_everywhere() {
        use Occur::{Must, MustNot, Should};
        assert_eq!(read("a b"), Node::Group(vec![(Should, words("a")), (Should, words("b"))]));
        assert_eq!(read("a AND b"), Node::Group(vec![(Must, words("a")), (Must, words("b"))]));
        assert_eq!(read("a && b"), read("a AND b"));
        let right = Node::Group(vec![(Must, words("b")), (Must, words("c"))]);
        assert_eq!(read("a OR b AND c"), Node::Group(vec![(Should, words("a")), (Should, right)]));
        assert_eq!(read("+a -b"), Node::Group(vec![(Must, words("a")), (MustNot, words("b"))]));
        assert_eq!(read("a AND NOT b"), read("+a -b"));
        assert_eq!(read("((a))"), words("a"));
    }

    #[test]
    fn values_have_their_forms() {
        let leaf = |leaf| Node::Leaf(Some("f".into()), leaf);
        assert_eq!(read("f:ri*a"), leaf(Leaf::Glob("ri*a".into())));
        assert_eq!(read("f:\"a b\"~2"), leaf(Leaf::Phrase("a b".into(), 2)));
        assert_eq!(read("f:riya~"), leaf(Leaf::Fuzzy("riya".into(), None)));
        assert_eq!(read("f:/ri.*/"), leaf(Leaf::Regex("ri.*".into())));
        assert_eq!(read("f:>=10"), leaf(Leaf::Range(Some(("10".into(), true)), None)));
        let range = Leaf::Range(Some(("1".into(), true)), Some(("5".into(), false)));
        assert_eq!(read("f:[1 TO 5}"), leaf(range));
        assert_eq!(read("f:*"), Node::Exists("f".into()));
        assert_eq!(read("_exists_:f"), Node::Exists("f".into()));
        assert_eq!(read("*:*"), Node::All);
        assert_eq!(read("a^2"), Node::Boost(Box::new(words("a")), 2.0));
        assert_eq!(read("a\\:b"), words("a:b"));
        assert_eq!(read("riya@example.com"), words("riya@example.com"));
        let grouped = Node::Group(vec![
            (Occur::Should, leaf(Leaf::Words("a".into()))),
            (Occur::Should, leaf(Leaf::Words("b".into()))),
        ]);
        assert_eq!(read("f:(a b)"), grouped);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for text in ["(a", "a)", "\"a", "f:", "[1 TO", "AND", "a AND", "f:[1 5]", "/x", "a^x"] {
            assert!(parse(text, Occur::Should).is_err(), "{text}");
        }
        assert!(parse(&"(".repeat(10_000), Occur::Should).is_err());
        assert!(parse(&"a ".repeat(2000), Occur::Should).is_err());
    }

    #[test]
    fn no_text_breaks_it() {
        let mut random = fastrand::Rng::with_seed(7);
        let pieces =
            ["a", "é", ":", "(", ")", "\"", "[", "]", " TO ", "*", "\\", "~", "^", "/", "-"];
        for _ in 0..20_000 {
            let length = random.usize(0..12);
            let text: String = (0..length).map(|_| pieces[random.usize(0..pieces.len())]).collect();
            let _ = parse(&text, Occur::Should);
        }
    }
}
