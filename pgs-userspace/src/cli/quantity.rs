//! Amounts on the command line: memory and processors.

use crate::config::limits::CONTAINER_CPU_MILLIS_MIN;
use crate::config::limits::CONTAINER_MEMORY_BYTES_MIN;

/// Bytes from a text such as `512m`, `2g`, `2GiB` or `1073741824`.
///
/// # Errors
/// What is wrong with it, for clap.
pub fn memory(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.bytes().take_while(u8::is_ascii_digit).count();
    let factor: u64 = match lower[digits..].trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        unit => {
            return Err(format!(
                "`{unit}` is no unit of memory; write `512m` or `2g`"
            ));
        }
    };
    let number: u64 = lower[..digits]
        .parse()
        .map_err(|_| "write `512m` or `2g`".to_owned())?;
    match number.checked_mul(factor) {
        Some(bytes) if i64::try_from(bytes).is_err() => Err("is more than there can be".to_owned()),
        Some(bytes) if bytes >= CONTAINER_MEMORY_BYTES_MIN => Ok(bytes),
        Some(_) => {
            let least = CONTAINER_MEMORY_BYTES_MIN / 1024 / 1024;
            Err(format!("a PostgreSQL server needs at least {least}m"))
        }
        None => Err("is more than there can be".to_owned()),
    }
}

/// Thousandths of a core from a text such as `2`, `0.5` or `1.25`.
///
/// # Errors
/// What is wrong with it, for clap.
pub fn cpu_millis(text: &str) -> Result<u32, String> {
    let malformed = || "write a number of processors, such as `2` or `0.5`".to_owned();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 3 {
        return Err(malformed());
    }
    let whole: u32 = whole.parse().map_err(|_| malformed())?;
    let thousandths: u32 = format!("{fraction:0<3}").parse().map_err(|_| malformed())?;
    match whole
        .checked_mul(1_000)
        .and_then(|millis| millis.checked_add(thousandths))
    {
        Some(millis) if millis >= CONTAINER_CPU_MILLIS_MIN => Ok(millis),
        Some(_) => Err("a container needs at least 0.01 of a processor".to_owned()),
        None => Err("is more than there can be".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_has_units_and_a_least_amount() {
        assert_eq!(memory("512m"), Ok(512 << 20));
        assert_eq!(memory("2GiB"), Ok(2 << 30));
        assert_eq!(memory("1 g"), Ok(1 << 30));
        assert_eq!(memory("1073741824"), Ok(1 << 30));
        for wrong in [
            "",
            "m",
            "-1g",
            "1.5g",
            "2x",
            "1m",
            "0",
            "99999999999t",
            "18446744073709551615",
        ] {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn processors_may_be_fractions() {
        assert_eq!(cpu_millis("2"), Ok(2_000));
        assert_eq!(cpu_millis("0.5"), Ok(500));
        assert_eq!(cpu_millis("1.25"), Ok(1_250));
        for wrong in [
            "", "0", "0.001", "-1", "1,5", "1.2345", ".5", "1.", "two", "4294968",
        ] {
            assert!(cpu_millis(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            drop(memory(&text));
            drop(cpu_millis(&text));
        }
    }
}
