//! The node towards its control plane: who it is ([`identity`]), how it became that ([`enrol`], [`renew`], `recover`), how it gets there
//! ([`uplink`]) and how it is ([`status`]). Never touches requests: an expired identity or a lost control plane stops no traffic.

pub mod enrol;
pub mod identity;
mod pin;
mod recover;
pub mod renew;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
pub mod token;
pub mod uplink;

pub use enrol::{EnrolError, Enrolment, join};
pub use identity::{Identity, IdentityError};
pub use renew::Renewal;
pub use status::Report;
pub use token::{JoinToken, TokenError};
pub use uplink::{Link, Uplink, UplinkError};

/// The version of this software, as the control plane sees it.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");
