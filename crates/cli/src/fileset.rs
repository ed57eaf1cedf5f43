//! Files of a function, gathered from the author's disk and uploaded by digest.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use api::manifest::FileMount;
use api::v1;
use bytes::Bytes;
use client::Client;
use futures::TryStreamExt as _;
use model::{Digest, FILE_ENTRIES_MAX, FileEntry, FileList};

use crate::exit::{Exit, Failure};
use crate::output::Progress;

/// Digests of one question about what is missing.
const ASKED_AT_ONCE: usize = 5_000;
/// Uploads that run side by side.
const UPLOADS_AT_ONCE: usize = 8;
/// Bytes of an upload that are handed over at once.
const CHUNK_BYTES: usize = 64 << 10;

/// What a function's files are, and where their contents lie.
#[derive(Debug, Default)]
pub struct FileSet {
    list: FileList,
    sources: BTreeMap<Digest, PathBuf>,
}

impl FileSet {
    /// The files that `mounts` name, relative to `folder`; none if they name none.
    pub fn gather(folder: &Path, mounts: &[FileMount]) -> Result<Option<Self>, Failure> {
        if mounts.is_empty() {
            return Ok(None);
        }
        let mut set = Self::default();
        for mount in mounts {
            match &mount.destination {
                Some(to) => set.add(&folder.join(&mount.source), to.trim_matches('/'))?,
                None if mount.source.contains(['*', '?']) => {
                    set.add_fitting(folder, &mount.source)?;
                }
                None => {
                    let to = mount.source.trim_start_matches("./").trim_matches('/');
                    let to = if to == "." { "" } else { to };
                    set.add(&folder.join(&mount.source), to)?;
                }
            }
        }
        Ok(Some(set))
    }

    /// Adds what is at `from`, with all that is in it, to be found at `to`.
    fn add(&mut self, from: &Path, to: &str) -> Result<(), Failure> {
        let shown = from.display();
        let meta = std::fs::symlink_metadata(from)
            .with_context(|| format!("reading {shown}, which is to be among the files"))?;
        if meta.is_dir() {
            if !to.is_empty() {
                self.put(to, FileEntry::Directory)?;
            }
            return self.add_folder(from, to);
        }
        if meta.is_symlink() {
            let target = std::fs::read_link(from).with_context(|| format!("reading {shown}"))?;
            let target = text_of(&target)?.to_owned();
            return self.put(to, FileEntry::Link(target));
        }
        if !meta.is_file() {
            let message = format!("{shown} is neither a file nor a folder nor a link");
            return Err(Failure::new(Exit::Refused, message).next("leave it out"));
        }
        if to.is_empty() {
            let message = format!("{shown} is a file, which cannot be at `/`");
            return Err(Failure::new(Exit::Refused, message).next("say its name there"));
        }
        let (digest, bytes) = digest_of(from)?;
        let executable = meta.permissions().mode() & 0o111 != 0;
        self.sources.insert(digest, from.to_owned());
        self.put(
            to,
            FileEntry::File {
                digest,
                bytes,
                executable,
            },
        )
    }

    fn add_folder(&mut self, from: &Path, to: &str) -> Result<(), Failure> {
        for path in listed(from)? {
            let name = text_of(path.file_name().unwrap_or_default().as_ref())?.to_owned();
            let to = match to {
                "" => name,
                to => format!("{to}/{name}"),
            };
            self.add(&path, &to)?;
        }
        Ok(())
    }

    /// Adds the files whose path below `folder` fits a pattern.
    fn add_fitting(&mut self, folder: &Path, pattern: &str) -> Result<(), Failure> {
        let pattern: Vec<_> = pattern.trim_start_matches("./").split('/').collect();
        let before = self.list.entries.len();
        self.walk_fitting(folder, "", &pattern)?;
        if self.list.entries.len() > before {
            return Ok(());
        }
        let message = format!("no file fits the pattern `{}`", pattern.join("/"));
        Err(Failure::new(Exit::NotFound, message).next("correct `files` in the manifest"))
    }

