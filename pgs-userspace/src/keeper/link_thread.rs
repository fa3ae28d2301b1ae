//! The thread of a router's link to its keeper: empties the backlog, listens, replaces.

use std::os::fd::AsFd as _;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::Instant;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use socket2::Socket;

use super::attach::Attached;
use super::attach::start;
use super::channel;
use super::channel::Patience;
use super::channel::Received;
use super::link::Listener;
use super::link::Shared;
use super::link::is_full;
use super::link::lock;
use super::message::Message;
use super::message::Refusal;
use super::process::PROCESS_NAME;
use super::store::Event;
use super::store::Farewell;
use super::store::Health;
use super::store::StoreError;
use crate::config::limits::KEEPER_END_POLL_INTERVAL;
use crate::config::limits::KEEPER_EXCHANGE_DEADLINE;
use crate::config::limits::KEEPER_NO_ROOM_POLL_INTERVAL;
use crate::config::limits::KEEPER_RESTART_INTERVAL_MAX;
use crate::config::limits::KEEPER_RESTART_INTERVAL_MIN;

/// Why a keeper is not served any longer.
enum End {
    /// This router has left it, and it ends.
    Left,
    /// Another router has it.
    HandedOver,
    /// It is gone, or of no use.
    Lost(String),
}

/// Serves one keeper after the other until the router leaves.
pub(super) fn run(
    shared: &Shared,
    mut socket: Arc<Socket>,
    mut child: Option<Child>,
    listener: &Listener,
) {
    let mut interval = KEEPER_RESTART_INTERVAL_MIN;
    loop {
        let begun = Instant::now();
        let why = match serve(shared, &socket, listener) {
            End::Left => {
                drop(socket);
                shared.disconnect("this router has left it");
                return reap(child);
            }
            // It goes on with its next router; this process is no longer its keeper's keeper.
            End::HandedOver => return shared.disconnect("another router has taken over"),
            End::Lost(why) => why,
        };
        if begun.elapsed() > KEEPER_RESTART_INTERVAL_MAX {
            interval = KEEPER_RESTART_INTERVAL_MIN;
        }
        end(child.take(), &socket, shared.keeper_process_id());
        shared.disconnect(&why);
        answer(shared, Err(StoreError::Gone));
        if shared.stopping.load(Relaxed) {
            return;
        }
        tracing::error!(why, "the keeper is gone: sessions end with this process");
        listener(Event::Lost(why));
        let Some(attached) = replace(shared, &mut interval) else {
            return;
        };
        child = attached.child;
        socket = shared.connect(attached.socket, attached.process_id);
        match shared.put_globals(&socket) {
            Ok(()) => {
                tracing::info!(process_id = attached.process_id, "a new keeper has begun");
                listener(Event::Resupply);
            }
            // It will be found closed.
            Err(error) => tracing::error!(%error, "the new keeper takes nothing"),
        }
    }
}

/// Starts a keeper, again and again; none where the router leaves meanwhile.
fn replace(shared: &Shared, interval: &mut Duration) -> Option<Attached> {
    loop {
        if !pause(shared, *interval) {
            return None;
        }
        *interval = (*interval * 2).min(KEEPER_RESTART_INTERVAL_MAX);
        match start(&shared.launch) {
            Ok(attached) => return Some(attached),
            Err(error) => {
                tracing::error!(%error, "no new keeper");
                shared.set_health(Health::Failing(error.to_string()));
            }
        }
    }
}

/// Waits; false where the router leaves.
fn pause(shared: &Shared, interval: Duration) -> bool {
    let until = Instant::now() + interval;
    while Instant::now() < until {
        let wake = shared.backlog.wake_descriptor();
        let mut looks = [PollFd::new(wake, PollFlags::POLLIN)];
        let left = until.saturating_duration_since(Instant::now());
        // An interrupted wait is looked at again like one that has ended.
        poll(&mut looks, timeout(left)).ok();
        shared.backlog.woken();
        // There is no keeper to leave: that is known at once.
        answer(shared, Err(StoreError::Gone));
        if shared.stopping.load(Relaxed) {
            return false;
        }
    }
    true
}

fn timeout(wait: Duration) -> PollTimeout {
    PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
}

fn serve(shared: &Shared, socket: &Socket, listener: &Listener) -> End {
    loop {
        if shared.stopping.load(Relaxed) && lock(&shared.leaving).is_none() {
            return End::Left;
        }
        let flags = match shared.backlog.is_empty() {
            true => PollFlags::POLLIN,
            false => PollFlags::POLLIN | PollFlags::POLLOUT,
        };
        let mut looks = [
            PollFd::new(socket.as_fd(), flags),
            PollFd::new(shared.backlog.wake_descriptor(), PollFlags::POLLIN),
        ];
        match poll(&mut looks, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return End::Lost(format!("poll: {error}")),
        }
        let ready = looks[0].revents().unwrap_or(PollFlags::empty());
        shared.backlog.woken();
        if ready.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR)
            && let Some(end) = hear(shared, socket, listener)
        {
            return end;
        }
        if let Err(why) = empty(shared, socket).and_then(|()| leave(shared, socket)) {
            return End::Lost(why);
        }
    }
}

