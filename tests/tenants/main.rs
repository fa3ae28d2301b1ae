//! Tenants on a real Docker: passwords, confinement, crashes, what people do by hand.

mod crash;
mod ends;
mod held_up;
mod json;
mod life;
mod refusal;
mod secrecy;
mod terminal;
