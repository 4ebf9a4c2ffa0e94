//! No way of IPv6 is shorter than what every sender may send: 1280 bytes (RFC 8200 §5). What is longer than a shorter way
//! takes would be answered with an MTU that no sender obeys, so such a way is refused when it is configured; Linux takes
//! IPv6 from such a device. A tunnel's own packets are fragmented by the director, which sends them. A link that
//! provides for 1280 bytes below IPv6 is said to take them.

use crate::director::tables::Tables;
use crate::error::ControlError;
use crate::flow::AddressFamily;
use crate::service::{ForwardMethod, ServerConfig, ServiceKey};
use crate::wire::ipv6::LEAST_MTU;

impl Tables<'_> {
    /// Whether the clients of a service can be reached.
    pub(super) fn check_client_mtu(&self, key: &ServiceKey) -> Result<(), ControlError> {
        match key.family() == AddressFamily::Ipv6 && self.site.config.client_side.mtu < LEAST_MTU {
            true => Err(ControlError::OutOfRange("the client side's MTU: clients of IPv6 send up to 1280 bytes")),
            false => Ok(()),
        }
    }

    /// Whether a server takes what its clients send.
    pub(super) fn check_server_mtu(&self, config: &ServerConfig) -> Result<(), ControlError> {
        let mtu = config.mtu.unwrap_or(self.site.config.server_side.mtu);
        let is_whole = config.key.address.is_ipv6() && config.forward != ForwardMethod::Tunnel;
        match (is_whole && mtu < LEAST_MTU, config.mtu) {
            (false, _) => Ok(()),
            (true, Some(_)) => Err(ControlError::OutOfRange("the MTU of an IPv6 server: at least 1280")),
            (true, None) => Err(ControlError::OutOfRange(
                "the server side's MTU is below 1280: an IPv6 server needs one of its own",
            )),
        }
    }
}
