//! An address that is beyond its bounds can still cancel: what it wants is then looked at, in few
//! places and for a moment, and only a cancel request is served. The address's rate of these holds.
//!
//! Not over TLS: what a handshake takes is what the bounds are there to spare.

use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::arriving::ArrivalSeat;
use super::connection::FrontDoor;
use super::live::Rules;
use super::negotiation::negotiate_cancel;
use crate::config::limits::CANCEL_LOOK_DEADLINE;
use crate::config::limits::CLOSE_LINGER;
use crate::protocol::cancel::CancelRequest;
use crate::protocol::refusal::Refusal;

/// A connection of an address that is beyond its bounds.
pub(super) struct Beyond<'a> {
    pub(super) door: &'a FrontDoor,
    pub(super) rules: &'a Rules,
    pub(super) client: TcpStream,
    pub(super) address: SocketAddr,
    /// Whether its listener is for one tenant above all.
    pub(super) pinned: bool,
    pub(super) seat: ArrivalSeat,
}

impl Beyond<'_> {
    /// Serves a cancel request, and refuses anything else. `front` was read from it already.
    pub(super) async fn serve(mut self, front: BytesMut, refusal: &Refusal) {
        let Some(request) = self.cancel_request(front).await else {
            return self.door.turn_away(&self.client, self.address, refusal);
        };
        // From here on the place of a cancel counts.
        drop(self.seat);
        self.door.cancel(&request, self.address).await;
        timeout(CLOSE_LINGER, self.client.shutdown()).await.ok();
    }

    async fn cancel_request(&mut self, front: BytesMut) -> Option<CancelRequest> {
        let door = self.door;
        let _of_all = door.looks.try_acquire().ok()?;
        let _of_address = door.admission.look(self.address.ip())?;
        let offer = (self.rules, self.pinned);
        let looking = negotiate_cancel(&mut self.client, door, offer, front);
        timeout(CANCEL_LOOK_DEADLINE, looking).await.ok()?.ok()?
    }
}
