//! What each system call does. Which there are, [`super::table`] lists.

pub mod describe;
pub mod events;
pub mod identity;
pub mod io;
pub mod memory;
pub mod network;
pub mod paths;
pub mod signals;
pub mod stat;
pub mod threads;
pub mod time;
