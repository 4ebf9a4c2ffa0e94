//! Which groups a device hears for the addresses added to it while it is open, as the kernel tells (`dev_mcast`). The
//! host has IPv6 switched off, so that it joins none meanwhile. Where namespaces cannot be had, the tests say why and
//! return.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::AsFd;

use lvs_io::netdev;
use lvs_io_afpacket::{AddressesHandle, AfPacketDevice, AfPacketOptions};
use lvs_testkit::network::{self, Failure};

/// Two addresses with the same last 24 bits, and their group; and where routers ask (ff02::1).
const ONE: &str = "2001:db8::1:80";
const OTHER: &str = "2001:db8:1::1:80";
const THEIR_GROUP: &str = "3333ff010080";
const ALL_NODES: &str = "333300000001";

/// Opens a device that answers for `at_start`. After each step it hears the groups named there, and no others but the
/// host's.
/// `test` is the calling test's name.
fn check(test: &str, at_start: &[&str], steps: &[(Step, &str, &[&str])]) {
    network::isolated(test, make, || {
        let before = users()?;
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let answers_for = at_start.iter().map(|text| address(text)).collect();
        let device = AfPacketDevice::open("left", &AfPacketOptions { answers_for, ..AfPacketOptions::default() })?;
        let addresses = device.addresses();
        for (number, (step, text, expected)) in steps.iter().enumerate() {
            step(&addresses, address(text))?;
            assert_eq!(joined_since(&before)?, *expected, "after step {number}");
        }
        drop((device, addresses));
        assert_eq!(joined_since(&before)?, [""; 0]);
        Ok(())
    });
}

type Step = fn(&AddressesHandle, IpAddr) -> Result<(), Failure>;

const ADD: Step = |addresses, address| Ok(addresses.add(address)?);
const REMOVE: Step = |addresses, address| {
    addresses.remove(address);
    Ok(())
};

fn make() -> Result<(), Failure> {
    // A kernel without IPv6 has no such file.
    let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    netdev::add_veth("left", "right", File::open("/proc/self/ns/net")?.as_fd())?;
    netdev::set_up("left")?;
    netdev::set_up("right")?;
    Ok(())
}

/// How many want each IPv6 group from `left`. Lines are: number, name, users, global users, address.
fn users() -> Result<BTreeMap<String, u32>, Failure> {
    let groups = fs::read_to_string("/proc/thread-self/net/dev_mcast")?;
    let of_left = |line: &str| match *line.split_whitespace().collect::<Vec<_>>() {
        [_, "left", users, _, group] if group.starts_with("3333") => Some((group.to_owned(), users.parse().ok()?)),
        _ => None,
    };
    Ok(groups.lines().filter_map(of_left).collect())
}

/// The groups that more want than before.
fn joined_since(before: &BTreeMap<String, u32>) -> Result<Vec<String>, Failure> {
    let joined = users()?.into_iter().filter(|(group, users)| *users > before.get(group).copied().unwrap_or(0));
    Ok(joined.map(|(group, _)| group).collect())
}

const BOTH: &[&str] = &[ALL_NODES, THEIR_GROUP];

#[test]
fn the_first_ipv6_address_lets_the_questions_of_routers_in() {
    let test = "the_first_ipv6_address_lets_the_questions_of_routers_in";
    check(test, &["192.0.2.80"], &[(ADD, "192.0.2.81", &[]), (ADD, ONE, BOTH), (REMOVE, ONE, &[])]);
}

#[test]
fn an_address_removed_twice_leaves_the_group_to_its_neighbour() {
    let test = "an_address_removed_twice_leaves_the_group_to_its_neighbour";
    let steps: &[(Step, &str, &[&str])] =
        &[(ADD, ONE, BOTH), (ADD, OTHER, BOTH), (REMOVE, ONE, BOTH), (REMOVE, ONE, BOTH), (REMOVE, OTHER, &[])];
    check(test, &[], steps);
}

#[test]
fn an_address_never_added_takes_no_group_along() {
    let test = "an_address_never_added_takes_no_group_along";
    check(test, &[], &[(ADD, ONE, BOTH), (REMOVE, OTHER, BOTH), (REMOVE, ONE, &[])]);
}

#[test]
fn an_address_added_twice_is_gone_when_removed_once() {
    let test = "an_address_added_twice_is_gone_when_removed_once";
    check(test, &[], &[(ADD, ONE, BOTH), (ADD, ONE, BOTH), (REMOVE, ONE, &[])]);
}

#[test]
fn groups_for_addresses_of_the_start_stay() {
    check(
        "groups_for_addresses_of_the_start_stay",
        &[ONE],
        &[(ADD, OTHER, BOTH), (REMOVE, OTHER, BOTH), (REMOVE, ONE, BOTH)],
    );
}
