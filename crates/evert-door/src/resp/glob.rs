//! Glob patterns, as Redis's `KEYS` and `PSUBSCRIBE` understand them: `*`, `?`, `[a-c]`, `[^a]`
//! and `\` before a character that is meant as it is.

/// Whether a text is what the pattern describes. Takes time in the product of their lengths at
/// most.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // The last `*`, and where the text went on after it.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
            continue;
        }
        match one(&pattern[p.min(pattern.len())..], text[t]) {
            Some(length) => {
                p += length;
                t += 1;
            }
            None => {
                let Some((at, tried)) = star else { return false };
                star = Some((at, tried + 1));
                (p, t) = (at + 1, tried + 1);
            }
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// The length of the pattern's first element if it matches the byte.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [b'[', set @ ..] => {
            let (found, length) = class(set, byte);
            found.then_some(length + 1)
        }
        [literal, ..] => (*literal == byte).then_some(1),
    }
}

/// Whether a byte is in a class, and how long the class is with its closing bracket.
fn class(set: &[u8], byte: u8) -> (bool, usize) {
    let (negated, mut at) = if set.first() == Some(&b'^') { (true, 1) } else { (false, 0) };
    let mut found = false;
    while at < set.len() {
        match set[at..] {
            [b']', ..] => return (found != negated, at + 1),
            [b'\\', literal, ..] => {
                found |= literal == byte;
                at += 2;
            }
            [low, b'-', high, ..] => {
                found |= (low.min(high)..=low.max(high)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                found |= literal == byte;
                at += 1;
            }
            [] => break,
        }
    }
    // Redis takes a class that is not closed as one that ends here.
    (found != negated, at)
}

/// What every matching text begins with, and whether that is the whole of it.
pub(super) fn literal_prefix(pattern: &[u8]) -> (Vec<u8>, bool) {
    let mut prefix = Vec::new();
    let mut rest = pattern;
    loop {
        rest = match rest {
            [] => return (prefix, true),
            [b'*' | b'?' | b'[', ..] => return (prefix, false),
            [b'\\', literal, after @ ..] => {
                prefix.push(*literal);
                after
            }
            [literal, after @ ..] => {
                prefix.push(*literal);
                after
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let yes = [
            ("", ""),
            ("*", ""),
            ("*", "anything"),
            ("a*c", "abbbc"),
            ("a*b*c", "axxbyybzzc"),
            ("h?llo", "hello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("h[a-c]llo", "hbllo"),
            ("h[c-a]llo", "hbllo"),
            ("a\\*b", "a*b"),
            ("[\\]]", "]"),
            ("v:*", "v:\\N"),
            ("[a", "a"),
        ];
        let no = [
            ("", "a"),
            ("a", ""),
            ("a*c", "abbb"),
            ("h?llo", "hllo"),
            ("h[^e]llo", "hello"),
            ("a\\*b", "axb"),
            ("v:*", "w:1"),
            ("a", "ab"),
        ];
        for (pattern, text) in yes {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in no {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn hostile_patterns_end_in_time() {
        let pattern = "*a".repeat(2000) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(20_000).as_bytes()));
    }

    #[test]
    fn prefixes() {
        assert_eq!(literal_prefix(b"v:a\\*b"), (b"v:a*b".to_vec(), true));
        assert_eq!(literal_prefix(b"v:a*b"), (b"v:a".to_vec(), false));
        assert_eq!(literal_prefix(b"[v]:a"), (Vec::new(), false));
    }
}
