//! The errors of the protocol: Linux's numbers, as answers carry them.

use core::fmt;

use lvs_core::ControlError;

macro_rules! errors {
    ($($(#[$doc:meta])+ $name:ident = $number:literal, $text:literal;)+) => {
        impl Errno {
            $($(#[$doc])+ pub const $name: Self = Self($number);)+
        }

        impl fmt::Display for Errno {
            /// In the words of the C library.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($number => f.write_str($text),)+
                    number => write!(f, "Unknown error {number}"),
                }
            }
        }
    };
}

/// Why a request was refused: a positive `errno` of Linux.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Errno(pub i32);

errors! {
    /// The asker is not allowed to.
    NOT_PERMITTED = 1, "Operation not permitted";
    /// No such scheduler, engine, server, family or setting.
    NO_ENTRY = 2, "No such file or directory";
    /// No such service, or no daemon runs.
    NO_SUCH = 3, "No such process";
    /// A table is full.
    NO_MEMORY = 12, "Cannot allocate memory";
    /// The service, server or daemon is there already.
    EXISTS = 17, "File exists";
    /// No such interface.
    NO_DEVICE = 19, "No such device";
    /// A value is missing, too short, or refused.
    INVALID = 22, "Invalid argument";
    /// A number is out of range, or an attribute too short for its type.
    RANGE = 34, "Numerical result out of range";
    /// No service of IPVS has this protocol.
    PROTOCOL = 93, "Protocol not supported";
    /// The family has no such command, or not in this form.
    NOT_SUPPORTED = 95, "Operation not supported";
    /// Neither IPv4 nor IPv6.
    FAMILY = 97, "Address family not supported by protocol";
    /// The host has the address itself.
    ADDRESS_IN_USE = 98, "Address already in use";
    /// The interface has no address of the family that is asked for.
    UNREACHABLE = 101, "Network is unreachable";
    /// Nobody answers at the socket.
    REFUSED = 111, "Connection refused";
}

impl core::error::Error for Errno {}

impl From<&ControlError> for Errno {
    /// As Linux answers; refusals that Linux does not have take the nearest number.
    fn from(error: &ControlError) -> Self {
        match error {
            ControlError::ServiceExists(_) | ControlError::ServerExists(_) | ControlError::LocalAddressExists(_) => {
                Self::EXISTS
            }
            ControlError::NoSuchService(_) | ControlError::ServiceNotDefined(_) => Self::NO_SUCH,
            ControlError::NoSuchServer(_)
            | ControlError::NoSuchLocalAddress(_)
            | ControlError::NoSuchScheduler(_)
            | ControlError::NoSuchHelper(_) => Self::NO_ENTRY,
            ControlError::OutOfRange(_) => Self::RANGE,
            ControlError::TableFull(_) => Self::NO_MEMORY,
            _ => Self::INVALID,
        }
    }
}

impl From<ControlError> for Errno {
    fn from(error: ControlError) -> Self {
        Self::from(&error)
    }
}
