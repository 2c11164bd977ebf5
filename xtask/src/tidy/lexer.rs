//! Rust text as tokens, without its comments and with its strings in one piece, so that a rule
//! never mistakes prose for code.
//!
//! It knows nested comments, raw strings, and a lifetime from a character; it does not expand
//! macros, and a number with a point is several tokens.

/// A word, a number, a literal with its quotes, a lifetime, or one character of punctuation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// A raw or byte literal starts at its quote: no token that starts with a letter is a literal.
    pub(crate) text: &'a str,
    /// Where it starts, counted from 1.
    pub(crate) line: usize,
    /// Where it ends.
    pub(crate) last_line: usize,
}

/// The tokens of `source`. An unterminated literal or comment runs to the end.
pub(crate) fn lex(source: &str) -> Vec<Token<'_>> {
    Lexer { source, at: 0, line: 1 }.tokens()
}

#[derive(Debug)]
struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
}

// === impl Token ===

impl Token<'_> {
    /// Whether this is a keyword or a name.
    pub(crate) fn is_word(&self) -> bool {
        self.text.bytes().next().is_some_and(|byte| is_word(byte) && !byte.is_ascii_digit())
    }
}

// === impl Lexer ===

impl<'a> Lexer<'a> {
    fn tokens(mut self) -> Vec<Token<'a>> {
        let mut tokens = Vec::new();
        while let Some(byte) = self.peek(0) {
            let rest = &self.source[self.at..];
            if byte.is_ascii_whitespace() {
                self.advance(1);
            } else if rest.starts_with("//") {
                self.advance(rest.find('\n').unwrap_or(rest.len()));
            } else if rest.starts_with("/*") {
                self.block_comment();
            } else {
                tokens.push(self.token(byte));
            }
        }
        tokens
    }

    fn token(&mut self, byte: u8) -> Token<'a> {
        match byte {
            b'"' => self.take(self.string_length()),
            b'\'' => self.take(self.quote_length()),
            byte if is_word(byte) => {
                let length = self.word_length(0);
                let word = &self.source[self.at..self.at + length];
                let raw = matches!(word, "r" | "br" | "cr");
                match self.peek(length) {
                    Some(b'"') if matches!(word, "b" | "c") => {
                        self.advance(length);
                        self.take(self.string_length())
                    }
                    Some(b'\'') if word == "b" => {
                        self.advance(length);
                        self.take(self.quote_length())
                    }
                    Some(b'"' | b'#') if raw => self.raw(length),
                    _ => self.take(length),
                }
            }
            _ => self.take(1),
        }
    }

    /// A raw string or a raw identifier (`r#type`), behind a prefix of `prefix` bytes.
    fn raw(&mut self, prefix: usize) -> Token<'a> {
        let rest = &self.source[self.at + prefix..];
        let content = rest.trim_start_matches('#');
        let hashes = rest.len() - content.len();
        if !content.starts_with('"') {
            let length = prefix + hashes;
            return self.take(length + self.word_length(length));
        }
        self.advance(prefix + hashes);
        let close = format!("\"{}", "#".repeat(hashes));
        let length = content[1..].find(&close).map_or(content.len(), |at| 1 + at + close.len());
        self.take(length)
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.source.len() {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.advance(2);
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.advance(2);
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.advance(1),
            }
        }
    }

    fn string_length(&self) -> usize {
        self.length_to(b'"', 1)
    }

    /// A character when a quote follows one or an escape, otherwise a lifetime.
    fn quote_length(&self) -> usize {
        let character = self.source[self.at + 1..].chars().next();
        match character {
            Some('\\') => self.length_to(b'\'', 1),
            Some(c) if self.peek(1 + c.len_utf8()) == Some(b'\'') => c.len_utf8() + 2,
            _ => 1 + self.word_length(1),
        }
    }

    /// How far it is to the end of the literal that `quote` ends, searched from `offset`.
    fn length_to(&self, quote: u8, mut offset: usize) -> usize {
        while let Some(byte) = self.peek(offset) {
            offset += if byte == b'\\' { 2 } else { 1 };
            if byte == quote {
                break;
            }
        }
        offset
    }

    fn word_length(&self, offset: usize) -> usize {
        self.source.as_bytes()[self.at + offset..].iter().take_while(|byte| is_word(**byte)).count()
    }

    fn peek(&self, offset: usize) -> Option<u8> {
        self.source.as_bytes().get(self.at + offset).copied()
    }

    fn take(&mut self, length: usize) -> Token<'a> {
        let (start, line) = (self.at, self.line);
        self.advance(length);
        Token { text: &self.source[start..self.at], line, last_line: self.line }
    }

    fn advance(&mut self, length: usize) {
        let end = (self.at + length).min(self.source.len());
        let passed = &self.source.as_bytes()[self.at..end];
        self.line += passed.iter().filter(|byte| **byte == b'\n').count();
        self.at = end;
    }
}

/// All that is not ASCII counts as a letter: outside literals, it can be nothing else.
fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &[&str]) {
        assert_eq!(lex(source).iter().map(|token| token.text).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn comments_are_not_code_however_they_nest() {
        check("a // b { \"\n c /* d /* } */ e */ f /// g\n//! h", &["a", "c", "f"]);
    }

    #[test]
    fn a_string_is_one_token_whatever_it_holds() {
        check(r#"f("a // \" { b", x)"#, &["f", "(", r#""a // \" { b""#, ",", "x", ")"]);
        check(r##"r#"a " \"# b"##, &[r##""a " \"#"##, "b"]);
        check(r#"br"\" b"x" c"y" z"#, &[r#""\""#, r#""x""#, r#""y""#, "z"]);
    }

    #[test]
    fn a_lifetime_is_not_a_character() {
        check(
            "&'a {'{' '\\'' b'}' '\u{e9}' 'b'}",
            &["&", "'a", "{", "'{'", "'\\''", "'}'", "'\u{e9}'", "'b'", "}"],
        );
    }

    #[test]
    fn a_raw_word_keeps_its_mark() {
        check("pub r#type: r", &["pub", "r#type", ":", "r"]);
    }

    #[test]
    fn lines_are_counted_through_literals_and_comments() {
        let tokens = lex("a\n/*\n*/ \"\n\n\" b");
        let lines: Vec<_> = tokens.iter().map(|token| (token.line, token.last_line)).collect();
        assert_eq!(lines, [(1, 1), (3, 5), (5, 5)]);
    }

    #[test]
    fn text_that_breaks_off_is_lexed_to_its_end() {
        for source in ["\"abc", "'\\", "/* a", "r##\"a\"#", "'", "b'"] {
            assert!(lex(source).len() <= 1, "{source}");
        }
    }
}
