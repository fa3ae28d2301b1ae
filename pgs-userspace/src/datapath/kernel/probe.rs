//! Asks the probe program how many buffers wait for a target.

use std::io;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

use aya::maps::MapData;
use aya::maps::SockHash;

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
        let (_, before) = flows.answer(place, direction);
        let question = place.flow(direction).to_ne_bytes();
        if self.asking.write(&question)? != question.len() {
            return Err(io::Error::other("the probe's socket took half a question"));
        }
        let (queued, answers) = flows.answer(place, direction);
        if answers == before {
            return Err(io::Error::other("the probe program did not answer"));
        }
        Ok(queued)
    }
}
