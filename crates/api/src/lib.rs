//! Versioned wire types of the admin API, and the manifest.

pub mod manifest;
