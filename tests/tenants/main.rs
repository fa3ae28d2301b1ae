//! Tenants on a real Docker: passwords, confinement, crashes, what people do by hand.

mod crash;
mod life;
mod refusal;
mod secrecy;
