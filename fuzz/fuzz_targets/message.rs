//! What libFuzzer runs: see `pgs_fuzz::message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pgs_fuzz::message(input));