    fn walk_fitting(&mut self, at: &Path, below: &str, pattern: &[&str]) -> Result<(), Failure> {
        for path in listed(at)? {
            let name = text_of(path.file_name().unwrap_or_default().as_ref())?;
            let below = match below {
                "" => name.to_owned(),
                below => format!("{below}/{name}"),
            };
            if path.is_dir() && !path.is_symlink() {
                self.walk_fitting(&path, &below, pattern)?;
            } else if fits_path(&below.split('/').collect::<Vec<_>>(), pattern) {
                self.add(&path, &below)?;
            }
        }
        Ok(())
    }

    /// Puts an entry at its place, over what earlier mounts had there.
    fn put(&mut self, to: &str, entry: FileEntry) -> Result<(), Failure> {
        let there = self.list.entries.get(to);
        if entry == FileEntry::Directory && there.is_some() {
            return Ok(());
        }
        self.list.entries.insert(to.to_owned(), entry);
        if self.list.entries.len() > FILE_ENTRIES_MAX {
            let message = format!("more than {FILE_ENTRIES_MAX} files and folders");
            return Err(Failure::new(Exit::Refused, message).next("name fewer of them in `files`"));
        }
        Ok(())
    }

    /// Uploads what the node does not have, and then the list; its digest.
    pub async fn upload(&self, client: &Client) -> Result<Digest, Failure> {
        let list = Bytes::from(self.list.to_bytes());
        let name = Digest::of(&list);
        let contents = self.list.contents();
        let mut missing = Vec::new();
        let asked: Vec<_> = contents.keys().map(Digest::to_string).collect();
        for asked in asked.chunks(ASKED_AT_ONCE) {
            let digests = asked.to_vec();
            let answer = client.missing_files(&v1::FilesAsked { digests }).await?;
            for digest in answer.missing {
                let digest: Digest = digest.parse().context("an answer of the node")?;
                missing.push(digest);
            }
        }
        let bytes = missing
            .iter()
            .filter_map(|digest| contents.get(digest))
            .sum();
        let progress = Progress::bytes("uploading files", bytes);
        futures::stream::iter(missing.into_iter().map(Ok::<_, Failure>))
            .try_for_each_concurrent(UPLOADS_AT_ONCE, async |digest| {
                self.upload_one(client, &digest).await?;
                progress.add(contents.get(&digest).copied().unwrap_or(0));
                Ok(())
            })
            .await?;
        send(client, &name, list).await?;
        Ok(name)
    }

    async fn upload_one(&self, client: &Client, digest: &Digest) -> Result<(), Failure> {
        let Some(source) = self.sources.get(digest) else {
            let message = format!("the node asks for {digest}, which is not among the files");
            return Err(Failure::new(Exit::Failure, message).next("deploy again"));
        };
        let shown = source.display();
        let bytes = std::fs::read(source).with_context(|| format!("reading {shown}"))?;
        if Digest::of(&bytes) != *digest {
            let message = format!("{shown} was changed meanwhile");
            return Err(Failure::new(Exit::Failure, message).next("deploy again"));
        }
        send(client, digest, bytes.into()).await
    }
}

async fn send(client: &Client, digest: &Digest, bytes: Bytes) -> Result<(), Failure> {
    let length = bytes.len();
    let chunks = (0..length).step_by(CHUNK_BYTES).map(move |start| {
        let end = length.min(start + CHUNK_BYTES);
        Ok(bytes.slice(start..end))
    });
    client
        .upload_file(digest, length as u64, futures::stream::iter(chunks))
        .await?;
    Ok(())
}

/// What a folder holds, in the order of names.
fn listed(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let shown = folder.display();
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {shown}"))?;
    let paths: Result<Vec<_>, _> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect();
    let mut paths = paths.with_context(|| format!("reading {shown}"))?;
    paths.sort();
    Ok(paths)
}

fn text_of(path: &Path) -> Result<&str, Failure> {
    path.to_str().ok_or_else(|| {
        let message = format!("{} is not UTF-8, which guests' paths are", path.display());
        Failure::new(Exit::Refused, message).next("rename it")
    })
}

