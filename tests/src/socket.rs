//! What a client is connected by.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use anyhow::Context as _;
use anyhow::bail;
use rustls::ClientConnection;
use rustls::StreamOwned;
use socket2::SockRef;

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    /// For its options.
    pub(crate) fn as_ref(&self) -> SockRef<'_> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream),
            Self::Unix(stream) => SockRef::from(stream),
            Self::Tls(stream) => SockRef::from(&stream.sock),
        }
    }

    /// TLS over TCP; the handshake is over when this returns.
    pub(crate) fn secure(self, session: ClientConnection) -> anyhow::Result<Self> {
        let Self::Tcp(stream) = self else {
            bail!("TLS is for TCP");
        };
        let mut stream = StreamOwned::new(session, stream);
        while stream.conn.is_handshaking() {
            let moved = stream.conn.complete_io(&mut stream.sock);
            moved.context("TLS handshake")?;
        }
        Ok(Self::Tls(Box::new(stream)))
    }

    pub(crate) fn tls(&self) -> Option<&ClientConnection> {
        match self {
            Self::Tls(stream) => Some(&stream.conn),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    pub(crate) fn try_clone(&self) -> anyhow::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
            Self::Tls(_) => bail!("a TLS session has one handle"),
        })
    }

    /// Over TLS this is close_notify, as the sockets beneath stay open.
    pub(crate) fn shut_down_writing(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
            Self::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush()
            }
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buf),
            Self::Unix(stream) => stream.read(buf),
            Self::Tls(stream) => stream.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buf),
            Self::Unix(stream) => stream.write(buf),
            Self::Tls(stream) => {
                // Sent at once: who writes next waits for an answer.
                let written = stream.write(buf)?;
                stream.flush()?;
                Ok(written)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
