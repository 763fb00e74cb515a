//! The library as C and C++ programs see it: installed, compiled against and linked with.
//!
//! The programs are in `plugins/`. They check the library themselves: what its header promises,
//! and what it has not ended.

mod administration;
mod api;
mod conformance;
mod install;
mod memory;
mod odd;
mod processes;
mod references;
mod symbols;
