//! Where pgs ends a combination otherwise than PostgreSQL on purpose: what it has to come to
//! instead, derived from what came of it without pgs, and why.

use super::mode::{Clients, Mode, Tls};

const REFUSED: &str = "refused by the server";
/// In the words of `matrix.py`.
const BROKEN_OFF: &str = "handshake broken off by the server";
const WRONG_CERTIFICATE: &str = "client certificate wrong";

const NAME: &str = "Where TLS passes through, only the name in the ClientHello says whose client \
    it is, and `sslsni=0` sends none: refused, in words.";
const CANCEL: &str = "Where TLS passes through, a key to cancel with is issued inside a connection \
    that pgs cannot read. A request that comes in the clear names no tenant and is dropped; one \
    over TLS arrives. In the clear comes that of the old `PQcancel`, which is psql's Ctrl-C before \
    17, and with `sslmode=allow` any.";
const WORDS: &str = "PostgreSQL breaks the handshake off where a client's certificate is of an \
    authority that it does not know. pgs knows whose authority counts only once the tenant is \
    known: it lets the handshake end, and refuses the login in words.";
const IN_THE_CLEAR: &str = "libpq tries in the clear after a refusal in words, not after a \
    handshake that was broken off; where certificates are optional and TLS too, it gets in.";
const BINDING: &str = "Where TLS ends in pgs, there is no channel between client and tenant's \
    server to bind to: `channel_binding=require` is for TLS that passes through.";

/// A line of `matrix.py`, taken apart.
struct Cell<'a> {
    client: &'a str,
    mode: &'static Mode,
    settings: &'a str,
    result: &'a str,
}

impl<'a> Cell<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (client, rest) = line.split_once(", server ")?;
        let (mode, rest) = rest.split_once(": ")?;
        let (settings, result) = rest.split_once(" -> ")?;
        Some(Self {
            client,
            mode: Mode::named(mode)?,
            settings,
            result,
        })
    }

    fn has(&self, setting: &str) -> bool {
        self.settings.contains(setting)
    }

    fn passes_through(&self) -> bool {
        self.mode.tls == Tls::PassedThrough
    }

    /// What has to come of it through pgs, and why, if that is not the same.
    fn through_pgs(&self) -> Option<(String, &'static str)> {
        let encrypted = self.result.starts_with("encrypted");
        if self.passes_through() {
            if self.has("sslsni=0") && encrypted {
                return Some((REFUSED.to_owned(), NAME));
            }
            return self.cancelled_in_the_clear();
        }
        if self.has("channel_binding=require") && encrypted {
            // In the clear first, which a server that requires TLS refuses.
            let before = if self.has("sslmode=allow") {
                "refused by the server, then "
            } else {
                ""
            };
            return Some((format!("{before}client: channel binding"), BINDING));
        }
        if self.has(WRONG_CERTIFICATE) && self.result.contains(BROKEN_OFF) {
            return Some(self.refused_in_words());
        }
        None
    }

    fn cancelled_in_the_clear(&self) -> Option<(String, &'static str)> {
        let (before, after) = if self.client == "psql" {
            ("encrypted, cancelled", "encrypted, not cancelled")
        } else if self.has("sslmode=allow") {
            (
                ", cancelled; old cancel request: cancelled",
                ", not cancelled; old cancel request: not cancelled",
            )
        } else {
            (
                "old cancel request: cancelled",
                "old cancel request: not cancelled",
            )
        };
        self.result
            .contains(before)
            .then(|| (self.result.replace(before, after), CANCEL))
    }

    fn refused_in_words(&self) -> (String, &'static str) {
        if self.mode.clients == Clients::Optional && self.has("sslmode=prefer") {
            let in_the_clear = match self.client {
                "psql" => "in the clear, cancelled",
                _ => {
                    "in the clear, protocol 30000, cancelled; \
                      old cancel request: cancelled"
                }
            };
            return (in_the_clear.to_owned(), IN_THE_CLEAR);
        }
        // Refused twice, once in the clear and once over TLS, is said once.
        let twice = format!("{REFUSED}, then {BROKEN_OFF}");
        let result = self.result.replace(&twice, REFUSED);
        (result.replace(BROKEN_OFF, REFUSED), WORDS)
    }
}

/// The line that has to come through pgs instead, and why.
pub(super) fn instead(line: &str) -> Option<(String, &'static str)> {
    let cell = Cell::parse(line)?;
    let (result, reason) = cell.through_pgs()?;
    let (head, _) = line.split_once(" -> ")?;
    Some((format!("{head} -> {result}"), reason))
}

#[cfg(test)]
mod tests {
    use super::super::mode::MODES;
    use super::*;

    fn through(client: &str, mode: &Mode, settings: &str, result: &str) -> Option<String> {
        let head = format!("{client}, server {}: {settings} -> ", mode.name);
        let (line, _) = instead(&format!("{head}{result}"))?;
        Some(line.strip_prefix(&head).unwrap().to_owned())
    }

    #[test]
    fn only_old_cancel_requests_are_lost_where_tls_passes_through() {
        let result = "encrypted, protocol 30002, cancelled; old cancel request: cancelled";
        for mode in &MODES {
            let new = through("libpq 18", mode, "sslmode=require", result);
            let clear_first = through("libpq 18", mode, "sslmode=allow", result);
            let old = through("psql", mode, "sslmode=require", "encrypted, cancelled");
            if mode.tls == Tls::PassedThrough {
                let expected = result.replace("request: cancelled", "request: not cancelled");
                assert_eq!(new, Some(expected));
                let all = result.replace("cancelled", "not cancelled");
                assert_eq!(clear_first, Some(all));
                assert_eq!(old.as_deref(), Some("encrypted, not cancelled"));
            } else {
                assert_eq!((new, clear_first, old), (None, None, None));
            }
        }
    }

    #[test]
    fn who_is_refused_without_pgs_is_never_to_be_let_in_through_it() {
        let settings = "sslmode=require sslsni=0 channel_binding=require client certificate wrong";
        for mode in &MODES {
            for result in [
                REFUSED,
                BROKEN_OFF,
                "client: certificate verify failed",
                "refused by the server, then handshake broken off by the server",
            ] {
                let through = through("libpq 18", mode, settings, result);
                assert!(
                    through.is_none_or(|result| result.contains(REFUSED)),
                    "{}: {result}",
                    mode.name
                );
            }
        }
    }
}
