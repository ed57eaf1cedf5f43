//! Nothing: what stands in for a crate that wasmtime names on Linux, and uses only with the
//! standard library. That crate has the standard library's panic handler, of which a program may
//! have one.
#![no_std]
