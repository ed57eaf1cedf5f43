//! What the rules ask of a Rust file, read from its tokens: strings and comments cannot fool them.

use std::str::FromStr;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of `fn`.
    pub line: usize,
    /// Lines from `fn` to the closing brace.
    pub lines: usize,
}

/// A word at its line.
pub type Word = (String, usize);

/// What stands in one file.
#[derive(Debug, Default)]
pub struct Facts {
    /// Every function.
    pub functions: Vec<Function>,
    /// Lines of `.unwrap()` outside of tests.
    pub unwraps: Vec<usize>,
    /// Lines of the word `unsafe`.
    pub unsafes: Vec<usize>,
    /// Lines of attributes that leave a test out.
    pub ignores: Vec<usize>,
    /// Lines of attributes that give a type a serde form.
    pub serdes: Vec<usize>,
    /// Names of modules.
    pub modules: Vec<Word>,
    /// Names of structs, enums, traits and type aliases.
    pub types: Vec<Word>,
}

impl Facts {
    /// Reads `text`; the reason where it is not Rust.
    pub fn of(text: &str) -> Result<Self, String> {
        let tokens = TokenStream::from_str(text).map_err(|error| error.to_string())?;
        let mut facts = Facts::default();
        facts.walk(tokens, false);
        Ok(facts)
    }

    /// Walks one level. An attribute such as `#[cfg(test)]` holds for all that follows it up to the
    /// end of the item: a block in braces, or a semicolon.
    fn walk(&mut self, stream: TokenStream, in_test: bool) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut for_test = false;
        let mut in_const = false;
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) if is_attribute(&tokens, at) => {
                    for_test |= self.attribute(group);
                }
                TokenTree::Group(group) => {
                    self.walk(group.stream(), in_test || for_test);
                    for_test &= group.delimiter() != Delimiter::Brace;
                    in_const &= group.delimiter() != Delimiter::Brace;
                }
                TokenTree::Punct(punct) if punct.as_char() == ';' => {
                    (for_test, in_const) = (false, false);
                }
                TokenTree::Ident(ident) => {
                    let line = ident.span().start().line;
                    self.word(&ident.to_string(), line, &tokens[at + 1..]);
                    // In a constant it is the compiler that would find nothing to unwrap.
                    in_const |= ident == "const" || ident == "static";
                    let excused = in_test || for_test || in_const;
                    if ident == "unwrap" && !excused && is_call(&tokens, at) {
                        self.unwraps.push(line);
                    }
                }
                _ => {}
            }
        }
    }

    fn word(&mut self, word: &str, line: usize, next: &[TokenTree]) {
        let name = match next.first() {
            Some(TokenTree::Ident(name)) => Some(name.to_string()),
            _ => None,
        };
        match (word, name) {
            ("fn", Some(name)) => {
                if let Some(end) = body_end(next) {
                    let lines = end + 1 - line;
                    self.functions.push(Function { name, line, lines });
                }
            }
            ("mod", Some(name)) => self.modules.push((name, line)),
            ("struct" | "enum" | "trait" | "type", Some(name)) => self.types.push((name, line)),
            ("unsafe", _) => self.unsafes.push(line),
            _ => {}
        }
    }

    /// Notes what an attribute says; whether it marks tests.
    fn attribute(&mut self, group: &Group) -> bool {
        let mut words = Vec::new();
        collect_words(group.stream(), &mut words);
        let has = |word: &str| words.iter().any(|(w, _)| w == word);
        if has("ignore") && (words[0].0 == "ignore" || has("cfg_attr")) {
            self.ignores.push(group.span_open().start().line);
        }
        let shaped = |word: &str| matches!(word, "serde" | "Serialize" | "Deserialize");
        let first = words.iter().find(|(word, _)| shaped(word));
        self.serdes.extend(first.map(|(_, line)| *line));
        has("test") && !has("not")
    }
}

fn is_attribute(tokens: &[TokenTree], at: usize) -> bool {
    let hash = |back: usize| match at.checked_sub(back).map(|i| &tokens[i]) {
        Some(TokenTree::Punct(punct)) => punct.as_char(),
        _ => ' ',
    };
    hash(1) == '#' || (hash(1) == '!' && hash(2) == '#')
}

/// Whether the word at `at` stands as `.word()`.
fn is_call(tokens: &[TokenTree], at: usize) -> bool {
    let dot = matches!(at.checked_sub(1).map(|i| &tokens[i]),
        Some(TokenTree::Punct(punct)) if punct.as_char() == '.');
    let parentheses = matches!(tokens.get(at + 1),
        Some(TokenTree::Group(group)) if group.stream().is_empty());
    dot && parentheses
}

/// The last line of a function's body; none for a declaration.
fn body_end(tokens: &[TokenTree]) -> Option<usize> {
    for token in tokens {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                return Some(group.span_close().end().line);
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => return None,
            _ => {}
        }
    }
    None
}

fn collect_words(stream: TokenStream, words: &mut Vec<Word>) {
    for token in stream {
        match token {
            TokenTree::Ident(ident) => words.push((ident.to_string(), ident.span().start().line)),
            TokenTree::Group(group) => collect_words(group.stream(), words),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"
/// unwrap() in words, `.unwrap()`.
fn plain(a: [u8; 4]) -> u8 {
    let s = ".unwrap() unsafe fn x() {";
    a.first().unwrap()
}
trait HasOne { fn declared(&self); }
#[cfg(test)]
mod tests {
    #[test]
    #[ignore]
    fn inside() { Some(1).unwrap(); }
}
#[test]
fn alone() { Some(1).unwrap(); }
fn after() { check!(Some(1).unwrap()); unsafe { go() } }
#[cfg(not(test))]
fn shipped() { Some(1).unwrap(); }
const SOME: u8 = Some(1).unwrap();
#[derive(Debug, serde::Serialize)]
struct BigManager;
"#;

    #[test]
    fn unwraps_count_outside_of_tests_only() {
        assert_eq!(Facts::of(SAMPLE).unwrap().unwraps, [5, 16, 18]);
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let functions = Facts::of(SAMPLE).unwrap().functions;
        let names: Vec<_> = functions
            .iter()
            .map(|f| (f.name.as_str(), f.lines))
            .collect();
        let expected = [
            ("plain", 4),
            ("inside", 1),
            ("alone", 1),
            ("after", 1),
            ("shipped", 1),
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn words_in_strings_and_comments_are_not_code() {
        let facts = Facts::of(SAMPLE).unwrap();
        assert_eq!(facts.unsafes, [16]);
        assert_eq!(facts.ignores, [11]);
        assert_eq!(facts.serdes, [20]);
        assert_eq!(
            facts.types,
            [("HasOne".to_owned(), 7), ("BigManager".to_owned(), 21)]
        );
    }
}
