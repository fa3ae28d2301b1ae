//! What the eBPF program and the router share. Nothing here does any work.
#![no_std]
