//! What lies under the private files of a Linux program: the files of its version, and what every
//! program finds unless its version has something else in that place.

use std::sync::Arc;

use files::{Layer, LayerBuilder, LayerError, Library, LibraryError, Standard};
use model::{Kind, Settings};

use Standard::{Directory, File};

/// Names of a program's user and of its host, and where to put temporary files.
const COMMAND: [Standard; 9] = [
    Directory("tmp"),
    Directory("etc"),
    Directory("bin"),
    Directory("home"),
    File("etc/passwd", "function:x:1000:1000::/tmp:/bin/sh\n"),
    File("etc/group", "function:x:1000:\n"),
    File("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    File("etc/resolv.conf", "nameserver 127.0.0.1\n"),
    File("etc/nsswitch.conf", "hosts: files dns\n"),
];

/// The folders that Lambda has.
const LAMBDA: [Standard; 4] = [
    Directory("opt"),
    Directory("var"),
    Directory("var/task"),
    Directory("var/runtime"),
];

/// Why there is no layer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BaseError {
    /// The files of the version cannot be had.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// What every program finds is no tree.
    #[error(transparent)]
    Layer(#[from] LayerError),
}

/// The layer of a version of this kind. It may block.
pub(crate) fn layer(
    library: &Library,
    kind: Kind,
    settings: &Settings,
) -> Result<Arc<Layer>, BaseError> {
    let mut standard = COMMAND.to_vec();
    if kind == Kind::Lambda {
        standard.extend(LAMBDA);
    }
    match &settings.files {
        Some(list) => Ok(library.layer_with(list, &standard)?),
        None => Ok(Arc::new(LayerBuilder::of(&standard)?.build())),
    }
}