fn digest_of(file: &Path) -> Result<(Digest, u64), Failure> {
    use std::io::Read as _;
    let read = || -> std::io::Result<(Digest, u64)> {
        let mut open = std::fs::File::open(file)?;
        let (mut hasher, mut bytes) = (model::Hasher::default(), 0);
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            match open.read(&mut buffer)? {
                0 => return Ok((hasher.finish(), bytes)),
                count => {
                    hasher.update(&buffer[..count]);
                    bytes += count as u64;
                }
            }
        }
    };
    Ok(read().with_context(|| format!("reading {}", file.display()))?)
}

/// Whether the names of a path fit the parts of a pattern; `**` fits any number of names.
fn fits_path(names: &[&str], pattern: &[&str]) -> bool {
    match (names, pattern) {
        (_, ["**", rest @ ..]) => (0..=names.len()).any(|skip| fits_path(&names[skip..], rest)),
        ([], []) => true,
        ([name, names @ ..], [part, pattern @ ..]) => {
            fits(name.as_bytes(), part.as_bytes()) && fits_path(names, pattern)
        }
        _ => false,
    }
}

/// Whether a name fits a part of a pattern, with `*` and `?`.
fn fits(name: &[u8], part: &[u8]) -> bool {
    // Where to go on after a mismatch: one byte more for the last star.
    let (mut at, mut in_part, mut star) = (0, 0, None);
    while at < name.len() {
        match part.get(in_part) {
            Some(b'*') => {
                star = Some((at, in_part));
                in_part += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[at] => {
                at += 1;
                in_part += 1;
            }
            _ => match star {
                Some((from, of_star)) => {
                    star = Some((from + 1, of_star));
                    at = from + 1;
                    in_part = of_star + 1;
                }
                None => return false,
            },
        }
    }
    part[in_part..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_those_of_shells_do() {
        let fit = |path: &str, pattern: &str| {
            let split = |text: &'static str| text.split('/').collect::<Vec<_>>();
            let (path, pattern) = (path.to_owned().leak(), pattern.to_owned().leak());
            fits_path(&split(path), &split(pattern))
        };
        for (path, pattern) in [
            ("a.txt", "*.txt"),
            ("d/a.txt", "d/*"),
            ("d/e/a.txt", "**/*.txt"),
            ("a.txt", "**/*.txt"),
            ("d/e/f", "d/**"),
            ("abc", "a?c"),
            ("aXbXc", "a*b*c"),
        ] {
            assert!(fit(path, pattern), "{path} {pattern}");
        }
        for (path, pattern) in [
            ("d/a.txt", "*.txt"),
            ("a.txt", "*.md"),
            ("d/e/f", "d/*"),
            ("ac", "a?c"),
        ] {
            assert!(!fit(path, pattern), "{path} {pattern}");
        }
    }

    #[test]
    fn a_folder_is_found_where_it_is_put_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("www/img")).unwrap();
        std::fs::write(dir.path().join("www/index.html"), "hi").unwrap();
        std::os::unix::fs::symlink("index.html", dir.path().join("www/home")).unwrap();
        let mount = |source: &str, destination: Option<&str>| FileMount {
            source: source.into(),
            destination: destination.map(Into::into),
        };
        let paths = |mounts: &[FileMount]| {
            let set = FileSet::gather(dir.path(), mounts).unwrap().unwrap();
            set.list.entries.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(
            paths(&[mount("www", Some("/"))]),
            ["home", "img", "index.html"]
        );
        let same = ["www", "www/home", "www/img", "www/index.html"];
        assert_eq!(paths(&[mount("./www/", None)]), same);
        assert_eq!(paths(&[mount("www/*.html", None)]), ["www/index.html"]);
        let placed = mount("www/index.html", Some("/a/b"));
        assert_eq!(paths(&[placed]), ["a/b"]);
        assert!(FileSet::gather(dir.path(), &[mount("none", None)]).is_err());
        assert!(FileSet::gather(dir.path(), &[mount("*.none", None)]).is_err());
    }
}
