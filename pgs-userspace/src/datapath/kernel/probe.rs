//! Asks the probe program how many buffers wait for a target, and what a backend does.

use std::io;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

use aya::maps::MapData;
use aya::maps::SockHash;

use pgs_common::flow::ABOUT_SENDER;
use pgs_common::flow::ABOUT_TARGET;
use pgs_common::flow::Question;

use super::KernelPathError;
use super::flows::FlowTable;
use super::place::Place;
use crate::datapath::direction::Direction;
use crate::datapath::socket;

/// One thread's private pair: what it writes to one end is answered at the other, by the program,
/// before the call returns.
#[derive(Debug)]
pub(super) struct Probe {
    asking: UnixStream,
    /// In the map as long as it is open.
    _answering: UnixStream,
}

impl Probe {
    pub(super) fn open(probes: &mut SockHash<MapData, u64>) -> Result<Self, KernelPathError> {
        let system = |call| move |error| KernelPathError::System { call, error };
        let (asking, answering) = UnixStream::pair().map_err(system("socketpair"))?;
        asking
            .set_nonblocking(true)
            .map_err(system("fcntl of the probe's socket"))?;
        let cookie = socket::cookie(&answering).map_err(system("SO_COOKIE"))?;
        probes.insert(cookie, answering.as_raw_fd(), 0)?;
        Ok(Self {
            asking,
            _answering: answering,
        })
    }

    /// Redirected buffers that the kernel's worker has yet to send to the flow's target.
    pub(super) fn queued(
        &mut self,
        flows: &FlowTable,
        place: Place,
        direction: Direction,
    ) -> io::Result<u32> {
        self.ask(flows, place, direction, ABOUT_TARGET)
    }

    /// What a session's backend does: [`pgs_common::flow::ASLEEP`] and
    /// [`pgs_common::flow::FULL`].
    pub(super) fn sender(&mut self, flows: &FlowTable, place: Place) -> io::Result<u32> {
        self.ask(flows, place, Direction::ToClient, ABOUT_SENDER)
    }

    fn ask(
        &mut self,
        flows: &FlowTable,
        place: Place,
        direction: Direction,
        about: u32,
    ) -> io::Result<u32> {
        let (_, before) = flows.answer(place, direction);
        // `pgs_common::flow::Question`: two native words.
        let mut question = [0; size_of::<Question>()];
        let (flow, about_what) = question.split_at_mut(size_of::<u32>());
        flow.copy_from_slice(&place.flow(direction).to_ne_bytes());
        about_what.copy_from_slice(&about.to_ne_bytes());
        if self.asking.write(&question)? != question.len() {
            return Err(io::Error::other("the probe's socket took half a question"));
        }
        let (answer, answers) = flows.answer(place, direction);
        if answers == before {
            return Err(io::Error::other("the probe program did not answer"));
        }
        Ok(answer)
    }
}
