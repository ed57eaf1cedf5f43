//! What layers, quotas and cookies promise; the rest is compared with Linux in `tests/as_linux.rs`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::Digest;

use super::*;

const QUOTA: Quota = Quota {
    bytes_max: 1 << 20,
    inodes_max: 16,
};

const CREATE: OpenFlags = OpenFlags {
    read: true,
    write: true,
    create: true,
    append: false,
    exclusive: false,
    truncate: false,
    directory: false,
    no_follow: false,
};

const READ: OpenFlags = OpenFlags {
    write: false,
    create: false,
    ..CREATE
};

fn root(path: &str) -> At<'_> {
    At::rooted(Ino::ROOT, path.as_bytes())
}

fn layer() -> Arc<Layer> {
    let mut builder = LayerBuilder::default();
    let big: Vec<u8> = (0..10_000_u32).map(|n| n as u8).collect();
    builder
        .file("a/b/small", Contents::of(*b"hello"), false)
        .unwrap();
    builder.file("/a/big", Contents::of(big), true).unwrap();
    builder.symlink("link", "/a/b").unwrap();
    builder.directory("empty").unwrap();
    Arc::new(builder.build())
}

fn read(files: &mut Files, path: &str) -> Result<Vec<u8>, Errno> {
    let mut file = files.open(root(path), READ, 0)?;
    let mut bytes = vec![0; 1 << 16];
    let count = files.read(&mut file, &mut bytes)?;
    files.close(file);
    bytes.truncate(count);
    Ok(bytes)
}

fn write(files: &mut Files, path: &str, data: &[u8]) -> Result<usize, Errno> {
    let mut file = files.open(root(path), CREATE, 0o644)?;
    let count = files.write(&mut file, data);
    files.close(file);
    count
}

fn names(files: &mut Files, path: &str) -> Vec<String> {
    let directory = files.open(root(path), READ, 0).unwrap();
    let (mut cookie, mut names) = (0, Vec::new());
    while let Some(entry) = files.entry(&directory, cookie).unwrap() {
        names.push(String::from_utf8(entry.name.to_vec()).unwrap());
        cookie = entry.next_cookie;
    }
    files.close(directory);
    names
}

#[test]
fn the_layer_shows_through_and_what_is_changed_hides_it() {
    let mut files = Files::new(layer(), QUOTA);
    assert_eq!(read(&mut files, "/link/small").unwrap(), b"hello");
    write(&mut files, "/a/b/small", b"J").unwrap();
    assert_eq!(read(&mut files, "/a/b/small").unwrap(), b"Jello");
    files.unlink(root("a/b/small")).unwrap();
    assert_eq!(read(&mut files, "/a/b/small"), Err(Errno::NoEntry));
    assert_eq!(names(&mut files, "/a"), [".", "..", "b", "big"]);
    files.remove_directory(root("a/b")).unwrap();
    assert_eq!(names(&mut files, "/a"), [".", "..", "big"]);
    files
        .rename(root("a"), root("moved"), Replace::Yes)
        .unwrap();
    assert_eq!(
        names(&mut files, "/"),
        [".", "..", "empty", "link", "moved"]
    );
    assert_eq!(read(&mut files, "/moved/big").unwrap().len(), 10_000);
}

#[test]
fn what_one_changes_no_other_sees() {
    let layer = layer();
    let mut first = Files::new(layer.clone(), QUOTA);
    write(&mut first, "/a/big", b"changed").unwrap();
    first.unlink(root("a/b/small")).unwrap();
    write(&mut first, "/secret", b"secret").unwrap();
    let mut second = Files::new(layer, QUOTA);
    assert_eq!(read(&mut second, "/a/big").unwrap()[..3], [0, 1, 2]);
    assert_eq!(read(&mut second, "/a/b/small").unwrap(), b"hello");
    assert_eq!(read(&mut second, "/secret"), Err(Errno::NoEntry));
    assert_eq!(second.usage().bytes, 0);
}

#[test]
fn a_write_into_a_large_file_takes_the_pages_that_it_touches() {
    let mut files = Files::new(layer(), QUOTA);
    let file = files.open(root("a/big"), CREATE, 0).unwrap();
    files.write_at(&file, 4_095, b"XY").unwrap();
    assert_eq!(files.usage().bytes, 2 * PAGE_BYTES as u64);
    let mut around = [0; 4];
    files.read_at(&file, 4_094, &mut around).unwrap();
    assert_eq!(around, [4_094_u32 as u8, b'X', b'Y', 4_097_u32 as u8]);
    files.truncate(&file, 5_000).unwrap();
    files.truncate(&file, 10_000).unwrap();
    files.read_at(&file, 4_998, &mut around).unwrap();
    assert_eq!(around, [4_998_u32 as u8, 4_999_u32 as u8, 0, 0]);
}

