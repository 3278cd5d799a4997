//! How text becomes words: as Elasticsearch's standard analyzer does, with the rules of Unicode's
//! text segmentation (UAX #29) that matter for words, in lower case.

use std::str::CharIndices;

use tantivy::tokenizer::{
    LowerCaser, RemoveLongFilter, TextAnalyzer, Token, TokenStream, Tokenizer, TokenizerManager,
};

/// The analyzer's name in an index.
pub(crate) const STANDARD: &str = "standard";
/// Longer words are not indexed.
const WORD_BYTES_MAX: usize = 255;

/// Registers the analyzer.
pub(crate) fn register(tokenizers: &TokenizerManager) {
    tokenizers.register(STANDARD, standard());
}

pub(crate) fn standard() -> TextAnalyzer {
    TextAnalyzer::builder(Words::default())
        .filter(RemoveLongFilter::limit(WORD_BYTES_MAX))
        .filter(LowerCaser)
        .build()
}

#[derive(Clone, Default)]
struct Words {
    token: Token,
}

struct WordStream<'a> {
    text: &'a str,
    chars: CharIndices<'a>,
    token: &'a mut Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream { text, chars: text.char_indices(), token: &mut self.token }
    }
}

/// What a character does to the word before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Digit,
    /// Joins everything: `_`.
    Joiner,
    /// Joins letters or digits: `.` and apostrophes.
    Middle,
    /// Joins digits: `,` and `;`.
    MiddleOfNumber,
    /// A word of its own: Han and Hiragana have no spaces.
    Alone,
    Other,
}

fn class(c: char) -> Class {
    match c {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' => Class::Digit,
        '_' => Class::Joiner,
        '.' | '\'' | '\u{2018}' | '\u{2019}' => Class::Middle,
        ',' | ';' => Class::MiddleOfNumber,
        '\u{3041}'..='\u{309f}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3134f}' => Class::Alone,
        c if c.is_numeric() => Class::Digit,
        // Marks that combine with the letter before them are part of its word.
        '\u{300}'..='\u{36f}' | '\u{900}'..='\u{903}' | '\u{93a}'..='\u{94f}' => Class::Letter,
        c if c.is_alphanumeric() => Class::Letter,
        _ => Class::Other,
    }
}

/// Whether `middle` stands between two that it joins.
fn joins(before: Class, middle: Class, after: Class) -> bool {
    match middle {
        Class::Middle => before == after && matches!(before, Class::Letter | Class::Digit),
        Class::MiddleOfNumber => before == Class::Digit && after == Class::Digit,
        _ => false,
    }
}

impl WordStream<'_> {
    /// The end of the word whose first character was of class `last`.
    fn end_of_word(&mut self, mut last: Class) -> usize {
        if last == Class::Alone {
            return self.chars.offset();
        }
        loop {
            let end = self.chars.offset();
            let mut ahead = self.chars.clone();
            let Some((_, c)) = ahead.next() else { return end };
            let next = class(c);
            match next {
                Class::Letter | Class::Digit | Class::Joiner => {
                    self.chars = ahead;
                    last = next;
                }
                Class::Middle | Class::MiddleOfNumber => {
                    let Some((_, c)) = ahead.next() else { return end };
                    let after = class(c);
                    if !joins(last, next, after) {
                        return end;
                    }
                    self.chars = ahead;
                    last = after;
                }
                Class::Alone | Class::Other => return end,
            }
        }
    }
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        while let Some((begin, c)) = self.chars.next() {
            let first = class(c);
            if matches!(first, Class::Middle | Class::MiddleOfNumber | Class::Other) {
                continue;
            }
            let end = self.end_of_word(first);
            let word = &self.text[begin..end];
            if word.bytes().all(|byte| byte == b'_') {
                continue;
            }
            self.token.position = self.token.position.wrapping_add(1);
            self.token.offset_from = begin;
            self.token.offset_to = end;
            self.token.text.clear();
            self.token.text.push_str(word);
            return true;
        }
        false
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut analyzer = standard();
        let mut stream = analyzer.token_stream(text);
        let mut words = Vec::new();
        while stream.advance() {
            words.push(stream.token().text.clone());
        }
        words
    }

    #[test]
    fn words_are_those_of_the_standard_analyzer() {
        let cases: [(&str, &[&str]); 9] = [
            ("Riya.Sharma@Example.com", &["riya.sharma", "example.com"]),
            ("pay_0001-failed", &["pay_0001", "failed"]),
            ("it's 1,200.50 EUR.", &["it's", "1,200.50", "eur"]),
            ("a.1 1.a", &["a", "1", "1", "a"]),
            ("東京 tower", &["東", "京", "tower"]),
            ("naïve CAFÉ", &["naïve", "café"]),
            ("__ _x", &["_x"]),
            ("", &[]),
            (" ..,; ", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn offsets_and_positions_follow_the_text() {
        let mut analyzer = standard();
        let mut stream = analyzer.token_stream("é a-b");
        let mut seen = Vec::new();
        while stream.advance() {
            let token = stream.token();
            seen.push((token.offset_from, token.offset_to, token.position));
        }
        assert_eq!(seen, [(0, 2, 0), (3, 4, 1), (5, 6, 2)]);
    }
}
