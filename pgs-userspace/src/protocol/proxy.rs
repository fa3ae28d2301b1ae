//! The PROXY protocol, versions 1 and 2: a load balancer tells, before anything else on the
//! connection, where the client really is.
//!
//! The reference is `doc/proxy-protocol.txt` of HAProxy, named "the specification" below.

use core::net::IpAddr;
use core::net::Ipv4Addr;
use core::net::Ipv6Addr;
use core::net::SocketAddr;

use super::Parsed;
use crate::config::limits::PROXY_HEADER_BYTES_MAX;

/// Begins a header of version 1 (section 2.1 of the specification).
const VERSION_1_PREFIX: &[u8] = b"PROXY ";

/// Longest line of version 1 with its CRLF: both addresses in IPv6 (section 2.1).
const VERSION_1_BYTES_MAX: usize = 107;

/// Begins a header of version 2 (section 2.2).
const VERSION_2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length (section 2.2).
const VERSION_2_FIXED_BYTES: usize = 16;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The connection is the proxy's own (a health check), or it does not know or tell for whom it
    /// is: the connection's own address is the client's.
    Local,
    /// The connection is for a client there.
    Client(SocketAddr),
}

/// Why the first bytes are no header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// They begin like neither version.
    #[error("the connection does not begin with a PROXY protocol header")]
    Missing,
    /// Version 1, and its line does not end where the longest one would.
    #[error("PROXY protocol 1: no end of the line within {VERSION_1_BYTES_MAX} bytes")]
    Endless,
    /// Version 1, and its line is not as it must be.
    #[error("PROXY protocol 1: {0}")]
    Line(&'static str),
    /// Signature of version 2 and another version behind it.
    #[error("PROXY protocol 2: version {0}")]
    Version(u8),
    /// Version 2, and a command that there is not.
    #[error("PROXY protocol 2: command {0}")]
    Command(u8),
    /// Version 2, and a family or transport that is no stream's.
    #[error("PROXY protocol 2: address family and transport {0:#04x}")]
    Family(u8),
    /// Version 2, and not as long as its addresses.
    #[error("PROXY protocol 2: {0} bytes are too few for its addresses")]
    Short(usize),
    /// Version 2, and longer than anybody needs.
    #[error("PROXY protocol 2: {0} bytes, {PROXY_HEADER_BYTES_MAX} are possible")]
    Length(usize),
}

/// Reads a header from the beginning of `buf`. It is there whole or not at all.
pub fn parse(buf: &[u8]) -> Result<Parsed<ProxyHeader>, ProxyError> {
    if begins_like(buf, &VERSION_2_SIGNATURE) {
        parse_version_2(buf)
    } else if begins_like(buf, VERSION_1_PREFIX) {
        parse_version_1(buf)
    } else {
        Err(ProxyError::Missing)
    }
}

/// Whether `buf` is `start` and what follows, or the beginning of `start`.
fn begins_like(buf: &[u8], start: &[u8]) -> bool {
    buf.iter()
        .zip(start)
        .all(|(found, expected)| found == expected)
}

fn parse_version_1(buf: &[u8]) -> Result<Parsed<ProxyHeader>, ProxyError> {
    let within = &buf[..buf.len().min(VERSION_1_BYTES_MAX)];
    let Some(length) = within.windows(2).position(|pair| pair == b"\r\n") else {
        if within.len() == VERSION_1_BYTES_MAX {
            return Err(ProxyError::Endless);
        }
        // The shortest line there is cannot be told from here; one more byte always helps.
        let need = buf.len() + 1;
        return Ok(Parsed::Incomplete { need });
    };
    let line = within.get(VERSION_1_PREFIX.len()..length);
    let line = line.ok_or(ProxyError::Line("no transport"))?;
    Ok(Parsed::Complete {
        value: parse_line(line)?,
        consumed: length + 2,
    })
}

