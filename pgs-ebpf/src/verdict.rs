//! What happens to bytes that arrive on a source socket.
//!
//! They are redirected to the target where they certainly fit. Everything else comes to the
//! router, in order, by the source itself: a TCP socket's window then closes, and of an AF_UNIX
//! socket it is counted how much it holds. What is beyond that goes by a private socket, which
//! makes the sender wait.

use core::intrinsics::AtomicOrdering;
use core::intrinsics::atomic_xadd;
use core::ptr::read_volatile;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::BPF_F_INGRESS;
use aya_ebpf::bindings::sk_action::SK_DROP;
use aya_ebpf::bindings::sk_action::SK_PASS;
use aya_ebpf::helpers::bpf_get_current_task;
use aya_ebpf::helpers::bpf_get_socket_cookie;
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::stream_verdict;
use aya_ebpf::programs::SkBuffContext;
use pgs_common::flow::BROKEN;
use pgs_common::flow::Flow;
use pgs_common::flow::KERNEL;
use pgs_common::flow::Notice;
use pgs_common::flow::SEQUENCE_KNOWN;

use crate::maps::ACCOUNTS;
use crate::maps::BOUNDS;
use crate::maps::FLOWS;
use crate::maps::INDEXES;
use crate::maps::NOTICES;
use crate::maps::SOCKETS;
use crate::room;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// Twice its length is what a small buffer may take of a send buffer, beside this.
const BUFFER_OVERHEAD_BYTES: u32 = 1024;

/// What `sk_skb_adjust_room` of `net/core/filter.c` takes off at once, and how often it has to for
/// the largest buffer.
const PULL_BYTES_MAX: u32 = 0xfff;
const PULLS_MAX: u32 = 20;

/// Attached to `SOURCES`. Runs once for each socket buffer.
#[stream_verdict]
pub(crate) fn pgs_verdict(context: SkBuffContext) -> u32 {
    judge(&context, true)
}

/// Attached to `SOURCES` instead where the target cannot be looked at. Only backends are sources
/// then, and the kernel itself makes their senders wait.
#[stream_verdict]
pub(crate) fn pgs_one_way(context: SkBuffContext) -> u32 {
    judge(&context, false)
}

#[inline(always)]
fn judge(context: &SkBuffContext, looks: bool) -> u32 {
    let bytes = context.len();
    // A bare FIN. Redirected, it would poison the target with EPIPE.
    if bytes == 0 {
        return SK_PASS;
    }
    let cookie = cookie(context);
    // SAFETY: copied out at once; a stale index is found out by `source`.
    let Some(index) = unsafe { INDEXES.get(cookie) }.copied() else {
        return SK_PASS;
    };
    let Some(flow) = FLOWS.get_ptr_mut(index) else {
        return SK_PASS;
    };
    // SAFETY: the array's elements live as long as the program, and one verdict at a time runs for
    // one source: a TCP source holds its socket lock, an AF_UNIX source runs in the sender's
    // system call and a backend has one thread.
    let flow = unsafe { &mut *flow };
    // SAFETY: in the array.
    if unsafe { read_volatile(&raw const flow.orders.source) } != cookie {
        return SK_PASS;
    }
    if flow.record.diversions & BROKEN != 0 {
        return SK_DROP;
    }
    if !looks {
        note_activity(flow, index, bytes);
        return one_way(context, flow, bytes);
    }
    // A backend's flow has a private socket to divert by.
    let to_client = flow.orders.aside != 0;
    let bytes = if to_client {
        bytes
    } else {
        match without_repeated(context, flow, bytes) {
            Some(0) => return SK_DROP,
            Some(rest) => rest,
            None => {
                flow.record.diversions |= BROKEN;
                notify(index);
                return SK_DROP;
            }
        }
    };
    note_activity(flow, index, bytes);
    if may_redirect(flow, bytes) && redirect(context, flow, bytes, to_client) {
        return SK_PASS;
    }
    divert(context, flow, index, bytes)
}

/// Takes from a client's buffer what has been seen before, and says what is left; `None` where that
/// cannot be done.
///
/// A segment that is sent again may begin before what has arrived already, where its sender has
/// cut it anew. `recv` skips that; a verdict is given all of it (`tcp_read_skb`, `net/ipv4/tcp.c`).
#[inline(always)]
fn without_repeated(context: &SkBuffContext, flow: &mut Flow, bytes: u32) -> Option<u32> {
    let sequence = room::sequence_of(context.as_ptr())?;
    let seen = (flow.record.redirected + flow.record.diverted) as u32;
    if flow.record.origin == 0 {
        // SAFETY: the context of an sk_skb program.
        let socket = unsafe { (*context.skb.skb).__bindgen_anon_2.sk };
        if socket.is_null() {
            return None;
        }
        let first = room::next_unread(socket.cast())?.wrapping_sub(seen);
        flow.record.origin = SEQUENCE_KNOWN | u64::from(first);
    }
    let expected = (flow.record.origin as u32).wrapping_add(seen);
    let repeated = expected.wrapping_sub(sequence);
    if repeated == 0 {
        return Some(bytes);
    }
    // There is no gap in what TCP hands over.
    if repeated > u32::MAX / 2 {
        return None;
    }
    if repeated >= bytes {
        return Some(0);
    }
    let mut left = repeated;
    for _ in 0..PULLS_MAX {
        if left == 0 {
            break;
        }
        let part = if left < PULL_BYTES_MAX {
            left
        } else {
            PULL_BYTES_MAX
        };
        context.skb.adjust_room(-(part as i32), 0, 0).ok()?;
        left -= part;
    }
    (left == 0).then_some(bytes - repeated)
}

