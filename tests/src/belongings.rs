//! What a router or a keeper has open: its sockets, and the entries of its maps.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use anyhow::Context as _;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::PidfdGetfdFlags;
use rustix::process::pidfd_getfd;
use rustix::process::pidfd_open;
use socket2::Socket;

/// How many descriptors a process has open.
pub fn descriptors(process_id: u32) -> anyhow::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{process_id}/fd"))?.count())
}

/// Entries of the hash maps that a process has open, by the maps' names.
pub fn map_entries(process_id: u32) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut entries = BTreeMap::new();
    for map in opened(process_id, |target| target == "anon_inode:bpf-map")? {
        if let Some((name, count)) = pgs::datapath::kernel::entries_of(map)? {
            entries.insert(name, count);
        }
    }
    Ok(entries)
}

/// The router's own ends of its connections to a client at this address, and to tenants' servers.
/// Each is the very socket: what is set on it here is set there.
#[derive(Debug)]
pub struct RouterEnds {
    /// Its end of the client's connection.
    pub client: Socket,
    /// Its ends of all connections to servers.
    pub backends: Vec<Socket>,
}

impl RouterEnds {
    /// Of a running router.
    pub fn of(process_id: u32, client: SocketAddr) -> anyhow::Result<Self> {
        let mut found = None;
        let mut backends = Vec::new();
        for socket in opened(process_id, |target| target.starts_with("socket:"))? {
            let socket = Socket::from(socket);
            let Ok(peer) = socket.peer_addr() else {
                continue;
            };
            let server = peer.as_pathname();
            if server.is_some_and(|path| path.ends_with(".s.PGSQL.5432")) {
                backends.push(socket);
            } else if peer.as_socket() == Some(client) {
                found = Some(socket);
            }
        }
        Ok(Self {
            client: found.context("the router has no connection of this client")?,
            backends,
        })
    }
}

/// Copies of a process's descriptors of one kind.
fn opened(process_id: u32, kind: impl Fn(&str) -> bool) -> anyhow::Result<Vec<OwnedFd>> {
    let pid = Pid::from_raw(i32::try_from(process_id)?).context("no process")?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let mut copies = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process_id}/fd"))? {
        let entry = entry?;
        // One that was closed meanwhile is none.
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let number = entry.file_name();
        let number = number.to_str().and_then(|name| name.parse().ok());
        if kind(&target.to_string_lossy())
            && let Some(number) = number
            && let Ok(copy) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty())
        {
            copies.push(copy);
        }
    }
    Ok(copies)
}