#[test]
fn a_full_quota_takes_what_fits_and_then_fails() {
    let quota = Quota {
        bytes_max: 2 * PAGE_BYTES as u64,
        inodes_max: 2,
    };
    let mut files = Files::new(Layer::empty(), quota);
    assert_eq!(write(&mut files, "/one", &[1; 20_000]), Ok(2 * PAGE_BYTES));
    assert_eq!(write(&mut files, "/two", b"x"), Err(Errno::NoSpace));
    assert_eq!(write(&mut files, "/three", b""), Err(Errno::NoSpace));
    assert_eq!(files.stat_at(root("/three"), true), Err(Errno::NoEntry));
    assert_eq!(
        files.link(root("two"), false, root("four")),
        Err(Errno::NoSpace)
    );
    files.unlink(root("one")).unwrap();
    assert_eq!(files.usage().bytes, 0);
    assert_eq!(
        files.make_symlink(&[b'x'; 4_000], root("link")).map(|_| ()),
        Ok(())
    );
    assert_eq!(files.usage().inodes, 2);
    files.unlink(root("link")).unwrap();
    files.unlink(root("two")).unwrap();
    assert_eq!((files.usage().bytes, files.usage().inodes), (0, 0));
}

#[test]
fn an_open_file_outlives_its_name_and_is_counted_until_it_is_closed() {
    let mut files = Files::new(Layer::empty(), QUOTA);
    let mut file = files.open(root("gone"), CREATE, 0o644).unwrap();
    files.write(&mut file, b"still here").unwrap();
    files.unlink(root("gone")).unwrap();
    let mut into = [0; 16];
    assert_eq!(files.read_at(&file, 0, &mut into), Ok(10));
    assert_eq!(files.stat(file.ino()).unwrap().links, 0);
    assert_eq!(files.usage().inodes, 1);
    files.close(file);
    assert_eq!((files.usage().bytes, files.usage().inodes), (0, 0));
}

#[test]
fn without_a_quota_everything_is_read_only() {
    let mut files = Files::new(layer(), Quota::NONE);
    assert_eq!(read(&mut files, "/a/b/small").unwrap(), b"hello");
    assert_eq!(write(&mut files, "/a/b/small", b"x"), Err(Errno::ReadOnly));
    assert_eq!(write(&mut files, "/new", b"x"), Err(Errno::ReadOnly));
    assert_eq!(files.unlink(root("a/big")), Err(Errno::ReadOnly));
    assert_eq!(files.make_directory(root("d"), 0o755), Err(Errno::ReadOnly));
    let renamed = files.rename(root("a"), root("b"), Replace::Yes);
    assert_eq!(renamed, Err(Errno::ReadOnly));
    assert_eq!(files.unlink(root("missing")), Err(Errno::NoEntry));
}

#[test]
fn listing_goes_on_where_it_stood_whatever_is_removed_or_made() {
    let mut files = Files::new(Layer::empty(), QUOTA);
    for name in ["a", "b", "c", "d"] {
        write(&mut files, name, b"").unwrap();
    }
    let directory = files.open_root();
    let mut cookie = 0;
    let mut seen = Vec::new();
    while let Some(entry) = files.entry(&directory, cookie).unwrap() {
        cookie = entry.next_cookie;
        if entry.name[0] != b'.' {
            files.unlink(At::beneath(Ino::ROOT, &entry.name)).unwrap();
        }
        seen.push(entry.name[0]);
        if seen.len() == 4 {
            write(&mut files, "e", b"").unwrap();
        }
    }
    assert_eq!(seen, b"..abcde");
    assert_eq!(names(&mut files, "/"), [".", ".."]);
}

#[test]
fn no_path_leads_out_of_the_directory_that_it_stays_beneath() {
    let mut files = Files::new(layer(), QUOTA);
    files.make_symlink(b"../big", root("a/b/up")).unwrap();
    let inner = files.find(root("a/b"), true).unwrap();
    for path in [
        "..",
        "../big",
        "/a/big",
        "up",
        "./../../a/big",
        "../b/small",
    ] {
        let at = At::beneath(inner, path.as_bytes());
        assert_eq!(files.find(at, true), Err(Errno::NotPermitted), "{path}");
    }
    assert!(files.find(At::beneath(inner, b"small"), true).is_ok());
    assert!(
        files
            .find(At::beneath(Ino::ROOT, b"link/small"), true)
            .is_ok()
    );
    assert_eq!(
        files.find(At::beneath(Ino::ROOT, b"../a"), true),
        Err(Errno::NotPermitted)
    );
    assert_eq!(
        files.find(root("../../../a"), true),
        files.find(root("a"), true)
    );
}

