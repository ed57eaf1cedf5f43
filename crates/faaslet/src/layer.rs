//! The files that a version begins with.

use std::sync::Arc;

use files::{Layer, Library};
use model::VersionSpec;
use sandbox::PrepareError;

/// The layer of a version: the same one for all versions of the same files.
pub(crate) fn layer_of(library: &Library, spec: &VersionSpec) -> Result<Arc<Layer>, PrepareError> {
    let Some(list) = &spec.settings.files else {
        return Ok(Layer::empty());
    };
    library.layer(list).map_err(|error| PrepareError::Platform {
        reason: "its files could not be opened".into(),
        source: Some(error.into()),
    })
}
