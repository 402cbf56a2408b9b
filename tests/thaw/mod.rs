//! A session that is frozen, and thawed on another instance of its database, which
//! was closed in between. The worker has no part in it: what is shown here is that
//! the value has all of a session.

mod carried;
mod pins;
pub mod rig;
mod stream;
mod temporary;
