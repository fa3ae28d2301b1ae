//! Certificates: where their files lie, what is in them, and which one a client is shown.
//!
//! | module | its one idea |
//! |---|---|
//! | [`name`] | what a certificate is kept under: a host name, or the default |
//! | [`files`] | the layouts of files that are understood, and writing one of them |
//! | [`client_certificate`] | asking clients for certificates, and judging them |
//! | [`client_authorities`] | the files of those who sign them, read when they change |
//! | [`client_hello`] | which host a client asks for |
//! | [`certificate`] | one pair of files, read and found to fit together |
//! | [`store`] | all of them, reloaded when their files change |
//! | [`self_signed`] | a certificate for development |
//!
//! Private keys go from their file to rustls and nowhere else: no error, log line or `Debug` shows
//! any part of one.

pub mod certificate;
pub mod client_authorities;
pub mod client_certificate;
pub mod client_hello;
pub mod files;
pub mod name;
pub mod self_signed;
mod stamp;
pub mod store;
