//! Lines, rings and followers.

use futures::{FutureExt, StreamExt, stream};
use proptest::prelude::*;

use super::*;

const OUT: LogStream = LogStream::Stdout;

fn book(change: impl FnOnce(&mut LogConfig)) -> LogBook {
    let mut config = LogConfig::default();
    change(&mut config);
    LogBook::new(config)
}

fn path(text: &str) -> FunctionPath {
    text.parse().expect("a path")
}

fn id(number: u64) -> InvocationId {
    InvocationId::new(number)
}

fn texts(book: &LogBook) -> Vec<String> {
    let records = book.tail(&LogFilter::default(), 1000);
    records.iter().map(|record| record.text.clone()).collect()
}

#[test]
fn bytes_become_lines_however_they_are_cut() {
    let book = book(|_| {});
    let log = book.function(&path("a/f"));
    let id = id(1);
    for bytes in ["he", "llo\nwor", "ld\r\n\nlast"] {
        log.write(id, OUT, bytes.as_bytes());
    }
    assert_eq!(texts(&book), ["hello", "world", ""]);
    book.finish(&path("a/f"), id);
    assert_eq!(texts(&book), ["hello", "world", "", "last"]);
    book.finish(&path("a/f"), id);
    assert_eq!(texts(&book).len(), 4);
}

#[test]
fn streams_and_invocations_do_not_mix() {
    let book = book(|_| {});
    let log = book.function(&path("a/f"));
    let (one, two) = (id(1), id(2));
    log.write(one, OUT, b"1o");
    log.write(one, LogStream::Stderr, b"1e");
    log.write(two, OUT, b"2o");
    log.write(one, OUT, b"!\n");
    log.finish(two);
    log.finish(one);
    assert_eq!(texts(&book), ["1o!", "2o", "1e"]);
}

#[test]
fn long_lines_and_too_many_half_lines_become_records() {
    let book = book(|config| {
        config.line_bytes_max = 4;
        config.half_lines_max = 1;
    });
    let log = book.function(&path("a/f"));
    log.write(id(1), OUT, b"abcdefghi");
    log.write(id(2), OUT, b"xyz");
    assert_eq!(texts(&book), ["abcd", "efgh", "xyz"]);
}

#[test]
fn rings_keep_the_newest_within_their_bounds() {
    let book = book(|config| config.records_max = 2);
    let log = book.function(&path("a/f"));
    log.write(id(1), OUT, b"1\n2\n3\n");
    assert_eq!(texts(&book), ["2", "3"]);
    let filter = LogFilter {
        app: Some("b".parse().expect("a name")),
        ..LogFilter::default()
    };
    assert!(book.tail(&filter, 10).is_empty());
}

#[test]
fn the_function_silent_for_longest_makes_room() {
    let book = book(|config| config.node_bytes_max = 400);
    for (function, line) in [("a/old", "1\n"), ("a/new", "2\n"), ("a/new", "3\n")] {
        book.function(&path(function))
            .write(id(1), OUT, line.as_bytes());
    }
    assert_eq!(texts(&book), ["1", "2", "3"]);
    book.function(&path("a/new")).write(id(1), OUT, b"4\n");
    assert_eq!(texts(&book), ["2", "3", "4"]);
}

#[test]
fn a_follower_reads_the_old_and_the_new_once_each() {
    let book = book(|_| {});
    let log = book.function(&path("a/f"));
    log.write(id(1), OUT, b"old\n");
    let one = id(7);
    log.write(one, OUT, b"mine\n");
    let filter = LogFilter {
        invocation: Some(one),
        ..LogFilter::default()
    };
    let follow = |filter| {
        let (old, new) = book.follow(filter, 10);
        let old = stream::iter(old).map(LogItem::Record);
        Box::pin(old.chain(new))
    };
    let mut all = follow(LogFilter::default());
    let mut mine = follow(filter);
    log.write(id(1), OUT, b"new\n");
    log.write(one, OUT, b"more\n");
    let text = |item: Option<Option<LogItem>>| match item {
        Some(Some(LogItem::Record(record))) => record.text.clone(),
        other => panic!("{other:?}"),
    };
    for expected in ["old", "mine", "new", "more"] {
        assert_eq!(text(all.next().now_or_never()), expected);
    }
    for expected in ["mine", "more"] {
        assert_eq!(text(mine.next().now_or_never()), expected);
    }
    assert!(all.next().now_or_never().is_none());
}

#[test]
fn a_slow_follower_is_told_what_it_lost() {
    let book = book(|config| config.follow_max = 2);
    let log = book.function(&path("a/f"));
    let mut items = Box::pin(book.follow(LogFilter::default(), 0).1);
    log.write(id(1), OUT, b"1\n2\n3\n4\n5\n");
    let first = items.next().now_or_never();
    assert_eq!(first, Some(Some(LogItem::Lagged(3))));
}

proptest! {
    #[test]
    fn no_byte_is_lost_or_made_up(
        text in "[a-c\n]{0,60}",
        cuts in proptest::collection::vec(0..61usize, 0..6),
    ) {
        let book = book(|_| {});
        let log = book.function(&path("a/f"));
        let id = id(1);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        for cut in cuts.windows(2) {
            log.write(id, OUT, &text.as_bytes()[cut[0]..cut[1]]);
        }
        log.finish(id);
        let expected: Vec<&str> = text.lines().collect();
        prop_assert_eq!(texts(&book), expected);
    }
}
