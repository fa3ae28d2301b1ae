//! What libFuzzer runs: see `pgs_fuzz::proxy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pgs_fuzz::proxy(input));
