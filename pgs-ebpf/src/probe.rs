//! Answers the router what waits for a target, and whether a backend can be sending.
//!
//! The router writes its question to a private socket whose other end is in `PROBES`: this runs
//! within that very system call, so that the answer is there when it returns.

use core::mem::offset_of;
use core::ptr::write_volatile;

use aya_ebpf::bindings::sk_action::SK_DROP;
use aya_ebpf::macros::stream_verdict;
use aya_ebpf::programs::SkBuffContext;
use pgs_common::flow::ABOUT_SENDER;
use pgs_common::flow::ASLEEP;
use pgs_common::flow::FULL;
use pgs_common::flow::Flow;
use pgs_common::flow::Question;

use crate::maps::FLOWS;
use crate::room;

/// Attached to `PROBES`.
#[stream_verdict]
pub(crate) fn pgs_probe(context: SkBuffContext) -> u32 {
    if let Ok(index) = context.load::<u32>(offset_of!(Question, flow))
        && let Ok(about) = context.load::<u32>(offset_of!(Question, about))
        && let Some(flow) = FLOWS.get_ptr_mut(index)
    {
        // SAFETY: the array's elements live as long as the program.
        let flow = unsafe { &mut *flow };
        let answer = if about == ABOUT_SENDER {
            of_sender(flow, index)
        } else {
            // A target that is gone has nothing waiting.
            room::of_target(flow.orders.target).map_or(0, |holding| holding.queued)
        };
        // SAFETY: in the array; the router reads both.
        unsafe {
            write_volatile(&raw mut flow.orders.answer, answer);
            write_volatile(
                &raw mut flow.orders.answers,
                flow.orders.answers.wrapping_add(1),
            );
        }
    }
    // The question has been answered: nobody reads it.
    SK_DROP
}

/// Of a flow to a client: what its backend does.
#[inline(always)]
fn of_sender(flow: &Flow, index: u32) -> u32 {
    // Whether it is full comes first: what is seen asleep afterwards can make no buffer any more.
    // The router's end of the backend's connection is what the other direction leads to.
    let backend = match FLOWS.get(index ^ 1) {
        Some(other) => other.orders.target,
        None => return 0,
    };
    let full = match room::is_peer_full(backend) {
        Some(true) => FULL,
        Some(false) => 0,
        None => return 0,
    };
    match room::is_asleep(flow.record.origin) {
        Some(true) => full | ASLEEP,
        _ => full,
    }
}
