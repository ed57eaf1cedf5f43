//! The lines of a script: taking arguments from them and answering. See `../../README.md`.

use std::fmt::Write as _;

use dunlin::Error;

const BUFFER_BYTES_MAX: u64 = 1 << 20;

/// A line says something that is no command.
#[derive(Debug)]
pub struct Malformed;

/// What a command came to.
pub struct Answer {
    /// A number, or a negative code.
    pub result: i64,
    bytes: Option<Vec<u8>>,
}

impl Answer {
    /// A number or an error.
    pub fn number(result: Result<u64, Error>) -> Self {
        let result = result.map_or_else(Error::code, |number| number as i64);
        Self {
            result,
            bytes: None,
        }
    }

    /// What a call wrote to its buffer, or an error.
    pub fn filled(result: Result<u64, Error>, mut out: Vec<u8>) -> Self {
        if let Ok(count) = result {
            out.truncate(count as usize);
        }
        Self {
            bytes: result.is_ok().then_some(out),
            ..Self::number(result)
        }
    }

    /// Bytes and their length, or an error.
    pub fn bytes(result: Result<Vec<u8>, Error>) -> Self {
        match result {
            Ok(bytes) => Self::filled(Ok(bytes.len() as u64), bytes),
            Err(error) => Self::number(Err(error)),
        }
    }

    /// A number or an error, and bytes.
    pub fn with(result: Result<u64, Error>, bytes: Vec<u8>) -> Self {
        Self {
            bytes: Some(bytes),
            ..Self::number(result)
        }
    }

    /// The line that tells it.
    pub fn text(&self) -> String {
        let word = if self.result < 0 { "err" } else { "ok" };
        let mut text = format!("{word} {}", self.result);
        if let Some(bytes) = &self.bytes {
            text.push(' ');
            for byte in bytes {
                let _ = write!(text, "{byte:02x}");
            }
            if bytes.is_empty() {
                text.push('-');
            }
        }
        text + "\n"
    }
}

/// The arguments of a line.
pub struct Line<'a> {
    words: Vec<&'a str>,
    next: usize,
    results: &'a [i64],
}

impl<'a> Line<'a> {
    /// The name of a line's command, and its arguments.
    pub fn of(text: &'a str, results: &'a [i64]) -> (&'a str, Self) {
        let mut words = text.split(' ');
        let name = words.next().unwrap_or_default();
        let words = words.collect();
        let next = 0;
        (
            name,
            Self {
                words,
                next,
                results,
            },
        )
    }

    /// Whether every argument was taken.
    pub fn is_over(&self) -> bool {
        self.next == self.words.len()
    }

    fn word(&mut self) -> Result<&'a str, Malformed> {
        let word = self.words.get(self.next).ok_or(Malformed)?;
        self.next += 1;
        Ok(word)
    }

    fn result(&self, number: &str) -> Result<u64, Malformed> {
        let number: usize = parse(number)?;
        self.results
            .get(number)
            .map(|&result| result as u64)
            .ok_or(Malformed)
    }

    pub fn number(&mut self) -> Result<u64, Malformed> {
        let word = self.word()?;
        let Some(reference) = word.strip_prefix('$') else {
            return parse(word);
        };
        match reference.split_once('+') {
            Some((number, more)) => Ok(self.result(number)?.wrapping_add(parse(more)?)),
            None => self.result(reference),
        }
    }

    pub fn out(&mut self) -> Result<Vec<u8>, Malformed> {
        match self.number()? {
            length if length <= BUFFER_BYTES_MAX => Ok(vec![0; length as usize]),
            _ => Err(Malformed),
        }
    }

    pub fn bytes(&mut self) -> Result<Vec<u8>, Malformed> {
        let word = self.word()?;
        if word == "-" {
            return Ok(Vec::new());
        }
        if let Some(list) = word.strip_prefix('@') {
            let mut bytes = Vec::new();
            for number in list.split(',') {
                bytes.extend((self.result(number)? as u32).to_le_bytes());
            }
            return Ok(bytes);
        }
        let digits = word.as_bytes().chunks(2);
        digits
            .map(|pair| Some(digit(*pair.first()?)? * 16 + digit(*pair.get(1)?)?))
            .collect::<Option<_>>()
            .ok_or(Malformed)
    }

    pub fn text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }
}

fn parse<T: std::str::FromStr>(word: &str) -> Result<T, Malformed> {
    word.parse().map_err(|_| Malformed)
}

fn digit(letter: u8) -> Option<u8> {
    char::from(letter).to_digit(16).map(|digit| digit as u8)
}
