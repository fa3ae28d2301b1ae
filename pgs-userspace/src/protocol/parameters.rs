//! The name/value pairs of a startup packet, and what its `options` say.

use std::fmt;

use bytes::Bytes;

/// The option by which a client names its tenant: `options=-c pgs.tenant=acme`.
pub const TENANT_OPTION: &str = "pgs.tenant";

/// A name must end before this many bytes: `NAMEDATALEN` of PostgreSQL's
/// `src/include/pg_config_manual.h`. Longer user and database names are cut, as the server does.
const NAMEDATALEN: usize = 64;

/// The pairs in the order they were sent. Names and values are bytes: nothing says what encoding
/// they are in, and the server takes any. Held as they came, and walked at each look: an index of
/// pairs that a client may make three bytes long would take twenty times as much as the packet.
#[derive(Clone, PartialEq, Eq)]
pub struct StartupParameters(Bytes);

/// The pairs do not end with the terminator, exactly at the end of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LayoutError;

impl StartupParameters {
    /// From what follows the version word. A string that the packet's end cuts short still counts,
    /// and only then the layout is judged.
    pub(super) fn parse(body: &Bytes) -> Result<Self, LayoutError> {
        let mut pairs = Pairs::of(body);
        while pairs.next().is_some() {}
        if pairs.offset + 1 == body.len() {
            Ok(Self(body.clone()))
        } else {
            Err(LayoutError)
        }
    }

    /// The value of a parameter; of the last one where it was sent more than once, like the server.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .filter(|(key, _)| *key == name.as_bytes())
            .last()
            .map(|(_, value)| value)
    }

    /// All pairs, in the order they were sent.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        Pairs::of(&self.0)
    }

    /// `user` as the server will read it; `None` where it is missing or empty.
    pub(super) fn user(&self) -> Option<&[u8]> {
        self.value("user").filter(|user| !user.is_empty()).map(cut)
    }

    /// `database` as the server will read it; `None` where it is missing or empty.
    pub(super) fn database(&self) -> Option<&[u8]> {
        self.value("database")
            .filter(|database| !database.is_empty())
            .map(cut)
    }

    /// The value of [`TENANT_OPTION`] in `options`; of the last one where there are several.
    pub fn tenant_option(&self) -> Option<Vec<u8>> {
        let words = split_options(self.value("options")?);
        let mut tenant = None;
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let setting = match &word[..] {
                b"-c" => words.next().unwrap_or_default(),
                // `getopt` takes `--name=value` for the option `-` with an argument.
                [b'-', b'c' | b'-', setting @ ..] => setting.to_vec(),
                _ => continue,
            };
            if let Some(equals) = setting.iter().position(|byte| *byte == b'=')
                && setting[..equals].eq_ignore_ascii_case(TENANT_OPTION.as_bytes())
            {
                tenant = Some(setting[equals + 1..].to_vec());
            }
        }
        tenant
    }
}

impl fmt::Debug for StartupParameters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let pairs = self.iter().map(|(name, value)| (text(name), text(value)));
        formatter.debug_map().entries(pairs).finish()
    }
}

/// Walks the way `ProcessStartupPacket` of PostgreSQL's `src/backend/tcop/backend_startup.c` does,
/// so that both agree on every packet.
struct Pairs<'body> {
    body: &'body [u8],
    /// Of the next name, or of what stands in its place.
    offset: usize,
}

impl<'body> Pairs<'body> {
    fn of(body: &'body [u8]) -> Self {
        Self { body, offset: 0 }
    }

    /// The bytes up to the next NUL, or to the end.
    fn string_at(&self, offset: usize) -> &'body [u8] {
        let rest = self.body.get(offset..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == 0);
        &rest[..length.unwrap_or(rest.len())]
    }
}

impl<'body> Iterator for Pairs<'body> {
    type Item = (&'body [u8], &'body [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.string_at(self.offset);
        let value_offset = self.offset + name.len() + 1;
        if name.is_empty() || value_offset >= self.body.len() {
            return None;
        }
        let value = self.string_at(value_offset);
        self.offset = value_offset + value.len() + 1;
        Some((name, value))
    }
}

fn cut(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAMEDATALEN - 1)]
}

