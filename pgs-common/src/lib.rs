//! What the eBPF program and the router share: map names, keys and values. Nothing here does work.
#![no_std]

pub mod flow;
