//! Errors as Linux programs know them.

/// An error number of Linux on x86-64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident = $number:literal: $doc:literal,)*) => {
        impl Errno {
            $(#[doc = $doc] pub const $name: Errno = Errno($number);)*
        }

        impl std::fmt::Debug for Errno {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.0 {
                    $($number => f.write_str(stringify!($name)),)*
                    other => write!(f, "errno {other}"),
                }
            }
        }
    };
}

errnos! {
    EPERM = 1: "Not permitted.",
    ENOENT = 2: "Nothing of this name.",
    ESRCH = 3: "No such thread or process.",
    EINTR = 4: "A signal came first.",
    EIO = 5: "Input or output failed.",
    E2BIG = 7: "Too much is passed.",
    EBADF = 9: "Not an open descriptor, or not open for this.",
    ECHILD = 10: "No children.",
    EAGAIN = 11: "Not now.",
    ENOMEM = 12: "No memory is left.",
    EACCES = 13: "Denied.",
    EFAULT = 14: "An address that may not be used so.",
    EBUSY = 16: "In use.",
    EEXIST = 17: "There already.",
    ENODEV = 19: "No such device.",
    ENOTDIR = 20: "Not a directory.",
    EISDIR = 21: "A directory.",
    EINVAL = 22: "An argument is out of its range.",
    ENFILE = 23: "The system has no room for more of these.",
    EMFILE = 24: "All descriptors are in use.",
    ENOTTY = 25: "Not a terminal.",
    EFBIG = 27: "Too large.",
    ENOSPC = 28: "No space is left.",
    ESPIPE = 29: "Cannot seek.",
    EPIPE = 32: "Nobody reads.",
    ERANGE = 34: "The buffer is too short.",
    ENAMETOOLONG = 36: "The name is too long.",
    ENOSYS = 38: "There is no such call.",
    ELOOP = 40: "Too many symbolic links.",
    ENOTSOCK = 88: "Not a socket.",
    EDESTADDRREQ = 89: "An address is needed.",
    EMSGSIZE = 90: "The message is too long.",
    ENOPROTOOPT = 92: "No such option.",
    EPROTONOSUPPORT = 93: "No such protocol.",
    ESOCKTNOSUPPORT = 94: "No such kind of socket.",
    EOPNOTSUPP = 95: "Not supported here.",
    EAFNOSUPPORT = 97: "No such family of addresses.",
    EADDRINUSE = 98: "The address is in use.",
    EADDRNOTAVAIL = 99: "The address is not one of ours.",
    ENETUNREACH = 101: "The network cannot be reached.",
    ECONNRESET = 104: "The other end is gone.",
    EISCONN = 106: "Connected already.",
    ENOTCONN = 107: "Not connected.",
    ETIMEDOUT = 110: "The time is over.",
    ECONNREFUSED = 111: "Nobody listens.",
    EHOSTUNREACH = 113: "The host cannot be reached.",
    EALREADY = 114: "It is being done already.",
    EINPROGRESS = 115: "It has begun.",
}

impl Errno {
    /// What a system call returns for it.
    pub fn result(self) -> u64 {
        i64::from(-self.0) as u64
    }
}

impl From<files::Errno> for Errno {
    fn from(errno: files::Errno) -> Self {
        Errno(errno.linux())
    }
}
