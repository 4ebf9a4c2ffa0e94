//! The commands for FullNAT's local addresses.

use crate::director::Director;
use crate::error::ControlError;
use crate::local_address::LOCAL_ADDRESSES_MAX;
use crate::service::ServiceKey;
use core::net::IpAddr;

impl Director {
    pub(in crate::director) fn add_local_address(
        &mut self,
        key: &ServiceKey,
        address: IpAddr,
    ) -> Result<(), ControlError> {
        let index = self.services.table.index_of(key).ok_or(ControlError::ServiceNotDefined(*key))?;
        crate::director::control::check_unicast(address, "the local address is not unicast")?;
        let service = self.services.table.get_mut(index).expect("the index was just found");
        if service.local_addresses.contains(&address) {
            return Err(ControlError::LocalAddressExists(address));
        }
        if service.local_addresses.len() == LOCAL_ADDRESSES_MAX {
            return Err(ControlError::TableFull("local addresses of a service"));
        }
        service.local_addresses.push(address);
        self.flows.full_nat.pool.join(address);
        Ok(())
    }

    pub(in crate::director) fn delete_local_address(
        &mut self,
        key: &ServiceKey,
        address: IpAddr,
    ) -> Result<(), ControlError> {
        let index = self.services.table.index_of(key).ok_or(ControlError::ServiceNotDefined(*key))?;
        let service = self.services.table.get_mut(index).expect("the index was just found");
        let position = service.local_addresses.iter().position(|known| *known == address);
        let position = position.ok_or(ControlError::NoSuchLocalAddress(address))?;
        service.local_addresses.remove(position);
        self.flows.full_nat.pool.leave(address);
        Ok(())
    }
}
