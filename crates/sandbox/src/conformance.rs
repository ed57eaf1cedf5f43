//! The conformance suite that every back-end passes.
