//! Sessions that pass from one router to the next: what is kept of them, how one is taken over, and
//! how one is left.

use std::collections::HashSet;
use std::net::Shutdown;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use super::DataPath;
use super::direction::Direction;
use super::handover::CloseReason;
use super::handover::Lease;
use super::handover::Orphan;
use super::handover::SessionSockets;
use super::kernel::KernelAccess;
use super::kernel::Place;
use super::kernel::Unreceived;
use super::kernel::part_of;
use super::reach::WorkerReach;
use super::relapse::Habit;
use super::session::KernelSession;
use super::session::Path;
use super::session::Session;
use super::withdrawal::Backend;
use crate::config::limits::RELEASE_DEADLINE;

impl DataPath {
    /// Goes on with a session that another router has left; gives it back where that cannot be.
    pub fn resume(&self, orphan: Orphan) -> Result<(), Box<Orphan>> {
        let (Some(flows), Some(worker)) = (&self.flows, self.worker_of(orphan.place)) else {
            return Err(Box::new(orphan));
        };
        let place = Place::from_number(orphan.place);
        let account = flows.account(place);
        // Here and not by the worker, so that whoever asks from now on sees where it is.
        orphan.meter.begin_kernel(place, flows);
        self.accounts.restore(orphan.lease.owner(), account);
        worker.resume(orphan)
    }

    /// Clears the places of sessions that nobody goes on with: all that are taken, but for these.
    pub fn clear_others(&self, taken: &HashSet<u32>) -> usize {
        let Some(flows) = &self.flows else {
            return 0;
        };
        let left = flows.taken().filter(|place| !taken.contains(place));
        left.filter(|place| self.clear(*place)).count()
    }

    /// Gives none of these places to a session before [`Self::reclaim`]: the router before has
    /// sessions there, in the same maps or by their records alone. To be called before there are
    /// any here.
    pub fn reserve(&self, places: HashSet<u32>) {
        if self.flows.is_some() && !places.is_empty() {
            let places = Arc::new(places);
            self.tell_all(|worker| worker.reserve(&places));
        }
    }

    /// Clears the place of a session that the router before had, and that has ended.
    pub fn reclaim(&self, place: u32) {
        if self.flows.is_some() && !self.clear(place) {
            tracing::warn!(place, "a place is not used again");
        }
    }

    fn clear(&self, place: u32) -> bool {
        self.worker_of(place)
            .is_some_and(|worker| worker.clear(Place::from_number(place)))
    }

    /// Makes ready for another router the sessions that go on without this one, and does nothing
    /// more with them until [`Self::released`] or [`Self::take_back`]. What is left stays here.
    /// False where that did not happen in time; then only the latter will do.
    pub fn release(&self) -> bool {
        self.following.pause();
        let (done, released) = sync_channel(self.workers.len());
        let mut all = true;
        for worker in &self.workers {
            all &= worker.reach().release(done.clone());
        }
        for _ in &self.workers {
            all = all && released.recv_timeout(RELEASE_DEADLINE).is_ok();
        }
        if !all {
            tracing::error!("a worker did not release its sessions in time");
        }
        all
    }

    /// Another router has what was made ready for it.
    pub fn released(&self) {
        self.tell_all(WorkerReach::released);
    }

    /// No other router takes over: this one goes on with everything.
    pub fn take_back(&self) {
        self.following.resume();
        self.tell_all(WorkerReach::take_back);
    }

    /// Has every session that goes on alone kept again: a new keeper knows none.
    pub fn keep_again(&self) {
        self.tell_all(WorkerReach::keep_again);
    }

    pub(super) fn tell_all(&self, tell: impl Fn(&WorkerReach) -> bool) {
        for worker in &self.workers {
            if !tell(&worker.reach()) {
                tracing::error!("a worker has ended: its sessions end with this process");
            }
        }
    }

    fn worker_of(&self, place: u32) -> Option<WorkerReach> {
        let part = part_of(Place::from_number(place), self.workers.len() as u32);
        Some(self.workers.get(part as usize)?.reach())
    }
}

/// A session that cannot be gone on with.
#[derive(Debug)]
pub(super) struct Lost {
    place: u32,
    client: TcpStream,
    backend: UnixStream,
    lease: Box<dyn Lease>,
    why: String,
}

impl Lost {
    /// Ends it: the keeper has its sockets open too, so that closing would not do.
    pub(super) fn end(self) {
        self.lease.needs_this_process(self.place);
        shut_down(&self.client, &self.backend);
        self.lease.closed(CloseReason::Orphaned(self.why));
    }
}

impl Session {
    /// Goes on with a session that another router has left.
    pub(super) fn resume(orphan: Orphan, kernel: &mut KernelAccess) -> Result<Self, Lost> {
        let Orphan {
            place,
            client,
            backend,
            aside,
            meter,
            lease,
        } = orphan;
        let place = Place::from_number(place);
        let resumed = kernel
            .resume(place, &client, &backend, aside)
            .and_then(|enrolment| {
                let standing = kernel.resume_standing(&enrolment, &backend)?;
                Ok((enrolment, standing))
            });
        match resumed {
            Ok((enrolment, standing)) => Ok(Self::with(
                client,
                backend,
                meter,
                lease,
                Path::Kernel(KernelSession {
                    enrolment,
                    listening_to_client: false,
                    listening_to_backend: false,
                    stays: false,
                    // It was given to this process from there.
                    kept: true,
                    backend: Backend::of(standing),
                    habit: Habit::default(),
                }),
            )),
            Err(refused) => {
                kernel.clear(place);
                Err(Lost {
                    place: place.number(),
                    client,
                    backend,
                    lease,
                    why: refused.to_string(),
                })
            }
        }
    }

