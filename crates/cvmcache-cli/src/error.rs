//! The errors that all commands have in common.
//!
//! Each command has an error type of its own in its module, as have `remote`, `target` and `output`.
//! They become [`Error::Usage`] or [`Error::Failed`], which is all that the exit status depends on.

use std::error::Error as StdError;
use std::io;

use thiserror::Error;

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command could not do its work.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// The command line cannot be carried out as it is written.
    #[error(transparent)]
    Usage(Box<dyn StdError>),
    #[error(transparent)]
    Failed(Box<dyn StdError>),
    #[error("system error: {0}")]
    System(#[source] io::Error),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error("cannot write the output: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    pub(crate) fn usage(error: impl StdError + 'static) -> Self {
        Self::Usage(Box::new(error))
    }

    pub(crate) fn failed(error: impl StdError + 'static) -> Self {
        Self::Failed(Box::new(error))
    }

    /// 2 for a command line that has to be changed, 1 for the rest.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            _ => 1,
        }
    }

    /// True if the reader of the output has closed it.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_tells_usage_from_failure() {
        let cause = || io::Error::other("the cause");
        assert_eq!(Error::usage(cause()).exit_status(), 2);
        assert_eq!(Error::failed(cause()).exit_status(), 1);
        assert_eq!(Error::usage(cause()).to_string(), "the cause");
    }
}
