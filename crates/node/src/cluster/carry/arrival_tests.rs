//! Images that guests run over before all of them is here: what comes first, from whom, and what
//! becomes of them where nobody has the rest.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::thread::{self, JoinHandle};

use memory::{CHUNK_BYTES, Difference, Image, PAGE_BYTES, PageRun, Presence};
use sandbox::EntryKind;

use super::tests::Cluster;
use super::*;
use crate::arrival::{Arrival, chunk_digests};

const CHUNKS: usize = 40;
/// The last one is short.
const BYTES: usize = CHUNKS * CHUNK_BYTES - PAGE_BYTES;

fn byte_of(page: usize) -> u8 {
    u8::try_from(page % 251).unwrap() + 1
}

fn pages() -> Vec<u8> {
    let pages = 0..BYTES / PAGE_BYTES;
    pages.flat_map(|page| [byte_of(page); PAGE_BYTES]).collect()
}

fn key() -> Digest {
    Digest::of(&pages())
}

/// Two nodes: `n0` made the pages, `n1` is to have them.
struct Story {
    cluster: Cluster,
    maker: NodeId,
    carrier: Carrier,
    cache: Arc<Cache>,
    made: PathBuf,
}

impl Story {
    fn new() -> Self {
        let cluster = Cluster::of(2);
        let [maker, taker] = ["n0", "n1"].map(|name| name.parse::<NodeId>().unwrap());
        let carrier = |node| cluster.world.carriers.lock().get(node).cloned().unwrap();
        let cache = |name: &str| {
            let folder = cluster.folder.path().join("caches").join(name);
            Arc::new(Cache::new(folder).unwrap())
        };
        let makers = cache("maker");
        let made = makers.store(&key(), EntryKind::Pages, &pages()).unwrap();
        carrier(&maker).offer(makers);
        Self {
            carrier: carrier(&taker),
            cache: cache("taker"),
            cluster,
            maker,
            made,
        }
    }

    fn begin(&self) -> Arrival {
        let ways = (self.carrier.clone(), self.cache.clone(), self.maker.clone());
        let what = (key(), key(), BYTES as u64);
        let begun = Arrival::begin(ways, what, &chunk_digests(&pages()));
        begun.unwrap().unwrap()
    }

    fn image(&self) -> Arc<Image> {
        let file = self.cache.pages(&key()).unwrap().unwrap();
        let run = PageRun {
            page: 0,
            pages: BYTES / PAGE_BYTES,
        };
        let pieces = Difference::pieces(&[run], &file);
        Arc::new(Image::of_pieces(BYTES, pieces, &[], key()).unwrap())
    }

    fn bucket_has_it(&self) -> impl Future<Output = ()> {
        let images = self.carrier.images().clone();
        async move {
            images.put(pages().into()).await.unwrap();
        }
    }

    fn asked_promptly(&self) -> Vec<usize> {
        let parts = self.cluster.world.parts.lock();
        let prompt = parts.iter().filter(|span| span.prompt);
        let chunk = |span: &Span| usize::try_from(span.start).unwrap() / CHUNK_BYTES;
        prompt.map(chunk).collect()
    }
}

/// What a guest reads that runs over the image: the first byte of a chunk, and how much of the
/// image was there then.
fn read(image: &Arc<Image>, chunk: usize) -> JoinHandle<(u8, Presence)> {
    let image = image.clone();
    thread::spawn(move || (image.contents()[chunk * CHUNK_BYTES], image.presence()))
}

async fn joined(reader: JoinHandle<(u8, Presence)>) -> (u8, Presence) {
    tokio::task::spawn_blocking(|| reader.join().unwrap())
        .await
        .unwrap()
}

