//! What `lvsd` may do from the moment its devices and sockets are open: work on the network (CAP_NET_ADMIN, CAP_NET_RAW), to
//! set routes and open a device again, and nothing else that root may (capabilities(7)). Files are still its own user's:
//! those in /run/lvs are root's where root has started it.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

use crate::denied::Denied;

/// Gives up every other capability, also for programs it would start, and the right to get one by starting a program. Of the
/// calling thread and those it starts: to be called before there are others.
///
/// # Errors
/// The system refuses to take them.
pub fn keep_the_network_alone() -> Result<(), Denied> {
    let denied = |cause: rustix::io::Errno| Denied::new("give up the rights of root", cause.into());
    let kept = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
    // An ordinary user cannot shrink the bounding set, and needs not: without rights there is nothing to be bounded.
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if !kept.contains(one) && capability_is_in_bounding_set(one).unwrap_or(false) {
            let _ = remove_capability_from_bounding_set(one);
        }
    }
    let CapabilitySets { effective, permitted, inheritable } = capabilities(None).map_err(denied)?;
    // The ambient set follows: it holds nothing that is not permitted and inheritable.
    let sets =
        CapabilitySets { effective: effective & kept, permitted: permitted & kept, inheritable: inheritable & kept };
    set_capabilities(None, sets).map_err(denied)?;
    set_no_new_privs(true).map_err(denied)
}
