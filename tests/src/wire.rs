//! A client that sees every message and every byte.

use std::fmt;
use std::io;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;
use rustix::net::SendFlags;
use rustix::net::send;

use crate::socket::Socket;

/// For one read or write; a server that is silent for longer has hung.
const IO_LIMIT: Duration = Duration::from_secs(60);

/// A gigabyte is PostgreSQL's own bound on a message.
const MESSAGE_BYTES_MAX: u32 = 1 << 30;

/// One message from the server.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The kind byte.
    pub kind: u8,
    /// What follows the length word.
    pub body: Vec<u8>,
}

/// Bytes of a body that are shown in a failure.
const SHOWN_BYTES: usize = 300;

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, body } = self;
        let shown = body[..body.len().min(SHOWN_BYTES)].escape_ascii();
        write!(
            formatter,
            "{:?}({} bytes: {shown})",
            char::from(*kind),
            body.len()
        )
    }
}

impl Message {
    /// A field of an ErrorResponse or NoticeResponse, such as `C` for SQLSTATE.
    pub fn field(&self, code: u8) -> Option<String> {
        let mut fields = self.body.split(|byte| *byte == 0);
        let value = fields.find(|field| field.first() == Some(&code))?;
        Some(String::from_utf8_lossy(&value[1..]).into_owned())
    }

    /// The SQLSTATE, if this is an ErrorResponse.
    pub fn sqlstate(&self) -> Option<String> {
        if self.kind == b'E' {
            self.field(b'C')
        } else {
            None
        }
    }

    /// The columns, if this is a DataRow; a NULL is empty.
    pub fn columns(&self) -> anyhow::Result<Vec<&[u8]>> {
        ensure!(
            self.kind == b'D',
            "not a DataRow: {:?}",
            char::from(self.kind)
        );
        let (count, mut rest) = self.body.split_first_chunk().context("no column count")?;
        let mut columns = Vec::new();
        for _ in 0..u16::from_be_bytes(*count) {
            let (length, tail) = rest.split_first_chunk().context("no column length")?;
            let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
            let (column, tail) = tail.split_at_checked(length).context("column too short")?;
            columns.push(column);
            rest = tail;
        }
        Ok(columns)
    }
}

