//! SCTP association states, as a director sees them from the middle of the path.
//! A table, not code: state × chunk × role; `timeouts.rs` says how long each state lasts.
//! States, names and transitions follow Linux IPVS 6.1; chunk types RFC 9260 §3.2.

use alloc::format;
use alloc::string::String;

use crate::connection::timeouts::Timeouts;
use crate::connection::{Role, State};

/// An SCTP association's state, with Linux's number.
///
/// ```
/// use lvs_core::connection::Role;
/// use lvs_core::connection::sctp::{ChunkEvent, SctpState};
///
/// const INIT: u8 = 1; // RFC 9260 §3.2
/// let opened = SctpState::None.next(ChunkEvent::from_chunks(INIT, None), Role::Input);
/// assert_eq!(opened.name(), "INIT1");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum SctpState {
    /// No chunk seen yet.
    None = 0,
    /// The client's first INIT.
    Init1 = 1,
    /// The client's INIT was repeated.
    Init = 2,
    /// The server answered with INIT ACK.
    CookieSent = 3,
    /// The client echoed the cookie.
    CookieReplied = 4,
    /// The server opened with INIT.
    CookieWait = 5,
    /// The client answered with INIT ACK.
    Cookie = 6,
    /// The server echoed the cookie.
    CookieEchoed = 7,
    /// Data flows.
    Established = 8,
    /// The server began to shut down.
    ShutdownSent = 9,
    /// The client began to shut down.
    ShutdownReceived = 10,
    /// The server acknowledged the shutdown.
    ShutdownAckSent = 11,
    /// Aborted before it was open.
    Rejected = 12,
    /// Shut down or aborted.
    Closed = 13,
}

impl SctpState {
    /// All states by number.
    pub const ALL: [Self; 14] = [NO, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL];

    /// The state after a packet with this event from this side.
    #[must_use]
    pub const fn next(self, event: ChunkEvent, role: Role) -> Self {
        TRANSITIONS[role as usize][event as usize][self as usize]
    }

    /// Whether its server counts an association in this state as active.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Established)
    }

    /// As `ipvsadm -Lc` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Init1 => "INIT1",
            Self::Init => "INIT",
            Self::CookieSent => "C-SENT",
            Self::CookieReplied => "C-REPLIED",
            Self::CookieWait => "C-WAIT",
            Self::Cookie => "COOKIE",
            Self::CookieEchoed => "C-ECHOED",
            Self::Established => "ESTABLISHED",
            Self::ShutdownSent => "S-SENT",
            Self::ShutdownReceived => "S-RECEIVED",
            Self::ShutdownAckSent => "S-ACK-SENT",
            Self::Rejected => "REJECTED",
            Self::Closed => "CLOSED",
        }
    }

    /// The state with this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        if (number as usize) < Self::ALL.len() { Some(Self::ALL[number as usize]) } else { None }
    }

    /// Its two letters in the tables.
    const fn abbreviation(self) -> &'static str {
        ["NO", "I1", "IN", "CS", "CR", "CW", "CO", "CE", "ES", "SS", "SR", "SA", "RJ", "CL"][self as usize]
    }
}

/// What a packet's chunks mean to the state machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ChunkEvent {
    /// DATA, SACK, HEARTBEAT and its ACK, ECNE, CWR, and every type Linux does not know.
    Data,
    /// INIT.
    Init,
    /// INIT ACK.
    InitAck,
    /// COOKIE ECHO.
    CookieEcho,
    /// COOKIE ACK.
    CookieAck,
    /// SHUTDOWN.
    Shutdown,
    /// SHUTDOWN ACK.
    ShutdownAck,
    /// SHUTDOWN COMPLETE.
    ShutdownComplete,
    /// ERROR.
    Error,
    /// ABORT.
    Abort,
}

impl ChunkEvent {
    /// All events in the order of the table.
    pub const ALL: [Self; 10] = [
        Self::Data,
        Self::Init,
        Self::InitAck,
        Self::CookieEcho,
        Self::CookieAck,
        Self::Shutdown,
        Self::ShutdownAck,
        Self::ShutdownComplete,
        Self::Error,
        Self::Abort,
    ];

    /// The event of a packet whose chunks have these types. The first chunk decides, except that an ABORT bundled
    /// behind COOKIE ECHO or COOKIE ACK wins; `second` is ignored otherwise. `None`: there is no second chunk, or the
    /// first one's length field is below 4, so that it cannot be found.
    pub const fn from_chunks(first: u8, second: Option<u8>) -> Self {
        match (Self::from_type(first), second) {
            (Self::CookieEcho | Self::CookieAck, Some(ABORT)) => Self::Abort,
            (event, _) => event,
        }
    }

    const fn from_type(chunk: u8) -> Self {
        match chunk {
            1 => Self::Init,
            2 => Self::InitAck,
            ABORT => Self::Abort,
            7 => Self::Shutdown,
            8 => Self::ShutdownAck,
            9 => Self::Error,
            10 => Self::CookieEcho,
            11 => Self::CookieAck,
            14 => Self::ShutdownComplete,
            _ => Self::Data,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Data => "DATA",
            Self::Init => "INIT",
            Self::InitAck => "INIT_ACK",
            Self::CookieEcho => "COOKIE_ECHO",
            Self::CookieAck => "COOKIE_ACK",
            Self::Shutdown => "SHUTDOWN",
            Self::ShutdownAck => "SHUTDOWN_ACK",
            Self::ShutdownComplete => "SHUTDOWN_COMPLETE",
            Self::Error => "ERROR",
            Self::Abort => "ABORT",
        }
    }
}

