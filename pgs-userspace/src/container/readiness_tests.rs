//! Waiting for servers that become ready, that do not, and that Docker starts again.

use super::*;
use crate::container::stand_in;
use crate::container::stand_in::Commands;

const SHORT: Duration = Duration::from_millis(500);

/// How long the test waits for what is to be given up after [`SHORT`].
const LONG: Duration = Duration::from_secs(20);

async fn wait(commands: Commands, restarts: &'static [i64]) -> Result<(), ContainerError> {
    let acme = TenantId::parse("acme").unwrap();
    let root = tempfile::tempdir().unwrap();
    let engine = stand_in::docker(&root, &acme, commands, restarts);
    let waiting = engine.wait_ready_within(&acme, SHORT);
    timeout(LONG, waiting).await.unwrap()
}

#[tokio::test]
async fn a_check_that_does_not_end_is_given_up() {
    let waited = wait(Commands::StandStill, &[0]).await;
    assert!(
        matches!(waited, Err(ContainerError::NotReady { waited: SHORT, .. })),
        "{waited:?}"
    );
}

#[tokio::test]
async fn a_server_that_does_not_become_ready_is_given_up() {
    let waited = wait(Commands::End(2), &[0]).await;
    assert!(
        matches!(waited, Err(ContainerError::NotReady { .. })),
        "{waited:?}"
    );
}

#[tokio::test]
async fn what_docker_restarted_before_is_not_dead() {
    wait(Commands::End(0), &[1]).await.unwrap();
    // Not yet ready.
    let waited = wait(Commands::End(2), &[7]).await;
    assert!(
        matches!(waited, Err(ContainerError::NotReady { .. })),
        "{waited:?}"
    );
}

#[tokio::test]
async fn what_docker_restarts_meanwhile_is_dead() {
    for restarts in [&[0, 1][..], &[1, 2]] {
        let waited = wait(Commands::End(2), restarts).await;
        assert!(
            matches!(waited, Err(ContainerError::Died { code: 137, .. })),
            "{restarts:?}: {waited:?}"
        );
    }
}
