//! What the client has to know of a request besides its bytes: whether it may be sent again, and how much
//! its reply is.

/// Whether a request may be sent again when the connection was lost before its reply came. The server may
/// have run it, or run it later than the second one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Twice is as good as once.
    Safe,
    /// Another instance may have acted between the two, and the second would undo that.
    Never,
}

/// What is known of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traits {
    pub(crate) repeat: Repeat,
    /// About how many bytes the reply has.
    pub(crate) reply_len: u64,
}

/// Most replies are a number, or the metadata of an object.
const SHORT_REPLY: u64 = 256;

impl Traits {
    /// A request that may be sent again, with a short reply.
    pub(crate) const REPEATABLE: Self = Self { repeat: Repeat::Safe, reply_len: SHORT_REPLY };

    /// A request that may not be sent again, with a short reply.
    pub(crate) const ONCE: Self = Self { repeat: Repeat::Never, reply_len: SHORT_REPLY };

    /// The same with a reply of about this length.
    pub(crate) const fn with_reply(self, reply_len: u64) -> Self {
        Self { reply_len, ..self }
    }

    /// The traits of a part of a pipeline: `part` commands of `all`.
    pub(crate) fn share(self, part: usize, all: usize) -> Self {
        let share = u128::from(self.reply_len) * part as u128 / all.max(1) as u128;
        Self { reply_len: u64::try_from(share).unwrap_or(self.reply_len), ..self }
    }
}
