//! Every bound and every path of the program, in one place.

pub mod directories;
pub mod limits;
