//! What a session holds as long as it lives.

use std::sync::Arc;

use super::admission::ArrivalPlace;
use super::cancel::Registered;
use super::sessions::Session;
use super::sessions::Sessions;
use crate::datapath::DataPath;
use crate::datapath::handover::CloseReason;
use crate::datapath::handover::Lease;
use crate::datapath::handover::SessionSockets;

/// A session's place: gone when this is dropped.
#[derive(Debug)]
pub(super) struct SessionLease {
    sessions: Arc<Sessions>,
    session: Arc<Session>,
    /// Among the logins under way of its address to its tenant.
    login: Option<ArrivalPlace>,
    cancel: Option<Registered>,
    data_path: Option<Arc<DataPath>>,
}

impl SessionLease {
    /// Of a session that was just registered.
    pub(super) fn new(sessions: Arc<Sessions>, session: Arc<Session>) -> Self {
        Self {
            sessions,
            session,
            login: None,
            cancel: None,
            data_path: None,
        }
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The same, with a place that it holds until it is logged in.
    pub(super) fn logging_in(mut self, login: Option<ArrivalPlace>) -> Self {
        self.login = login;
        self
    }

    /// What it holds until it is logged in, to be dropped then.
    pub(super) fn take_login(&mut self) -> Option<ArrivalPlace> {
        self.login.take()
    }

    /// The backend has said by what it can be cancelled.
    pub(super) fn learn_key(&mut self, registered: Registered) {
        // A backend announces one key.
        drop(self.session.cancel_key.set(registered.key().clone()));
        self.cancel = Some(registered);
    }

    /// From here on the data path moves the session's bytes.
    pub(super) fn hand_over(mut self, data_path: Arc<DataPath>) -> Box<dyn Lease> {
        self.data_path = Some(data_path);
        Box::new(self)
    }
}

impl Lease for SessionLease {
    fn owner(&self) -> &str {
        self.session.tenant.as_str()
    }

    fn goes_on_alone(&self, place: u32, sockets: SessionSockets<'_>) -> bool {
        self.sessions.keeping.keep(place, &self.session, sockets)
    }

    fn is_held(&self, place: u32) -> bool {
        self.sessions.keeping.holds(place)
    }

    fn stays(&self, place: u32) {
        self.sessions.keeping.stay(place, &self.session);
    }

    fn needs_this_process(&self, place: u32) {
        self.sessions.keeping.let_go(place, self.session.id);
    }

    fn released(self: Box<Self>) {
        tracing::debug!(session = self.session.id, "left to another router");
    }

    fn closed(self: Box<Self>, reason: CloseReason) {
        let Session {
            id, tenant, meter, ..
        } = self.session.as_ref();
        let in_kernel = self
            .data_path
            .as_ref()
            .map(|path| path.kernel_bytes(meter))
            .unwrap_or_default();
        tracing::info!(
            session = id,
            %tenant,
            path = self.session.path_name(),
            bytes_to_backend = meter.relayed_to_backend() + in_kernel.to_backend,
            bytes_to_client = meter.relayed_to_client() + in_kernel.to_client,
            bytes_in_kernel = in_kernel.to_backend + in_kernel.to_client,
            seconds = meter.age().as_secs_f64(),
            %reason,
            "session closed"
        );
    }
}

impl Drop for SessionLease {
    fn drop(&mut self) {
        self.sessions.forget(&self.session);
    }
}