    /// Whether the session can be left to another router: all its bytes are the kernel's, and its
    /// sockets are kept. Else it stays, and needs no notices from here on, since those are the
    /// other's.
    pub(super) fn prepare_to_leave(&mut self, kernel: &KernelAccess) -> bool {
        let flushed = self.to_client.is_flushed() && self.to_backend.is_flushed();
        let Path::Kernel(session) = &mut self.path else {
            return false;
        };
        let settled = match session.backend {
            Backend::Judged { .. } => kernel.is_open(&session.enrolment, Direction::ToBackend),
            Backend::Native { .. } => true,
            Backend::Filling { .. } | Backend::Leaving | Backend::Lagging { .. } => false,
        };
        let place = session.enrolment.place().number();
        let alone = flushed
            && settled
            && session.kept
            && self.lease.is_held(place)
            && session.enrolment.aside().is_some()
            && Direction::BOTH.iter().all(|direction| {
                kernel.unreceived(&session.enrolment, *direction) == Unreceived::Nothing
            });
        session.stays = !alone;
        session.listen_to_both(kernel, !alone);
        if !alone && session.enrolment.aside().is_some() {
            self.lease.stays(place);
            session.kept = false;
        }
        alone
    }

    /// Another router has the session.
    pub(super) fn leave(self: Box<Self>) {
        self.lease.released();
    }

    /// No other router takes over: what was made ready for one is undone.
    pub(super) fn take_back(&mut self, kernel: &KernelAccess) {
        if let Path::Kernel(session) = &mut self.path {
            session.stays = false;
            // Notices come here again: what they would have said meanwhile is looked for next.
            session.listen_to_both(kernel, false);
        }
        self.keep();
    }

    /// Has the session kept, if it can go on without this process.
    pub(super) fn keep(&mut self) {
        if let Path::Kernel(session) = &mut self.path
            && let Some(aside) = session.enrolment.aside()
            && !session.stays
        {
            let sockets = SessionSockets {
                client: self.client.as_fd(),
                backend: self.backend.as_fd(),
                aside: aside.as_fd(),
            };
            let place = session.enrolment.place().number();
            session.kept = self.lease.goes_on_alone(place, sockets);
        }
    }
}

impl KernelSession {
    fn listen_to_both(&mut self, kernel: &KernelAccess, listens: bool) {
        self.listening_to_client = listens;
        self.listening_to_backend = listens;
        for direction in Direction::BOTH {
            kernel.set_listening(&self.enrolment, direction, listens);
        }
    }
}

/// Ends both connections, whoever else has them open.
pub(super) fn shut_down(client: &TcpStream, backend: &UnixStream) {
    // Each may have ended by itself.
    drop(client.shutdown(Shutdown::Both));
    drop(backend.shutdown(Shutdown::Both));
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use pgs_common::flow::SESSIONS_MAX;

    use super::super::PathRequest;
    use super::super::Prepared;
    use super::super::arrivals_tests::Ends;
    use super::super::arrivals_tests::NoLease;
    use super::super::arrivals_tests::kernel;
    use super::super::arrivals_tests::wait_for_kernel;
    use super::super::handover::Handover;
    use super::super::kernel::Inheritance;
    use super::super::meter::Meter;
    use super::*;

    /// Maps of another layout are not inherited, and the records of those that stay still are at
    /// their places.
    #[test]
    fn places_of_sessions_elsewhere_are_given_to_nobody_whosever_the_maps_are() {
        if kernel().is_none() {
            return;
        }
        let prepared = Prepared::new(PathRequest::Kernel).unwrap();
        let data_path = DataPath::start(prepared, Inheritance::default()).unwrap();
        let parts = data_path.workers.len() as u32;
        let is_of = |place: &u32, part| part_of(Place::from_number(*place), parts) == part;
        let first = |part| (0..SESSIONS_MAX).find(|place| is_of(place, part)).unwrap();
        let firsts: HashSet<u32> = (0..parts).map(first).collect();
        data_path.reserve(firsts.clone());
        let ends = Ends::new();
        let meter = Arc::new(Meter::new());
        let handover = Handover {
            client: ends.router_client,
            backend: ends.router_backend,
            pending_to_backend: Bytes::new(),
            pending_to_client: Bytes::new(),
            account: 0,
            relayed: None,
            meter: Arc::clone(&meter),
            lease: Box::new(NoLease),
        };
        assert!(data_path.adopt(handover).is_ok());
        wait_for_kernel(&meter);
        let place = meter.place().expect("it is enrolled").number();
        assert!(!firsts.contains(&place), "{place}");
        data_path.shut_down(&CloseReason::Shutdown);
    }
}
