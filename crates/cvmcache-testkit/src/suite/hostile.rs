//! The hostile cases, by subject: a plugin survives a client that breaks the protocol, and other
//! clients are served.
//!
//! The cases expect what clients need, and leave the rest to the plugin. What can be answered is
//! answered, and the connection stays, because a client whose connection closes aborts. Bytes that
//! are no frame may cost the connection they came on. What a client leaves behind is freed.

mod disconnect;
mod foreign;
mod frames;

mod listings;
mod load;
mod raw;
mod requests;
mod texts;
mod uploads;

use super::Case;

pub(super) const ALL: &[&[Case]] = &[
    frames::CASES,
    requests::CASES,
    texts::CASES,
    uploads::CASES,
    listings::CASES,
    foreign::CASES,
    disconnect::CASES,
    load::CASES,
];
