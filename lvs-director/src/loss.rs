//! What `lvsd run` says and does when a device goes down or is deleted under it.

use lvs_core::Direction;
use lvs_io::{DeviceState, Worker};

use crate::args::OnDeviceLoss;
use crate::say;

/// The worker of a shard, which does that. The first one speaks for all: each has a queue of every device.
pub(crate) fn followed(worker: Worker, shard: usize, names: &[String], on_loss: OnDeviceLoss) -> Worker {
    let names = names.to_vec();
    let worker = match on_loss {
        OnDeviceLoss::Wait => worker.with_on_device_loss(lvs_io::OnDeviceLoss::Wait),
        OnDeviceLoss::End => worker.with_on_device_loss(lvs_io::OnDeviceLoss::End),
    };
    if shard > 0 {
        return worker;
    }
    worker.with_on_device_change(move |change| {
        // With one device it is both sides'.
        let name = match change.side {
            Direction::Request => names.first(),
            Direction::Reply => names.last(),
        };
        let name = name.map_or("the device", String::as_str);
        match (change.state, on_loss) {
            (DeviceState::Present, _) => say::note(format_args!("{name} is back: forwarding goes on")),
            (DeviceState::Down, OnDeviceLoss::Wait) => say::warning(format_args!(
                "{name} is down: nothing is forwarded until it is up again ('ip link set {name} up')"
            )),
            (DeviceState::Gone, OnDeviceLoss::Wait) => say::warning(format_args!(
                "{name} was deleted: nothing is forwarded until there is a device of this name"
            )),
            (DeviceState::Down, OnDeviceLoss::End) => say::warning(format_args!("{name} is down")),
            (DeviceState::Gone, OnDeviceLoss::End) => say::warning(format_args!("{name} was deleted")),
        }
    })
}