/// The state machine as text: states with their default timeouts, then who goes where.
/// ```
/// # use lvs_core::connection::sctp::transition_table;
/// assert!(transition_table().starts_with("SCTP states"));
/// ```
pub fn transition_table() -> String {
    let mut text = String::from("SCTP states\n\n");
    let timeouts = Timeouts::default();
    for state in SctpState::ALL {
        let timeout_s = timeouts.of(State::Sctp(state)).as_secs();
        let active = if state.is_active() { "  active" } else { "" };
        text += &format!("{}  {:<11} {timeout_s:>3} s{active}\n", state.abbreviation(), state.name());
    }
    for role in Role::ALL {
        text += &format!("\n{}\n{:17}", role.heading(), "");
        SctpState::ALL.iter().for_each(|state| text += &format!(" {}", state.abbreviation()));
        for event in ChunkEvent::ALL {
            text += &format!("\n{:<17}", event.name());
            for state in SctpState::ALL {
                text += &format!(" {}", state.next(event, role).abbreviation());
            }
        }
        text.push('\n');
    }
    text
}

const ABORT: u8 = 6;

/// `[role][event][state]` → next state.
type Table = [[[SctpState; 14]; 10]; 3];

const NO: SctpState = SctpState::None;
const I1: SctpState = SctpState::Init1;
const IN: SctpState = SctpState::Init;
const CS: SctpState = SctpState::CookieSent;
const CR: SctpState = SctpState::CookieReplied;
const CW: SctpState = SctpState::CookieWait;
const CO: SctpState = SctpState::Cookie;
const CE: SctpState = SctpState::CookieEchoed;
const ES: SctpState = SctpState::Established;
const SS: SctpState = SctpState::ShutdownSent;
const SR: SctpState = SctpState::ShutdownReceived;
const SA: SctpState = SctpState::ShutdownAckSent;
const RJ: SctpState = SctpState::Rejected;
const CL: SctpState = SctpState::Closed;

/// Columns are the state now, cells the next one.
#[rustfmt::skip]
static TRANSITIONS: Table = [
    [ // INPUT
        // NO, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL
        [ ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL ], // DATA
        [ I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN ], // INIT
        [ CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL ], // INIT_ACK
        [ CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL ], // COOKIE_ECHO
        [ ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL ], // COOKIE_ACK
        [ SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL ], // SHUTDOWN
        [ CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL ], // SHUTDOWN_ACK
        [ CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL ], // SHUTDOWN_COMPLETE
        [ CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL ], // ERROR
        [ CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL ], // ABORT
    ],
    [ // OUTPUT
        // NO, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL
        [ ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL ], // DATA
        [ CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW ], // INIT
        [ CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL ], // INIT_ACK
        [ CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL ], // COOKIE_ECHO
        [ ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL ], // COOKIE_ACK
        [ SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL ], // SHUTDOWN
        [ SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL ], // SHUTDOWN_ACK
        [ CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL ], // SHUTDOWN_COMPLETE
        [ CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL ], // ERROR
        [ CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL ], // ABORT
    ],
    [ // INPUT_ONLY
        // NO, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL
        [ ES, I1, IN, CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL ], // DATA
        [ I1, IN, IN, IN, IN, IN, CO, CE, ES, SS, SR, SA, IN, IN ], // INIT
        [ CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL ], // INIT_ACK
        [ ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL ], // COOKIE_ECHO
        [ ES, I1, IN, ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL ], // COOKIE_ACK
        [ SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL ], // SHUTDOWN
        [ CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL ], // SHUTDOWN_ACK
        [ CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL ], // SHUTDOWN_COMPLETE
        [ CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL ], // ERROR
        [ CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL ], // ABORT
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_four_way_handshake_and_a_shutdown_are_followed_from_the_middle() {
        // RFC 9260 §3.2 chunk types, from the client (true) or the server.
        let mut state = SctpState::None;
        for (client, chunk, expected) in [
            (true, 1, "INIT1"),
            (false, 2, "C-SENT"),
            (true, 10, "C-REPLIED"),
            (false, 11, "ESTABLISHED"),
            (true, 0, "ESTABLISHED"),
            (true, 7, "S-RECEIVED"),
            (false, 8, "S-ACK-SENT"),
            (true, 14, "CLOSED"),
        ] {
            let role = if client { Role::Input } else { Role::Output };
            state = state.next(ChunkEvent::from_chunks(chunk, None), role);
            assert_eq!(state.name(), expected);
        }
    }

    #[test]
    fn an_abort_bundled_behind_a_cookie_is_an_abort_and_behind_anything_else_is_not() {
        assert_eq!(ChunkEvent::from_chunks(10, Some(6)), ChunkEvent::Abort);
        assert_eq!(ChunkEvent::from_chunks(11, Some(6)), ChunkEvent::Abort);
        assert_eq!(ChunkEvent::from_chunks(10, Some(0)), ChunkEvent::CookieEcho);
        assert_eq!(ChunkEvent::from_chunks(0, Some(6)), ChunkEvent::Data);
        assert_eq!(ChunkEvent::from_chunks(6, None), ChunkEvent::Abort);
    }

    #[test]
    fn chunk_types_that_open_and_close_nothing_count_as_data() {
        for chunk in [0, 3, 4, 5, 12, 13].into_iter().chain(15..=255) {
            assert_eq!(ChunkEvent::from_chunks(chunk, None), ChunkEvent::Data, "chunk type {chunk}");
        }
        let others = [1, 2, 6, 7, 8, 9, 10, 11, 14].map(|chunk| ChunkEvent::from_chunks(chunk, None));
        assert!(!others.contains(&ChunkEvent::Data));
    }

    #[test]
    fn numbers_are_those_of_the_sync_wire() {
        for (number, state) in SctpState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
            assert_eq!(SctpState::from_number(number as u8), Some(state));
        }
        assert_eq!(SctpState::from_number(14), None);
    }
}
