//! The tiered cache as a program: what a site runs in production.

fn main() {}
