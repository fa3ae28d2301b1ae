//! What becomes of an enrolled session's bytes: those that come to the router, and those that are
//! still on their way inside the kernel.

use std::io;
use std::net::TcpStream;

use super::KernelAccess;
use super::enrol::Enrolment;
use super::place::Unreceived;
use super::step::Step;
use crate::config::limits::VERDICT_BOUNDS;
use crate::datapath::direction::Direction;
use crate::datapath::socket;

/// What the router did with the diverted bytes of one direction.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Progress {
    /// Diverted bytes that the router has read, and those that it has written on.
    pub(super) received: u64,
    pub(super) forwarded: u64,
    /// Redirected bytes that are known to have left the worker's queue.
    pub(super) drained: u64,
}

impl KernelAccess {
    /// How many bytes the router may read, and where: those, and only those, that the verdict
    /// diverted. More would steal a buffer from under a verdict that is under way.
    pub(in crate::datapath) fn unreceived(
        &self,
        enrolment: &Enrolment,
        direction: Direction,
    ) -> Unreceived {
        let received = enrolment.progress(direction).received;
        self.flows.unreceived(enrolment.place, direction, received)
    }

    /// Bytes that were redirected.
    pub(in crate::datapath) fn redirected(
        &self,
        enrolment: &Enrolment,
        direction: Direction,
    ) -> u64 {
        self.flows.redirected(enrolment.place, direction)
    }

    /// Diverted bytes that the router has read.
    pub(in crate::datapath) fn received(&self, enrolment: &Enrolment, direction: Direction) -> u64 {
        enrolment.progress(direction).received
    }

    /// Says that the router is about to read diverted bytes.
    pub(in crate::datapath) fn take_in_hand(&self, enrolment: &Enrolment, direction: Direction) {
        self.flows.take_in_hand(enrolment.place, direction);
    }

    /// Records that diverted bytes were read, and whether all of them are written.
    pub(in crate::datapath) fn record(
        &self,
        enrolment: &mut Enrolment,
        direction: Direction,
        received: u64,
        all_written: bool,
    ) {
        let place = enrolment.place;
        let progress = enrolment.progress_mut(direction);
        progress.received += received;
        if all_written {
            progress.forwarded = progress.received;
            self.flows
                .publish_forwarded(place, direction, progress.forwarded);
            self.passes(Step::Forwarded);
            self.flows.let_go(place, direction);
        }
    }

    /// Whether everything that was redirected before the last byte seen here is in the target's own
    /// queue, so that the router's bytes cannot overtake it.
    pub(in crate::datapath) fn is_drained(
        &mut self,
        enrolment: &mut Enrolment,
        direction: Direction,
        client: &TcpStream,
    ) -> io::Result<bool> {
        let redirected = self.flows.redirected(enrolment.place, direction);
        if enrolment.progress(direction).drained == redirected {
            return Ok(true);
        }
        let drained = match &mut self.probe {
            Some(probe) => probe.queued(&self.flows, enrolment.place, direction)? == 0,
            None => {
                let expected = redirected + enrolment.progress(Direction::ToClient).forwarded;
                let accepted = socket::tcp_accepted_bytes(client)?;
                accepted.wrapping_sub(enrolment.accepted_before) >= expected
            }
        };
        if drained {
            enrolment.progress_mut(direction).drained = redirected;
        }
        Ok(drained)
    }

    /// Says whether the router listens to the source, and needs no notice of diverted bytes; true
    /// when there are some already.
    pub(in crate::datapath) fn set_listening(
        &self,
        enrolment: &Enrolment,
        direction: Direction,
        listens: bool,
    ) -> bool {
        self.flows
            .set_listening(enrolment.place, direction, listens);
        self.unreceived(enrolment, direction) != Unreceived::Nothing
    }

    /// Whether a turn is under way that is so large that its bytes come to the router.
    pub(in crate::datapath) fn is_large_turn(
        &self,
        enrolment: &Enrolment,
        direction: Direction,
    ) -> bool {
        self.flows.turn_bytes(enrolment.place, direction) > VERDICT_BOUNDS.turn_bytes
    }

    /// Whether the verdict had to drop bytes to keep memory bounded.
    pub(in crate::datapath) fn is_broken(&self, enrolment: &Enrolment) -> bool {
        Direction::BOTH
            .iter()
            .any(|direction| self.flows.is_broken(enrolment.place, *direction))
    }
}
