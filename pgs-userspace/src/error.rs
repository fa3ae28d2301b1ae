//! What went wrong, by kind, and the exit code of each kind.
