//! What happens to bytes that arrive on a source socket.
//!
//! Whatever is not certainly ours to redirect passes to the router: bytes dropped here were
//! already acknowledged to their sender.

use core::ptr::read_volatile;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::sk_action::SK_PASS;
use aya_ebpf::helpers::bpf_get_socket_cookie;
use aya_ebpf::macros::stream_verdict;
use aya_ebpf::programs::SkBuffContext;
use pgs_common::flow::Flow;
use pgs_common::flow::KERNEL;
use pgs_common::flow::RELAY;

use crate::maps::FLOWS;
use crate::maps::SLOTS;
use crate::maps::TARGETS;

/// Attached to `SOURCES`. Runs once for each socket buffer.
#[stream_verdict]
pub(crate) fn pgs_verdict(context: SkBuffContext) -> u32 {
    let bytes = u64::from(context.len());
    // A bare FIN. Redirected, it would poison the target with EPIPE.
    if bytes == 0 {
        return SK_PASS;
    }
    match flow_of(&context) {
        Some(flow) => verdict(&context, flow, bytes),
        None => SK_PASS,
    }
}

/// The flow that these bytes belong to.
fn flow_of(context: &SkBuffContext) -> Option<*mut Flow> {
    let cookie = cookie(context);
    // SAFETY: copied out at once; a stale slot is found out by `source`.
    let slot = *unsafe { SLOTS.get(cookie) }?;
    let flow = FLOWS.get_ptr_mut(slot)?;
    // SAFETY: the array's elements live as long as the program.
    (unsafe { read_volatile(&raw const (*flow).source) } == cookie).then_some(flow)
}

fn verdict(context: &SkBuffContext, flow: *mut Flow, bytes: u64) -> u32 {
    // SAFETY: one verdict at a time runs for one source: a TCP source holds its socket lock, an
    // AF_UNIX source runs in the sender's system call and a backend has one thread.
    let flow = unsafe { &mut *flow };
    settle(context, flow);
    if flow.mode == KERNEL && redirect(context, flow) {
        flow.redirected += bytes;
        return SK_PASS;
    }
    if flow.mode != RELAY {
        turn(context, flow, RELAY);
    }
    flow.passed += bytes;
    SK_PASS
}

/// Follows the router's request, where that keeps the bytes in order.
fn settle(context: &SkBuffContext, flow: &mut Flow) {
    // SAFETY: both are in the array; the router writes them at any time.
    let (request, forwarded) = unsafe {
        (
            read_volatile(&raw const flow.request),
            read_volatile(&raw const flow.forwarded),
        )
    };
    if request == flow.mode || (request == KERNEL && forwarded != flow.passed) {
        return;
    }
    turn(context, flow, request);
}

#[cfg_attr(
    not(feature = "log"),
    expect(unused_variables, reason = "only the log needs it")
)]
fn turn(context: &SkBuffContext, flow: &mut Flow, mode: u32) {
    flow.mode = mode;
    flow.turns += 1;
    #[cfg(feature = "log")]
    aya_log_ebpf::info!(
        context,
        "flow {} to mode {} after {} bytes redirected, {} passed",
        flow.source,
        mode,
        flow.redirected,
        flow.passed
    );
}

/// Marks the buffer for the target; false where there is none.
fn redirect(context: &SkBuffContext, flow: &Flow) -> bool {
    // SAFETY: in the array. `source` is read once more behind `target`, because the router clears
    // it before it gives the slot to another session: a verdict that was held up here must not
    // take that session's target.
    let (target, source) = unsafe {
        (
            read_volatile(&raw const flow.target),
            read_volatile(&raw const flow.source),
        )
    };
    if source != cookie(context) {
        return false;
    }
    // On a failed look-up the helper answers SK_DROP and marks nothing.
    TARGETS.redirect_skb(context, target, 0) as u32 == SK_PASS
}

fn cookie(context: &SkBuffContext) -> u64 {
    // SAFETY: the helper takes the context of an sk_skb program.
    unsafe { bpf_get_socket_cookie(context.as_ptr()) }
}
