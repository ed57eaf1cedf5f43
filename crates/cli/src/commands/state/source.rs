//! Where a value comes from: the command line, a file or stdin, read while it is sent.

use std::fs::File;
use std::io::{self, Read};

use anyhow::Context as _;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;

use crate::exit::Failure;
use crate::output::Progress;

/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that are read ahead.
const CHUNKS_AHEAD: usize = 4;

/// A value that is still to be read.
pub enum Source {
    /// It was on the command line.
    Text(Bytes),
    /// A file, and how long it is, if it has a length.
    File(File, Option<u64>),
    /// Stdin, which has none.
    Stdin,
}

impl Source {
    /// `-` is stdin, and `@FILE` a file; everything else is the value itself.
    pub fn open(value: &str) -> Result<Self, Failure> {
        if value == "-" {
            return Ok(Self::Stdin);
        }
        let Some(name) = value.strip_prefix('@') else {
            return Ok(Self::Text(value.to_owned().into()));
        };
        let reading = || format!("reading {name}");
        let file = File::open(name).with_context(reading)?;
        let about = file.metadata().with_context(reading)?;
        let bytes = about.is_file().then_some(about.len());
        Ok(Self::File(file, bytes))
    }

    /// How long it is, if that is known.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Self::Text(text) => Some(text.len() as u64),
            Self::File(_, bytes) => *bytes,
            Self::Stdin => None,
        }
    }

    /// The value's bytes, with progress where the length is known.
    pub fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
        let progress = self.bytes().map(|all| Progress::bytes("uploading", all));
        let chunks = match self {
            Self::Text(text) => futures::stream::iter([Ok(text)]).left_stream(),
            // A file that grows meanwhile is sent as long as it was.
            Self::File(file, bytes) => {
                let file = file.take(bytes.unwrap_or(u64::MAX));
                read(Box::new(file)).right_stream()
            }
            Self::Stdin => read(Box::new(io::stdin())).right_stream(),
        };
        chunks.inspect(move |chunk| {
            if let (Some(progress), Ok(chunk)) = (&progress, chunk) {
                progress.add(chunk.len() as u64);
            }
        })
    }
}

/// Reads on a thread of its own: who sends must not wait for a slow pipe.
fn read(mut from: Box<dyn Read + Send>) -> impl Stream<Item = io::Result<Bytes>> {
    let (chunks, mut ready) = mpsc::channel(CHUNKS_AHEAD);
    std::thread::spawn(move || {
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let read = match from.read(&mut chunk) {
                Ok(0) => return,
                Ok(read) => Ok(Bytes::from(chunk).slice(..read)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = read.is_err();
            // Nobody listens any more where the node refused the value.
            if chunks.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
    futures::stream::poll_fn(move |cx| ready.poll_recv(cx))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn all(value: &str) -> (Option<u64>, Vec<u8>) {
        let source = Source::open(value).expect("it opens");
        let bytes = source.bytes();
        let chunks = futures::executor::block_on(source.stream().collect::<Vec<_>>());
        let chunks = chunks.into_iter().flat_map(|chunk| chunk.expect("bytes"));
        (bytes, chunks.collect())
    }

    #[test]
    fn a_value_is_a_text_or_a_file() {
        assert_eq!(all("hello"), (Some(5), b"hello".to_vec()));
        assert_eq!(all(""), (Some(0), Vec::new()));
        let file = tempfile::NamedTempFile::new().expect("a file");
        let bytes: Vec<u8> = (0..=255).cycle().take(CHUNK_BYTES + 3).collect();
        std::fs::write(file.path(), &bytes).expect("written");
        let named = format!("@{}", file.path().display());
        assert_eq!(all(&named), (Some(bytes.len() as u64), bytes));
        let missing = Source::open("@/nonexistent/file").err().expect("missing");
        assert_eq!(missing.exit, Exit::NotFound);
    }
}
