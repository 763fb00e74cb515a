//! The library as C and C++ programs see it: installed, compiled against and linked with.
//!
//! The programs are in `plugins/`. They keep an eye on the library themselves: what it has promised,
//! and what it has not ended.

mod api;
mod conformance;
mod install;
mod memory;
mod odd;
mod processes;
mod references;
mod symbols;