fn first_byte(chunk: usize) -> u8 {
    byte_of(chunk * CHUNK_BYTES / PAGE_BYTES)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_waits_for_comes_first_and_all_the_rest_after_it() {
    let story = Story::new();
    let arrival = tokio::spawn(story.begin().run());
    let image = story.image();
    for chunk in [33, CHUNKS - 1, 20] {
        let expected = (first_byte(chunk), Presence::Arriving);
        assert_eq!(joined(read(&image, chunk)).await, expected);
    }
    // It is on its way, once.
    let ways = (
        story.carrier.clone(),
        story.cache.clone(),
        story.maker.clone(),
    );
    let what = (key(), key(), BYTES as u64);
    let again = Arrival::begin(ways, what, &chunk_digests(&pages()));
    assert!(again.unwrap().is_none());
    assert_eq!(story.asked_promptly(), [32, CHUNKS - 4, 20]);
    // From now on parts are also given that nobody waits for.
    story.cluster.world.ahead.add_permits(CHUNKS);
    assert!(arrival.await.unwrap());
    assert_eq!(image.presence(), Presence::Whole);
    assert_eq!(image.contents(), pages());
    assert!(!story.cache.is_expected(&key(), EntryKind::Pages));
    let kept = story.cache.load(&key(), EntryKind::Pages).unwrap().unwrap();
    assert_eq!(std::fs::read(kept).unwrap(), pages());
    // It is a file like any other now.
    assert_eq!(story.image().presence(), Presence::Whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_has_what_a_maker_does_not_give_any_more() {
    let story = Story::new();
    story.bucket_has_it().await;
    let arrival = tokio::spawn(story.begin().run());
    let image = story.image();
    assert_eq!(joined(read(&image, 17)).await.0, first_byte(17));
    story.cluster.world.gone.lock().push(story.maker.clone());
    assert_eq!(joined(read(&image, 20)).await.0, first_byte(20));
    arrival.await.unwrap();
    assert_eq!(image.contents(), pages());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_is_seen_that_is_not_of_the_image() {
    let story = Story::new();
    story.bucket_has_it().await;
    let mut damaged = pages();
    damaged[9 * CHUNK_BYTES] ^= 1;
    std::fs::write(&story.made, damaged).unwrap();
    let arrival = tokio::spawn(story.begin().run());
    let image = story.image();
    for chunk in [8, 9] {
        assert_eq!(joined(read(&image, chunk)).await.0, first_byte(chunk));
    }
    arrival.await.unwrap();
    assert_eq!(image.contents(), pages());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_has_is_lost_and_whoever_waits_goes_on() {
    let story = Story::new();
    let arrival = story.begin();
    let image = story.image();
    let arrival = tokio::spawn(arrival.run());
    assert_eq!(joined(read(&image, 21)).await.0, first_byte(21));
    story.cluster.world.gone.lock().push(story.maker.clone());
    let waits = read(&image, 30);
    assert!(!arrival.await.unwrap());
    assert_eq!(joined(waits).await, (0, Presence::Lost));
    assert!(!story.cache.is_expected(&key(), EntryKind::Pages));
    assert!(story.cache.pages(&key()).unwrap().is_none());
}

#[tokio::test]
async fn digests_that_are_not_of_all_chunks_are_refused() {
    let story = Story::new();
    let list = chunk_digests(&pages());
    for length in [0, 31, list.len() - 32] {
        let ways = (
            story.carrier.clone(),
            story.cache.clone(),
            story.maker.clone(),
        );
        let what = (key(), key(), BYTES as u64);
        assert!(Arrival::begin(ways, what, &list[..length]).is_err());
    }
    assert!(!story.cache.is_expected(&key(), EntryKind::Pages));
}

#[test]
fn a_span_reads_back_and_nothing_else_does() {
    let span = Span {
        image: key(),
        start: 1 << 40,
        bytes: PART_BYTES_MAX,
        prompt: false,
    };
    let bytes = span.to_bytes();
    assert_eq!(Span::read(&bytes), Some(span.clone()));
    assert_eq!(Span::read(&bytes[1..]), None);
    let longer = Span {
        bytes: PART_BYTES_MAX + 1,
        ..span
    };
    assert_eq!(Span::read(&longer.to_bytes()), None);
}
