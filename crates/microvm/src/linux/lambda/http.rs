//! Requests of HTTP/1.1, read from bytes as they come.
//!
//! ```text
//!  Head ── no body ────────────────────────────────────────────▶ a request, Head
//!    ├── Content-Length ─▶ Length ─────────────────────────────▶ a request, Head
//!    └── chunked ─▶ Size ─▶ Chunk ─▶ Size … ─ 0 ─▶ Trailers ───▶ a request, Head
//! ```
//!
//! What is kept is bounded: a head, a line, trailers, and a body of so many bytes.

use httparse::Status;

/// Bytes of a head, and of the trailers.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Headers of a head.
const HEADERS_MAX: usize = 96;
/// Bytes of the line before a chunk.
const CHUNK_LINE_BYTES_MAX: usize = 1024;

/// Headers, by names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Headers(Vec<(String, String)>);

impl Headers {
    fn of(parsed: &[httparse::Header<'_>]) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let all = parsed.iter();
        Self(
            all.map(|header| (header.name.to_ascii_lowercase(), text(header.value)))
                .collect(),
        )
    }

    /// The value of the first of this name.
    pub fn find(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn has(&self, name: &str, token: &str) -> bool {
        let of_name = self.0.iter().filter(|(key, _)| key == name);
        let mut tokens = of_name.flat_map(|(_, value)| value.split(','));
        tokens.any(|found| found.trim().eq_ignore_ascii_case(token))
    }
}

/// A request that came whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub method: String,
    pub path: String,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub trailers: Headers,
    /// Whether the connection goes on after its answer.
    pub keeps: bool,
}

/// What bytes came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The sender waits for a word before it sends the body.
    Expects,
    /// A request.
    Request(Request),
}

/// Why no request can be read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is no HTTP/1.
    Malformed,
    /// The head, a line or the trailers are too long.
    HeadTooLarge,
    /// The body is too long.
    BodyTooLarge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Head,
    /// So many bytes of the body.
    Length(usize),
    /// The line before a chunk.
    Size,
    /// So many bytes of a chunk.
    Chunk(usize),
    /// The end of the line after a chunk.
    ChunkEnd,
    Trailers,
}

/// Reads the requests of one connection.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    body_bytes_max: usize,
    buffer: Vec<u8>,
    /// Bytes of it that have been read.
    at: usize,
    next: Next,
    request: Request,
}

impl Reader {
    /// One of requests whose bodies have at most so many bytes.
    pub fn new(body_bytes_max: usize) -> Self {
        Self {
            body_bytes_max,
            buffer: Vec::new(),
            at: 0,
            next: Next::Head,
            request: Request::default(),
        }
    }

    /// Takes bytes. What they come to is read by [`Reader::read`].
    pub fn push(&mut self, bytes: &[u8]) {
        // Here, and not wherever something is read: who sends many small things makes us move each
        // byte once for all of that.
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether nothing of a request has come.
    pub fn is_between_requests(&self) -> bool {
        self.next == Next::Head && self.rest().is_empty()
    }

    /// Bytes that it keeps.
    pub fn held(&self) -> usize {
        self.rest().len() + self.request.body.len()
    }

    /// The path of the request whose body is being read.
    pub fn path(&self) -> &str {
        &self.request.path
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    /// The next thing that has come whole.
    pub fn read(&mut self) -> Result<Option<Event>, Unreadable> {
        loop {
            let went_on = match self.next {
                Next::Head => match self.head()? {
                    Some(true) => return Ok(Some(Event::Expects)),
                    head => head.is_some(),
                },
                Next::Length(left) => {
                    let left = self.body(left);
                    self.next = Next::Length(left);
                    left == 0
                }
                Next::Size => self.size()?,
                Next::Chunk(left) => {
                    let left = self.body(left);
                    self.next = match left {
                        0 => Next::ChunkEnd,
                        left => Next::Chunk(left),
                    };
                    left == 0
                }
                Next::ChunkEnd => self.chunk_end()?,
                Next::Trailers => self.trailers()?,
            };
            if !went_on {
                return Ok(None);
            }
            if self.next == Next::Length(0) {
                self.next = Next::Head;
                return Ok(Some(Event::Request(std::mem::take(&mut self.request))));
            }
        }
    }

    /// Reads a head; whether the sender waits for a word, once it is whole.
    fn head(&mut self) -> Result<Option<bool>, Unreadable> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        let rest = &self.buffer[self.at..];
        let bytes = match parsed.parse(rest) {
            Ok(Status::Complete(bytes)) if bytes <= HEAD_BYTES_MAX => bytes,
            Ok(Status::Partial) if rest.len() <= HEAD_BYTES_MAX => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Unreadable::HeadTooLarge),
            Err(_) => return Err(Unreadable::Malformed),
        };
        let headers = Headers::of(parsed.headers);
        let keeps = match parsed.version {
            Some(0) => headers.has("connection", "keep-alive"),
            _ => !headers.has("connection", "close"),
        };
        self.request = Request {
            method: parsed.method.unwrap_or_default().to_owned(),
            path: parsed.path.unwrap_or_default().to_owned(),
            headers,
            keeps,
            ..Request::default()
        };
        self.at += bytes;
        let headers = &self.request.headers;
        self.next = framing(headers, self.body_bytes_max)?;
        Ok(Some(
            self.next != Next::Length(0) && headers.has("expect", "100-continue"),
        ))
    }