/// What stands between `PROXY ` and CRLF: `TCP4 <source> <destination> <port> <port>`.
fn parse_line(line: &[u8]) -> Result<ProxyHeader, ProxyError> {
    let text = str::from_utf8(line).map_err(|_| ProxyError::Line("not text"))?;
    let mut words = text.split(' ');
    let transport = words.next();
    if transport == Some("UNKNOWN") {
        // Whatever follows is to be passed over (section 2.1).
        return Ok(ProxyHeader::Local);
    }
    let mut word = || words.next().unwrap_or_default();
    let (source, destination, source_port, destination_port) = (word(), word(), word(), word());
    if words.next().is_some() {
        return Err(ProxyError::Line("more than two addresses and ports"));
    }
    let addresses = match transport {
        Some("TCP4") => both::<Ipv4Addr>(source, destination),
        Some("TCP6") => both::<Ipv6Addr>(source, destination),
        _ => {
            return Err(ProxyError::Line(
                "transport is none of TCP4, TCP6 and UNKNOWN",
            ));
        }
    };
    let source = addresses.ok_or(ProxyError::Line("not two addresses of its transport"))?;
    let ports = port(source_port).zip(port(destination_port));
    let (source_port, _) = ports.ok_or(ProxyError::Line("not two port numbers"))?;
    Ok(client(source, source_port))
}

/// The source, if both are addresses.
fn both<A: std::str::FromStr + Into<IpAddr>>(source: &str, destination: &str) -> Option<IpAddr> {
    let (source, _) = source
        .parse::<A>()
        .ok()
        .zip(destination.parse::<A>().ok())?;
    Some(source.into())
}

/// Without sign or leading zeros, as the specification has it.
fn port(text: &str) -> Option<u16> {
    let canonical =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    canonical.then(|| text.parse().ok()).flatten()
}

/// An IPv4 address in IPv6's clothes is the IPv4 address: rules are written for that.
fn client(address: IpAddr, port: u16) -> ProxyHeader {
    ProxyHeader::Client(SocketAddr::new(address.to_canonical(), port))
}

/// Section 2.2. Behind the addresses there may be more (TLVs), which is passed over.
fn parse_version_2(buf: &[u8]) -> Result<Parsed<ProxyHeader>, ProxyError> {
    let Some(fixed) = buf.first_chunk::<VERSION_2_FIXED_BYTES>() else {
        return Ok(Parsed::Incomplete {
            need: VERSION_2_FIXED_BYTES,
        });
    };
    let [.., version_and_command, family, high, low] = *fixed;
    if version_and_command >> 4 != 2 {
        return Err(ProxyError::Version(version_and_command >> 4));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    let consumed = VERSION_2_FIXED_BYTES + length;
    if consumed > PROXY_HEADER_BYTES_MAX {
        return Err(ProxyError::Length(consumed));
    }
    let Some(header) = buf.get(VERSION_2_FIXED_BYTES..consumed) else {
        return Ok(Parsed::Incomplete { need: consumed });
    };
    let value = match version_and_command & 0xf {
        0 => ProxyHeader::Local,
        1 => addresses(family, header)?,
        command => return Err(ProxyError::Command(command)),
    };
    Ok(Parsed::Complete { value, consumed })
}

/// Source address, destination address, source port, destination port.
fn addresses(family: u8, header: &[u8]) -> Result<ProxyHeader, ProxyError> {
    let short = ProxyError::Short(header.len());
    match family {
        // AF_UNSPEC: the proxy does not tell.
        0x00 => Ok(ProxyHeader::Local),
        // AF_INET, SOCK_STREAM.
        0x11 => match *header {
            [a, b, c, d, _, _, _, _, high, low, _, _, ..] => {
                let port = u16::from_be_bytes([high, low]);
                Ok(client(Ipv4Addr::new(a, b, c, d).into(), port))
            }
            _ => Err(short),
        },
        // AF_INET6, SOCK_STREAM.
        0x21 => match (header.first_chunk::<16>(), header.get(32..36)) {
            (Some(source), Some(&[high, low, _, _])) => {
                let port = u16::from_be_bytes([high, low]);
                Ok(client(Ipv6Addr::from(*source).into(), port))
            }
            _ => Err(short),
        },
        // AF_UNIX, SOCK_STREAM: two paths of 108 bytes, and no address to go by.
        0x31 if header.len() >= 2 * 108 => Ok(ProxyHeader::Local),
        0x31 => Err(short),
        other => Err(ProxyError::Family(other)),
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
