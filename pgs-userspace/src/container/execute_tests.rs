//! Commands in a container that end, and that do not.

use std::io::Cursor;

use super::*;
use crate::container::stand_in;
use crate::container::stand_in::Commands;
use crate::error::Kind;

const SHORT: Duration = Duration::from_millis(100);

/// How long the test waits for what is to be given up after [`SHORT`].
const LONG: Duration = Duration::from_secs(20);

fn acme() -> TenantId {
    TenantId::parse("acme").unwrap()
}

fn command(deadline: Option<Duration>) -> Command {
    let command = Command::new("a test", &["psql"]).with_input(Cursor::new("SELECT 1"));
    Command {
        deadline,
        ..command
    }
}

#[tokio::test]
async fn a_command_that_does_not_end_is_given_up() {
    let (root, acme) = (tempfile::tempdir().unwrap(), acme());
    let engine = stand_in::docker(&root, &acme, Commands::StandStill, &[0]);
    let held_up = engine.execute(&acme, command(Some(SHORT)));
    let error = timeout(LONG, held_up).await.unwrap().unwrap_err();
    assert!(
        matches!(&error, ContainerError::Unended { task, waited, .. }
            if task == "a test" && *waited == SHORT),
        "{error:?}"
    );
    assert_eq!(error.kind(), Kind::Unhealthy);
    assert!(error.hint().unwrap().contains("pgs restart"));
    // The user's own SQL may take longer than that.
    let patient = engine.execute(&acme, command(None));
    assert!(timeout(SHORT * 5, patient).await.is_err());
}

#[tokio::test]
async fn a_command_that_ends_is_not_given_up() {
    for code in [0, 3] {
        let root = tempfile::tempdir().unwrap();
        let engine = stand_in::docker(&root, &acme(), Commands::End(code), &[0]);
        let ended = engine.execute(&acme(), command(Some(LONG))).await;
        match ended {
            Ok(_) => assert_eq!(code, 0),
            Err(ContainerError::Execution { code: found, .. }) => assert_eq!(found, code),
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn only_the_users_own_sql_has_no_deadline_and_wakes_event_triggers() {
    let own = Command::new("a test", &["psql"]);
    assert_eq!(own.deadline, Some(EXEC_DEADLINE));
    let options = "PGOPTIONS=-c event_triggers=off -c statement_timeout=30s";
    assert_eq!(own.environment, [options]);
    let users = own.with_users_sql();
    assert_eq!(users.deadline, None);
    assert!(users.environment.is_empty());
}
