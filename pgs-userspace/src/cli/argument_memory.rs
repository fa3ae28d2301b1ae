//! Takes passwords out of this process's own command line, where other users can read them.
//!
//! The kernel shows the memory between `arg_start` and `arg_end` of `/proc/self/stat` as
//! `/proc/<pid>/cmdline` (proc_pid_cmdline(5)). Between the process's start and this call the
//! password can be seen: a file is better.

use std::ffi::OsString;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;

const OPTION: &[u8] = b"--password";
const OPTION_WITH_VALUE: &[u8] = b"--password=";

/// Field of `/proc/<pid>/stat` with the address of the first argument, counted from 1
/// (proc_pid_stat(5)).
const ARG_START_FIELD: usize = 48;

/// The process's arguments; after the call they are overwritten where they hold a password.
///
/// # Errors
/// There is a password among them and it could not be overwritten.
pub fn take() -> io::Result<Vec<OsString>> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let mut command_line = Vec::new();
    File::open("/proc/self/cmdline")?.read_to_end(&mut command_line)?;
    let secrets = secrets(&command_line);
    if secrets.is_empty() {
        return Ok(arguments);
    }
    let begin = argument_start(&std::fs::read_to_string("/proc/self/stat")?)?;
    let memory = OpenOptions::new().write(true).open("/proc/self/mem")?;
    for secret in secrets {
        let offset = u64::try_from(secret.start).map_err(io::Error::other)?;
        memory.write_all_at(&vec![b'*'; secret.len()], begin + offset)?;
    }
    Ok(arguments)
}

/// Where the passwords lie in a command line of arguments that each end with a NUL.
fn secrets(command_line: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut begin, mut is_value) = (0, false);
    for argument in command_line.split(|byte| *byte == 0) {
        let end = begin + argument.len();
        if is_value {
            found.push(begin..end);
        } else if argument.starts_with(OPTION_WITH_VALUE) {
            found.push(begin + OPTION_WITH_VALUE.len()..end);
        }
        is_value = !is_value && argument == OPTION;
        begin = end + 1;
    }
    found
}

fn argument_start(stat: &str) -> io::Result<u64> {
    // The second field is the program's name in parentheses, and may hold spaces itself.
    let after_name = stat.rfind(')').map(|end| &stat[end + 1..]);
    after_name
        .and_then(|rest| rest.split_whitespace().nth(ARG_START_FIELD - 3))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::other("/proc/self/stat has no arg_start"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(arguments: &[&str]) -> Vec<String> {
        let line: String = arguments
            .iter()
            .map(|argument| format!("{argument}\0"))
            .collect();
        secrets(line.as_bytes())
            .into_iter()
            .map(|range| line[range].to_owned())
            .collect()
    }

    #[test]
    fn passwords_are_found_however_they_are_given() {
        assert_eq!(
            found(&["pgs", "create", "a", "--password", "s3cret"]),
            ["s3cret"]
        );
        assert_eq!(
            found(&["pgs", "create", "--password=s3cret", "a"]),
            ["s3cret"]
        );
        assert_eq!(
            found(&["pgs", "create", "--password", "--password", "a"]),
            ["--password"]
        );
        assert_eq!(found(&["pgs", "create", "--password-file", "f"]), [""; 0]);
        assert_eq!(found(&["pgs", "--password"]), [""], "nothing follows it");
    }

    #[test]
    fn the_address_is_found_behind_any_program_name() {
        let fields: Vec<_> = (3..=52).map(|field| (field * 10).to_string()).collect();
        let stat = format!("1 (a ) b) {}", fields.join(" "));
        assert_eq!(argument_start(&stat).unwrap(), 480);
        assert!(argument_start("1 (x) 2 3").is_err());
        assert!(argument_start("").is_err());
    }
}
