//! Logging in by hand: the startup packet, SCRAM-SHA-256, and what the server says of itself.

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;
use postgres_protocol::authentication::sasl::ChannelBinding;
use postgres_protocol::authentication::sasl::SCRAM_SHA_256;
use postgres_protocol::authentication::sasl::ScramSha256;

use crate::tenant::Login;
use crate::wire::Message;
use crate::wire::Wire;
use crate::wire::packed;

/// Version word of protocol 3.0, with cancel keys of 4 bytes.
pub const PROTOCOL_3_0: u32 = 3 << 16;

/// Version word of protocol 3.2, with cancel keys of up to 256 bytes.
pub const PROTOCOL_3_2: u32 = 3 << 16 | 2;

/// By what a backend can be cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendKey {
    /// As the backend announced it.
    pub process_id: [u8; 4],
    /// As the backend announced it.
    pub secret: Vec<u8>,
}

impl BackendKey {
    /// The packet that asks for the cancellation.
    pub fn cancel_request(&self) -> Vec<u8> {
        let body = [&self.process_id[..], &self.secret].concat();
        first_packet(1234 << 16 | 5678, &body)
    }
}

/// A first packet: length word, code and body.
pub fn first_packet(code: u32, body: &[u8]) -> Vec<u8> {
    // A test's packets are short.
    let length = (body.len() + 8) as u32;
    [&length.to_be_bytes(), &code.to_be_bytes(), body].concat()
}

/// A StartupMessage with these parameters.
pub fn startup_packet(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in parameters {
        body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    body.push(0);
    first_packet(version, &body)
}

/// All that the server said up to the first ReadyForQuery, or to its refusal.
#[derive(Debug)]
pub struct Greeting {
    /// Every message, in order.
    pub messages: Vec<Message>,
}

impl Greeting {
    /// By what the session can be cancelled.
    pub fn key(&self) -> anyhow::Result<BackendKey> {
        let mut messages = self.messages.iter();
        let message = messages
            .find(|message| message.kind == b'K')
            .context("no BackendKeyData")?;
        let (process_id, secret) = message.body.split_first_chunk().context("no process id")?;
        Ok(BackendKey {
            process_id: *process_id,
            secret: secret.to_vec(),
        })
    }

    /// The SQLSTATE with which the server refused; `None` if it let the client in.
    pub fn refused(&self) -> Option<String> {
        self.messages.last().and_then(Message::sqlstate)
    }
}

impl Wire {
    /// Logs in with protocol 3.0; a refusal is an error.
    pub fn log_in(&mut self, login: &Login) -> anyhow::Result<Greeting> {
        self.log_in_with(PROTOCOL_3_0, login)
    }

    /// Logs in with another version; a refusal is an error.
    pub fn log_in_with(&mut self, version: u32, login: &Login) -> anyhow::Result<Greeting> {
        let Login { user, database, .. } = login;
        self.send(&startup_packet(
            version,
            &[("user", user), ("database", database)],
        ))?;
        let greeting = self.authenticate(&login.password)?;
        match greeting
            .messages
            .last()
            .filter(|message| message.kind == b'E')
        {
            Some(error) => bail!("refused: {}", String::from_utf8_lossy(&error.body)),
            None => Ok(greeting),
        }
    }

    /// Plays the client's part after the startup packet, until ReadyForQuery or an error.
    pub fn authenticate(&mut self, password: &str) -> anyhow::Result<Greeting> {
        self.authenticate_and_send(password, &[])
    }

    /// The same; `tail` goes out together with the last proof, before the server has let us in.
    pub fn authenticate_and_send(
        &mut self,
        password: &str,
        tail: &[u8],
    ) -> anyhow::Result<Greeting> {
        self.play(password, tail, false)
    }

    /// The same, and then nothing more: what is sent ends with `tail`.
    pub fn authenticate_and_end(
        &mut self,
        password: &str,
        tail: &[u8],
    ) -> anyhow::Result<Greeting> {
        self.play(password, tail, true)
    }

    fn play(&mut self, password: &str, tail: &[u8], end: bool) -> anyhow::Result<Greeting> {
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let mut messages = Vec::new();
        loop {
            let message = self
                .message()
                .with_context(|| format!("after {messages:?}"))?;
            let (kind, body) = (message.kind, message.body.clone());
            messages.push(message);
            match kind {
                b'Z' | b'E' => return Ok(Greeting { messages }),
                b'R' => {
                    let last = self.answer(&mut scram, &body, tail)?;
                    if last && end {
                        self.shut_down_writing()?;
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether that was the last that a client has to say.
    fn answer(
        &mut self,
        scram: &mut ScramSha256,
        body: &[u8],
        tail: &[u8],
    ) -> anyhow::Result<bool> {
        let (code, data) = body.split_first_chunk().context("no authentication code")?;
        match u32::from_be_bytes(*code) {
            0 => Ok(false),
            10 => {
                let offered = data.split(|byte| *byte == 0);
                ensure!(
                    offered
                        .into_iter()
                        .any(|name| name == SCRAM_SHA_256.as_bytes()),
                    "no SCRAM"
                );
                let first = scram.message();
                let length = u32::try_from(first.len())?.to_be_bytes();
                let name = SCRAM_SHA_256.as_bytes();
                self.send_message(b'p', &[name, b"\0", &length, first].concat())?;
                Ok(false)
            }
            11 => {
                scram.update(data)?;
                self.send(&[&packed(b'p', scram.message()), tail].concat())?;
                Ok(true)
            }
            12 => {
                scram.finish(data)?;
                Ok(false)
            }
            code => bail!("the server asks for authentication {code}, not for SCRAM-SHA-256"),
        }
    }
}
