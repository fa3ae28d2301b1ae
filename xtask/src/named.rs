//! Parts of a command that its command line can name.

use anyhow::{Result, bail};

/// One of them.
pub(crate) trait Named {
    /// What the command line calls it.
    fn name(&self) -> &'static str;
}

/// Those of these names, or all, in their own order. A name that none has is an error.
pub(crate) fn chosen<P: Named>(parts: &'static [P], only: &[String]) -> Result<Vec<&'static P>> {
    for name in only {
        if !parts.iter().any(|part| part.name() == name) {
            let known: Vec<_> = parts.iter().map(Named::name).collect();
            bail!("there is no part `{name}`; there are {}", known.join(", "));
        }
    }
    let wanted = |part: &&P| only.is_empty() || only.iter().any(|name| name == part.name());
    Ok(parts.iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Named for &'static str {
        fn name(&self) -> &'static str {
            self
        }
    }

    #[test]
    fn parts_are_chosen_by_name_and_keep_their_order() {
        const PARTS: [&str; 3] = ["one", "two", "three"];
        let of = |only: &[&str]| {
            let only: Vec<_> = only.iter().map(|name| (*name).to_owned()).collect();
            chosen(&PARTS, &only)
        };
        assert_eq!(of(&[]).unwrap(), [&"one", &"two", &"three"]);
        assert_eq!(of(&["three", "one"]).unwrap(), [&"one", &"three"]);
        let error = of(&["one", "four"]).unwrap_err().to_string();
        assert_eq!(error, "there is no part `four`; there are one, two, three");
    }
}
