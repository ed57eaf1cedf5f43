//! The files of a version: which is where, each by its digest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Most entries of one list.
pub const FILE_ENTRIES_MAX: usize = 1 << 17;

/// A list of files: stored as a blob of its own, whose digest stands for all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileList {
    /// What is at each path. Paths are relative to the root, with `/` between names.
    pub entries: BTreeMap<String, FileEntry>,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum FileEntry {
    /// A file.
    File {
        /// Its contents.
        digest: Digest,
        /// Their length.
        bytes: u64,
        /// Whether it may be executed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        executable: bool,
    },
    /// A symbolic link to a path.
    Link(String),
    /// A directory; those that hold something need no entry.
    Directory,
}

/// A list of files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileListError {
    /// It is not what a list looks like.
    #[error("it is not a list of files")]
    Malformed(#[source] serde_json::Error),
    /// It is too long.
    #[error("it has {count} entries: at most {max}")]
    TooLong {
        /// How many it has.
        count: usize,
        /// The most.
        max: usize,
    },
}

impl FileList {
    /// Reads a list as [`FileList::to_bytes`] writes it.
    pub fn parse(bytes: &[u8]) -> Result<Self, FileListError> {
        let list: Self = serde_json::from_slice(bytes).map_err(FileListError::Malformed)?;
        let (count, max) = (list.entries.len(), FILE_ENTRIES_MAX);
        if count > max {
            return Err(FileListError::TooLong { count, max });
        }
        Ok(list)
    }

    /// The list as it is stored: equal lists are equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Text and numbers in maps with text keys: nothing here cannot be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The contents that it names, each once, with their lengths.
    pub fn contents(&self) -> BTreeMap<Digest, u64> {
        let contents = self.entries.values().filter_map(|entry| match entry {
            FileEntry::File { digest, bytes, .. } => Some((*digest, *bytes)),
            FileEntry::Link(_) | FileEntry::Directory => None,
        });
        contents.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_back_and_equal_lists_are_equal_bytes() {
        let mut list = FileList::default();
        let file = FileEntry::File {
            digest: Digest::of(b"x"),
            bytes: 1,
            executable: false,
        };
        list.entries.insert("a/x".into(), file);
        list.entries
            .insert("l".into(), FileEntry::Link("a/x".into()));
        list.entries.insert("d".into(), FileEntry::Directory);
        let bytes = list.to_bytes();
        assert_eq!(FileList::parse(&bytes).unwrap(), list);
        assert_eq!(FileList::parse(&bytes).unwrap().to_bytes(), bytes);
        assert_eq!(list.contents().len(), 1);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"entries":{"a":"file"}}"#,
            r#"{"entries":{},"x":1}"#,
        ] {
            assert!(FileList::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
