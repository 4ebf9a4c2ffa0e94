//! TCP connection states, as a director sees them from the middle of the path.
//! A table, not code: state × segment × role; `timeouts.rs` says how long each state lasts.
//! States, names and transitions follow Linux IPVS 6.1; segment flags RFC 9293 §3.1.

use alloc::format;
use alloc::string::String;

use crate::connection::timeouts::Timeouts;
use crate::connection::{Role, State};

/// A TCP connection's state, with Linux's number.
///
/// ```
/// use lvs_core::connection::Role;
/// use lvs_core::connection::tcp::{Segment, TcpState};
///
/// let opened = TcpState::None.next(Some(Segment::Syn), Role::Input, false);
/// assert_eq!(opened.name(), "SYN_RECV");
/// let established = opened.next(Some(Segment::Ack), Role::Input, false);
/// assert!(established.is_active());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum TcpState {
    /// No segment seen yet.
    None = 0,
    /// Data flows.
    Established = 1,
    /// The server opened.
    SynSent = 2,
    /// The client opened.
    SynRecv = 3,
    /// The server closed its side; the client too, where replies bypass the director.
    FinWait = 4,
    /// Both sides closed.
    TimeWait = 5,
    /// Reset, or never properly opened.
    Close = 6,
    /// The client closed its side.
    CloseWait = 7,
    /// Not reached from other states; a sync peer may name it.
    LastAck = 8,
    /// Expected: an FTP data connection that was announced.
    Listen = 9,
    /// `secure_tcp`: the server has answered the client's SYN.
    SynAck = 10,
}

impl TcpState {
    /// All states by number.
    pub const ALL: [Self; 11] = [NO, ES, SS, SR, FW, TW, CL, CW, LA, LI, SA];

    /// The state after a segment of this class (`None`: it has neither RST, SYN, FIN nor ACK) from this side.
    /// `secure` chooses the stricter table (sysctl `secure_tcp`).
    #[must_use]
    pub const fn next(self, segment: Option<Segment>, role: Role, secure: bool) -> Self {
        let table = if secure { &SECURE } else { &NORMAL };
        match segment {
            Some(segment) => table[role as usize][segment as usize][self as usize],
            None => Self::Close,
        }
    }

    /// Whether its server counts a connection in this state as active.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Established | Self::SynSent | Self::SynRecv | Self::SynAck)
    }

    /// As `ipvsadm -Lc` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait => "FIN_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::SynAck => "SYNACK",
        }
    }

    /// The state with this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        if (number as usize) < Self::ALL.len() { Some(Self::ALL[number as usize]) } else { None }
    }

    /// Its two letters in the tables.
    const fn abbreviation(self) -> &'static str {
        ["NO", "ES", "SS", "SR", "FW", "TW", "CL", "CW", "LA", "LI", "SA"][self as usize]
    }
}

/// What a segment means to the state machine. RST outweighs SYN, SYN FIN, and FIN ACK.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Segment {
    /// SYN, with or without ACK.
    Syn,
    /// FIN without SYN.
    Fin,
    /// ACK alone.
    Ack,
    /// RST, whatever else.
    Rst,
}

impl Segment {
    /// All classes in the order of the tables.
    pub const ALL: [Self; 4] = [Self::Syn, Self::Fin, Self::Ack, Self::Rst];

