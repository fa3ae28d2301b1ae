//! A tenant's password, and the verifier that is all the server gets to see of it.

use std::fmt;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::Hmac;
use hmac::Mac;
use rand::Rng;
use rand::distr::Alphanumeric;
use sha2::Digest;
use sha2::Sha256;

use crate::config::limits::PASSWORD_BYTES_MAX;
use crate::config::limits::SCRAM_ITERATIONS;

/// 32 letters and digits: more than 190 bits, and nothing that a shell or a URL would change.
const GENERATED_LENGTH: usize = 32;

/// Length of the salt in bytes: `SCRAM_DEFAULT_SALT_LEN` of PostgreSQL's
/// `src/include/common/scram-common.h`.
const SALT_BYTES: usize = 16;

/// A password in clear. Never printed by accident: `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

/// Why a text or a file gives no password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// PostgreSQL lets nobody in with an empty password.
    #[error("the password is empty")]
    Empty,
    /// Longer than the bound.
    #[error("the password is longer than {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    /// A password on two lines is a file with something else in it.
    #[error("the password has a control character in it, such as a second line")]
    ControlCharacter,
    /// Not text.
    #[error("the password in `{path}` is not UTF-8 text")]
    NotText {
        /// Which file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the password from `{path}`: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl PasswordError {
    /// The way out.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } | Self::NotText { .. } => {
                "name a readable file whose first line is the password, or `-` for standard input"
            }
            _ => "leave the option out and pgs makes a good password",
        }
    }
}

impl Password {
    /// A new random one.
    pub fn generate() -> Self {
        let characters = rand::rng()
            .sample_iter(&Alphanumeric)
            .take(GENERATED_LENGTH);
        Self(characters.map(char::from).collect())
    }

    /// One that somebody chose.
    ///
    /// # Errors
    /// It is empty, too long, or has control characters in it.
    pub fn parse(text: &str) -> Result<Self, PasswordError> {
        if text.is_empty() {
            return Err(PasswordError::Empty);
        }
        if text.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PasswordError::ControlCharacter);
        }
        Ok(Self(text.to_owned()))
    }

    /// The first line of a file, or of standard input where the path is `-`.
    ///
    /// # Errors
    /// It cannot be read, or is no password.
    pub fn read(path: &Path) -> Result<Self, PasswordError> {
        let unreadable = |source| PasswordError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let source: Box<dyn Read> = if path == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            Box::new(File::open(path).map_err(unreadable)?)
        };
        let mut bytes = Vec::new();
        // Room for the line's end too; one byte more shows that it is too long.
        let bound = u64::try_from(PASSWORD_BYTES_MAX + 3).unwrap_or(u64::MAX);
        source
            .take(bound)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        let text = String::from_utf8(bytes).map_err(|_| PasswordError::NotText {
            path: path.to_owned(),
        })?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        Self::parse(line.strip_suffix('\r').unwrap_or(line))
    }

    /// The password itself, to be shown to its owner once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What `ALTER ROLE … PASSWORD` takes in place of the password, with a fresh salt: RFC 5803 as
    /// PostgreSQL stores it, `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
    pub fn scram_verifier(&self) -> String {
        self.scram_verifier_with(&rand::rng().random::<[u8; SALT_BYTES]>(), SCRAM_ITERATIONS)
    }

    fn scram_verifier_with(&self, salt: &[u8], iterations: u32) -> String {
        // Like PostgreSQL: what SASLprep refuses is taken as it is.
        let prepared = stringprep::saslprep(&self.0).unwrap_or_else(|_| self.0.as_str().into());
        let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(prepared.as_bytes(), salt, iterations);
        let stored_key = Sha256::digest(keyed_hash(&salted, b"Client Key"));
        let server_key = keyed_hash(&salted, b"Server Key");
        format!(
            "SCRAM-SHA-256${iterations}:{}${}:{}",
            STANDARD.encode(salt),
            STANDARD.encode(stored_key),
            STANDARD.encode(server_key)
        )
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

fn keyed_hash(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    // A 32-byte key fits the 64-byte block as it is; only `new_from_slice` can fail, on other
    // algorithms' lengths.
    let mut block = [0; 64];
    block[..32].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new(&block.into());
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn generated_ones_differ_and_need_no_quotes() {
        let (one, other) = (Password::generate(), Password::generate());
        assert_ne!(one, other);
        assert_eq!(one.reveal().len(), GENERATED_LENGTH);
        assert!(
            one.reveal()
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric())
        );
    }

    #[test]
    fn debug_output_hides_it() {
        assert!(!format!("{:?}", Password::parse("hunter2").unwrap()).contains("hunter2"));
    }

    /// RFC 7677 section 3: the client's proof in its example follows from this StoredKey, and the
    /// server's signature from this ServerKey.
    #[test]
    fn verifier_agrees_with_the_example_of_rfc_7677() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Password::parse("pencil")
            .unwrap()
            .scram_verifier_with(&salt, 4096);
        assert_eq!(
            verifier,
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
             $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
             wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }

    #[test]
    fn text_is_prepared_as_clients_prepare_it() {
        let salt = [7; 16];
        let verifier = |text| Password::parse(text).unwrap().scram_verifier_with(&salt, 1);
        // RFC 4013: a soft hyphen is mapped to nothing, a no-break space to a space.
        assert_eq!(verifier("I\u{ad}X"), verifier("IX"));
        assert_eq!(verifier("a\u{a0}b"), verifier("a b"));
        assert_ne!(verifier("ä"), verifier("a"));
    }

    #[test]
    fn a_file_gives_its_one_line() {
        for content in ["secret", "secret\n", "secret\r\n"] {
            let password = Password::read(file(content.as_bytes()).path()).unwrap();
            assert_eq!(password.reveal(), "secret");
        }
        let longest = "x".repeat(PASSWORD_BYTES_MAX) + "\n";
        assert!(Password::read(file(longest.as_bytes()).path()).is_ok());
    }

    #[test]
    fn what_is_no_password_is_refused() {
        let read = |content: &[u8]| Password::read(file(content).path()).unwrap_err();
        assert!(matches!(read(b""), PasswordError::Empty));
        assert!(matches!(read(b"\n"), PasswordError::Empty));
        assert!(matches!(
            read(b"one\ntwo\n"),
            PasswordError::ControlCharacter
        ));
        assert!(matches!(read(&[b'x'; 4096]), PasswordError::TooLong));
        assert!(matches!(read(b"\xff\xfe"), PasswordError::NotText { .. }));
        let missing = Password::read(Path::new("/nonexistent/password"));
        assert!(matches!(missing, Err(PasswordError::Unreadable { .. })));
    }
}
