//! Whose the virtual addresses are: the host's, as with IPVS in a kernel and in every file of keepalived, or `lvsd`'s.

use clap::ValueEnum;
use serde::Deserialize;

/// Who owns the virtual addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressOwner {
    /// lvsd: it answers ARP and Neighbor Discovery for them, and the host must not own them
    #[default]
    Lvsd,
    /// The host: it answers ARP and Neighbor Discovery, and keepalived may move them
    Host,
}
