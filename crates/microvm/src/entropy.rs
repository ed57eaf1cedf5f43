//! Bytes that nobody can guess, from the kernel.

/// New ones.
pub(crate) fn fresh() -> [u8; 32] {
    let mut bytes = [0; 32];
    // SAFETY: the kernel writes at most as many bytes as the buffer has. Up to 256 it never gives
    // fewer once it has enough, for which it waits.
    let given = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    debug_assert_eq!(usize::try_from(given), Ok(bytes.len()));
    bytes
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_two_are_the_same() {
        assert_ne!(super::fresh(), super::fresh());
    }
}
