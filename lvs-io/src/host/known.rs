//! Addresses that the host gets and loses as services come and go.

use std::net::IpAddr;

use super::Host;
use crate::known::{AddressChange, AddressRole};

impl Host {
    /// Takes in that a virtual address, or a server, has come or gone. It answers no more for a virtual address that has
    /// gone; nor does it route what is still sent there, which would come back as long as the routes lead here.
    pub fn learn(&mut self, change: &AddressChange) {
        match (change.role, change.is_there) {
            (AddressRole::Virtual, true) => {
                self.own.insert(change.address);
                if self.former.contains(change.address) {
                    self.former.remove(change.address);
                    self.former_count -= 1;
                }
            }
            (AddressRole::Virtual, false) => self.give_up(change.address),
            (AddressRole::Server, true) => self.servers.insert(change.address),
            (AddressRole::Server, false) => self.servers.remove(change.address),
            (AddressRole::Local, _) => {}
        }
    }

    fn give_up(&mut self, address: IpAddr) {
        let sides = [&self.config.client_side, &self.config.server_side];
        let is_of_a_side = sides.into_iter().any(|side| match address {
            IpAddr::V4(address) => side.ipv4 == Some(address),
            IpAddr::V6(address) => side.ipv6 == Some(address),
        });
        if is_of_a_side || !self.own.contains(address) {
            return;
        }
        self.own.remove(address);
        if self.former_count < FORMER_MAX {
            self.former.insert(address);
            self.former_count += 1;
        }
    }
}

/// Most addresses given up that are remembered; packets for others are routed.
const FORMER_MAX: usize = 65_536;
