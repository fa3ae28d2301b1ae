//! What can be tried without a container; the rest is tested end to end.

use std::os::unix::net::UnixListener;

use super::*;

const WITHIN: Duration = Duration::from_secs(1);

fn listener(directory: &Path) -> UnixListener {
    let listener = UnixListener::bind(directory.join(SERVER_SOCKET_NAME)).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

#[tokio::test]
async fn a_server_on_this_machines_own_network_is_not_connected_to() {
    let directory = tempfile::tempdir().unwrap();
    let _listener = listener(directory.path());
    let namespaces = Namespaces::default();
    match namespaces
        .connect(directory.path(), WITHIN)
        .await
        .unwrap_err()
    {
        NamespaceError::Shared => {}
        NamespaceError::Enter(Errno::EPERM) => println!("not privileged: no namespace entered"),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_server_is_asked_for_its_process_once() {
    let directory = tempfile::tempdir().unwrap();
    let first = listener(directory.path());
    let namespaces = Namespaces::default();
    for _ in 0..3 {
        namespaces.process(directory.path(), WITHIN).await.unwrap();
    }
    assert!(first.accept().is_ok());
    assert!(first.accept().is_err(), "asked again");
    drop(first);
    let gone = namespaces.process(directory.path(), WITHIN).await;
    assert!(
        gone.is_ok(),
        "what is known is good as long as the socket is there"
    );
    std::fs::remove_file(directory.path().join(SERVER_SOCKET_NAME)).unwrap();
    let gone = namespaces
        .process(directory.path(), WITHIN)
        .await
        .unwrap_err();
    assert!(matches!(gone, NamespaceError::Socket(_)), "{gone}");
    let second = listener(directory.path());
    namespaces.process(directory.path(), WITHIN).await.unwrap();
    assert!(
        second.accept().is_ok(),
        "another server's socket was taken for the old one"
    );
}

#[tokio::test]
async fn what_is_remembered_has_a_bound() {
    let root = tempfile::tempdir().unwrap();
    let namespaces = Namespaces::default();
    let mut listeners = Vec::new();
    for index in 0..SERVER_PROCESSES_KNOWN_MAX + 3 {
        let directory = root.path().join(index.to_string());
        std::fs::create_dir(&directory).unwrap();
        listeners.push(listener(&directory));
        namespaces.process(&directory, WITHIN).await.unwrap();
    }
    assert_eq!(namespaces.lock().len(), SERVER_PROCESSES_KNOWN_MAX);
}
