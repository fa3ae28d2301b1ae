//! What the eBPF side logs, printed with the router's own log. For work on the program: the object
//! must have been built with logging, which costs instructions on every packet.

use std::os::fd::AsFd as _;

use aya::Ebpf;
use aya_log::EbpfLogger;
use nix::errno::Errno;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;

/// Prints what the program logs, from a thread of its own, until the process ends.
pub(super) fn follow(program: &mut Ebpf) {
    let mut logger = match EbpfLogger::init(program) {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!(%error, "this eBPF object does not log; build one that does with \
                `cargo xtask build-ebpf --log`");
            return;
        }
    };
    let run = move || loop {
        let mut descriptors = [PollFd::new(logger.as_fd(), PollFlags::POLLIN)];
        match poll(&mut descriptors, PollTimeout::NONE) {
            Ok(_) => logger.flush(),
            Err(Errno::EINTR) => {}
            Err(errno) => {
                tracing::warn!(%errno, "poll of the eBPF log failed; it is followed no more");
                return;
            }
        }
    };
    if let Err(error) = std::thread::Builder::new()
        .name("ebpf-log".into())
        .spawn(run)
    {
        tracing::warn!(%error, "cannot follow the eBPF log");
    }
}
