//! The verdict programs. On the host this crate is an empty shell, so that the workspace builds.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {}
