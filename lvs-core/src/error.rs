//! What an administrator is told when a command is refused, in ipvsadm's wording.
//! A refused command has changed nothing.

use alloc::string::String;

use crate::service::{ServerKey, ServiceKey};

/// Why a [`crate::Command`] was refused. `Display` gives the sentence ipvsadm 1.31 prints; the fields name the culprit.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The service to add is there already (`EEXIST`).
    #[error("Service already exists")]
    ServiceExists(ServiceKey),
    /// The service to edit, delete or zero does not exist (`ESRCH`).
    #[error("No such service")]
    NoSuchService(ServiceKey),
    /// The service a server command names does not exist (`ESRCH`).
    #[error("Service not defined")]
    ServiceNotDefined(ServiceKey),
    /// The server to add is there already (`EEXIST`).
    #[error("Destination already exists")]
    ServerExists(ServerKey),
    /// The server to edit or delete does not exist (`ENOENT`).
    #[error("No such destination")]
    NoSuchServer(ServerKey),
    /// No scheduler or persistence engine has this name (`ENOENT`).
    #[error("Scheduler or persistence engine not found")]
    NoSuchScheduler(String),
    /// No protocol helper has this name.
    #[error("Helper not found")]
    NoSuchHelper(String),
    /// An argument the kernel refuses (`EINVAL`); the field says which and why.
    #[error("Invalid operation.  Possibly wrong module version, address not unicast, ...")]
    Invalid(&'static str),
    /// A number out of range (`ERANGE`), such as a lower threshold above the upper one; the field says which.
    #[error("Numerical result out of range")]
    OutOfRange(&'static str),
    /// A table has reached its configured bound (`ENOMEM`); the field names the bound in [`crate::DirectorConfig`].
    #[error("Cannot allocate memory")]
    TableFull(&'static str),
}
