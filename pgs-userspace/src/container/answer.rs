//! Whether a server takes clients, asked of itself over its socket.

use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::config::directories::SERVER_SOCKET_NAME;
use crate::config::limits::ANSWER_DEADLINE;

/// A startup packet of protocol 3.0 for a role that does not exist. A server that takes clients
/// asks for a password, as of any other; one that starts up or shuts down refuses at once.
const QUESTION: &[u8] = b"\0\0\0\x16\0\x03\0\0user\0pgs_ask\0\0";

/// Kind byte of an authentication request.
const AUTHENTICATION: u8 = b'R';

/// Whether the server takes clients now.
pub fn takes_clients(socket_directory: &Path) -> bool {
    ask(socket_directory).is_ok_and(|kind| kind == AUTHENTICATION)
}

fn ask(socket_directory: &Path) -> io::Result<u8> {
    let mut server = UnixStream::connect(socket_directory.join(SERVER_SOCKET_NAME))?;
    server.set_read_timeout(Some(ANSWER_DEADLINE))?;
    server.set_write_timeout(Some(ANSWER_DEADLINE))?;
    server.write_all(QUESTION)?;
    // All of it: a server whose words are left unread logs a broken connection.
    let mut answer = [0; 1024];
    match server.read(&mut answer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(answer[0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn nobody_there_takes_no_clients() {
        assert!(!takes_clients(Path::new("/nonexistent")));
    }
}
