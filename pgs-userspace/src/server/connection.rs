//! One connection, from accept to session, refusal or close.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio::time::timeout_at;

use super::admission::Admission;
use super::admission::Attempt;
use super::arriving::ArrivalSeat;
use super::cancel::CancelTable;
use super::client::ClientStream;
use super::client::finish;
use super::counters::Counters;
use super::entrance::Places;
use super::entrance::farewell;
use super::lease::SessionLease;
use super::live::Live;
use super::live::Rules;
use super::login::Login;
use super::login::LoginEnd;
use super::looking::Beyond;
use super::namespace::Namespaces;
use super::negotiation::Negotiated;
use super::negotiation::Opening;
use super::negotiation::negotiate;
use super::origin;
use super::origin::Origin;
use super::path_choice;
use super::punctual::Punctual;
use super::sessions::Sessions;
use super::strangers;
use crate::config::limits::CLOSE_LINGER;
use crate::config::limits::NO_ACCESS_ANSWER_DELAY;
use crate::datapath::DataPath;
use crate::protocol::refusal::Refusal;
use crate::protocol::startup::StartupMessage;
use crate::tenant::id::TenantId;
use crate::tenant::route::Route;
use crate::tenant::route::RouteTable;
use crate::tls::client_authorities::ClientAuthorities;

/// What every connection uses.
#[derive(Debug)]
pub(super) struct FrontDoor {
    pub(super) live: Live,
    pub(super) routes: RouteTable,
    pub(super) sessions: Arc<Sessions>,
    pub(super) cancels: Arc<CancelTable>,
    pub(super) admission: Arc<Admission>,
    /// Refused clients that may take their time to read why.
    pub(super) farewells: Semaphore,
    /// Connections of addresses beyond their bounds that are looked at.
    pub(super) looks: Semaphore,
    pub(super) authorities: ClientAuthorities,
    pub(super) namespaces: Namespaces,
    pub(super) counters: Counters,
    pub(super) data_path: Arc<DataPath>,
    pub(super) punctual: Punctual,
    pub(super) draining: std::sync::atomic::AtomicBool,
}

/// A connection that was just accepted.
pub(super) struct Accepted {
    pub(super) client: TcpStream,
    pub(super) address: SocketAddr,
    /// For whom its listener is above all.
    pub(super) pinned: Option<TenantId>,
}

/// Serves one connection up to its session. It keeps its seat until it has said what it wants.
pub(super) async fn serve(door: Arc<FrontDoor>, connection: Accepted, seat: ArrivalSeat) {
    let Accepted {
        mut client,
        address,
        pinned,
    } = connection;
    let accepted = Instant::now();
    let rules = door.live.rules();
    let deadline = accepted + rules.configuration.limits.arrival_deadline;
    Counters::add(&door.counters.accepted);
    let trusted = &rules.configuration.proxy_protocol.trusted;
    let found = timeout_at(deadline, origin::find(&mut client, address, trusted)).await;
    let (address, front) = match found {
        Ok(Ok(Origin::Client(address, front))) => (address, Ok(front)),
        Ok(Ok(Origin::End(end))) => (address, Err(end)),
        Ok(Err(error)) => {
            return tracing::debug!(%address, %error, "connection failed before its header");
        }
        Err(_) => (address, Err(late())),
    };
    let places = match door.arrive(address, seat) {
        Ok(places) => places,
        Err((seat, refusal)) => {
            let Ok(front) = front else {
                return door.turn_away(&client, address, &refusal);
            };
            let beyond = Beyond {
                door: &door,
                rules: &rules,
                client,
                address,
                pinned: pinned.is_some(),
                seat,
            };
            return Box::pin(beyond.serve(front, &refusal)).await;
        }
    };
    let arrival = Arrival {
        door: &door,
        rules: Arc::clone(&rules),
        address,
        pinned,
        accepted,
        places,
        refusal: None,
    };
    let offer = (&*rules, arrival.pinned.is_some());
    let opening = match front {
        Ok(front) => timeout_at(deadline, negotiate(&mut client, &door, offer, front)).await,
        Err(end) => return Box::pin(arrival.serve(client, end)).await,
    };
    match opening {
        // What comes now takes some kilobytes, which a connection that says nothing shall not.
        Ok(Ok(Opening::Settled(negotiated))) => {
            Box::pin(arrival.serve(client, negotiated)).await;
        }
        Ok(Ok(Opening::Encrypt(request, front))) => {
            Box::pin(arrival.encrypt(client, request, front)).await;
        }
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "connection failed before its startup packet");
        }
        Err(_) => Box::pin(arrival.serve(client, late())).await,
    }
}

pub(super) fn late() -> Negotiated {
    Negotiated::Malformed("no startup packet within the deadline".into())
}

/// A connection that has not said yet what it wants.
pub(super) struct Arrival<'a> {
    pub(super) door: &'a FrontDoor,
    /// What held when it came: all of it goes together.
    pub(super) rules: Arc<Rules>,
    pub(super) address: SocketAddr,
    pub(super) pinned: Option<TenantId>,
    accepted: Instant,
    pub(super) places: Places,
    /// What a client that wants a session is told, where that is known already.
    pub(super) refusal: Option<Refusal>,
}

