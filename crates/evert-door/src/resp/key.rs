//! Keys: `view:key`, and what stands for a character that would be misread.
//!
//! A key is a relation's or view's name, a colon, and the values of its key's columns in
//! Postgres's text form. A backslash goes before a backslash, and before a colon in a name and
//! between several values; `\N` is NULL. A key of one column needs no escape for its colons.
//! The name is in schema `public` unless it says `schema.name`.

use evert_view::Name;

/// Splits a key at the colon after the name; without one it is all name.
pub(super) fn split(key: &[u8]) -> (&[u8], &[u8]) {
    match unescaped(key, b':') {
        Some(at) => (&key[..at], &key[at + 1..]),
        None => (key, &[]),
    }
}

/// Where a byte stands that no backslash is before.
pub(super) fn unescaped(text: &[u8], wanted: u8) -> Option<usize> {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            byte if byte == wanted => return Some(at),
            _ => at += 1,
        }
    }
    None
}

/// Appends a text without its backslashes.
pub(super) fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        out.push(match byte {
            b'\\' => bytes.next().copied().unwrap_or(b'\\'),
            byte => byte,
        });
    }
}

/// Appends a text with a backslash before every backslash and every byte of `special`.
pub(super) fn escape(text: &[u8], special: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        if byte == b'\\' || special.contains(&byte) {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

/// The relation or view that the part of a key before its colon names.
pub(super) fn name(text: &[u8]) -> Option<Name> {
    let plain = |part: &[u8]| {
        let mut plain = Vec::new();
        unescape(part, &mut plain);
        String::from_utf8(plain).ok()
    };
    match unescaped(text, b'.') {
        Some(at) => Some(Name::new(plain(&text[..at])?, plain(&text[at + 1..])?)),
        None => Some(Name::public(plain(text)?)),
    }
}

/// What the keys of a relation or view begin with: its name and the colon.
pub(super) fn prefix(name: &Name) -> Vec<u8> {
    let mut out = Vec::new();
    let public = Name::public(name.name.as_str());
    if *name != public || name.name.contains('.') {
        escape(name.schema.as_bytes(), b":.", &mut out);
        out.push(b'.');
    }
    escape(name.name.as_bytes(), b":", &mut out);
    out.push(b':');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let names = [
            (Name::public("v"), "v:"),
            (Name::new("shop", "orders"), "shop.orders:"),
            (Name::public("a.b"), "public.a.b:"),
            (Name::public("a:b\\"), "a\\:b\\\\:"),
            (Name::new("a.b", "c"), "a\\.b.c:"),
        ];
        for (expected, text) in names {
            assert_eq!(prefix(&expected), text.as_bytes());
            let key = [text.as_bytes(), b"k:1\\:"].concat();
            let (found, rest) = split(&key);
            assert_eq!(name(found), Some(expected));
            assert_eq!(rest, b"k:1\\:");
        }
        assert_eq!(split(b"v"), (&b"v"[..], &b""[..]));
        assert_eq!(split(b"v\\"), (&b"v\\"[..], &b""[..]));
        assert_eq!(name(b"\xff"), None);
    }
}
