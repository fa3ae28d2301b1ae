//! The verdict programs and the probe. On the host this crate is an empty shell, so that the
//! workspace builds.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// `core::sync::atomic` has no read-modify-write for this target, though the processor has.
#![cfg_attr(
    target_arch = "bpf",
    feature(core_intrinsics),
    allow(internal_features)
)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        unsafe_code,
        reason = "helpers are kernel calls, and maps are shared with the router"
    )
)]

#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod probe;
#[cfg(target_arch = "bpf")]
mod room;
#[cfg(target_arch = "bpf")]
mod verdict;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
