//! The state machines as a person can read them. `snapshots/*_states.txt` are transcribed from what Linux IPVS 6.1 was
//! seen to do, not printed by this code: change them only with evidence.

use lvs_core::connection::{sctp, tcp};

fn check(printed: &str, snapshot: &str) {
    for (number, (printed, expected)) in printed.lines().zip(snapshot.lines()).enumerate() {
        assert_eq!(printed, expected, "line {}", number + 1);
    }
    assert_eq!(printed, snapshot);
}

#[test]
fn the_tcp_tables_are_those_of_the_snapshot() {
    check(&tcp::transition_table(), include_str!("snapshots/tcp_states.txt"));
}

#[test]
fn the_sctp_table_is_that_of_the_snapshot() {
    check(&sctp::transition_table(), include_str!("snapshots/sctp_states.txt"));
}
