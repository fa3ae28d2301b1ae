//! What a worker does with its sessions when another router comes, and when that one does not.

use super::Worker;
use super::listen;
use super::loan;
use crate::datapath::handover::CloseReason;
use crate::datapath::kernel::Place;
use crate::datapath::reach::Meters;
use crate::datapath::session::Session;

/// Moved as it is: a session is large.
type Left = Box<Session>;

/// What another router may have already.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// Places in the kernel's tables are the other's to give: no session is enrolled any more.
    pub(super) enrols_none: bool,
    /// Sessions that go on alone, until it is certain whose they are.
    left: Vec<Left>,
    /// Places that were to be cleared since: the other may have given them to sessions.
    uncleared: Vec<Place>,
}

impl Worker {
    /// Clears the place of another router's session, which has ended. Never that of one that this
    /// worker has: what says that the other has ended is older than that.
    pub(super) fn clear(&mut self, place: Place) {
        if self.leaving.enrols_none {
            self.leaving.uncleared.push(place);
        } else if self.by_place.contains_key(&place) {
            tracing::warn!(
                place = place.number(),
                "a session has the place to be cleared"
            );
        } else if let Some(kernel) = self.kernel.as_mut() {
            kernel.clear(place);
        }
    }

    /// Makes ready for another router what goes on without this one, and does nothing with it any
    /// more. What is still in the maps is that one's as soon as it is there.
    pub(super) fn release(&mut self) {
        self.leaving.enrols_none = true;
        for index in 0..self.sessions.len() {
            let entry = &mut self.sessions[index];
            let (Some(session), Some(kernel)) = (entry.session.as_mut(), self.kernel.as_ref())
            else {
                continue;
            };
            if session.prepare_to_leave(kernel) {
                self.set_aside(index as u32);
            } else {
                self.after(index as u32, Ok(()));
            }
        }
    }

    fn set_aside(&mut self, index: u32) {
        let registered = self.sessions[index as usize].registered;
        let Some(mut session) = self.vacate(index) else {
            return;
        };
        // Its alarm names a place that is no more its own.
        session.alarm_at = None;
        let before = registered.unwrap_or_default();
        // The keeper has the sockets open too: they would stay registered, and be reported.
        let quiet = listen(&self.epoll, &session.client, before.client, None, 0)
            .and_then(|()| listen(&self.epoll, &session.backend, before.backend, None, 0))
            .and_then(|()| match session.aside() {
                Some(aside) => listen(&self.epoll, aside, before.aside, None, 0),
                None => Ok(()),
            });
        if let Err(errno) = quiet {
            tracing::warn!(%errno, "a session that is left is still listened to");
        }
        self.leaving.left.push(session);
    }

    /// The other router has what was left.
    pub(super) fn released(&mut self) {
        for session in self.leaving.left.drain(..) {
            session.leave();
        }
    }

    /// There is no other router: everything is this one's again.
    pub(super) fn take_back(&mut self) {
        self.leaving.enrols_none = false;
        let Some(kernel) = self.kernel.as_mut() else {
            return;
        };
        let mut moved = Vec::new();
        for (index, entry) in self.sessions.iter_mut().enumerate() {
            if let Some(session) = &mut entry.session {
                session.take_back(kernel);
                let outcome = session.on_notice(&mut loan(&mut self.scratch, Some(&mut *kernel)));
                moved.push((index as u32, outcome));
            }
        }
        for (index, outcome) in moved {
            self.after(index, outcome);
        }
        for mut session in std::mem::take(&mut self.leaving.left) {
            let Some(kernel) = self.kernel.as_mut() else {
                return;
            };
            session.take_back(kernel);
            let outcome = session.on_notice(&mut loan(&mut self.scratch, Some(kernel)));
            self.house(session, outcome);
        }
        for place in std::mem::take(&mut self.leaving.uncleared) {
            self.clear(place);
        }
    }

    /// Ends sessions that are left and not yet another router's.
    pub(super) fn end_left(&mut self, meters: &Meters, reason: &CloseReason) {
        let is_one = |session: &mut Left| meters.contain(&session.meter);
        for session in self.leaving.left.extract_if(.., is_one) {
            session.close(reason.clone(), self.kernel.as_mut());
        }
    }
}
