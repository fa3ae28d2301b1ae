//! Notices of the verdict program: flows whose bytes come to the router from now on.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use aya::maps::Map;
use aya::maps::MapData;
use aya::maps::RingBuf;
use nix::errno::Errno;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;

use super::KernelPathError;
use super::place::Place;

/// The ring buffer's reading end; one thread's.
pub(in crate::datapath) struct Notices {
    ring: RingBuf<MapData>,
}

impl std::fmt::Debug for Notices {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Notices").finish_non_exhaustive()
    }
}

impl Notices {
    pub(super) fn open(map: Map) -> Result<Self, KernelPathError> {
        Ok(Self {
            ring: RingBuf::try_from(map)?,
        })
    }

    /// Waits until there are notices, for at most so long.
    pub(in crate::datapath) fn wait(&self, most: Duration) -> io::Result<()> {
        let timeout = PollTimeout::try_from(most).unwrap_or(PollTimeout::MAX);
        let mut descriptors = [PollFd::new(self.ring.as_fd(), PollFlags::POLLIN)];
        match poll(&mut descriptors, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes every notice that is there, and tells `each` of it. How many there were.
    pub(in crate::datapath) fn read(&mut self, mut each: impl FnMut(Place)) -> usize {
        let mut count = 0;
        while let Some(notice) = self.ring.next() {
            if let Some(flow) = notice.first_chunk::<4>() {
                each(Place::of_flow(u32::from_ne_bytes(*flow)));
            }
            count += 1;
        }
        count
    }
}
