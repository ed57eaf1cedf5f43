//! What was changed over a layer, as a value that can be written and read back.

use std::collections::HashMap;
use std::sync::Arc;

use model::Digest;
use serde::{Deserialize, Serialize};

use crate::data::{Data, Page};
use crate::directory::{Directory, Entry};
use crate::inode::{Body, Ino, Inode, Times};
use crate::layer::{Layer, LayerBody};
use crate::ledger::{Ledger, Quota};
use crate::tree::{Files, now_ns};

/// Changes that do not belong to the layer that they are put over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the changes were made over another layer")]
pub struct OtherLayer;

/// What a [`Files`] holds of its own: restored over the layer that it was made over, it is the same
/// again, with all that is open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saved {
    /// The layer's.
    layer: Digest,
    next: Ino,
    bytes: u64,
    inodes: u64,
    own: Vec<(Ino, SavedInode)>,
    opens: Vec<(Ino, u32)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedInode {
    mode: u16,
    names: u32,
    counted_links: u32,
    times: Times,
    body: SavedBody,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum SavedBody {
    File {
        /// Whether the layer's bytes of the same inode lie under it, and how far they are seen.
        under: Option<u64>,
        bytes: u64,
        /// Whole pages, by number.
        pages: Vec<(u64, Vec<u8>)>,
    },
    Directory {
        parent: Ino,
        subdirectories: u32,
        next_cookie: u64,
        /// Name, what it stands for, and its place.
        names: Vec<(Vec<u8>, Ino, u64)>,
    },
    Symlink(Vec<u8>),
}

impl Files {
    /// What it holds of its own.
    pub fn save(&self) -> Saved {
        let mut own: Vec<_> = self
            .own
            .iter()
            .map(|(ino, inode)| (*ino, saved(inode)))
            .collect();
        own.sort_unstable_by_key(|(ino, _)| *ino);
        let mut opens: Vec<_> = self.opens.iter().map(|(ino, n)| (*ino, *n)).collect();
        opens.sort_unstable();
        Saved {
            layer: *self.layer.digest(),
            next: self.next,
            bytes: self.ledger.bytes(),
            inodes: self.ledger.inodes(),
            own,
            opens,
        }
    }

    /// The files that were saved, over their layer and held to `quota` from here on.
    pub fn restore(layer: Arc<Layer>, quota: Quota, saved: &Saved) -> Result<Self, OtherLayer> {
        if saved.layer != *layer.digest() {
            return Err(OtherLayer);
        }
        let mut own = HashMap::with_capacity(saved.own.len());
        for (ino, inode) in &saved.own {
            own.insert(*ino, restored(&layer, *ino, inode)?);
        }
        Ok(Self {
            layer,
            own: Arc::new(own),
            opens: saved.opens.iter().copied().collect(),
            next: saved.next,
            ledger: Ledger::of_counts(quota, saved.bytes, saved.inodes),
            clock: now_ns,
        })
    }
}

fn saved(inode: &Inode) -> SavedInode {
    let body = match &inode.body {
        Body::File(data) => SavedBody::File {
            under: data.under.as_ref().map(|_| data.under_bytes),
            bytes: data.bytes,
            pages: data
                .pages
                .iter()
                .map(|(number, page)| (*number, page.to_vec()))
                .collect(),
        },
        Body::Directory(directory) => SavedBody::Directory {
            parent: directory.parent,
            subdirectories: directory.subdirectories,
            next_cookie: directory.next_cookie,
            names: directory
                .names
                .iter()
                .map(|(name, entry)| (name.to_vec(), entry.ino, entry.cookie))
                .collect(),
        },
        Body::Symlink(target) => SavedBody::Symlink(target.to_vec()),
    };
    SavedInode {
        mode: inode.mode,
        names: inode.names,
        counted_links: inode.counted_links,
        times: inode.times,
        body,
    }
}

fn restored(layer: &Layer, ino: Ino, saved: &SavedInode) -> Result<Inode, OtherLayer> {
    let body = match &saved.body {
        SavedBody::File {
            under,
            bytes,
            pages,
        } => {
            let contents = match (under, layer.node(ino).map(|node| &node.body)) {
                (None, _) => None,
                (Some(_), Some(LayerBody::File(contents))) => Some(contents.clone()),
                (Some(_), _) => return Err(OtherLayer),
            };
            let page = |(number, bytes): &(u64, Vec<u8>)| {
                let page = Page::try_from(bytes.as_slice()).map_err(|_| OtherLayer)?;
                Ok((*number, Arc::new(page)))
            };
            Body::File(Data {
                under: contents,
                under_bytes: under.unwrap_or(0),
                pages: pages.iter().map(page).collect::<Result<_, _>>()?,
                bytes: *bytes,
            })
        }
        SavedBody::Directory {
            parent,
            subdirectories,
            next_cookie,
            names,
        } => {
            let mut directory = Directory::new(*parent);
            directory.subdirectories = *subdirectories;
            directory.next_cookie = *next_cookie;
            for (name, ino, cookie) in names {
                let (ino, cookie) = (*ino, *cookie);
                directory.put_back(name.as_slice().into(), Entry { ino, cookie });
            }
            Body::Directory(directory)
        }
        SavedBody::Symlink(target) => Body::Symlink(target.as_slice().into()),
    };
    Ok(Inode {
        mode: saved.mode,
        names: saved.names,
        counted_links: saved.counted_links,
        times: saved.times,
        body,
    })
}