#[test]
fn long_names_paths_and_circles_have_errors_of_their_own() {
    let mut files = Files::new(Layer::empty(), QUOTA);
    let name = "n".repeat(NAME_BYTES_MAX);
    assert!(write(&mut files, &name, b"").is_ok());
    assert_eq!(
        write(&mut files, &format!("{name}n"), b""),
        Err(Errno::NameTooLong)
    );
    let path = "./".repeat(PATH_BYTES_MAX / 2) + "ab";
    assert_eq!(files.find(root(&path), true), Err(Errno::NameTooLong));
    assert_eq!(files.find(root(""), true), Err(Errno::NoEntry));
    assert_eq!(files.find(root("a\0b"), true), Err(Errno::Invalid));
    files.make_symlink(b"me", root("me")).unwrap();
    assert_eq!(files.find(root("me"), true), Err(Errno::Loop));
    assert!(files.find(root("me"), false).is_ok());
}

#[test]
fn permission_bits_that_nobody_has_are_honoured() {
    let mut files = Files::new(layer(), QUOTA);
    let ino = files.find(root("a/b/small"), true).unwrap();
    files.set_mode(ino, 0o444).unwrap();
    assert_eq!(write(&mut files, "/a/b/small", b"x"), Err(Errno::Access));
    assert_eq!(files.truncate_at(root("a/b/small"), 0), Err(Errno::Access));
    files.set_mode(ino, 0).unwrap();
    assert_eq!(read(&mut files, "/a/b/small"), Err(Errno::Access));
}

#[test]
fn a_directory_knows_its_path_until_it_is_removed() {
    let mut files = Files::new(layer(), QUOTA);
    let ino = files.find(root("a/b"), true).unwrap();
    assert_eq!(files.path_of(ino).unwrap(), b"/a/b");
    files.rename(root("a"), root("z"), Replace::Yes).unwrap();
    assert_eq!(files.path_of(ino).unwrap(), b"/z/b");
    assert_eq!(files.path_of(Ino::ROOT).unwrap(), b"/");
    files.unlink(root("z/b/small")).unwrap();
    files.remove_directory(root("z/b")).unwrap();
    assert_eq!(files.path_of(ino), None);
}

#[test]
fn entries_that_cannot_be_in_one_place_are_refused() {
    let add = |paths: &[&str]| {
        let mut builder = LayerBuilder::default();
        let file = |path: &&str| builder.file(path, Contents::of(*b""), false);
        paths.iter().try_for_each(file)
    };
    assert!(add(&["a/b", "a/c", "./d//e"]).is_ok());
    for paths in [&["a", "a"][..], &["a", "a/b"], &["a/b", "a"]] {
        assert!(
            matches!(add(paths), Err(LayerError::Conflict { .. })),
            "{paths:?}"
        );
    }
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    for path in ["", "/", "..", "a/../b", "a\0", long.as_str()] {
        assert!(
            matches!(add(&[path]), Err(LayerError::BadPath { .. })),
            "{path:?}"
        );
    }
}

#[test]
fn a_library_holds_each_contents_once_and_only_while_it_is_used() {
    struct Counted(Arc<AtomicUsize>, HashMap<Digest, &'static [u8]>);
    impl Source for Counted {
        fn open(&self, digest: &Digest) -> std::io::Result<Contents> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let found = self.1.get(digest).ok_or(std::io::ErrorKind::NotFound)?;
            Ok(Contents::of(*found))
        }
    }
    let (opened, digest) = (Arc::new(AtomicUsize::new(0)), Digest::of(b"bytes"));
    let source = Counted(opened.clone(), HashMap::from([(digest, &b"bytes"[..])]));
    let library = Library::new(source);
    let first = library.contents(&digest).unwrap();
    let second = library.contents(&digest).unwrap();
    assert!(first.is_same(&second));
    assert_eq!(opened.load(Ordering::Relaxed), 1);
    drop((first, second));
    library.contents(&digest).unwrap();
    assert_eq!(opened.load(Ordering::Relaxed), 2);
    assert!(library.contents(&Digest::of(b"other")).is_err());
}

