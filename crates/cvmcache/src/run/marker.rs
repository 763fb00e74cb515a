//! The marker in the file of a program that supports `--check`, found without running it.

/// A text in the file of every program that calls [`run`](crate::run).
///
/// `cvmcache doctor` looks for it before it runs a plugin with `--check`: a plugin of another kind
/// could take the option for its configuration, and serve.
#[doc(hidden)]
pub const CHECK_MARKER: &str = "cvmcache-plugin-understands:--check CONFIG\n";

/// Keeps the text in the file. A static with `#[used]` would also be in programs that have this
/// library and never call [`run`](crate::run); a use that the optimiser cannot see through is there
/// exactly where the call is.
#[inline(never)]
pub(super) fn keep() {
    std::hint::black_box(CHECK_MARKER);
}
