//! Errors that mean that the system has no descriptors to spare: what is to be done about them.

use std::error::Error;
use std::io;

use nix::errno::Errno;

/// What to say beside an error, if it, or one behind it, is about a limit on descriptors.
pub(super) fn remedy(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut error = Some(error);
    while let Some(this) = error {
        let system = this.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        let errno = system.map(Errno::from_raw).or_else(|| this.downcast_ref::<Errno>().copied());
        match errno {
            Some(Errno::EMFILE) => {
                return Some(
                    "the limit on open descriptors (ulimit -Hn, LimitNOFILE= of a unit) is reached: \
                     raise it",
                );
            }
            Some(Errno::ENFILE) => {
                return Some("the system's limit on open files (fs.file-max) is reached: raise it");
            }
            _ => error = this.source(),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OptionsError, ServerError};

    #[test]
    fn an_error_about_descriptors_is_found_behind_others() {
        let system = |errno: Errno| io::Error::from(errno);
        assert!(remedy(&system(Errno::EMFILE)).unwrap().contains("ulimit -Hn"));
        assert!(remedy(&Errno::EMFILE).is_some());
        assert!(remedy(&ServerError::Io(system(Errno::ENFILE))).unwrap().contains("fs.file-max"));
        let read = OptionsError::Read { path: "/conf".into(), source: system(Errno::EMFILE) };
        assert!(remedy(&read).is_some());
        assert_eq!(remedy(&system(Errno::EACCES)), None);
    }
}