/// Counts, and gives the other direction its next turn.
#[inline(always)]
fn note_activity(flow: &mut Flow, index: u32, bytes: u32) {
    // SAFETY: a helper without arguments.
    flow.record.active_seconds = unsafe { bpf_ktime_get_coarse_ns() } / NANOSECONDS_PER_SECOND;
    let turn = flow.record.turn_bytes;
    // Beyond the bound it need not be known by how much; and it must not overflow.
    if turn <= BOUNDS.load().turn_bytes {
        flow.record.turn_bytes = turn.saturating_add(bytes);
    }
    if let Some(other) = FLOWS.get_ptr_mut(index ^ 1) {
        // SAFETY: in the array. The other direction may count at this moment and undo this; then
        // it is still in the middle of its turn.
        unsafe { (*other).record.turn_bytes = 0 };
    }
}

/// Backend to client only: everything is redirected.
#[inline(always)]
fn one_way(context: &SkBuffContext, flow: &mut Flow, bytes: u32) -> u32 {
    // SAFETY: in the array; the router writes it at any time.
    let mode = unsafe { read_volatile(&raw const flow.orders.mode) };
    if mode != KERNEL || !redirect(context, flow, bytes, true) {
        // Nowhere to go: the client's socket is closed.
        flow.record.diverted += u64::from(bytes);
    }
    SK_PASS
}

/// Whether these bytes keep their place and certainly fit.
#[inline(always)]
fn may_redirect(flow: &mut Flow, bytes: u32) -> bool {
    // SAFETY: in the array; the router writes both at any time.
    let (mode, forwarded, target) = unsafe {
        (
            read_volatile(&raw const flow.orders.mode),
            read_volatile(&raw const flow.orders.forwarded),
            read_volatile(&raw const flow.orders.target),
        )
    };
    let bounds = BOUNDS.load();
    if mode != KERNEL
        || forwarded != flow.record.diverted
        || flow.record.turn_bytes > bounds.turn_bytes
    {
        return false;
    }
    let Some(holding) = room::of_target(target) else {
        return false;
    };
    if holding.queued == 0 {
        flow.record.waiting = 0;
    }
    let half = holding.send_buffer_bytes / 2;
    let room = if half < bounds.room_bytes {
        half
    } else {
        bounds.room_bytes
    };
    let needed = u64::from(holding.taken_bytes)
        + 2 * (u64::from(flow.record.waiting) + u64::from(bytes))
        + u64::from(BUFFER_OVERHEAD_BYTES) * u64::from(holding.queued + 1);
    holding.queued < bounds.queue_buffers && needed <= u64::from(room)
}

/// Marks the buffer for the target; false where there is none.
#[inline(always)]
fn redirect(context: &SkBuffContext, flow: &mut Flow, bytes: u32, to_client: bool) -> bool {
    if !mark(context, flow, flow_target(flow), 0) {
        return false;
    }
    flow.record.waiting = flow.record.waiting.saturating_add(bytes);
    flow.record.redirected += u64::from(bytes);
    if let Some(account) = ACCOUNTS.get_ptr_mut(flow.orders.account) {
        // SAFETY: in the array, aligned; sessions of one owner may be counted on two cores.
        unsafe {
            let counter = if to_client {
                &raw mut (*account).to_client
            } else {
                &raw mut (*account).to_backend
            };
            add(counter, bytes);
        }
    }
    true
}

/// Gives the bytes to the router.
#[inline(always)]
fn divert(context: &SkBuffContext, flow: &mut Flow, index: u32, bytes: u32) -> u32 {
    // SAFETY: in the array; the router writes both at any time.
    let (aside, forwarded) = unsafe {
        (
            read_volatile(&raw const flow.orders.aside),
            read_volatile(&raw const flow.orders.forwarded),
        )
    };
    if aside != 0 && !takes_source(flow, forwarded, bytes) {
        // Charged to the sender until the private socket has room.
        if mark(context, flow, aside, u64::from(BPF_F_INGRESS)) {
            // SAFETY: a helper without arguments; this runs in the sender's system call.
            flow.record.origin = unsafe { bpf_get_current_task() };
            count_diverted(context, flow, bytes);
        }
        // No private socket: the session is closing, and the router gets what there is.
        return SK_PASS;
    }
    if aside == 0 && is_stuck(context) {
        flow.record.diversions |= BROKEN;
        notify(index);
        return SK_DROP;
    }
    if count_diverted(context, flow, bytes) && flow.orders.mode == KERNEL {
        // SAFETY: in the array. The count above was a full barrier: either the router sees it
        // after it stopped listening, or this sees that it has.
        if unsafe { read_volatile(&raw const flow.orders.listening) } == 0 {
            notify(index);
        }
    }
    SK_PASS
}