    /// Moves up to `left` bytes to the body; how many are missing then.
    fn body(&mut self, left: usize) -> usize {
        let here = left.min(self.rest().len());
        let bytes = &self.buffer[self.at..self.at + here];
        self.request.body.extend_from_slice(bytes);
        self.at += here;
        left - here
    }

    fn size(&mut self) -> Result<bool, Unreadable> {
        match httparse::parse_chunk_size(self.rest()) {
            Ok(Status::Complete((bytes, size))) => {
                let room = self.body_bytes_max - self.request.body.len();
                let size = usize::try_from(size).ok().filter(|size| *size <= room);
                let size = size.ok_or(Unreadable::BodyTooLarge)?;
                self.at += bytes;
                self.next = match size {
                    0 => Next::Trailers,
                    size => Next::Chunk(size),
                };
                Ok(true)
            }
            Ok(Status::Partial) if self.rest().len() <= CHUNK_LINE_BYTES_MAX => Ok(false),
            Ok(Status::Partial) => Err(Unreadable::HeadTooLarge),
            Err(_) => Err(Unreadable::Malformed),
        }
    }

    fn chunk_end(&mut self) -> Result<bool, Unreadable> {
        const END: &[u8] = b"\r\n";
        if self.rest().starts_with(END) {
            self.at += END.len();
            self.next = Next::Size;
            return Ok(true);
        }
        match END.starts_with(self.rest()) {
            true => Ok(false),
            false => Err(Unreadable::Malformed),
        }
    }

    fn trailers(&mut self) -> Result<bool, Unreadable> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let rest = &self.buffer[self.at..];
        match httparse::parse_headers(rest, &mut headers) {
            Ok(Status::Complete((bytes, parsed))) if bytes <= HEAD_BYTES_MAX => {
                self.request.trailers = Headers::of(parsed);
                self.at += bytes;
                self.next = Next::Length(0);
                Ok(true)
            }
            Ok(Status::Partial) if rest.len() <= HEAD_BYTES_MAX => Ok(false),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => Err(Unreadable::HeadTooLarge),
            Err(_) => Err(Unreadable::Malformed),
        }
    }
}