/// A message as it goes over the wire.
pub fn packed(kind: u8, body: &[u8]) -> Vec<u8> {
    // A test's messages are far below 4 GiB.
    let length = (body.len() + 4) as u32;
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// A connection on which nothing happens by itself.
#[derive(Debug)]
pub struct Wire {
    stream: BufReader<Socket>,
}

impl Wire {
    /// Through the port.
    pub fn connect_tcp(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(IO_LIMIT))?;
        Self::new(Socket::Tcp(stream))
    }

    /// Through the port, from this address of the machine. All of 127.0.0.0/8 is its own.
    pub fn connect_from(source: IpAddr, address: SocketAddr) -> anyhow::Result<Self> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket
            .connect(&address.into())
            .with_context(|| format!("connect {address} from {source}"))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_write_timeout(Some(IO_LIMIT))?;
        Self::new(Socket::Tcp(socket.into()))
    }

    /// Where it connects from.
    pub fn local_address(&self) -> anyhow::Result<SocketAddr> {
        let local = self.stream.get_ref().as_ref().local_addr()?;
        local.as_socket().context("not over TCP")
    }

    /// To the tenant's server itself.
    pub fn connect_unix(path: &Path) -> anyhow::Result<Self> {
        let stream =
            UnixStream::connect(path).with_context(|| format!("connect {}", path.display()))?;
        stream.set_write_timeout(Some(IO_LIMIT))?;
        Self::new(Socket::Unix(stream))
    }

    /// Goes on over TLS. Nothing may have been received that was not read.
    pub fn secure(self, session: rustls::ClientConnection) -> anyhow::Result<Self> {
        ensure!(
            self.stream.buffer().is_empty(),
            "{:?}",
            self.stream.buffer()
        );
        Self::new(self.stream.into_inner().secure(session)?)
    }

    /// Passes over an answer of one byte, and gives what came behind it to the handshake.
    pub fn secure_behind_answer(
        mut self,
        mut session: rustls::ClientConnection,
    ) -> anyhow::Result<Self> {
        self.receive(1)?;
        let mut behind = self.stream.buffer();
        while !behind.is_empty() {
            session.read_tls(&mut behind)?;
            session.process_new_packets()?;
        }
        Self::new(self.stream.into_inner().secure(session)?)
    }

    /// What the TLS handshake agreed on, once it is over.
    pub fn tls(&self) -> anyhow::Result<&rustls::ClientConnection> {
        self.stream.get_ref().tls().context("not over TLS")
    }

    fn new(socket: Socket) -> anyhow::Result<Self> {
        let mut wire = Self {
            stream: BufReader::with_capacity(64 * 1024, socket),
        };
        wire.set_read_limit(IO_LIMIT)?;
        Ok(wire)
    }

    /// Another handle on the same connection, for a thread that only writes.
    pub fn try_clone(&self) -> anyhow::Result<Self> {
        Self::new(self.stream.get_ref().try_clone()?)
    }

    /// Makes the kernel keep at most so much of what was not received yet.
    pub fn set_receive_buffer(&mut self, bytes: usize) -> anyhow::Result<()> {
        Ok(self.stream.get_ref().as_ref().set_recv_buffer_size(bytes)?)
    }

    /// Makes the kernel take at most so much of what was not sent yet.
    pub fn set_send_buffer(&mut self, bytes: usize) -> anyhow::Result<()> {
        Ok(self.stream.get_ref().as_ref().set_send_buffer_size(bytes)?)
    }

    /// Closes with a reset, as a client that crashed or lost its network does.
    pub fn reset(self) -> anyhow::Result<()> {
        let socket = self.stream.get_ref().as_ref();
        Ok(socket.set_linger(Some(Duration::ZERO))?)
    }

    /// How long one write may take.
    pub fn set_write_limit(&mut self, limit: Duration) -> anyhow::Result<()> {
        let socket = self.stream.get_ref().as_ref();
        Ok(socket.set_write_timeout(Some(limit))?)
    }

    /// How long one read may take.
    pub fn set_read_limit(&mut self, limit: Duration) -> anyhow::Result<()> {
        let socket = self.stream.get_ref().as_ref();
        Ok(socket.set_read_timeout(Some(limit))?)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.stream.get_mut().write_all(bytes).context("sending")
    }

    /// Sends bytes until none of them is taken within the limit for a write; how many were.
    pub fn send_until_stuck(&mut self, bytes: &[u8]) -> anyhow::Result<usize> {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.stream.get_mut().write(&bytes[taken..]) {
                Ok(count) => taken += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("sending"),
            }
        }
        Ok(taken)
    }

    /// Sends one message.
    pub fn send_message(&mut self, kind: u8, body: &[u8]) -> anyhow::Result<()> {
        self.send(&packed(kind, body))
    }

    /// Sends a simple query.
    pub fn send_query(&mut self, sql: &str) -> anyhow::Result<()> {
        self.send_message(b'Q', &[sql.as_bytes(), b"\0"].concat())
    }

    /// Says that nothing more will be sent.
    pub fn shut_down_writing(&mut self) -> anyhow::Result<()> {
        Ok(self.stream.get_mut().shut_down_writing()?)
    }

    /// Sends bytes and says that nothing more will be sent, both in one segment of TCP: the kernel
    /// keeps the bytes, which are few, until it has the end to put to them.
    pub fn send_with_end(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let socket = self.stream.get_ref().as_ref();
        let sent = send(&*socket, bytes, SendFlags::MORE).context("sending")?;
        ensure!(sent == bytes.len(), "{sent} of {} bytes", bytes.len());
        self.shut_down_writing()
    }

    /// Exactly so many bytes.
    pub fn receive(&mut self, length: usize) -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream
            .read_exact(&mut bytes)
            .with_context(|| format!("receiving {length} bytes"))?;
        Ok(bytes)
    }

    /// The next byte, which stays to be received.
    pub fn peek(&mut self) -> anyhow::Result<u8> {
        self.stream
            .fill_buf()?
            .first()
            .copied()
            .context("the connection was closed")
    }

    /// Everything up to the end of the stream. A reset is an error.
    pub fn receive_to_end(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream
            .read_to_end(&mut bytes)
            .context("receiving to the end")?;
        Ok(bytes)
    }

    /// Everything that comes until the stream ends or nothing came for `quiet`; and whether it
    /// ended.
    pub fn receive_until_quiet(&mut self, quiet: Duration) -> anyhow::Result<(Vec<u8>, bool)> {
        self.set_read_limit(quiet)?;
        let mut bytes = Vec::new();
        let ended = match self.stream.read_to_end(&mut bytes) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            // What PostgreSQL itself leaves unread makes its close a reset.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => true,
            Err(error) => return Err(error).context("receiving"),
        };
        self.set_read_limit(IO_LIMIT)?;
        Ok((bytes, ended))
    }

    /// The next message.
    pub fn message(&mut self) -> anyhow::Result<Message> {
        match self.message_or_end()? {
            Some(message) => Ok(message),
            None => bail!("the connection was closed"),
        }
    }

    /// The next message; `None` where the stream ends between two.
    pub fn message_or_end(&mut self) -> anyhow::Result<Option<Message>> {
        if self.stream.fill_buf().context("receiving")?.is_empty() {
            return Ok(None);
        }
        let mut header = [0; 5];
        self.stream
            .read_exact(&mut header)
            .context("receiving a header")?;
        let [kind, length @ ..] = header;
        let length = u32::from_be_bytes(length);
        let kind_shown = char::from(kind);
        ensure!(
            (4..=MESSAGE_BYTES_MAX).contains(&length),
            "{kind_shown:?} of {length} bytes"
        );
        let body_length = u64::from(length - 4);
        let mut body = Vec::new();
        let received = (&mut self.stream)
            .take(body_length)
            .read_to_end(&mut body)?;
        ensure!(
            received as u64 == body_length,
            "{kind_shown:?} ended after {received} bytes"
        );
        Ok(Some(Message { kind, body }))
    }

    /// The messages up to and including ReadyForQuery.
    pub fn until_ready(&mut self) -> anyhow::Result<Vec<Message>> {
        let mut messages = Vec::new();
        loop {
            let message = self
                .message()
                .with_context(|| format!("after {messages:?}"))?;
            let ready = message.kind == b'Z';
            messages.push(message);
            if ready {
                return Ok(messages);
            }
        }
    }

    /// A simple query, and all that it is answered.
    pub fn query(&mut self, sql: &str) -> anyhow::Result<Vec<Message>> {
        self.send_query(sql)?;
        self.until_ready()
    }

    /// A simple query with one row and one column.
    pub fn query_value(&mut self, sql: &str) -> anyhow::Result<String> {
        let messages = self.query(sql)?;
        let row = messages.iter().find(|message| message.kind == b'D');
        let row = row.with_context(|| format!("`{sql}` was answered {messages:?}"))?;
        let value = row.columns()?.first().copied().unwrap_or_default().to_vec();
        Ok(String::from_utf8(value)?)
    }
}