/// Whether these bytes of an AF_UNIX source go by the source itself. The kernel charges them to
/// nobody who would be made to wait, so they are counted here.
///
/// The router has to know which way each byte took. So a run by the source begins only when it has
/// written on all that came before the run that it ends: then at most three are under way, and the
/// starts of the last two say which is which.
#[inline(always)]
fn takes_source(flow: &mut Flow, forwarded: u64, bytes: u32) -> bool {
    let bounds = BOUNDS.load();
    let record = &mut flow.record;
    let outstanding = record.diverted - forwarded;
    // The overhead of small ones would exceed their content.
    let fits = bytes >= bounds.held_buffer_bytes_min
        || outstanding < u64::from(bounds.held_buffer_bytes_min);
    if record.run & 1 == 0 {
        let stays = fits && outstanding <= u64::from(bounds.held_bytes);
        if !stays {
            record.run_starts[1] = record.diverted;
            begin_run(&mut record.run);
        }
        return stays;
    }
    let changes = fits
        && outstanding <= u64::from(bounds.held_bytes / 4)
        && forwarded >= record.run_starts[1];
    if changes {
        record.run_starts[0] = record.diverted;
        begin_run(&mut record.run);
    }
    changes
}

/// Counts a run, as a barrier behind its start.
#[inline(always)]
fn begin_run(run: &mut u32) {
    // SAFETY: in the array, aligned.
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(run, 1) };
}

/// Counts diverted bytes; true when they are the first for which the router is not yet at work.
#[inline(always)]
#[cfg_attr(
    not(feature = "log"),
    expect(unused_variables, reason = "only the log needs it")
)]
fn count_diverted(context: &SkBuffContext, flow: &mut Flow, bytes: u32) -> bool {
    // SAFETY: in the array, aligned.
    let before = unsafe { add(&raw mut flow.record.diverted, bytes) };
    // SAFETY: in the array; the router writes it at any time.
    let first = unsafe { read_volatile(&raw const flow.orders.forwarded) } == before;
    if first {
        flow.record.diversions += u32::from(flow.record.diversions < BROKEN - 1);
        #[cfg(feature = "log")]
        aya_log_ebpf::info!(
            context,
            "flow of {} diverts after {} bytes redirected, {} diverted",
            flow.orders.source,
            flow.record.redirected,
            before
        );
    }
    first
}

/// Whether a client's own socket holds back more than it ever should: what passes on it then waits
/// behind what is redirected to it, and is charged to nobody.
#[inline(always)]
fn is_stuck(context: &SkBuffContext) -> bool {
    // SAFETY: the context of an sk_skb program.
    let socket = unsafe { (*context.skb.skb).__bindgen_anon_2.sk };
    if socket.is_null() {
        return false;
    }
    match room::of_socket(socket.cast()) {
        Some(holding) => holding.queued > BOUNDS.load().stuck_buffers,
        None => false,
    }
}

fn notify(index: u32) {
    let notice = Notice {
        flow: index,
        reserved: 0,
    };
    // Where it finds no room it is lost: whoever reads a full ring looks at all sessions.
    let _full = NOTICES.output(notice, 0);
}

/// Marks the buffer for a socket; false where there is none.
#[inline(always)]
fn mark(context: &SkBuffContext, flow: &Flow, key: u64, flags: u64) -> bool {
    // Read once more behind the key, because the router clears it before it gives the flow to
    // another session: a verdict that was held up must not take that session's socket.
    // SAFETY: in the array.
    if unsafe { read_volatile(&raw const flow.orders.source) } != cookie(context) {
        return false;
    }
    // On a failed look-up the helper answers SK_DROP and marks nothing.
    SOCKETS.redirect_skb(context, key, flags) as u32 == SK_PASS
}

/// Adds atomically, as a full barrier; what was there before.
///
/// # Safety
///
/// The counter is aligned and in a map.
#[inline(always)]
unsafe fn add(counter: *mut u64, bytes: u32) -> u64 {
    // SAFETY: as the caller promises.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(counter, u64::from(bytes)) }
}

#[inline(always)]
fn flow_target(flow: &Flow) -> u64 {
    // SAFETY: in the array; the router writes it at any time.
    unsafe { read_volatile(&raw const flow.orders.target) }
}

#[inline(always)]
fn cookie(context: &SkBuffContext) -> u64 {
    // SAFETY: the helper takes the context of an sk_skb program.
    unsafe { bpf_get_socket_cookie(context.as_ptr()) }
}
