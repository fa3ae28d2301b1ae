//! A flow is one direction of one session: bytes from a source socket to a target socket.
//!
//! A session has two flows, at `2 * place` and `2 * place + 1` of [`FLOWS_MAP`]. The router writes
//! [`Orders`], the verdict program writes [`Record`]: neither ever writes what belongs to the
//! other, except that the router clears a flow before it inserts the source socket, when no
//! verdict can run on it. Both live as long as the map does, so that another process can go on
//! where a router was killed.

/// Of everything in this file that two routers of different age must agree on.
pub const LAYOUT_VERSION: u32 = 2;

/// Map of all flows: an array that the router maps into its memory, so that reading a counter
/// costs no system call. Key: index of the flow.
pub const FLOWS_MAP: &str = "FLOWS";

/// Hash map from the cookie that the verdict program sees to the index of the flow.
/// For a TCP source that is the source's own cookie; for an AF_UNIX source it is its peer's,
/// because there `skb->sk` is the sender.
pub const INDEXES_MAP: &str = "INDEXES";

/// Sockhash with the verdict program attached. Key: cookie of the router's own source socket.
pub const SOURCES_MAP: &str = "SOURCES";

/// Sockhash without a program: everything that can be a target. Key: the socket's cookie.
pub const SOCKETS_MAP: &str = "SOCKETS";

/// Sockhash with the probe program attached: one private socket of each worker.
pub const PROBES_MAP: &str = "PROBES";

/// Ring buffer of [`Notice`]: flows whose bytes now come to the router.
pub const NOTICES_MAP: &str = "NOTICES";

/// Array of [`Account`], mapped like [`FLOWS_MAP`].
pub const ACCOUNTS_MAP: &str = "ACCOUNTS";

/// The verdict program that looks at the target's room before it redirects, for both directions.
pub const VERDICT_PROGRAM: &str = "pgs_verdict";

/// The verdict program for where the target cannot be looked at: backend to client only.
pub const ONE_WAY_PROGRAM: &str = "pgs_one_way";

/// The program that answers what waits for a target, and what a backend does; see [`Question`].
pub const PROBE_PROGRAM: &str = "pgs_probe";

/// Read-only data of the programs: a [`KernelLayout`].
pub const LAYOUT_GLOBAL: &str = "LAYOUT";

/// Read-only data of the programs: a [`Bounds`].
pub const BOUNDS_GLOBAL: &str = "BOUNDS";

/// [`Orders::mode`]: every byte goes to the router.
pub const RELAY: u32 = 0;

/// [`Orders::mode`]: bytes may be redirected to the target.
pub const KERNEL: u32 = 1;

/// [`Orders::mode`] of a flow to a client: the backend is no source any more, or is about to be
/// none, and the router reads it like any socket. Until it is certain that it is none, nothing is
/// read from the private socket: the backend stays blocked.
pub const NATIVE: u32 = 2;

/// [`Orders::mode`] of a flow to a client: the backend is being made a source again, and every
/// byte goes to the router.
pub const RETURNING: u32 = 3;

/// [`Question::about`]: how many buffers wait for the target? The answer is their number.
pub const ABOUT_TARGET: u32 = 0;

/// [`Question::about`]: what does the backend do? The answer is [`ASLEEP`] and [`FULL`].
pub const ABOUT_SENDER: u32 = 1;

/// Bit of an answer: the thread that sent last sleeps until something wakes it. So it is not
/// between making a buffer and its verdict, where it never sleeps like this.
pub const ASLEEP: u32 = 1;

/// Bit of an answer: the backend's send buffer is full. It can make no further buffer.
pub const FULL: u32 = 1 << 1;

/// Bit of [`Record::origin`] of a flow to a backend, above the sequence number: it stands there.
pub const SEQUENCE_KNOWN: u64 = 1 << 32;

/// Bit of [`Record::diversions`]; what is counted there ends below it.
pub const BROKEN: u32 = 1 << 31;

/// Flows in [`FLOWS_MAP`]; two for each session.
pub const FLOWS_MAX: u32 = 1 << 16;

/// Sessions that can be on the kernel path at once.
pub const SESSIONS_MAX: u32 = FLOWS_MAX / 2;

/// Accounts in [`ACCOUNTS_MAP`]; index 0 is for sessions that belong to none.
pub const ACCOUNTS_MAX: u32 = 1 << 14;

/// Bytes of the ring buffer, 16 of them for each notice. A flow can leave one while another of it
/// is unread, so that it can be full: then notices are lost, and its reader looks at all sessions.
pub const NOTICES_BYTES: u32 = SESSIONS_MAX * 16;

/// Sockets in [`PROBES_MAP`], one for each worker.
pub const PROBES_MAX: u32 = 256;

/// One flow: two cache lines, one for each writer.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default)]
pub struct Flow {
    /// Written by the router.
    pub orders: Orders,
    /// Written by the verdict program.
    pub record: Record,
}

