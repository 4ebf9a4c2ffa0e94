//! A TUN device that goes down, or is deleted, under a running worker, and comes back. Where namespaces or
//! `/dev/net/tun` cannot be had, the tests say why and return.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lvs_core::answer_limit::AnswerRates;
use lvs_core::{Director, DirectorConfig, Seed, Side};
use lvs_io::{Arm, DeviceState, Host, HostConfig, OnDeviceLoss, OnPass, Steering, Worker, WorkerHandle, share};
use lvs_io_tun::{TunOptions, TunQueue, netdev};
use lvs_testkit::network::{self, Failure};

const DEVICE: &str = "lvst0";
/// Behind the device, each answered for by the stand-in for a host; a port where nobody listens.
const THERE: [&str; 2] = ["10.9.0.2:900", "[fd09::2]:900"];

fn isolated(test: &str, body: impl FnOnce() -> Result<(), Failure>) {
    network::isolated(test, network::tun_can_be_had, body);
}

/// Gives the device its addresses, and brings it up.
fn set_up() -> Result<(), Failure> {
    netdev::set_up(DEVICE)?;
    netdev::add_address(DEVICE, IpAddr::from([10, 9, 0, 1]), 24)?;
    if netdev::has_ipv6() {
        netdev::add_address(DEVICE, "fd09::1".parse()?, 64)?;
    }
    Ok(())
}

struct Running {
    handle: WorkerHandle,
    changes: Receiver<DeviceState>,
    thread: JoinHandle<io::Result<()>>,
}

/// A worker that answers for [`THERE`].
fn run(arm: Arm, on_loss: OnDeviceLoss) -> Result<Running, Failure> {
    let addresses = ["10.9.0.2", "fd09::2"].map(|text| text.parse().expect("an address"));
    let side = Side::default().with(|side| side.ipv4 = Some([10, 9, 0, 2].into()));
    // The host answers as often as it is asked.
    let answer_rates = AnswerRates::UNLIMITED;
    let local_addresses = addresses.to_vec();
    let config = HostConfig { local_addresses, client_side: side, answer_rates, ..HostConfig::default() };
    let (say, changes) = channel();
    let mut worker = Worker::new(Director::new(DirectorConfig::default(), Seed::new(1)), arm, None)?
        .with_on_pass(OnPass::Route(Box::new(Host::new(config, Seed::new(1)))))
        .with_on_device_loss(on_loss)
        .with_on_device_change(move |change| say.send(change.state).expect("the test listens"));
    Ok(Running { handle: worker.handle(), changes, thread: thread::spawn(move || worker.run()) })
}

impl Running {
    /// Waits until it says so of its device.
    fn wait_until(&self, state: DeviceState) -> Result<(), Failure> {
        while self.changes.recv_timeout(PATIENCE).map_err(|_| format!("the worker does not say: {state:?}"))? != state {
        }
        Ok(())
    }

    fn stop(self) -> Result<(), Failure> {
        self.handle.stop();
        Ok(self.thread.join().expect("a worker does not panic")?)
    }
}

/// What the kernel sends by the device arrives, and the answer comes back: that the port is closed.
fn check_traffic(when: &str) -> Result<(), Failure> {
    let versions = if netdev::has_ipv6() { 2 } else { 1 };
    for (own, there) in ["10.9.0.1:0", "[fd09::1]:0"].iter().zip(THERE).take(versions) {
        let socket = UdpSocket::bind(own)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(there)?;
        socket.send(b"is anybody there?")?;
        let refused = socket.recv(&mut [0; 16]).expect_err("nobody answers but the host");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{there}, {when}: {refused}");
    }
    Ok(())
}

/// Somebody makes a device of the same name.
fn make_again(options: &TunOptions) -> Result<(), Failure> {
    let mut queues =
        if options.queues > 1 { TunQueue::open_all(DEVICE, options)? } else { vec![TunQueue::open(DEVICE, options)?] };
    queues.truncate(1);
    queues[0].set_persistent(true)?;
    drop(queues);
    set_up()
}

#[test]
fn a_tun_device_that_was_down_serves_again_when_it_is_up() {
    isolated("a_tun_device_that_was_down_serves_again_when_it_is_up", || {
        let queue = TunQueue::open(DEVICE, &TunOptions::default())?;
        set_up()?;
        let running = run(queue.into_arm(), OnDeviceLoss::Wait)?;
        check_traffic("before")?;
        for _ in 0..3 {
            netdev::set_down(DEVICE)?;
            running.wait_until(DeviceState::Down)?;
            // The kernel takes IPv6 addresses away from a device that is down.
            netdev::set_up(DEVICE)?;
            running.wait_until(DeviceState::Present)?;
            if netdev::has_ipv6() {
                netdev::add_address(DEVICE, "fd09::1".parse()?, 64)?;
            }
            check_traffic("after it was down")?;
        }
        assert_eq!(running.handle.counters()?.client.device_lost, 3);
        running.stop()
    });
}

#[test]
fn a_tun_device_that_was_deleted_is_attached_to_again_when_there_is_one_of_its_name() {
    isolated("a_tun_device_that_was_deleted_is_attached_to_again_when_there_is_one_of_its_name", || {
        for offloads in [true, false] {
            let options = TunOptions { offloads, ..TunOptions::default() };
            let queue = TunQueue::open(DEVICE, &options)?;
            set_up()?;
            let running = run(queue.into_arm(), OnDeviceLoss::Wait)?;
            check_traffic("before")?;
            for _ in 0..3 {
                netdev::delete_link(DEVICE)?;
                running.wait_until(DeviceState::Gone)?;
                make_again(&options)?;
                running.wait_until(DeviceState::Present)?;
                check_traffic("after it was deleted")?;
            }
            running.stop()?;
            netdev::delete_link(DEVICE)?;
        }
        Ok(())
    });
}

#[test]
fn every_queue_of_a_deleted_tun_device_is_attached_to_the_next_one() {
    isolated("every_queue_of_a_deleted_tun_device_is_attached_to_the_next_one", || {
        let options = TunOptions { queues: 2, ..TunOptions::default() };
        let queues = TunQueue::open_all(DEVICE, &options)?;
        set_up()?;
        let arms = queues.into_iter().map(TunQueue::into_arm).collect();
        let arms = share(arms, &Steering::new(2, Vec::new(), Seed::new(7)), None)?;
        let running: Vec<Running> =
            arms.into_iter().map(|arm| run(arm, OnDeviceLoss::Wait)).collect::<Result<_, _>>()?;
        check_traffic("before")?;
        netdev::delete_link(DEVICE)?;
        running.iter().try_for_each(|running| running.wait_until(DeviceState::Gone))?;
        make_again(&options)?;
        running.iter().try_for_each(|running| running.wait_until(DeviceState::Present))?;
        for _ in 0..20 {
            check_traffic("after it was deleted")?;
        }
        running.into_iter().try_for_each(Running::stop)
    });
}

#[test]
fn a_worker_that_is_to_end_without_its_tun_device_says_why() {
    isolated("a_worker_that_is_to_end_without_its_tun_device_says_why", || {
        let queue = TunQueue::open(DEVICE, &TunOptions::default())?;
        set_up()?;
        let running = run(queue.into_arm(), OnDeviceLoss::End)?;
        check_traffic("before")?;
        netdev::set_down(DEVICE)?;
        let error = running.thread.join().expect("a worker does not panic").expect_err("it ends");
        assert_eq!(
            (error.kind(), error.to_string()),
            (io::ErrorKind::NetworkDown, "the clients' device is down".into())
        );
        Ok(())
    });
}

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
