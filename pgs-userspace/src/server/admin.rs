//! The router's side of the admin socket.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tokio::io::AsyncBufReadExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::io::BufReader;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::connection::FrontDoor;
use super::reload::Reloader;
use super::sessions::Session;
use super::strangers;
use super::survival::Kept;
use crate::admin::request::KernelBytesReport;
use crate::admin::request::Request;
use crate::admin::request::Response;
use crate::admin::request::RouterStatus;
use crate::admin::request::SessionReport;
use crate::admin::request::SurvivalReport;
use crate::admin::request::TenantReport;
use crate::config::limits::ACCEPT_RETRY_INTERVAL;
use crate::config::limits::ADMIN_CONNECTIONS_MAX;
use crate::config::limits::ADMIN_DEADLINE;
use crate::config::limits::ADMIN_REQUEST_BYTES_MAX;
use crate::datapath::canary;
use crate::datapath::kernel::KernelBytes;
use crate::datapath::meter::Path as DataPathOfSession;
use crate::privileges::Held;

/// What the admin socket tells of the process itself.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) begun: Instant,
    pub(super) listen: Vec<String>,
    pub(super) kept: Kept,
    pub(super) reloader: Arc<Reloader>,
}

/// Makes the socket; only root and the router's own user can connect.
pub(super) fn bind(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers for ever.
pub(super) async fn serve(door: Arc<FrontDoor>, process: Arc<Process>, listener: UnixListener) {
    let places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept on the admin socket failed");
                tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                continue;
            }
        };
        let (door, process) = (Arc::clone(&door), Arc::clone(&process));
        tokio::spawn(async move {
            match timeout(ADMIN_DEADLINE, exchange(&door, &process, stream)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "admin exchange failed"),
                Err(_) => tracing::debug!("admin exchange timed out"),
            }
            drop(place);
        });
    }
}

async fn exchange(
    door: &FrontDoor,
    process: &Process,
    mut stream: UnixStream,
) -> std::io::Result<()> {
    let (reader, _) = stream.split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader.take(ADMIN_REQUEST_BYTES_MAX as u64));
    reader.read_until(b'\n', &mut line).await?;
    // Only now, or who asks would find the connection closed under its question.
    let peer = stream.peer_cred()?;
    if peer.uid() != 0 && peer.uid() != nix::unistd::geteuid().as_raw() {
        if strangers::log_has_room("admin_foreign_user") {
            tracing::warn!(uid = peer.uid(), "admin request of a foreign user refused");
        }
        let message = format!("user {} is neither root nor the router's own", peer.uid());
        return say(&mut stream, &Response::Failed { message }).await;
    }
    let response = match serde_json::from_slice(&line) {
        Ok(request) => answer(door, process, request),
        Err(error) => Response::Failed {
            message: format!("not a request: {error}"),
        },
    };
    say(&mut stream, &response).await
}

async fn say(stream: &mut UnixStream, response: &Response) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

fn answer(door: &FrontDoor, process: &Process, request: Request) -> Response {
    match request {
        Request::Status => Response::Status(Box::new(status(door, process))),
        Request::Sessions { tenant } => {
            let sessions = door.sessions.list(tenant.as_deref());
            let sessions = sessions
                .iter()
                .map(|session| report(door, session))
                .collect();
            Response::Sessions { sessions }
        }
        Request::Terminate { tenant } => {
            let sessions = door.sessions.terminate(&tenant, &door.data_path);
            tracing::info!(tenant, sessions, "sessions terminated");
            Response::Terminated { sessions }
        }
        Request::Reload => Response::Reloaded(process.reloader.reload()),
    }
}

fn status(door: &FrontDoor, process: &Process) -> RouterStatus {
    let findings = door.data_path.findings();
    let configuration = process.reloader.last();
    let sessions = door.sessions.list(None);
    let in_kernel = |session: &&Arc<Session>| session.meter.path() == DataPathOfSession::Kernel;
    RouterStatus {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_seconds: process.begun.elapsed().as_secs(),
        listen: process.listen.clone(),
        survival: Some(SurvivalReport {
            older_ebpf_object: door.data_path.older_object().map(str::to_owned),
            ..process.kept.report()
        }),
        privileges: Held::by_this_process().ok(),
        configuration_file: configuration.file.clone(),
        configuration,
        path_requested: findings.requested.name().into(),
        path: if findings.kernel { "kernel" } else { "relay" }.into(),
        path_reason: findings.reason().map(Into::into),
        path_fallback: findings
            .fallback
            .as_ref()
            .map(|fallback| fallback.cause.name().into()),
        path_one_way: findings.one_way.clone(),
        kernel_bytes: door
            .data_path
            .account_bytes()
            .into_iter()
            .map(|(tenant, bytes)| (tenant, kernel_bytes(bytes)))
            .collect(),
        tenants: tenants(door),
        canaries: findings
            .canaries
            .iter()
            .flat_map(|results| &results.findings)
            .map(Into::into)
            .collect(),
        canaries_milliseconds: findings
            .canaries
            .as_ref()
            .map(canary::Results::milliseconds),
        sessions_kernel: sessions.iter().filter(in_kernel).count(),
        sessions: sessions.len(),
        counters: counters(door),
    }
}

fn kernel_bytes(bytes: KernelBytes) -> KernelBytesReport {
    KernelBytesReport {
        to_backend: bytes.to_backend,
        to_client: bytes.to_client,
    }
}

/// What happened at each tenant, by whatever path.
fn tenants(door: &FrontDoor) -> BTreeMap<String, TenantReport> {
    let mut reports = door.sessions.of_tenants();
    for (tenant, bytes) in door.data_path.account_bytes() {
        let report = reports.entry(tenant).or_default();
        report.kernel_to_backend = bytes.to_backend;
        report.kernel_to_client = bytes.to_client;
    }
    reports
}

/// What happened, by name.
fn counters(door: &FrontDoor) -> BTreeMap<String, u64> {
    let mut counters = door.counters.snapshot();
    let forgotten = door.admission.forgotten();
    counters.insert("limits_forgotten".to_owned(), forgotten);
    counters
}

fn report(door: &FrontDoor, session: &Session) -> SessionReport {
    let meter = &session.meter;
    let in_kernel = door.data_path.kernel_bytes(meter);
    let backend_pid = session.backend_pid.load(Relaxed);
    SessionReport {
        id: session.id,
        tenant: session.tenant.to_string(),
        user: session.user.clone(),
        database: session.database.clone(),
        client: session.client.to_string(),
        path: session.path_name().into(),
        path_reason: match session.elsewhere {
            Some(process_id) => Some(format!("with process {process_id}, until it ends")),
            None => meter.relay_reason().map(Into::into),
        },
        backend_pid: u32::try_from(backend_pid).ok().filter(|pid| *pid != 0),
        age_seconds: meter.age().as_secs(),
        idle_seconds: Some(door.data_path.idle(meter).as_secs()),
        bytes_to_backend: meter.relayed_to_backend() + in_kernel.to_backend,
        bytes_to_client: meter.relayed_to_client() + in_kernel.to_client,
        bytes_in_kernel: in_kernel.to_backend + in_kernel.to_client,
        diversions: door.data_path.diversions(meter),
        withdrawals: meter.withdrawals(),
    }
}
