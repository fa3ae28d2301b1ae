//! Headers as the specification has them, and what is none.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn whole(bytes: &[u8]) -> Result<(ProxyHeader, usize), ProxyError> {
    match parse(bytes)? {
        Parsed::Complete { value, consumed } => Ok((value, consumed)),
        Parsed::Incomplete { need } => panic!("{need} bytes of {bytes:?}"),
    }
}

fn at(address: &str) -> ProxyHeader {
    ProxyHeader::Client(address.parse().unwrap())
}

/// A header of version 2.
fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let fixed = [0x20 | command, family, length[0], length[1]];
    [&VERSION_2_SIGNATURE[..], &fixed, body].concat()
}

fn inet(source: SocketAddr) -> Vec<u8> {
    let port = source.port().to_be_bytes();
    match source.ip() {
        IpAddr::V4(source) => {
            let body = [&source.octets()[..], &[10, 0, 0, 1], &port, &[0x15, 0x38]].concat();
            version_2(1, 0x11, &body)
        }
        IpAddr::V6(source) => {
            let body = [&source.octets()[..], &[0; 16], &port, &[0x15, 0x38]].concat();
            version_2(1, 0x21, &body)
        }
    }
}

#[test]
fn lines_of_version_1() {
    let cases = [
        (
            "PROXY TCP4 192.0.2.1 10.0.0.1 56324 5432\r\n",
            at("192.0.2.1:56324"),
        ),
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            at("255.255.255.255:65535"),
        ),
        (
            "PROXY TCP6 2001:db8::1 ::1 0 5432\r\n",
            at("[2001:db8::1]:0"),
        ),
        (
            "PROXY TCP6 ::ffff:192.0.2.1 ::1 7 5432\r\n",
            at("192.0.2.1:7"),
        ),
        ("PROXY UNKNOWN\r\n", ProxyHeader::Local),
        (
            "PROXY UNKNOWN whatever 6.6.6.6 follows\r\n",
            ProxyHeader::Local,
        ),
    ];
    for (line, expected) in cases {
        let follows = format!("{line}\0\0\0\x08 follows");
        assert_eq!(
            whole(follows.as_bytes()),
            Ok((expected, line.len())),
            "{line}"
        );
    }
    let longest = format!(
        "PROXY TCP6 {0} {0} 65535 65535\r\n",
        "ffff:".repeat(7) + "ffff"
    );
    assert!(longest.len() <= VERSION_1_BYTES_MAX && whole(longest.as_bytes()).is_ok());
}

#[test]
fn what_is_no_line_of_version_1() {
    let bad = [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 56324\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 56324 5432 \r\n",
        "PROXY TCP4  192.0.2.1 10.0.0.1 56324 5432\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 056324 5432\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 +1 5432\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 65536 5432\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 1 \r\n",
        "PROXY TCP4 192.0.2.01 10.0.0.1 1 1\r\n",
        "PROXY TCP4 ::1 ::1 1 1\r\n",
        "PROXY TCP6 192.0.2.1 10.0.0.1 1 1\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n",
        "PROXY UDP4 192.0.2.1 10.0.0.1 1 1\r\n",
        "PROXY tcp4 192.0.2.1 10.0.0.1 1 1\r\n",
    ];
    for line in bad {
        assert!(
            matches!(whole(line.as_bytes()), Err(ProxyError::Line(_))),
            "{line}"
        );
    }
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(VERSION_1_BYTES_MAX));
    assert_eq!(whole(endless.as_bytes()), Err(ProxyError::Endless));
    // The end of the line is looked for only where the longest line can have it.
    assert_eq!(
        whole(format!("{endless}\r\n").as_bytes()),
        Err(ProxyError::Endless)
    );
}

#[test]
fn headers_of_version_2() {
    for source in ["192.0.2.1:56324", "[2001:db8::1]:1"] {
        let header = inet(source.parse().unwrap());
        assert_eq!(whole(&header), Ok((at(source), header.len())));
    }
    assert_eq!(
        whole(&inet("[::ffff:192.0.2.1]:9".parse().unwrap()))
            .unwrap()
            .0,
        at("192.0.2.1:9")
    );
    let with_tlv = [
        &[192, 0, 2, 1, 10, 0, 0, 1, 0, 7, 0, 8][..],
        b"\x03\x00\x04abcd",
    ]
    .concat();
    let header = version_2(1, 0x11, &with_tlv);
    assert_eq!(whole(&header), Ok((at("192.0.2.1:7"), header.len())));
    // What the proxy itself opened, or says nothing about, whatever stands behind it.
    let local = [
        version_2(0, 0x00, b""),
        version_2(0, 0x11, &with_tlv),
        version_2(0, 0xff, b"odd"),
        version_2(1, 0x00, b""),
        version_2(1, 0x00, b"some TLV"),
        version_2(1, 0x31, &[b'/'; 216]),
    ];
    for header in local {
        assert_eq!(
            whole(&header),
            Ok((ProxyHeader::Local, header.len())),
            "{header:?}"
        );
    }
}

