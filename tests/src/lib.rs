//! Shared pieces of the test suites.
//!
//! [`models`] and [`random`] say what is run, [`run`] and [`mesh`] run it on one node or several, [`turns`] with lanes in
//! every order; [`oracle`] says what is right and [`compare`] how far off a result is; [`golden`] and [`trace`] read what
//! the C++ system was recorded doing.
//! [`published`] writes models as others publish them, to be converted; [`worker`] listens on real sockets, [`relay`] stands before
//! it.

pub mod compare;
pub mod golden;
pub mod lives;
pub mod mesh;
pub mod models;
pub mod oracle;
pub mod published;
pub mod random;
pub mod relay;
pub mod run;
pub mod trace;
pub mod turns;
pub mod worker;
