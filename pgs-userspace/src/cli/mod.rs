//! The command line: clap types only, no behaviour.