impl Arrival<'_> {
    /// When it must have said what it wants.
    pub(super) fn deadline(&self) -> Instant {
        self.accepted + self.rules.configuration.limits.arrival_deadline
    }

    pub(super) async fn serve(self, mut client: impl ClientStream, negotiated: Negotiated) {
        let Self {
            door,
            rules,
            address,
            pinned,
            accepted,
            places,
            refusal,
        } = self;
        let negotiated = match (negotiated, refusal) {
            (Negotiated::Session(..), Some(refusal)) => Negotiated::Refused(refusal),
            (negotiated, _) => negotiated,
        };
        match negotiated {
            Negotiated::Session(message, rest) => {
                let ended = Connection {
                    door,
                    rules,
                    client,
                    address,
                    pinned,
                    since: accepted,
                }
                .log_in(&message, rest, places)
                .await;
                if let Err((client, refusal)) = ended {
                    door.refuse(client, address, &refusal).await;
                }
                return;
            }
            Negotiated::Refused(refusal) => {
                return door.refuse(client, address, &refusal).await;
            }
            Negotiated::Cancel(request) => {
                // From here on the place of a cancel counts.
                drop(places);
                if door.cancel(&request, address).await {
                    door.admission.was_a_cancel(address.ip());
                }
            }
            Negotiated::Silent => Counters::add(&door.counters.silent),
            Negotiated::Malformed(why) => door.not_a_packet(address, &why),
        }
        // Over TLS an end without a word is an error to some clients; in the clear it is the end.
        timeout(CLOSE_LINGER, client.shutdown()).await.ok();
    }
}

/// A client that has sent its startup packet.
pub(super) struct Connection<'a, C> {
    pub(super) door: &'a FrontDoor,
    pub(super) rules: Arc<Rules>,
    pub(super) client: C,
    pub(super) address: SocketAddr,
    pub(super) pinned: Option<TenantId>,
    /// From when on its login deadline counts: while it waits for its turn it does not.
    pub(super) since: Instant,
}

impl<C: ClientStream> Connection<'_, C> {
    /// Finds the tenant, logs the client in there, lets the session begin. A refusal comes back
    /// with the client that is to be told.
    async fn log_in(
        mut self,
        message: &StartupMessage,
        rest: BytesMut,
        mut places: Places,
    ) -> Result<(), (C, Refusal)> {
        let asked = Instant::now();
        let (route, lease, attempt) = match self.admit(message, &mut places).await {
            Ok(admitted) => admitted,
            Err(refusal) => {
                if matches!(refusal, Refusal::NoAccess { .. }) {
                    // Whether there is such a tenant must not show in the time either.
                    let door = self.door;
                    door.punctual
                        .sleep_until(asked + NO_ACCESS_ANSWER_DELAY)
                        .await;
                }
                return Err((self.client, refusal));
            }
        };
        // From here on a session's place counts; its address's until it is logged in.
        places.leave_seat();
        let door = self.door;
        let ended = self.log_in_to(&route, lease, attempt, message, rest).await;
        if let Err((_, refusal)) = &ended {
            door.refused_at(&route.tenant, refusal);
        }
        ended
    }

    async fn log_in_to(
        self,
        route: &Route,
        mut lease: SessionLease,
        attempt: Option<Attempt>,
        message: &StartupMessage,
        rest: BytesMut,
    ) -> Result<(), (C, Refusal)> {
        let Self {
            door,
            rules,
            mut client,
            address,
            since,
            ..
        } = self;
        let deadline = since + route.settings.login_deadline;
        let within = rules.configuration.limits.backend_connect_deadline;
        let packet = match origin::startup_packet(route, message, address) {
            Ok(packet) => packet,
            Err(refusal) => return Err((client, refusal)),
        };
        let mut login = Login::new(rest, attempt);
        let running = door.run_login(route, &packet, within, &mut login, &mut client);
        let ended = tokio::select! {
            ended = timeout_at(deadline, running) => ended,
            // Access was disabled meanwhile, or the router ends. A login's messages are short, so
            // this comes between two of them.
            reason = lease.session().ended() => return Err((client, farewell(&reason))),
        };
        let meter = &lease.session().meter;
        meter.add_to_backend(packet.len() + login.to_backend_bytes);
        meter.add_to_client(login.to_client_bytes);
        let session = lease.session().id;
        let (backend, key, ended) = match ended {
            Ok(Ok(ended)) => ended,
            Ok(Err(refusal)) => return Err((client, refusal)),
            Err(_) => return Err((client, login.late())),
        };
        if let Some((process_id, registered)) = key {
            lease
                .session()
                .backend_pid
                .store(process_id.into(), Relaxed);
            lease.learn_key(registered);
        }
        match ended {
            Ok(LoginEnd::Ready) => {
                let relayed = path_choice::relayed(route.settings.path, message);
                client.begin_session(door, backend, login.held.freeze(), relayed, lease);
                Ok(())
            }
            Ok(LoginEnd::Refused(sqlstate, text)) => {
                door.login_refused(lease.session(), sqlstate, &text);
                timeout(CLOSE_LINGER, finish(&mut client)).await.ok();
                Ok(())
            }
            Ok(LoginEnd::BackendGone) => Err((client, Refusal::BackendGone)),
            Ok(LoginEnd::ClientGone) => Ok(()),
            Ok(LoginEnd::Nonsense(error)) => {
                if strangers::log_has_room("backend_out_of_step") {
                    tracing::error!(session, tenant = %route.tenant, %error, "backend out of step");
                }
                Ok(())
            }
            Err(error) => {
                tracing::debug!(session, %address, %error, "connection failed during the login");
                Ok(())
            }
        }
    }
}