/// How the body after such a head is told from what follows.
fn framing(headers: &Headers, body_bytes_max: usize) -> Result<Next, Unreadable> {
    let coded = headers.find("transfer-encoding").is_some();
    match (coded, headers.find("content-length")) {
        // What is both could be read in two ways.
        (true, Some(_)) => Err(Unreadable::Malformed),
        (true, None) if headers.has("transfer-encoding", "chunked") => Ok(Next::Size),
        (true, None) => Err(Unreadable::Malformed),
        (false, None) => Ok(Next::Length(0)),
        (false, Some(length)) => {
            let digits = length.bytes().all(|byte| byte.is_ascii_digit());
            let length = length.parse::<u64>().ok().filter(|_| digits);
            let length = length.ok_or(Unreadable::Malformed)?;
            match usize::try_from(length) {
                Ok(length) if length <= body_bytes_max => Ok(Next::Length(length)),
                _ => Err(Unreadable::BodyTooLarge),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What `bytes` come to if they come in pieces that end at `cuts`.
    fn read(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Event>, Unreadable> {
        let mut reader = Reader::new(64);
        let mut events = Vec::new();
        let mut at = 0;
        for end in cuts.iter().copied().chain([bytes.len()]) {
            let end = end.clamp(at, bytes.len());
            reader.push(&bytes[at..end]);
            at = end;
            while let Some(event) = reader.read()? {
                events.push(event);
            }
        }
        assert!(reader.is_between_requests(), "{reader:?}");
        Ok(events)
    }

    fn bodies(bytes: &[u8]) -> Vec<Vec<u8>> {
        let events = read(bytes, &[]).expect("requests");
        let bodies = events.into_iter().filter_map(|event| match event {
            Event::Request(request) => Some(request.body),
            Event::Expects => None,
        });
        bodies.collect()
    }

    const CHUNKED: &[u8] = b"POST /a HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n\
        3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nWhy: because\r\n\r\n\
        GET /b HTTP/1.1\r\n\r\n";

    #[test]
    fn bodies_come_by_length_or_in_chunks() {
        assert_eq!(
            bodies(b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n"),
            [b"abc".to_vec(), b"".to_vec()]
        );
        assert_eq!(bodies(CHUNKED), [b"abc0123456789".to_vec(), b"".to_vec()]);
        let events = read(CHUNKED, &[]).expect("requests");
        let Event::Request(request) = &events[0] else {
            panic!("{events:?}");
        };
        assert_eq!(request.trailers.find("why"), Some("because"));
        assert!(request.keeps);
    }

    #[test]
    fn who_waits_for_a_word_is_told_of_before_the_body() {
        let bytes = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx";
        let events = read(bytes, &[]).expect("a request");
        assert_eq!(events[0], Event::Expects);
        assert!(matches!(&events[1], Event::Request(request) if request.body == b"x"));
    }

    #[test]
    fn connections_end_as_their_version_has_it() {
        for (version, header, keeps) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
        ] {
            let text = format!("GET / HTTP/{version}\r\n{header}\r\n");
            let events = read(text.as_bytes(), &[]).expect("a request");
            assert!(
                matches!(&events[..], [Event::Request(one)] if one.keeps == keeps),
                "{text}"
            );
        }
    }

    #[test]
    fn a_byte_is_moved_only_by_who_sends_more() {
        let chunks = "1\r\nx\r\n".repeat(1 << 17);
        let mut reader = Reader::new(1 << 17);
        reader.push(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(reader.read(), Ok(None));
        reader.push(chunks.as_bytes());
        let place = reader.buffer.as_ptr();
        assert_eq!(reader.read(), Ok(None));
        assert_eq!((reader.buffer.as_ptr(), reader.at), (place, chunks.len()));
        assert_eq!((reader.held(), reader.path()), (1 << 17, "/"));
    }

    #[test]
    fn what_cannot_be_read_is_told_apart() {
        let check = |text: &[u8], expected: Unreadable| {
            let mut reader = Reader::new(64);
            reader.push(text);
            let mut result = reader.read();
            while let Ok(Some(_)) = result {
                result = reader.read();
            }
            assert_eq!(result, Err(expected), "{}", String::from_utf8_lossy(text));
        };
        let head = |lines: &str| format!("POST / HTTP/1.1\r\n{lines}\r\n\r\n").into_bytes();
        check(b"\x16\x03\x01\x02", Unreadable::Malformed);
        check(&head("Content-Length: -1"), Unreadable::Malformed);
        check(&head("Content-Length: +1"), Unreadable::Malformed);
        check(&head("Content-Length: 65"), Unreadable::BodyTooLarge);
        check(&head("Transfer-Encoding: gzip"), Unreadable::Malformed);
        check(
            &head("Transfer-Encoding: chunked\r\nContent-Length: 1"),
            Unreadable::Malformed,
        );
        let chunked = |rest: &str| [head("Transfer-Encoding: chunked"), rest.into()].concat();
        check(&chunked("41\r\n"), Unreadable::BodyTooLarge);
        check(&chunked("ffffffffffffffff\r\n"), Unreadable::BodyTooLarge);
        check(&chunked("1\r\nxx"), Unreadable::Malformed);
        check(&chunked("z\r\n"), Unreadable::Malformed);
        check(
            &head(&format!("X: {}", "x".repeat(HEAD_BYTES_MAX))),
            Unreadable::HeadTooLarge,
        );
        check(&[b'x'; HEAD_BYTES_MAX + 1], Unreadable::HeadTooLarge);
        check(
            &head(&"X: y\r\n".repeat(HEADERS_MAX + 1)),
            Unreadable::HeadTooLarge,
        );
    }

    proptest! {
        #[test]
        fn where_bytes_are_cut_makes_no_difference(
            cuts in proptest::collection::vec(0..CHUNKED.len(), 0..12),
        ) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            prop_assert_eq!(read(CHUNKED, &cuts), read(CHUNKED, &[]));
        }

        #[test]
        fn no_bytes_do_harm(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..8)) {
            let mut reader = Reader::new(64);
            for piece in pieces {
                reader.push(&piece);
                while let Ok(Some(event)) = reader.read() {
                    if let Event::Request(request) = event {
                        prop_assert!(request.body.len() <= 64);
                    }
                }
            }
        }
    }
}
