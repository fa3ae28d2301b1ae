//! Accepting connections, until another router does.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio::time::timeout;

use super::connection::FrontDoor;
use super::listener;
use super::outliving::Outliving;
use super::survival::Survival;
use crate::config::limits::DRAIN_CHECK_INTERVAL;
use crate::config::limits::TAKEOVER_LOGINS_DEADLINE;
use crate::datapath::meter::Path;
use crate::keeper::store::Event;
use crate::tenant::id::TenantId;

/// One listener, and for whom it is above all.
type Listener = (Arc<TcpListener>, Option<TenantId>);

/// The listeners, and the tasks that take connections off them.
pub(super) struct Accepting {
    door: Arc<FrontDoor>,
    listeners: Vec<Listener>,
    arrivals: Arc<Semaphore>,
    arrivals_max: usize,
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
            arrivals: Arc::new(Semaphore::new(arrivals_max)),
            arrivals_max,
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
                Arc::clone(&self.arrivals),
            ));
        }
    }

    /// Ends when another router has taken over.
    pub(super) async fn until_handed_over(
        &mut self,
        survival: &mut Survival,
        outliving: &impl Outliving,
    ) {
        loop {
            let process_id = match survival.event().await {
                Event::LetGo { process_id } => process_id,
                Event::Resupply => {
                    outliving.resupply();
                    continue;
                }
                // Said in the log where it was found out.
                Event::Lost(_) => continue,
            };
            tracing::info!(process_id, "another router takes over: no more connections");
            self.stop().await;
            self.let_go(outliving).await;
            match survival.hand_over().await {
                Ok(()) => {
                    let sessions = self.door.sessions.live();
                    tracing::info!(process_id, sessions, "handed over; the sessions stay here");
                    return;
                }
                Err(error) => {
                    tracing::warn!(process_id, %error, "not handed over: going on");
                    outliving.resupply();
                    self.go_on();
                }
            }
        }
    }

    /// Sessions that go on by themselves are no more this router's. Logins under way come first;
    /// no connection is accepted meanwhile.
    pub(super) async fn let_go(&self, outliving: &impl Outliving) {
        if timeout(TAKEOVER_LOGINS_DEADLINE, self.settled())
            .await
            .is_err()
        {
            tracing::info!("some logins are not over yet: these stay with this router");
        }
        outliving.release();
    }

    /// Waits until nobody is logging in.
    async fn settled(&self) {
        while self.arrivals.available_permits() < self.arrivals_max || self.logins_are_under_way() {
            sleep(DRAIN_CHECK_INTERVAL).await;
        }
    }

    fn logins_are_under_way(&self) -> bool {
        let sessions = self.door.sessions.list(None);
        sessions
            .iter()
            .any(|session| session.meter.path() == Path::Startup)
    }
}
