//! What the demo and the benches share: the examples, nodes of their own, calls to them.

pub mod catalogue;
pub mod cluster;
pub mod command;
pub mod node;
pub mod visit;
