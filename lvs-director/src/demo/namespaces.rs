//! Namespaces to play in: a user namespace in which this process is root over nothing but what it makes there, and
//! network namespaces, one a thread. Decides what to try, and what to advise where it is denied.
//! Nothing has to be taken down: the kernel removes namespaces with the last thread inside.

use std::io;

use lvs_io_tun::netns;
use rustix::io::Errno;

use crate::denied::Denied;

/// Enters a user namespace of this process's own, as its root, so that threads may make network namespaces.
/// Where that is denied to root, nothing is lost: root may make them anyway.
///
/// To be called before the process starts its first thread: the kernel refuses threaded processes (user_namespaces(7)).
///
/// # Errors
/// If user namespaces are denied and the caller is not root.
pub fn enter_user_namespace() -> Result<(), Denied> {
    // Asked beforehand: inside, until it is mapped, everybody is nobody.
    let is_root = rustix::process::geteuid().is_root();
    match netns::enter_new_user_namespace() {
        Err(cause) if !is_root => Err(user_namespace_denied(cause)),
        _ => Ok(()),
    }
}

fn user_namespace_denied(cause: io::Error) -> Denied {
    let remedy = match cause.raw_os_error() {
        Some(EACCES) => {
            "a security module restricts user namespaces: run as root, or (on Ubuntu) allow them with \
             'sysctl kernel.apparmor_restrict_unprivileged_userns=0'"
        }
        Some(ENOSPC) => "their number is limited: run as root, or raise 'sysctl user.max_user_namespaces'",
        Some(EINVAL) => "this kernel has none, or this process has several threads: run as root",
        _ => {
            "they are switched off for this user: run as root, or allow them with \
             'sysctl kernel.unprivileged_userns_clone=1', in a container with '--security-opt seccomp=unconfined'"
        }
    };
    Denied::new("make a user namespace", cause).remedy(remedy)
}

/// Moves the calling thread, and threads it starts from now on, into a new network namespace with nothing but a
/// loopback device that is down.
///
/// # Errors
/// If this process may not; see [`enter_user_namespace`].
pub fn enter_network_namespace() -> Result<(), Denied> {
    netns::enter_new_network_namespace().map_err(|cause| {
        let remedy = match cause.raw_os_error() {
            Some(ENOSPC) => "their number is limited: raise 'sysctl user.max_net_namespaces'",
            Some(EINVAL) => "this kernel has none",
            _ => {
                "a container or a security module forbids it: run as root with CAP_SYS_ADMIN, \
                 or (on Ubuntu) 'sysctl kernel.apparmor_restrict_unprivileged_userns=0'"
            }
        };
        Denied::new("make a network namespace", cause).remedy(remedy)
    })
}

const EACCES: i32 = Errno::ACCESS.raw_os_error();
const EINVAL: i32 = Errno::INVAL.raw_os_error();
const ENOSPC: i32 = Errno::NOSPC.raw_os_error();
