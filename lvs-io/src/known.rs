//! What steering and the host stand-in know of the services, and how they learn that it has changed while a worker has
//! them: address by address, in the order of the commands that the worker carries out.

use std::net::IpAddr;

/// What an address is to a director.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AddressRole {
    /// A service's: the host stand-in answers for it where no service does.
    Virtual,
    /// A real server's: what comes from it is a reply, and what is for it leaves by the server side.
    Server,
    /// FullNAT's: what is for it belongs to the shard that its port names.
    Local,
}

/// An address has got a role, or has lost it.
///
/// ```
/// use lvs_core::Seed;
/// use lvs_io::{AddressChange, AddressRole, Steering};
///
/// let mut steering = Steering::new(2, Vec::new(), Seed::new(7));
/// let address = "10.0.0.2".parse().unwrap();
/// steering.learn(&AddressChange { role: AddressRole::Server, address, is_there: true });
/// assert!(steering.servers().contains(address));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressChange {
    /// What the address is, or was.
    pub role: AddressRole,
    /// The address.
    pub address: IpAddr,
    /// Whether it is that from now on.
    pub is_there: bool,
}
