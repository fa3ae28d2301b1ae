//! Set-up, demo, tests and checks.
fn main() {}
