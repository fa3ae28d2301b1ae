//! What a certificate is kept under.

use std::fmt;

use rustls::pki_types::DnsName;

/// Directory or file name of the default certificate.
const DEFAULT: &str = "default";

/// Subdirectories in which certbot and lego keep theirs; they can be linked in as they are.
pub(super) const NESTED: [&str; 2] = ["live", "certificates"];

/// A host name in lower case, perhaps with `*.` before it, or what serves all other names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertificateName {
    /// For clients that ask for no name, or for one that no other certificate has.
    Default,
    /// For one name; with `*.` in front for every name one label longer.
    Host(String),
}

/// Why a text is no name of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no host name that a certificate can be for", .0.escape_debug())]
pub struct InvalidCertificateName(String);

impl CertificateName {
    /// A host name, as people write it: `db.example.com`, `*.db.example.com`.
    ///
    /// # Errors
    /// It is none, or one of the names that have a meaning of their own here.
    pub fn host(text: &str) -> Result<Self, InvalidCertificateName> {
        let lower = without_root(text).to_ascii_lowercase();
        let reserved = lower == DEFAULT || NESTED.contains(&lower.as_str());
        let plain = lower.strip_prefix("*.").unwrap_or(&lower);
        if reserved || plain.ends_with('.') || DnsName::try_from(plain).is_err() {
            return Err(InvalidCertificateName(text.to_owned()));
        }
        Ok(Self::Host(lower))
    }

    /// From the name of a directory or file; lego writes `_` for `*`.
    pub(super) fn from_file_name(text: &str) -> Result<Self, InvalidCertificateName> {
        match (text, text.strip_prefix("_.")) {
            (DEFAULT, _) => Ok(Self::Default),
            (_, Some(rest)) => Self::host(&format!("*.{rest}")),
            _ => Self::host(text),
        }
    }

    /// What its directory is called.
    pub(super) fn file_name(&self) -> String {
        match self {
            Self::Default => DEFAULT.to_owned(),
            Self::Host(name) => match name.strip_prefix("*.") {
                Some(rest) => format!("_.{rest}"),
                None => name.clone(),
            },
        }
    }
}

/// A host name without the dot that may stand at its end: it says only that the name is complete.
pub fn without_root(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

impl fmt::Display for CertificateName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str(DEFAULT),
            Self::Host(name) => formatter.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_files() {
        for (text, file) in [
            ("db.example.com", "db.example.com"),
            ("DB.Example.com", "db.example.com"),
            ("db.example.com.", "db.example.com"),
            ("*.example.com", "_.example.com"),
            ("acme", "acme"),
        ] {
            let name = CertificateName::host(text).unwrap();
            assert_eq!(name.file_name(), file);
            assert_eq!(CertificateName::from_file_name(file), Ok(name));
        }
        let default = CertificateName::from_file_name("default");
        assert_eq!(default, Ok(CertificateName::Default));
    }

    #[test]
    fn what_could_leave_the_directory_or_means_something_else_is_no_name() {
        for text in [
            "", ".", "..", "../x", "a/b", "default", "live", "*", "a b", "*.*.x", "a\0", "live.",
            "a..",
        ] {
            assert!(CertificateName::host(text).is_err(), "{text:?}");
        }
    }
}
