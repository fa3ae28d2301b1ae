//! Whether a server takes clients, asked of itself over its socket.

use std::io;
use std::path::Path;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::config::limits::ANSWER_DEADLINE;
use crate::server_socket;

/// A startup packet of protocol 3.0 for a role that does not exist. A server that takes clients
/// asks for a password, as of any other; one that starts up or shuts down refuses at once.
const QUESTION: &[u8] = b"\0\0\0\x16\0\x03\0\0user\0pgs_ask\0\0";

/// Kind byte of an authentication request.
const AUTHENTICATION: u8 = b'R';

/// Whether the server takes clients now. One that does not say so in time does not.
pub async fn takes_clients(socket_directory: &Path) -> bool {
    let answer = timeout(ANSWER_DEADLINE, ask(socket_directory)).await;
    answer.is_ok_and(|answer| answer.is_ok_and(|kind| kind == AUTHENTICATION))
}

async fn ask(socket_directory: &Path) -> io::Result<u8> {
    let mut server = server_socket::connect(socket_directory, ANSWER_DEADLINE).await?;
    server.write_all(QUESTION).await?;
    // All of it: a server whose words are left unread logs a broken connection.
    let mut answer = [0; 1024];
    match server.read(&mut answer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(answer[0]),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::io::Write as _;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use socket2::Domain;
    use socket2::SockAddr;
    use socket2::Socket;
    use socket2::Type;
    use tokio::time::Instant;

    use super::*;
    use crate::config::directories::SERVER_SOCKET_NAME;
    use crate::protocol::Parsed;
    use crate::protocol::startup;
    use crate::protocol::startup::FirstPacket;

    #[test]
    fn the_question_is_a_startup_packet() {
        let parsed = startup::parse(QUESTION).unwrap();
        let Parsed::Complete {
            value: FirstPacket::Startup(message),
            consumed,
        } = parsed
        else {
            panic!("{parsed:?}");
        };
        assert_eq!(
            (message.user(), consumed),
            (&b"pgs_ask"[..], QUESTION.len())
        );
    }

    #[tokio::test]
    async fn nobody_there_takes_no_clients() {
        assert!(!takes_clients(Path::new("/nonexistent")).await);
    }

    /// A server that asks whoever connects first for a password.
    fn takes_one(listener: UnixListener) {
        std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut question = [0; QUESTION.len()];
            client.read_exact(&mut question).unwrap();
            client.write_all(&[AUTHENTICATION, 0, 0, 0, 8]).unwrap();
        });
    }

    #[tokio::test]
    async fn a_link_to_a_server_that_takes_clients_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (theirs, ours) = (
            directory.path().join("theirs"),
            directory.path().join("ours"),
        );
        for directory in [&theirs, &ours] {
            std::fs::create_dir(directory).unwrap();
        }
        let socket = theirs.join(SERVER_SOCKET_NAME);
        let listener = UnixListener::bind(&socket).unwrap();
        takes_one(listener.try_clone().unwrap());
        assert!(takes_clients(&theirs).await);
        takes_one(listener);
        symlink(&socket, ours.join(SERVER_SOCKET_NAME)).unwrap();
        assert!(!takes_clients(&ours).await);
    }

    /// Listens, and never accepts. The queue is full, and stays so while what is given lives.
    fn full_queue(path: &Path) -> (Socket, Vec<Socket>) {
        let address = SockAddr::unix(path).unwrap();
        let make = || Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let listener = make();
        listener.bind(&address).unwrap();
        listener.listen(0).unwrap();
        let mut waiting = Vec::new();
        loop {
            let client = make();
            client.set_nonblocking(true).unwrap();
            match client.connect(&address) {
                Ok(()) => waiting.push(client),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        (listener, waiting)
    }

    #[test]
    fn who_never_accepts_takes_no_clients_and_holds_nobody_up() {
        let directory = tempfile::tempdir().unwrap();
        let _full = full_queue(&directory.path().join(SERVER_SOCKET_NAME));
        let (answer, given) = std::sync::mpsc::channel();
        // A wait that does not end would hold up the runtime, and with it the test's own bound.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let begin = Instant::now();
                let (takes, others) = tokio::join!(takes_clients(directory.path()), async {
                    tokio::task::yield_now().await;
                    begin.elapsed()
                });
                answer.send((takes, others)).unwrap();
            });
        });
        let (takes, others) = given
            .recv_timeout(ANSWER_DEADLINE + Duration::from_secs(2))
            .expect("connects without end");
        assert!(!takes);
        assert!(others < ANSWER_DEADLINE / 2, "held up for {others:?}");
    }
}
