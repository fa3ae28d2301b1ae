//! The `tokio-postgres` driver, connected through the port.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio_postgres::AsyncMessage;
use tokio_postgres::Client;
use tokio_postgres::Config;
use tokio_postgres::NoTls;
use tokio_postgres::Notification;

use crate::tenant::Login;

/// A session of the driver, and what the server sends it unasked.
pub struct Session {
    /// Where queries go.
    pub client: Client,
    /// What NOTIFY brought. Ends when the connection does.
    pub notifications: mpsc::UnboundedReceiver<Notification>,
}

/// Runs a scenario that needs a reactor; past `limit` it fails.
pub fn block_on<T>(
    limit: Duration,
    future: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::time::timeout(limit, future)
            .await
            .with_context(|| format!("not within {limit:?}"))?
    })
}

/// Logs in.
pub async fn connect(address: SocketAddr, login: &Login) -> anyhow::Result<Session> {
    let mut config = Config::new();
    config
        .host(address.ip().to_string())
        .port(address.port())
        .user(&login.user)
        .dbname(&login.database)
        .password(&login.password);
    let (client, mut connection) = config.connect(NoTls).await.context("logging in")?;
    let (sender, notifications) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(notification) = message
                && sender.send(notification).is_err()
            {
                // Nobody listens to notifications any more; the queries still need the connection.
                continue;
            }
        }
    });
    Ok(Session {
        client,
        notifications,
    })
}
