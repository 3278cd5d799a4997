//! Wildcards: `*` is any run of characters, `?` is one, `\` takes the next as it is.

/// Whether `text` is what `pattern` says. Takes time of at most their product.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<Piece> = pieces(pattern).collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows the last `*` does not fit here.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Piece::Any) => {
                retry = Some((p, t));
                p += 1;
            }
            Some(Piece::One) => (p, t) = (p + 1, t + 1),
            Some(Piece::Char(c)) if *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match &mut retry {
                Some((star, from)) => {
                    *from += 1;
                    (p, t) = (*star + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|piece| *piece == Piece::Any)
}

/// One piece of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Any,
    One,
    Char(char),
}

/// A pattern in pieces.
pub(crate) fn pieces(pattern: &str) -> impl Iterator<Item = Piece> + '_ {
    let mut chars = pattern.chars();
    std::iter::from_fn(move || {
        Some(match chars.next()? {
            '*' => Piece::Any,
            '?' => Piece::One,
            '\\' => Piece::Char(chars.next().unwrap_or('\\')),
            c => Piece::Char(c),
        })
    })
}

/// A pattern as a regular expression over whole terms.
pub(crate) fn regex_of(pattern: &str, any_case: bool) -> String {
    let mut regex = String::new();
    for piece in pieces(pattern) {
        match piece {
            Piece::Any => regex.push_str("(.|\\n)*"),
            Piece::One => regex.push_str("(.|\\n)"),
            Piece::Char(c) => push_char(c, any_case, &mut regex),
        }
    }
    regex
}

fn push_char(c: char, any_case: bool, out: &mut String) {
    let (lower, upper) = (c.to_lowercase().next(), c.to_uppercase().next());
    match (lower, upper) {
        (Some(lower), Some(upper)) if any_case && lower != upper => {
            out.push('(');
            out.push(lower);
            out.push('|');
            out.push(upper);
            out.push(')');
        }
        _ => {
            if "\\.+*?()|[]{}^$#&-~".contains(c) {
                out.push('\\');
            }
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_whole_texts() {
        let cases = [
            ("ri*a", "riya", true),
            ("ri*a", "riyas", false),
            ("*", "", true),
            ("?", "", false),
            ("a*b*c", "aXbYbZc", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("*.created", "meta.created", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_hard_pattern_ends_in_time() {
        let text = "a".repeat(2000);
        assert!(!matches(&format!("{}b", "*a".repeat(500)), &text));
    }
}
