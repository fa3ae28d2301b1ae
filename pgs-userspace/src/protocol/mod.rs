//! PostgreSQL's wire protocol, version 3: bytes in, values or errors out. No I/O, no panic on input.
