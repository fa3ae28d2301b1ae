//! `pgs version`.

use serde_json::json;
use sha2::Digest;
use sha2::Sha256;

use crate::cli::FormatArguments;
use crate::command::Context;
use crate::error::Error;

/// Prints the version of pgs, and by hash which eBPF object is inside.
pub(super) fn run(context: &Context, arguments: FormatArguments) -> Result<(), Error> {
    let version = env!("CARGO_PKG_VERSION");
    let object = embedded_object().map(digest);
    if arguments.json {
        return context
            .printer
            .json(&json!({ "version": version, "ebpf_object_sha256": object }));
    }
    context.printer.line(&format!("pgs {version}"))?;
    match object {
        Some(digest) => context
            .printer
            .line(&format!("eBPF object sha256:{digest}")),
        None => context.printer.line("eBPF object: none inside"),
    }
}

/// The eBPF object that is built into this binary.
fn embedded_object() -> Option<&'static [u8]> {
    None
}

fn digest(object: &[u8]) -> String {
    Sha256::digest(object)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_spelt_as_by_sha256sum() {
        assert_eq!(digest(b"abc")[..16], *"ba7816bf8f01cfea");
    }
}
