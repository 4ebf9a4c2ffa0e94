//! What a worker does when a device goes down or is deleted under it: waits until it is back, or ends. Whoever set the
//! worker up is told either way.

use std::fmt;
use std::io;

use lvs_core::Direction;

use crate::device::DeviceState;

/// What a worker does without its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnDeviceLoss {
    /// Goes on: the director keeps its tables, and packets come and go again when the device does.
    #[default]
    Wait,
    /// Ends with [`DeviceLost`], for a supervisor to act on.
    End,
}

/// A device's state has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceChange {
    /// Which device: `Request` packets come by the clients' one, or the only one, `Reply` packets by the servers'.
    pub side: Direction,
    /// What it is like now.
    pub state: DeviceState,
}

/// Why a worker has ended: its device was lost, and [`OnDeviceLoss::End`] was asked for. Inside an `io::Error` of kind
/// `NetworkDown`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceLost(pub DeviceChange);

impl fmt::Display for DeviceLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.0.side {
            Direction::Request => "clients'",
            Direction::Reply => "servers'",
        };
        let what = match self.0.state {
            DeviceState::Present => "is back",
            DeviceState::Down => "is down",
            DeviceState::Gone => "was deleted",
        };
        write!(f, "the {side} device {what}")
    }
}

impl std::error::Error for DeviceLost {}

/// How a worker follows its devices.
pub(crate) struct Presence {
    pub on_loss: OnDeviceLoss,
    pub on_change: Box<dyn FnMut(DeviceChange) + Send>,
    /// The clients' device, and the servers'.
    known: [DeviceState; 2],
}

impl Default for Presence {
    fn default() -> Self {
        Self { on_loss: OnDeviceLoss::Wait, on_change: Box::new(|_| {}), known: [DeviceState::Present; 2] }
    }
}

impl Presence {
    /// Takes in the state of device `arm`. Returns whether it has just been lost.
    ///
    /// # Errors
    /// It has, and that ends the worker.
    pub fn follow(&mut self, arm: usize, state: DeviceState) -> io::Result<bool> {
        if self.known[arm] == state {
            return Ok(false);
        }
        let before = std::mem::replace(&mut self.known[arm], state);
        let side = if arm == 0 { Direction::Request } else { Direction::Reply };
        let change = DeviceChange { side, state };
        (self.on_change)(change);
        if state != DeviceState::Present && self.on_loss == OnDeviceLoss::End {
            return Err(io::Error::new(io::ErrorKind::NetworkDown, DeviceLost(change)));
        }
        Ok(before == DeviceState::Present)
    }
}
