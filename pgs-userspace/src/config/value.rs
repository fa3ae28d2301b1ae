//! How the values of settings are written: in the configuration file and on the command line alike.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::limits::CONFIGURED_DURATION_MAX;
use crate::config::limits::CONFIGURED_NUMBERS_MAX;
use crate::tls::name::CertificateName;

/// What is written for a setting that can be without a value.
const OFF: &str = "off";

/// The value of a setting, to text and back.
pub trait Value: Sized {
    /// How it is written, for the documentation.
    const FORM: &'static str;

    /// From text.
    ///
    /// # Errors
    /// What is wrong with it, in words that go behind the setting's name.
    fn parse(text: &str) -> Result<Self, String>;

    /// As it is written.
    fn text(&self) -> String;
}

/// Units of time, longest first, as PostgreSQL writes them, and how many milliseconds each has.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl Value for Duration {
    const FORM: &'static str = "time";

    fn parse(text: &str) -> Result<Self, String> {
        let malformed = || format!("`{text}` is no time; write `500ms`, `30s`, `5min` or `2h`");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| malformed())?;
        let unit = match unit.trim() {
            "" => "s",
            unit => unit,
        };
        let (_, milliseconds) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(malformed)?;
        let duration = Self::from_millis(number.saturating_mul(*milliseconds));
        if duration.is_zero() {
            return Err("must be longer than nothing".to_owned());
        }
        if duration > CONFIGURED_DURATION_MAX {
            let most = CONFIGURED_DURATION_MAX.text();
            return Err(format!("`{text}` is too long; at most {most}"));
        }
        Ok(duration)
    }

    fn text(&self) -> String {
        let milliseconds = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        let (unit, size) = UNITS
            .iter()
            .find(|(_, size)| milliseconds.is_multiple_of(*size))
            .unwrap_or(&("ms", 1));
        format!("{}{unit}", milliseconds / size)
    }
}

/// A wait that may be none at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace(pub Duration);

impl Value for Grace {
    const FORM: &'static str = "time or `0`";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "0" => Ok(Self(Duration::ZERO)),
            text => Duration::parse(text).map(Self),
        }
    }

    fn text(&self) -> String {
        match self.0 {
            Duration::ZERO => "0".to_owned(),
            wait => wait.text(),
        }
    }
}

impl Value for usize {
    const FORM: &'static str = "number";

    fn parse(text: &str) -> Result<Self, String> {
        match text.parse::<Self>() {
            Ok(0) => Err("must be at least 1".to_owned()),
            Ok(number) if number <= CONFIGURED_NUMBERS_MAX => Ok(number),
            // Too many digits are the same mistake.
            Ok(_) => Err(format!("is too much; at most {CONFIGURED_NUMBERS_MAX}")),
            Err(_) => Err(format!("`{text}` is no whole number, at least 1")),
        }
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Value for u32 {
    const FORM: &'static str = usize::FORM;

    fn parse(text: &str) -> Result<Self, String> {
        usize::parse(text).and_then(|number| {
            Self::try_from(number).map_err(|_| format!("is too much; at most {}", Self::MAX))
        })
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Value for bool {
    const FORM: &'static str = "`on` or `off`";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "on" | "true" | "yes" => Ok(true),
            "off" | "false" | "no" => Ok(false),
            _ => Err(format!("`{text}` is neither `on` nor `off`")),
        }
    }

    fn text(&self) -> String {
        if *self { "on" } else { OFF }.to_owned()
    }
}

/// Without a value: `off`.
impl Value for Option<Duration> {
    const FORM: &'static str = "time or `off`";

    fn parse(text: &str) -> Result<Self, String> {
        optional(text)
    }

    fn text(&self) -> String {
        self.as_ref().map_or_else(|| OFF.to_owned(), Value::text)
    }
}

/// Without a value: `off`.
impl Value for Option<u32> {
    const FORM: &'static str = "number or `off`";

    fn parse(text: &str) -> Result<Self, String> {
        optional(text)
    }

    fn text(&self) -> String {
        self.as_ref().map_or_else(|| OFF.to_owned(), Value::text)
    }
}

fn optional<T: Value>(text: &str) -> Result<Option<T>, String> {
    if text == OFF {
        return Ok(None);
    }
    T::parse(text)
        .map(Some)
        .map_err(|error| format!("{error}; or `{OFF}`"))
}

/// Without a value: nothing at all.
impl Value for Option<PathBuf> {
    const FORM: &'static str = "absolute path of a file";

    fn parse(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        match text {
            "" => Ok(None),
            _ if text.contains('\0') => Err("has a zero byte".to_owned()),
            _ if path.is_absolute() => Ok(Some(path)),
            _ => Err(format!("`{text}` is no absolute path")),
        }
    }

    fn text(&self) -> String {
        self.as_deref()
            .map_or_else(String::new, |path| path.display().to_string())
    }
}

/// Host names, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Domains(pub Vec<String>);

impl Value for Domains {
    const FORM: &'static str = "list of host names";

    fn parse(text: &str) -> Result<Self, String> {
        list(text).map(domain).collect::<Result<_, _>>().map(Self)
    }

    fn text(&self) -> String {
        joined(&self.0)
    }
}

/// A host name, in lower case.
///
/// # Errors
/// It is none.
pub fn domain(text: &str) -> Result<String, String> {
    match CertificateName::host(text) {
        Ok(CertificateName::Host(host)) if !host.starts_with("*.") => Ok(host),
        _ => Err(format!("`{text}` is no host name such as `db.example.com`")),
    }
}

/// The parts of a list, which are separated by commas.
pub(crate) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

/// A list as it is written.
pub(crate) fn joined<T: ToString>(parts: &[T]) -> String {
    let parts: Vec<_> = parts.iter().map(ToString::to_string).collect();
    parts.join(",")
}

/// A choice among words.
#[macro_export]
#[doc(hidden)]
macro_rules! word_value {
    ($type:ty, $($variant:ident = $word:literal),+) => {
        impl $crate::config::value::Value for $type {
            const FORM: &'static str = $crate::word_value!(@form $($word),+);

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("`{text}` is none of {}", Self::FORM)),
                }
            }

            fn text(&self) -> String {
                match self { $(Self::$variant => $word),+ }.to_owned()
            }
        }
    };
    (@form $first:literal $(, $word:literal)*) => {
        concat!("`", $first, "`" $(, ", `", $word, "`")*)
    };
}

