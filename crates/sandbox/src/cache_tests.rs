//! What is stored is found again or missing, never wrong; and what is too much goes.

use super::*;

fn open() -> (tempfile::TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path().join("cache")).unwrap();
    (dir, cache)
}

fn key() -> Digest {
    Digest::of(b"key")
}

#[test]
fn what_was_used_longest_ago_makes_room() {
    let (dir, cache) = open();
    let mut cache = cache.bounded(25);
    let names = ["a", "b", "c"].map(|name| Digest::of(name.as_bytes()));
    let is_there = |cache: &Cache| {
        let there = |key| cache.has(key, EntryKind::Code).unwrap();
        names.each_ref().map(there)
    };
    for key in &names {
        cache.store(key, EntryKind::Code, &[7; 10]).unwrap();
    }
    assert_eq!(
        is_there(&cache),
        [true; 3],
        "all were used in the last minute"
    );
    let hours_ago = |key: &Digest, hours: u64| {
        let path = cache.entry_path(key, EntryKind::Code);
        let then = SystemTime::now() - Duration::from_secs(hours * 3600);
        File::open(path).unwrap().set_modified(then).unwrap();
    };
    for (key, hours) in names.iter().zip([3, 2, 1]) {
        hours_ago(key, hours);
    }
    // It is used, and thereby the latest.
    assert!(cache.load(&names[0], EntryKind::Code).unwrap().is_some());
    cache.store(&names[2], EntryKind::Code, &[8; 10]).unwrap();
    assert_eq!(is_there(&cache), [true, false, true]);
    cache.kept = Duration::ZERO;
    let cache = cache.bounded(5);
    cache.store(&names[1], EntryKind::Code, &[9; 4]).unwrap();
    assert_eq!(is_there(&cache), [false, true, false]);
    let files = fs::read_dir(dir.path().join("cache")).unwrap().count();
    assert_eq!(files, 2, "the entry and its sum");
}

#[test]
fn an_entry_is_found_again_also_by_the_next_process() {
    let (_dir, cache) = open();
    assert!(cache.load(&key(), EntryKind::Code).unwrap().is_none());
    let stored = cache.store(&key(), EntryKind::Code, b"code").unwrap();
    let again = Cache::new(&cache.dir).unwrap();
    let path = again.load(&key(), EntryKind::Code).unwrap().unwrap();
    assert_eq!(
        (fs::read(&path).unwrap().as_slice(), path),
        (&b"code"[..], stored)
    );
    assert!(again.load(&key(), EntryKind::Image).unwrap().is_none());
}

#[test]
fn a_later_entry_takes_the_place_of_an_earlier_one() {
    let (_dir, cache) = open();
    for bytes in [&b"one"[..], b"two"] {
        cache.store(&key(), EntryKind::Meta, bytes).unwrap();
        let path = cache.load(&key(), EntryKind::Meta).unwrap().unwrap();
        assert_eq!(fs::read(path).unwrap(), bytes);
    }
}

#[test]
fn a_corrupt_entry_is_deleted_and_missing() {
    let spoil: [fn(&Path); 4] = [
        |path| fs::write(path, b"Code").unwrap(),
        |path| fs::write(path, b"").unwrap(),
        |path| fs::write(sum_path(path), b"00").unwrap(),
        |path| fs::remove_file(sum_path(path)).unwrap(),
    ];
    for spoil in spoil {
        let (_dir, cache) = open();
        spoil(&cache.store(&key(), EntryKind::Code, b"code").unwrap());
        assert!(cache.load(&key(), EntryKind::Code).unwrap().is_none());
        assert_eq!(fs::read_dir(&cache.dir).unwrap().count(), 0);
    }
}

#[test]
fn an_entry_is_found_by_its_bytes_until_it_is_gone() {
    let (_dir, cache) = open();
    let path = cache.store(&key(), EntryKind::Pages, b"pages").unwrap();
    let sum = Digest::of(b"pages");
    let entry = Entry {
        key: key(),
        kind: EntryKind::Pages,
        sum,
        bytes: 5,
    };
    let again = Cache::new(&cache.dir).unwrap();
    for cache in [&cache, &again] {
        let found = cache.entry(&key(), EntryKind::Pages).unwrap();
        assert_eq!(found.as_ref(), Some(&entry));
        assert_eq!(cache.named(&sum).as_ref(), Some(&path));
        assert_eq!(cache.entry(&key(), EntryKind::Code).unwrap(), None);
        assert!(cache.has(&key(), EntryKind::Pages).unwrap());
        assert!(!cache.has(&key(), EntryKind::Code).unwrap());
    }
    again.forget(&key(), EntryKind::Pages).unwrap();
    assert_eq!(again.named(&sum), None);
    assert_eq!(again.entry(&key(), EntryKind::Pages).unwrap(), None);
    assert_eq!(EntryKind::of("pages"), Some(EntryKind::Pages));
    assert_eq!(EntryKind::of("sum"), None);
}

#[test]
fn removal_takes_every_kind() {
    let (_dir, cache) = open();
    for kind in EntryKind::ALL {
        cache.store(&key(), kind, b"bytes").unwrap();
    }
    cache.remove(&key()).unwrap();
    cache.remove(&key()).unwrap();
    assert_eq!(fs::read_dir(&cache.dir).unwrap().count(), 0);
}

#[test]
fn unfinished_files_are_swept_at_start_unless_their_writer_lives() {
    let (_dir, cache) = open();
    let live = cache.write_partial(b"live").unwrap();
    fs::write(cache.dir.join(".partial-1-1"), b"dead").unwrap();
    Cache::new(&cache.dir).unwrap();
    let left: Vec<_> = fs::read_dir(&cache.dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(left, std::slice::from_ref(&live.path));
}

#[test]
fn no_space_has_an_error_of_its_own() {
    let (_dir, cache) = open();
    for code in [libc::ENOSPC, libc::EDQUOT] {
        let error = cache.failed("write", &cache.dir, io::Error::from_raw_os_error(code));
        assert!(matches!(error, CacheError::Full { .. }), "{error}");
    }
    let error = cache.failed("write", &cache.dir, io::Error::from_raw_os_error(libc::EIO));
    assert!(matches!(error, CacheError::Io { .. }), "{error}");
}