/// What the router tells the verdict program.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default)]
pub struct Orders {
    /// Cookie by which the verdict program found this flow; anything else is not redirected.
    pub source: u64,
    /// Key in [`SOCKETS_MAP`] of the socket to which the bytes are redirected.
    pub target: u64,
    /// Key in [`SOCKETS_MAP`] of the private socket by which bytes come to the router that the
    /// source itself may not hold; 0 where its kind needs none.
    pub aside: u64,
    /// Bytes that came to the router and that it has completely written to the target.
    pub forwarded: u64,
    /// [`RELAY`], [`KERNEL`], [`NATIVE`] or [`RETURNING`].
    pub mode: u32,
    /// Index in [`ACCOUNTS_MAP`].
    pub account: u32,
    /// Not 0: the router listens for bytes that come to it, and needs no notice.
    pub listening: u32,
    /// Not 0: the router has read bytes that it has not written yet. If it dies now they are lost.
    pub in_hand: u32,
    /// The probe's answer. It runs within the router's own call, so it writes the router's line.
    pub answer: u32,
    /// Times that the probe has answered.
    pub answers: u32,
    /// The program does not know it: bytes of this way that routers moved; 0 from older routers.
    pub reserved: u64,
}

/// What the verdict program counts.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default)]
pub struct Record {
    /// Bytes that came to the router.
    pub diverted: u64,
    /// Bytes that were redirected to the target.
    pub redirected: u64,
    /// Diverted bytes come in runs: by the source itself in runs of even number, by the private
    /// socket in odd ones. What [`Self::diverted`] was when the present run began, and the one
    /// before: at the run's number modulo 2.
    pub run_starts: [u64; 2],
    /// When the last byte came, in seconds of `CLOCK_MONOTONIC_COARSE`.
    pub active_seconds: u64,
    /// Bytes redirected since the target was last seen with nothing waiting for it.
    pub waiting: u32,
    /// Bytes of this direction since the other one last had any, up to [`Bounds::turn_bytes`].
    pub turn_bytes: u32,
    /// Times that the flow changed from the kernel to the router; [`BROKEN`] is added when bytes
    /// were dropped to keep memory bounded, and the session must end.
    pub diversions: u32,
    /// The present run's number. It changes after its start was written.
    pub run: u32,
    /// What is known of where the bytes come from. Of a flow to a client: address of the kernel's
    /// `struct task_struct` of the thread that last sent by the private socket; the thread may be
    /// gone. Of a flow to a backend: TCP's sequence number of its first byte, with
    /// [`SEQUENCE_KNOWN`].
    pub origin: u64,
}

/// Bytes of all sessions of one owner.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Account {
    /// Redirected to backends.
    pub to_backend: u64,
    /// Redirected to clients.
    pub to_client: u64,
}

/// Says that bytes of a flow come to the router from now on.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Notice {
    /// Index of the flow.
    pub flow: u32,
    /// Fills the 8 bytes that the ring buffer aligns to.
    pub reserved: u32,
}

/// What the router writes to its probe socket. The answer stands in [`Orders::answer`] when the
/// call that wrote it returns.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Question {
    /// Index of the flow.
    pub flow: u32,
    /// [`ABOUT_TARGET`] or [`ABOUT_SENDER`].
    pub about: u32,
}

/// Where the running kernel keeps what the verdict looks at: byte offsets from its BTF.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelLayout {
    /// `struct sock`, `sk_user_data`: the pointer to `struct sk_psock`, flags in the low bits.
    pub sock_user_data: u32,
    /// `struct sock`, `sk_sndbuf`.
    pub sock_send_buffer: u32,
    /// `struct sock`, `sk_wmem_alloc`: what an AF_UNIX socket has sent and its peer not yet read.
    pub sock_write_allocated: u32,
    /// `struct sock`, `sk_wmem_queued`: what a TCP socket holds unacknowledged.
    pub sock_write_queued: u32,
    /// `struct sk_psock`, `ingress_skb.qlen`: redirected buffers that the worker has yet to send.
    pub psock_queue_length: u32,
    /// `struct unix_sock`, `peer`: the other end's `struct sock`.
    pub unix_peer: u32,
    /// `struct task_struct`, `__state`: what a thread waits for, 0 while it runs or could.
    pub task_state: u32,
    /// `struct tcp_sock`, `copied_seq`: sequence number of the next byte to be read.
    pub tcp_next_unread: u32,
    /// `struct sk_buff`, `cb`, and in it `struct tcp_skb_cb`, `seq`: sequence number of the first
    /// byte.
    pub buffer_sequence: u32,
}

/// Bounds of the verdict, set when the program is loaded.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of one turn after which the rest of the turn goes to the router.
    pub turn_bytes: u32,
    /// Memory in bytes that redirected bytes may take of a target's send buffer.
    pub room_bytes: u32,
    /// Buffers that may wait for a target.
    pub queue_buffers: u32,
    /// Bytes that may come by an AF_UNIX source before the router has written them on: the kernel
    /// itself does not bound them.
    pub held_bytes: u32,
    /// Shorter buffers never come that way: their overhead would exceed their content.
    pub held_buffer_bytes_min: u32,
    /// Buffers that may wait behind one another on a client that neither reads nor stops.
    pub stuck_buffers: u32,
}

const _: () = assert!(size_of::<Orders>() == 64 && size_of::<Record>() == 64);
const _: () = assert!(size_of::<Flow>() == 128 && align_of::<Flow>() == 64);

#[cfg(feature = "user")]
mod plain {
    #![expect(unsafe_code, reason = "aya::Pod is an unsafe marker trait")]

    use super::Account;
    use super::Bounds;
    use super::Flow;
    use super::KernelLayout;

    // SAFETY: each is `repr(C)`, every field an integer, and the sizes leave no padding.
    unsafe impl aya::Pod for Flow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Account {}
    // SAFETY: as above.
    unsafe impl aya::Pod for KernelLayout {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Bounds {}
}
