//! What frames say in numbers: priorities, statuses, reasons.

/// Which of a connection's calls go first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Priority {
    /// Small and waited for.
    #[default]
    Prompt = 0,
    /// Large: gets what the others leave, and never less than a share.
    Bulk = 1,
}

/// How a call begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// What is asked for; the numbers belong to the services above.
    pub method: u16,
    /// How its streams, in both directions, stand to those of other calls.
    pub priority: Priority,
    /// Microseconds that the caller will wait; zero for as long as the connection lives.
    pub timeout_us: u64,
}

/// What a reply says of itself: zero is success, all else belongs to the services above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    /// The request was carried out.
    pub const OK: Self = Self(0);
}

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$each])* $variant,)*
            /// A code of a later version.
            Other(u16),
        }

        impl $name {
            /// The number on the wire.
            pub const fn code(self) -> u16 {
                match self {
                    $(Self::$variant => $code,)*
                    Self::Other(code) => code,
                }
            }

            /// What a number on the wire means.
            pub const fn of(code: u16) -> Self {
                match code {
                    $($code => Self::$variant,)*
                    code => Self::Other(code),
                }
            }
        }
    };
}

codes! {
    /// Why a call was cut.
    Reset {
        /// The caller no longer waits.
        Cancelled = 1,
        /// Its time is over.
        Deadline = 2,
        /// There were too many; nothing was done.
        Refused = 3,
        /// The handler ended without a reply.
        Failed = 4,
    }
}

codes! {
    /// Why a connection takes no more calls.
    GoAway {
        /// What was accepted is finished; ask another connection for the rest.
        Drain = 1,
        /// The versions have nothing in common.
        Version = 2,
        /// There are too many connections.
        Busy = 3,
        /// The certificate is not that of the node which the peer says it is.
        Identity = 4,
        /// The peer broke the protocol.
        Protocol = 5,
    }
}

/// The numbers once more: whoever changes one changes it here too, and on purpose.
const _: () = {
    assert!(Priority::Prompt as u8 == 0 && Priority::Bulk as u8 == 1);
    assert!(Reset::Cancelled.code() == 1 && Reset::Deadline.code() == 2);
    assert!(Reset::Refused.code() == 3 && Reset::Failed.code() == 4);
    assert!(GoAway::Drain.code() == 1 && GoAway::Version.code() == 2);
    assert!(GoAway::Busy.code() == 3 && GoAway::Identity.code() == 4);
    assert!(GoAway::Protocol.code() == 5);
};