fn of_everything() -> (Files, OpenFile) {
    let mut files = Files::new(layer(), QUOTA);
    write(&mut files, "/empty/new", b"new").unwrap();
    let mut changed = files
        .open(
            root("/a/big"),
            OpenFlags {
                create: false,
                ..CREATE
            },
            0,
        )
        .unwrap();
    files.write(&mut changed, b"over").unwrap();
    files.make_symlink(b"/a", root("/way")).unwrap();
    files.make_directory(root("/made"), 0o700).unwrap();
    write(&mut files, "/made/gone", b"nameless").unwrap();
    let open = files.open(root("/made/gone"), READ, 0).unwrap();
    files.unlink(root("/made/gone")).unwrap();
    files.close(changed);
    (files, open)
}

fn whole(files: &mut Files, open: &mut OpenFile) -> (Vec<Vec<u8>>, Usage) {
    let mut nameless = vec![0; 100];
    let count = files.read(open, &mut nameless).unwrap();
    nameless.truncate(count);
    let read = ["/empty/new", "/a/big", "/way/b/small"].map(|path| read(files, path).unwrap());
    ([read.to_vec(), vec![nameless]].concat(), files.usage())
}

/// Contents by digest, of these texts.
struct Texts(HashMap<Digest, &'static str>);

impl Source for Texts {
    fn open(&self, digest: &Digest) -> std::io::Result<Contents> {
        let found = self.0.get(digest).ok_or(std::io::ErrorKind::NotFound)?;
        Ok(Contents::of(found.as_bytes()))
    }
}

#[test]
fn what_every_layer_has_gives_way_to_the_list() {
    let list = r#"{"entries": {
        "etc/hosts": {"file": {"digest": "sha256:OWN", "bytes": 3}}, "tmp": {"link": "/var"}}}"#;
    let own = Digest::of(b"own");
    let list = list.replace("sha256:OWN", &own.to_string()).leak();
    let digest = Digest::of(list.as_bytes());
    let library = Library::new(Texts([(own, "own"), (digest, &*list)].into()));
    let standard = [
        Standard::Directory("tmp"),
        Standard::File("tmp/x", "in the way"),
        Standard::File("etc/hosts", "standard"),
        Standard::File("etc/group", "standard"),
    ];
    let layer = library.layer_with(&digest, &standard).unwrap();
    let again = library.layer_with(&digest, &standard).unwrap();
    assert!(Arc::ptr_eq(&layer, &again));
    let plain = library.layer(&digest).unwrap();
    assert_eq!((layer.entries(), plain.entries()), (4, 3));
    let mut files = Files::new(layer, QUOTA);
    assert_eq!(read(&mut files, "/etc/hosts").unwrap(), b"own");
    assert_eq!(read(&mut files, "/etc/group").unwrap(), b"standard");
    assert_eq!(files.read_link(root("/tmp")).unwrap(), b"/var");
}

#[test]
fn what_was_saved_comes_back_over_its_layer_and_over_no_other() {
    let (mut files, mut open) = of_everything();
    let saved = files.save();
    let mut back = Files::restore(layer(), QUOTA, &saved).unwrap();
    let mut again = open.clone();
    assert_eq!(whole(&mut back, &mut again), whole(&mut files, &mut open));
    assert_eq!(
        back.path_of(back.stat_at(root("/made"), true).unwrap().ino)
            .unwrap(),
        b"/made"
    );
    back.close(again);
    assert_eq!(
        back.usage().inodes + 1,
        files.usage().inodes,
        "the nameless file is gone"
    );
    let mut of_as_many = LayerBuilder::default();
    let big = Contents::of(vec![0; 10_000]);
    of_as_many.file("a/b/small", big.clone(), false).unwrap();
    of_as_many.file("/a/big", big, true).unwrap();
    of_as_many.symlink("link", "/a/b").unwrap();
    of_as_many.directory("empty").unwrap();
    for other in [Layer::empty(), Arc::new(of_as_many.build())] {
        let refused = Files::restore(other, QUOTA, &saved);
        assert_eq!(refused.unwrap_err(), OtherLayer);
    }
}

#[test]
fn what_a_copy_changes_the_original_does_not_see() {
    let (mut files, mut open) = of_everything();
    let mut copy = files.clone();
    let mut again = open.clone();
    write(&mut copy, "/empty/new", b"NEW").unwrap();
    write(&mut copy, "/a/big", b"OVER").unwrap();
    copy.unlink(root("/way")).unwrap();
    copy.close(again.clone());
    assert_eq!(copy.read(&mut again, &mut [0; 1]), Err(Errno::Io));
    let (read, _) = whole(&mut files, &mut open);
    assert_eq!((&read[0][..], &read[1][..4]), (&b"new"[..], &b"over"[..]));
    assert_eq!(
        (&read[2][..], &read[3][..]),
        (&b"hello"[..], &b"nameless"[..])
    );
}
