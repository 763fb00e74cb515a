//! What fuzzing runs, as plain functions: [`Administered::run`](admin::Administered::run), [`decoder::run`] and
//! [`service::run`] take any bytes and panic if something does not hold. The fuzz targets call them with what libFuzzer makes up, and
//! the tests with what it has found so far. How to fuzz stands in this directory's README.md.

#![forbid(unsafe_code)]

pub mod admin;
pub mod decoder;
pub mod service;
