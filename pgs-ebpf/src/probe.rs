//! Answers the router how many buffers wait for a target.
//!
//! The router writes its question to a private socket whose other end is in `PROBES`: this runs
//! within that very system call, so that the answer is there when it returns.

use core::ptr::write_volatile;

use aya_ebpf::bindings::sk_action::SK_DROP;
use aya_ebpf::macros::stream_verdict;
use aya_ebpf::programs::SkBuffContext;
use pgs_common::flow::Question;

use crate::maps::FLOWS;
use crate::room;

/// Attached to `PROBES`.
#[stream_verdict]
pub(crate) fn pgs_probe(context: SkBuffContext) -> u32 {
    if let Ok(index) = context.load::<u32>(core::mem::offset_of!(Question, flow))
        && let Some(flow) = FLOWS.get_ptr_mut(index)
    {
        // SAFETY: the array's elements live as long as the program.
        let flow = unsafe { &mut *flow };
        // A target that is gone has nothing waiting.
        let queued = room::of_target(flow.orders.target).map_or(0, |holding| holding.queued);
        // SAFETY: in the array; the router reads both.
        unsafe {
            write_volatile(&raw mut flow.record.queued, queued);
            write_volatile(
                &raw mut flow.record.probes,
                flow.record.probes.wrapping_add(1),
            );
        }
    }
    // The question has been answered: nobody reads it.
    SK_DROP
}
