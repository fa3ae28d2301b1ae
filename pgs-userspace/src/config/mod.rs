//! Every bound, every path and every setting of the program, in one place.

pub mod caution;
pub mod configuration;
pub mod directories;
pub mod file;
pub mod limits;
pub mod listen;
pub mod network;
pub mod section;
pub mod sections;
pub mod source;
pub mod value;
