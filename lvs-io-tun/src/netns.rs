//! User and network namespaces, for demonstrations and tests that need network devices without touching the machine's.
//!
//! The order matters: first the process, while it has one thread, enters a user namespace (which makes it root there);
//! then each thread that wants a network of its own enters a network namespace. A file or socket keeps the namespace
//! it was opened in, whichever thread uses it later.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::Command;

use rustix::thread::LinkNameSpaceType;

use crate::sys::{self, Namespace};

/// Moves this process into a new user namespace, where it has every capability, as user and group 0.
/// To be called while the process has one thread: early in `main`, or in a re-executed test.
///
/// # Errors
/// `InvalidInput` (EINVAL) if the process has several threads; `PermissionDenied` (EPERM), or ENOSPC, where user
/// namespaces are not allowed to ordinary users (`kernel.unprivileged_userns_clone`, `user.max_user_namespaces`,
/// AppArmor's `apparmor_restrict_unprivileged_userns`, a container's seccomp filter).
pub fn enter_new_user_namespace() -> io::Result<()> {
    let (map_user, map_group) = root_maps();
    sys::unshare(Namespace::User)?;
    // Since Linux 3.19 a group map may only be written by an unprivileged user after setgroups is given up.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", map_user)?;
    fs::write("/proc/self/gid_map", map_group)
}

/// Makes the program that `command` will start live in a new user and network namespace, where it is root. For
/// processes that have threads already. `spawn` then fails with the error of [`enter_new_user_namespace`] if denied.
pub fn isolate(command: &mut Command) {
    let (map_user, map_group) = root_maps();
    sys::isolate(command, map_user, map_group);
}

/// The lines that make the present user and group number 0 of a new user namespace.
fn root_maps() -> (String, String) {
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    (format!("0 {user} 1"), format!("0 {group} 1"))
}

/// What [`rerun_test_isolated`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rerun {
    /// This is the process inside the namespaces: run the test's body.
    Inside,
    /// The test was run in a process inside, and passed.
    Passed,
    /// There can be no such process here; the text says what was denied.
    Denied(String),
}

/// Runs the calling test again in a process inside new user and network namespaces. Test runners have threads, so a
/// test cannot enter a user namespace itself.
///
/// ```no_run
/// # use lvs_io_tun::netns::{Rerun, rerun_test_isolated};
/// fn a_packet_crosses_the_device() {
///     match rerun_test_isolated("a_packet_crosses_the_device") {
///         Rerun::Inside => { /* open devices, add addresses, … */ }
///         Rerun::Passed => {}
///         Rerun::Denied(reason) => eprintln!("not run: {reason}"),
///     }
/// }
/// ```
///
/// # Panics
/// If the test failed inside; its output is part of the message.
pub fn rerun_test_isolated(test: &str) -> Rerun {
    const INSIDE: &str = "LVS_TEST_IS_ISOLATED";
    if env::var_os(INSIDE).is_some() {
        return Rerun::Inside;
    }
    let program = match env::current_exe() {
        Ok(program) => program,
        Err(error) => return Rerun::Denied(format!("this program's own file is unknown: {error}")),
    };
    let mut command = Command::new(program);
    command.args(["--exact", test, "--nocapture", "--include-ignored"]).env(INSIDE, "1");
    isolate(&mut command);
    match command.output() {
        Ok(output) if output.status.success() => {
            // What the test had to say, past the runner, which would keep it to itself. Nobody may be listening.
            let _ = io::stderr().write_all(&output.stderr);
            Rerun::Passed
        }
        Ok(output) => panic!(
            "{test} failed inside its namespaces ({}):\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        ),
        Err(error) => Rerun::Denied(format!("new user and network namespaces are not to be had: {error}")),
    }
}

/// Moves the calling thread into a new network namespace: no devices but a loopback that is down.
///
/// # Errors
/// `PermissionDenied` without CAP_SYS_ADMIN; see [`enter_new_user_namespace`].
pub fn enter_new_network_namespace() -> io::Result<()> {
    sys::unshare(Namespace::Network)
}

/// A network namespace, kept alive.
#[derive(Debug)]
pub struct NetworkNamespace {
    file: File,
}

impl NetworkNamespace {
    /// The calling thread's.
    ///
    /// # Errors
    /// If `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        Ok(Self { file: File::open("/proc/thread-self/ns/net")? })
    }

    /// Moves the calling thread into it.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_SYS_ADMIN.
    pub fn enter(&self) -> io::Result<()> {
        rustix::thread::move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(io::Error::from)
    }
}