/// The known name that is most like an unknown one, if one is like it at all.
pub fn nearest<'name>(
    unknown: &str,
    known: impl Iterator<Item = &'name str>,
) -> Option<&'name str> {
    // More than a third of the letters wrong is another word.
    let enough = |(_, likeness): &(&str, f64)| *likeness > 0.66;
    let likeness = |name: &'name str| (name, strsim::jaro_winkler(unknown, name));
    known
        .map(likeness)
        .max_by(|(_, left), (_, right)| left.total_cmp(right))
        .filter(enough)
        .map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::listen::ListenOn;

    #[test]
    fn times_have_units_and_are_written_with_the_largest_that_fits() {
        for (text, milliseconds, written) in [
            ("500ms", 500, "500ms"),
            ("30", 30_000, "30s"),
            ("90s", 90_000, "90s"),
            ("120 s", 120_000, "2min"),
            ("2h", 7_200_000, "2h"),
            ("1d", 86_400_000, "1d"),
        ] {
            let duration = Duration::parse(text).unwrap();
            assert_eq!(duration, Duration::from_millis(milliseconds));
            assert_eq!(duration.text(), written);
        }
        for wrong in ["", "0", "s", "-1s", "1.5s", "5m", "99999999999d", "1 week"] {
            assert!(Duration::parse(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(Option::<Duration>::parse("off"), Ok(None));
        assert_eq!(
            Grace::parse("0").map(|grace| grace.text()).as_deref(),
            Ok("0")
        );
        let error = Option::<Duration>::parse("never").unwrap_err();
        assert!(error.ends_with("or `off`"), "{error}");
    }

    #[test]
    fn numbers_begin_at_one_and_end() {
        assert_eq!(usize::parse("9000"), Ok(9_000));
        for wrong in ["0", "-1", "", "1e3", "99999999999999999999"] {
            assert!(usize::parse(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(Option::<u32>::parse("off"), Ok(None));
    }

    #[test]
    fn lists_take_blanks_and_refuse_what_is_none_of_theirs() {
        assert_eq!(
            Domains::parse("DB.example.com").unwrap().text(),
            "db.example.com"
        );
        assert_eq!(Domains::parse("local.").unwrap().text(), "local");
        assert!(Domains::parse("*.example.com").is_err());
        assert!(Option::<PathBuf>::parse("relative.pem").is_err());
    }

    #[test]
    fn the_nearest_name_is_one_that_is_like_it() {
        let known = ["sessions_max", "arrivals_max", "login_deadline"];
        assert_eq!(
            nearest("session_max", known.into_iter()),
            Some("sessions_max")
        );
        assert_eq!(nearest("q", known.into_iter()), None);
        assert_eq!(nearest("x", [].into_iter()), None);
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_parses_is_written_so_that_it_parses_again(text in ".{0,24}") {
            drop((usize::parse(&text), bool::parse(&text), Domains::parse(&text)));
            drop(Vec::<ListenOn>::parse(&text));
            if let Ok(duration) = Duration::parse(&text) {
                prop_assert_eq!(Duration::parse(&duration.text()), Ok(duration));
            }
        }
    }
}
