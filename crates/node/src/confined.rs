//! Threads that run guests, and what they may no longer ask of the kernel.

use std::io;
use std::sync::Once;
use std::thread;

use microvm::confine;

/// Confines a thread that begins. Where the kernel does not have it, that is said once.
pub(crate) fn begin() {
    static SAID: Once = Once::new();
    if let Err(error) = confine::this_thread() {
        SAID.call_once(|| {
            tracing::warn!(%error, "threads that run guests are not confined by seccomp");
        });
    }
}

/// Why threads that run guests are not confined on this machine; none if they are.
pub fn not_confined() -> Option<String> {
    let begun = thread::Builder::new().spawn(confine::this_thread);
    let joined = begun.map(|thread| thread.join());
    let confined = match joined {
        Ok(Ok(confined)) => confined,
        Ok(Err(_)) => Err(io::Error::other("a thread of its own panicked")),
        Err(error) => Err(error),
    };
    confined.err().map(|error| error.to_string())
}