    /// The class of a segment with these flags (the header's fourteenth byte); `None` if none of the four is set.
    pub const fn from_flags(flags: u8) -> Option<Self> {
        // RFC 9293 §3.1: CWR ECE URG ACK PSH RST SYN FIN.
        match flags {
            flags if flags & 0x04 != 0 => Some(Self::Rst),
            flags if flags & 0x02 != 0 => Some(Self::Syn),
            flags if flags & 0x01 != 0 => Some(Self::Fin),
            flags if flags & 0x10 != 0 => Some(Self::Ack),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        ["SYN", "FIN", "ACK", "RST"][self as usize]
    }
}

/// Both state machines as text: states with their default timeouts, then who goes where.
/// ```
/// # use lvs_core::connection::tcp::transition_table;
/// assert!(transition_table().starts_with("TCP states"));
/// ```
pub fn transition_table() -> String {
    let mut text = String::from("TCP states\n\n");
    let timeouts = Timeouts::default();
    for state in TcpState::ALL {
        let timeout_s = timeouts.of(State::Tcp(state)).as_secs();
        let active = if state.is_active() { "  active" } else { "" };
        text += &format!("{}  {:<11} {timeout_s:>3} s{active}\n", state.abbreviation(), state.name());
    }
    for (title, secure) in [("TCP, normal table", false), ("TCP, secure_tcp table", true)] {
        text += &format!("\n{title}\n");
        for role in Role::ALL {
            text += &format!("\n{}\n    ", role.heading());
            TcpState::ALL.iter().for_each(|state| text += &format!(" {}", state.abbreviation()));
            for segment in Segment::ALL {
                text += &format!("\n{:<4}", segment.name());
                for state in TcpState::ALL {
                    let next = state.next(Some(segment), role, secure);
                    text += &format!(" {}", next.abbreviation());
                }
            }
            text.push('\n');
        }
    }
    text
}

/// `[role][segment][state]` → next state.
type Table = [[[TcpState; 11]; 4]; 3];

const NO: TcpState = TcpState::None;
const ES: TcpState = TcpState::Established;
const SS: TcpState = TcpState::SynSent;
const SR: TcpState = TcpState::SynRecv;
const FW: TcpState = TcpState::FinWait;
const TW: TcpState = TcpState::TimeWait;
const CL: TcpState = TcpState::Close;
const CW: TcpState = TcpState::CloseWait;
const LA: TcpState = TcpState::LastAck;
const LI: TcpState = TcpState::Listen;
const SA: TcpState = TcpState::SynAck;

/// `secure_tcp` off.
#[rustfmt::skip]
static NORMAL: Table = [
    [ // INPUT
        // NO, ES, SS, SR, FW, TW, CL, CW, LA, LI, SA
        [ SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR ], // SYN
        [ CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW ], // FIN
        [ ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES ], // ACK
        [ CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR ], // RST
    ],
    [ // OUTPUT
        // NO, ES, SS, SR, FW, TW, CL, CW, LA, LI, SA
        [ SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR ], // SYN
        [ TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW ], // FIN
        [ ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES ], // ACK
        [ CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL ], // RST
    ],
    [ // INPUT_ONLY
        // NO, ES, SS, SR, FW, TW, CL, CW, LA, LI, SA
        [ SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR ], // SYN
        [ CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW ], // FIN
        [ ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES ], // ACK
        [ CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL ], // RST
    ],
];

/// `secure_tcp` on: a connection counts as established only after the server has answered the handshake.
#[rustfmt::skip]
static SECURE: Table = [
    [ // INPUT
        // NO, ES, SS, SR, FW, TW, CL, CW, LA, LI, SA
        [ SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA ], // SYN
        [ CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA ], // FIN
        [ ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA ], // ACK
        [ CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL ], // RST
    ],
    [ // OUTPUT
        // NO, ES, SS, SR, FW, TW, CL, CW, LA, LI, SA
        [ SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA ], // SYN
        [ TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW ], // FIN
        [ ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES ], // ACK
        [ CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL ], // RST
    ],
    [ // INPUT_ONLY
        // NO, ES, SS, SR, FW, TW, CL, CW, LA, LI, SA
        [ SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA ], // SYN
        [ CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW ], // FIN
        [ ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES ], // ACK
        [ CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL ], // RST
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows `segments` from NONE; `C` before a segment is the client, `S` the server.
    fn walk(segments: &str, replies_pass: bool, secure: bool) -> &'static str {
        let mut client_role = if replies_pass { Role::Input } else { Role::InputOnly };
        let mut state = TcpState::None;
        for step in segments.split(' ') {
            let (side, segment) = step.split_at(1);
            let segment = match segment {
                "syn" => Some(Segment::Syn),
                "fin" => Some(Segment::Fin),
                "ack" => Some(Segment::Ack),
                "rst" => Some(Segment::Rst),
                _ => None,
            };
            let role = if side == "C" { client_role } else { Role::Output };
            if role == Role::Output {
                client_role = Role::Input; // the first reply clears NOOUTPUT for good
            }
            state = state.next(segment, role, secure);
        }
        state.name()
    }

    #[test]
    fn a_translated_connection_lives_as_linux_was_seen_to_track_it() {
        assert_eq!(walk("Csyn", true, false), "SYN_RECV");
        assert_eq!(walk("Csyn Ssyn", true, false), "SYN_RECV");
        assert_eq!(walk("Csyn Ssyn Cack", true, false), "ESTABLISHED");
        assert_eq!(walk("Csyn Ssyn Cack Cfin", true, false), "CLOSE_WAIT");
        assert_eq!(walk("Csyn Ssyn Cack Sfin", true, false), "FIN_WAIT");
        assert_eq!(walk("Csyn Ssyn Cack Cfin Sfin", true, false), "TIME_WAIT");
        assert_eq!(walk("Csyn Ssyn Cack Srst", true, false), "CLOSE");
    }

    #[test]
    fn a_connection_whose_replies_bypass_the_director_ends_in_fin_wait() {
        assert_eq!(walk("Csyn Cack", false, false), "ESTABLISHED");
        assert_eq!(walk("Csyn Cack Cfin", false, false), "FIN_WAIT");
        assert_eq!(walk("Csyn Cack Cfin Csyn", false, false), "SYN_RECV");
        assert_eq!(walk("Csyn Sack Cack Cfin", false, false), "CLOSE_WAIT"); // replies pass after all
    }

    #[test]
    fn secure_tcp_establishes_only_after_the_server_has_answered_twice() {
        assert_eq!(walk("Csyn Cack", true, true), "SYN_RECV");
        assert_eq!(walk("Csyn Ssyn", true, true), "SYNACK");
        assert_eq!(walk("Csyn Ssyn Cack", true, true), "SYNACK");
        assert_eq!(walk("Csyn Ssyn Cack Sack", true, true), "ESTABLISHED");
    }

    #[test]
    fn a_clients_reset_of_a_half_open_connection_changes_nothing_and_a_servers_closes_it() {
        assert_eq!(walk("Csyn Crst", true, false), "SYN_RECV");
        assert_eq!(walk("Csyn Srst", true, false), "CLOSE");
    }

    #[test]
    fn a_segment_without_flags_closes_in_every_state() {
        for state in TcpState::ALL {
            for role in Role::ALL {
                assert_eq!(state.next(None, role, false), TcpState::Close);
                assert_eq!(state.next(None, role, true), TcpState::Close);
            }
        }
    }

    #[test]
    fn reset_outweighs_syn_outweighs_fin_outweighs_ack() {
        // Flags: ACK 0x10, PSH 0x08, RST 0x04, SYN 0x02, FIN 0x01.
        assert_eq!(Segment::from_flags(0x17), Some(Segment::Rst));
        assert_eq!(Segment::from_flags(0x13), Some(Segment::Syn));
        assert_eq!(Segment::from_flags(0x19), Some(Segment::Fin));
        assert_eq!(Segment::from_flags(0x18), Some(Segment::Ack));
        assert_eq!(Segment::from_flags(0xe8), None);
    }

    #[test]
    fn numbers_are_those_of_the_sync_wire() {
        for (number, state) in TcpState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
            assert_eq!(TcpState::from_number(number as u8), Some(state));
        }
        assert_eq!(TcpState::from_number(11), None);
    }
}