fn hear(shared: &Shared, socket: &Socket, listener: &Listener) -> Option<End> {
    let message = match channel::receive(socket) {
        Ok(Received::Message(message, _) | Received::WithoutDescriptors(message)) => message,
        Ok(Received::Closed) => {
            let leaving = lock(&shared.leaving).as_ref().map(|one| one.farewell);
            if leaving == Some(Farewell::Ended) {
                answer(shared, Ok(()));
                return Some(End::Left);
            }
            return Some(End::Lost("it closed the connection".to_owned()));
        }
        Err(error) => return Some(End::Lost(format!("recvmsg: {error}"))),
    };
    match message {
        Message::LetGo { process_id } => listener(Event::LetGo { process_id }),
        Message::Released => {
            return Some(match answer(shared, Ok(())) {
                true => End::HandedOver,
                // This router has stopped waiting and goes on.
                false => End::Lost("it let another router in, too late".to_owned()),
            });
        }
        Message::Refused {
            refusal: Refusal::NobodyWaits,
            ..
        } => {
            answer(shared, Err(StoreError::NobodyWaits));
        }
        Message::Refused {
            refusal: Refusal::Full,
            ..
        } => shared.is_refused(Vec::new()),
        Message::DropSlots(slots) => shared.is_refused(slots),
        other => return Some(End::Lost(format!("it said {other:?}"))),
    }
    None
}

/// Sends what waits, as far as the keeper takes it.
fn empty(shared: &Shared, socket: &Socket) -> Result<(), String> {
    while let Some(batch) = shared.backlog.take() {
        let (message, descriptors) = batch.message();
        let sent = channel::send(socket, &message, &descriptors, Patience::None);
        drop(descriptors);
        match sent {
            Ok(()) => shared.backlog.sent(batch),
            Err(error) if is_full(&error) => {
                shared.backlog.put_back(batch);
                if error.kind() != std::io::ErrorKind::WouldBlock {
                    // The socket shows as writable all the time.
                    std::thread::sleep(KEEPER_NO_ROOM_POLL_INTERVAL);
                    shared.backlog.wake();
                }
                return Ok(());
            }
            Err(error) => return Err(format!("sendmsg: {error}")),
        }
    }
    Ok(())
}

/// Says the farewell, once everything before it has been said.
fn leave(shared: &Shared, socket: &Socket) -> Result<(), String> {
    let mut leaving = lock(&shared.leaving);
    let Some(one) = leaving.as_mut().filter(|one| !one.said) else {
        return Ok(());
    };
    if !shared.backlog.is_empty() {
        return Ok(());
    }
    one.said = true;
    let message = Message::Goodbye(one.farewell);
    channel::send(socket, &message, &[], Patience::Wait)
        .map_err(|error| format!("sendmsg: {error}"))
}

/// False where nobody waits for it any more.
fn answer(shared: &Shared, result: Result<(), StoreError>) -> bool {
    // Under the lock, so that who gives up knows whether it has been sent.
    let mut leaving = lock(&shared.leaving);
    let one = leaving.take();
    one.is_some_and(|one| one.answer.send(result).is_ok())
}

/// A keeper that has been told to end does so at once; one that does not is ended.
fn reap(child: Option<Child>) {
    let Some(mut child) = child else {
        return;
    };
    let until = Instant::now() + KEEPER_EXCHANGE_DEADLINE;
    while Instant::now() < until {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(KEEPER_END_POLL_INTERVAL),
            _ => return,
        }
    }
    end_child(child);
}

/// Ends what is left of a keeper that is of no use: it would go on passing the ends of sessions on,
/// which are this router's to end.
fn end(child: Option<Child>, socket: &Socket, process_id: Option<u32>) {
    drop(socket.shutdown(std::net::Shutdown::Both));
    if let Some(child) = child {
        return end_child(child);
    }
    let Some(process_id) = process_id else {
        return;
    };
    // Not started by this process: its number can be somebody else's by now.
    let name = std::fs::read_to_string(format!("/proc/{process_id}/comm")).unwrap_or_default();
    let process_id = i32::try_from(process_id).map(nix::unistd::Pid::from_raw);
    if let (true, Ok(process_id)) = (name.trim_end() == PROCESS_NAME, process_id) {
        kill(process_id, Signal::SIGKILL).ok();
    }
}

fn end_child(mut child: Child) {
    // It may have ended already, which is what is wanted.
    drop(child.kill());
    drop(child.wait());
}
