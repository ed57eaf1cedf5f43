//! Why an operation failed, in POSIX's terms.

/// A failure; the names are POSIX's, said in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Errno {
    /// EPERM: not permitted, whoever asks; a path that would lead out of its scope.
    #[error("operation not permitted")]
    NotPermitted,
    /// ENOENT.
    #[error("no such file or directory")]
    NoEntry,
    /// EIO: the layer's contents cannot be read.
    #[error("input or output failed")]
    Io,
    /// EBADF: it was not opened for that.
    #[error("bad file descriptor")]
    BadFile,
    /// EACCES: the permission bits forbid it.
    #[error("permission denied")]
    Access,
    /// EBUSY: the root.
    #[error("resource busy")]
    Busy,
    /// EEXIST.
    #[error("file exists")]
    Exists,
    /// ENOTDIR.
    #[error("not a directory")]
    NotDirectory,
    /// EISDIR.
    #[error("is a directory")]
    IsDirectory,
    /// EINVAL.
    #[error("invalid argument")]
    Invalid,
    /// EFBIG.
    #[error("file too large")]
    TooBig,
    /// ENOSPC: the quota is used up.
    #[error("no space left")]
    NoSpace,
    /// EROFS: there is no writable layer.
    #[error("read-only file system")]
    ReadOnly,
    /// EMLINK.
    #[error("too many links")]
    TooManyLinks,
    /// ENAMETOOLONG.
    #[error("file name too long")]
    NameTooLong,
    /// ENOTEMPTY.
    #[error("directory not empty")]
    NotEmpty,
    /// ELOOP.
    #[error("too many levels of symbolic links")]
    Loop,
}

impl Errno {
    /// Linux's number, the same on every architecture that Dunlin runs on.
    pub const fn linux(self) -> i32 {
        match self {
            Errno::NotPermitted => 1,
            Errno::NoEntry => 2,
            Errno::Io => 5,
            Errno::BadFile => 9,
            Errno::Access => 13,
            Errno::Busy => 16,
            Errno::Exists => 17,
            Errno::NotDirectory => 20,
            Errno::IsDirectory => 21,
            Errno::Invalid => 22,
            Errno::TooBig => 27,
            Errno::NoSpace => 28,
            Errno::ReadOnly => 30,
            Errno::TooManyLinks => 31,
            Errno::NameTooLong => 36,
            Errno::NotEmpty => 39,
            Errno::Loop => 40,
        }
    }
}
