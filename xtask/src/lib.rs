//! What the demo and the benches share: the examples, a node of their own, calls to it.

pub mod catalogue;
pub mod command;
pub mod node;
pub mod visit;
