//! How long a connection lives after its last packet, by state. Defaults are Linux IPVS's.
//! Three of them an operator can set (`ipvsadm --set tcp tcpfin udp`); the others are fixed.

use core::time::Duration;

use crate::connection::State;
use crate::connection::sctp::SctpState;
use crate::connection::tcp::TcpState;

/// A connection's timeout before its first state transition.
pub const NEW_CONNECTION: Duration = Duration::from_secs(3);

/// What a connection or template whose time is over gets while others still belong to it. It keeps this timeout.
pub const KEPT_FOR_CHILDREN: Duration = Duration::from_secs(60);

/// The timeout of every state. One table serves the normal and the `secure_tcp` machine.
///
/// ```
/// use core::time::Duration;
/// use lvs_core::connection::State;
/// use lvs_core::connection::tcp::TcpState;
/// use lvs_core::connection::timeouts::Timeouts;
///
/// let mut timeouts = Timeouts::default();
/// assert_eq!(timeouts.of(State::Tcp(TcpState::Established)), Duration::from_secs(900));
/// timeouts.set(Some(Duration::from_secs(60)), None, None); // ipvsadm --set 60 0 0
/// assert_eq!(timeouts.of(State::Tcp(TcpState::Established)), Duration::from_secs(60));
/// assert_eq!(timeouts.of(State::Udp), Duration::from_secs(300));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Timeouts {
    tcp: [Duration; TcpState::ALL.len()],
    udp: Duration,
    sctp: [Duration; SctpState::ALL.len()],
}

impl Timeouts {
    /// How long a connection that has just come into (or stayed in) `state` lives.
    #[inline]
    pub const fn of(&self, state: State) -> Duration {
        match state {
            State::Tcp(state) => self.tcp[state as usize],
            State::Udp => self.udp,
            State::Sctp(state) => self.sctp[state as usize],
        }
    }

    /// Sets TCP ESTABLISHED, TCP FIN_WAIT (and no other closing state) and UDP; `None` leaves one as it is.
    /// A connection takes its new timeout with its next packet. ipvsadm: `--set`, where 0 is `None`.
    pub fn set(&mut self, tcp: Option<Duration>, tcp_fin: Option<Duration>, udp: Option<Duration>) {
        self.tcp[TcpState::Established as usize] = tcp.unwrap_or(self.tcp[TcpState::Established as usize]);
        self.tcp[TcpState::FinWait as usize] = tcp_fin.unwrap_or(self.tcp[TcpState::FinWait as usize]);
        self.udp = udp.unwrap_or(self.udp);
    }
}

impl Default for Timeouts {
    /// Linux's.
    fn default() -> Self {
        Self {
            tcp: TCP_S.map(Duration::from_secs),
            udp: Duration::from_secs(UDP_S),
            sctp: SCTP_S.map(Duration::from_secs),
        }
    }
}

/// NONE ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN SYNACK
const TCP_S: [u64; TcpState::ALL.len()] = [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120];
const UDP_S: u64 = 300;
/// NONE INIT1 INIT C-SENT C-REPLIED C-WAIT COOKIE C-ECHOED ESTABLISHED S-SENT S-RECEIVED S-ACK-SENT REJECTED CLOSED
const SCTP_S: [u64; SctpState::ALL.len()] = [2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_changes_established_fin_wait_and_udp_and_nothing_else() {
        let seconds = |s| Some(Duration::from_secs(s));
        let mut timeouts = Timeouts::default();
        timeouts.set(None, None, None);
        assert_eq!(timeouts, Timeouts::default());
        timeouts.set(seconds(1), seconds(5), seconds(7));
        let tcp = TcpState::ALL.map(|state| timeouts.of(State::Tcp(state)).as_secs());
        assert_eq!(tcp, [2, 1, 120, 60, 5, 120, 10, 60, 30, 120, 120]);
        assert_eq!(timeouts.of(State::Udp).as_secs(), 7);
        for state in SctpState::ALL {
            assert_eq!(timeouts.of(State::Sctp(state)), Timeouts::default().of(State::Sctp(state)));
        }
    }
}
