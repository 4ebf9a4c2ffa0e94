//! Addresses that the host owns, and that the director can therefore not have: a command about one is refused as a start
//! with it would be, so that what was accepted is never in the way of the next start.

use std::net::IpAddr;

use lvs_core::{Command, ServiceKey};
use lvs_genl::Errno;
use lvs_genl::server::Refusal;
use lvs_io_tun::netdev;

use crate::address_owner::AddressOwner;
use crate::configuration::Configuration;

/// Why a command cannot be carried out with these devices, if it brings in an address that the host owns.
pub fn complaint(command: &Command, configuration: &Configuration) -> Option<String> {
    if configuration.devices.names().is_empty() {
        return None;
    }
    let address = match command {
        // Where they are the host's, it is right that it has them.
        Command::AddService(..) if configuration.addresses == AddressOwner::Host => return None,
        Command::AddService(ServiceKey::Address { address, .. }, _) => *address,
        Command::AddLocalAddress(_, address) => *address,
        _ => return None,
    };
    is_owned(address).then(|| {
        format!(
            "this host owns {address} and keeps its packets to itself: 'ip address delete {address} dev DEVICE' first"
        )
    })
}

/// The same as a refusal.
///
/// # Errors
/// The refusal.
pub fn refuse(command: &Command, configuration: &Configuration) -> Result<(), Refusal> {
    match complaint(command, configuration) {
        None => Ok(()),
        Some(text) => Err(Refusal { errno: Errno::ADDRESS_IN_USE, text: Some(text), at: None }),
    }
}

fn is_owned(address: IpAddr) -> bool {
    netdev::is_local(address).unwrap_or(false)
}
