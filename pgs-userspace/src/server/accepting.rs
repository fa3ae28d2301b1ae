//! Accepting connections, until another router does.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio::time::timeout;

use super::arriving::Arriving;
use super::connection::FrontDoor;
use super::listener;
use super::outliving::Outliving;
use super::survival::Survival;
use crate::config::limits::DRAIN_CHECK_INTERVAL;
use crate::config::limits::TAKEOVER_LOGINS_DEADLINE;
use crate::datapath::meter::Path;
use crate::keeper::store::Event;
use crate::keeper::store::StoreError;
use crate::tenant::id::TenantId;

/// One listener, and for whom it is above all.
type Listener = (Arc<TcpListener>, Option<TenantId>);

/// The listeners, and the tasks that take connections off them.
pub(super) struct Accepting {
    door: Arc<FrontDoor>,
    listeners: Vec<Listener>,
    arriving: Arc<Arriving>,
    tasks: JoinSet<()>,
}

impl Accepting {
    /// Begins.
    pub(super) fn start(
        door: &Arc<FrontDoor>,
        listeners: Vec<Listener>,
        arrivals_max: usize,
    ) -> Self {
        let mut accepting = Self {
            door: Arc::clone(door),
            listeners,
            arriving: Arriving::new(arrivals_max),
            tasks: JoinSet::new(),
        };
        accepting.go_on();
        accepting
    }

    /// No connection is accepted any more; new ones wait.
    pub(super) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }

    fn go_on(&mut self) {
        for (listener, pinned) in &self.listeners {
            self.tasks.spawn(listener::accept(
                Arc::clone(&self.door),
                Arc::clone(listener),
                pinned.clone(),
                Arc::clone(&self.arriving),
            ));
        }
    }

    /// Acts on what the store says; true when another router has taken over.
    pub(super) async fn on_event(
        &mut self,
        event: Event,
        survival: &mut Survival,
        outliving: &impl Outliving,
    ) -> bool {
        match event {
            Event::LetGo { process_id } => self.hand_over(process_id, survival, outliving).await,
            Event::Resupply => {
                outliving.resupply();
                false
            }
            // Said in the log where it was found out.
            Event::Lost(_) => false,
        }
    }

    async fn hand_over(
        &mut self,
        process_id: u32,
        survival: &mut Survival,
        outliving: &impl Outliving,
    ) -> bool {
        tracing::info!(process_id, "another router takes over: no more connections");
        self.stop().await;
        self.see_logins_through().await;
        let done = match outliving.release() {
            true => survival.hand_over().await,
            false => Err(StoreError::Full("not all sessions were made ready for it")),
        };
        match done {
            Ok(()) => {
                outliving.released();
                tracing::info!(
                    process_id,
                    "handed over; what needs this process stays here"
                );
                true
            }
            Err(error) => {
                outliving.take_back();
                self.go_on();
                // Not before it is so: who waits for this line asks for a session next.
                tracing::warn!(process_id, %error, "not handed over: going on");
                false
            }
        }
    }

    /// Leaves the sessions that go on by themselves to the next router, where there is none yet.
    /// No connection is accepted meanwhile.
    pub(super) async fn let_go(&self, outliving: &impl Outliving) {
        self.see_logins_through().await;
        if outliving.release() {
            outliving.released();
        } else {
            tracing::error!("not all sessions were made ready for the next router: these end");
            outliving.take_back();
        }
    }

    async fn see_logins_through(&self) {
        if timeout(TAKEOVER_LOGINS_DEADLINE, self.settled())
            .await
            .is_err()
        {
            tracing::info!("some logins are not over yet: these stay with this router");
        }
    }

    /// Waits until nobody is logging in.
    async fn settled(&self) {
        while !self.arriving.is_empty()
            || self.door.admission.anybody_waits()
            || self.logins_are_under_way()
        {
            sleep(DRAIN_CHECK_INTERVAL).await;
        }
    }

    fn logins_are_under_way(&self) -> bool {
        let sessions = self.door.sessions.list(None);
        sessions
            .iter()
            .any(|session| session.elsewhere.is_none() && session.meter.path() == Path::Startup)
    }
}
