//! Usage and logs.