#[test]
fn what_is_no_header_of_version_2() {
    let mut version_1 = version_2(1, 0x11, &[0; 12]);
    version_1[12] = 0x11;
    assert_eq!(whole(&version_1), Err(ProxyError::Version(1)));
    assert_eq!(
        whole(&version_2(2, 0x11, &[0; 12])),
        Err(ProxyError::Command(2))
    );
    for family in [0x10, 0x12, 0x13, 0x22, 0x32, 0x41, 0xff] {
        let header = version_2(1, family, &[0; 216]);
        assert_eq!(whole(&header), Err(ProxyError::Family(family)));
    }
    for (family, length) in [(0x11, 11), (0x21, 35), (0x31, 215)] {
        assert_eq!(
            whole(&version_2(1, family, &vec![0; length])),
            Err(ProxyError::Short(length))
        );
    }
    // Refused by its length word, before any of it is read.
    let mut long = version_2(1, 0x11, &[]);
    long[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    assert_eq!(parse(&long), Err(ProxyError::Length(65_551)));
}

#[test]
fn what_clients_send_is_no_header() {
    let first = [
        &b"\0\0\0\x08\x04\xd2\x16\x2f"[..],
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXYTCP4",
        b"proxy TCP4",
        b"\r\n\r\n\0\r\nQUIT\r",
        b"\r\n\r\n\r\n",
    ];
    for bytes in first {
        assert_eq!(parse(bytes), Err(ProxyError::Missing), "{bytes:?}");
    }
    assert!(matches!(parse(b""), Ok(Parsed::Incomplete { .. })));
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let noise = vec(any::<u8>(), 0..120);
    prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| {
            format!("PROXY TCP4 {} 10.0.0.1 1 2\r\n", Ipv4Addr::from(ip)).into_bytes()
        }),
        noise.prop_map(|noise| [b"PROXY ", &noise[..], b"\r\n"].concat()),
    ]
}

fn header() -> impl Strategy<Value = Vec<u8>> {
    let family =
        prop_oneof![3 => prop::sample::select(vec![0x11, 0x21, 0x31, 0]), 1 => any::<u8>()];
    (0..3u8, family, vec(any::<u8>(), 0..300))
        .prop_map(|(command, family, body)| version_2(command, family, &body))
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(Parsed::Complete { consumed, .. }) = parse(&bytes) {
            prop_assert!(consumed <= bytes.len());
        }
    }

    #[test]
    fn a_header_is_the_same_however_it_arrives(
        header in prop_oneof![line(), header()],
        follows in vec(any::<u8>(), 0..40),
    ) {
        let all = [&header[..], &follows].concat();
        let whole = parse(&all);
        for end in 0..=all.len() {
            match parse(&all[..end]) {
                Ok(Parsed::Incomplete { need }) => {
                    prop_assert!(end < need && need <= PROXY_HEADER_BYTES_MAX);
                    // What is asked for is never more than there is in a header that is one.
                    if let Ok(Parsed::Complete { consumed, .. }) = whole {
                        prop_assert!(need <= consumed);
                    }
                }
                // Said as soon as it is certain, and never taken back.
                other => {
                    prop_assert_eq!(&other, &whole);
                }
            }
        }
    }

    #[test]
    fn any_source_is_read_back(ip: IpAddr, port: u16, tlv in vec(any::<u8>(), 0..50)) {
        let source = SocketAddr::new(ip, port);
        let mut second = inet(source);
        let length = u16::try_from(second.len() - VERSION_2_FIXED_BYTES + tlv.len()).unwrap();
        second[14..16].copy_from_slice(&length.to_be_bytes());
        second.extend(tlv);
        let expected = ProxyHeader::Client(SocketAddr::new(ip.to_canonical(), port));
        prop_assert_eq!(whole(&second), Ok((expected, second.len())));
        let first = match ip {
            IpAddr::V4(ip) => format!("PROXY TCP4 {ip} 10.0.0.1 {port} 5432\r\n"),
            IpAddr::V6(ip) => format!("PROXY TCP6 {ip} ::1 {port} 5432\r\n"),
        };
        prop_assert_eq!(whole(first.as_bytes()), Ok((expected, first.len())));
    }
}