/// Words are separated by white space; a backslash takes the next byte as it is. The rule of
/// `pg_split_opts` of PostgreSQL's `src/backend/utils/init/postinit.c`.
fn split_options(options: &[u8]) -> Vec<Vec<u8>> {
    // `isspace` of C: what Rust calls ASCII white space, and the vertical tab.
    let is_space = |byte: u8| byte.is_ascii_whitespace() || byte == 0x0b;
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = options.iter().copied();
    while let Some(byte) = bytes.next() {
        if is_space(byte) {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        if byte == b'\\' {
            word.extend(bytes.next());
        } else {
            word.push(byte);
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &'static [u8]) -> Result<StartupParameters, LayoutError> {
        StartupParameters::parse(&Bytes::from_static(body))
    }

    fn tenant(options: &str) -> Option<String> {
        let body = format!("user\0u\0options\0{options}\0\0").into_bytes();
        let parameters = StartupParameters::parse(&Bytes::from(body)).unwrap();
        parameters
            .tenant_option()
            .map(|tenant| String::from_utf8(tenant).unwrap())
    }

    #[test]
    fn pairs_in_order_and_the_last_one_wins() {
        let parameters = parse(b"user\0acme\0application_name\0psql\0user\0other\0\0").unwrap();
        assert_eq!(parameters.value("user"), Some(&b"other"[..]));
        assert_eq!(parameters.value("database"), None);
        let names: Vec<_> = parameters.iter().map(|(name, _)| name).collect();
        assert_eq!(names, [&b"user"[..], b"application_name", b"user"]);
    }

    #[test]
    fn no_more_is_held_than_the_body() {
        // The shortest pairs: a name of one byte, an empty value.
        let body = Bytes::from([b"a\0\0".repeat(3_000), vec![0]].concat());
        let parameters = StartupParameters::parse(&body).unwrap();
        assert_eq!(parameters.iter().count(), 3_000);
        assert_eq!(size_of_val(&parameters), size_of::<Bytes>());
        let StartupParameters(held) = parameters;
        assert_eq!((held.as_ptr(), held.len()), (body.as_ptr(), body.len()));
    }

    #[test]
    fn the_layout_is_judged_as_the_server_does() {
        for good in [
            &b"\0"[..],
            b"user\0u\0\0",
            b"user\0\0\0",
            b"user\0\xff\xfe\0\0",
        ] {
            assert!(parse(good).is_ok(), "{good:?}");
        }
        let bad = [
            &b""[..],
            b"user\0u\0",
            b"user\0u",
            b"user",
            b"user\0u\0\0\0",
            b"\0\0",
        ];
        for bad in bad {
            assert_eq!(parse(bad), Err(LayoutError), "{bad:?}");
        }
    }

    #[test]
    fn a_last_byte_that_is_no_terminator_passes_as_it_does_in_the_server() {
        // It begins a name without a value, in the terminator's place: the server looks no closer.
        let parameters = parse(b"user\0u\0x").unwrap();
        assert_eq!(parameters.iter().count(), 1);
    }

    #[test]
    fn long_names_are_cut_where_the_server_cuts_them() {
        let body = format!("user\0{}\0database\0{}\0\0", "u".repeat(64), "d".repeat(63));
        let parameters = StartupParameters::parse(&Bytes::from(body.into_bytes())).unwrap();
        assert_eq!(parameters.user(), Some("u".repeat(63).as_bytes()));
        assert_eq!(parameters.database(), Some("d".repeat(63).as_bytes()));
    }

    #[test]
    fn the_tenant_in_the_options() {
        let found = [
            "-c pgs.tenant=acme",
            "--pgs.tenant=acme",
            "-cpgs.tenant=acme",
            "-c work_mem=1MB \t -c PGS.Tenant=acme -c x=y",
            "-c pgs.tenant=first --pgs.tenant=acme",
            r"-c\ x=1 -c pgs.tenant=ac\me",
        ];
        for options in found {
            assert_eq!(tenant(options).as_deref(), Some("acme"), "{options}");
        }
        let missing = [
            "",
            "-c",
            "-c pgs.tenant",
            "pgs.tenant=acme",
            "-c x=pgs.tenant=acme",
            "\\",
        ];
        for options in missing {
            assert_eq!(tenant(options), None, "{options}");
        }
        assert_eq!(tenant("-c pgs.tenant=").as_deref(), Some(""));
        assert_eq!(tenant(r"-c pgs.tenant=a\ b").as_deref(), Some("a b"));
    }
}
