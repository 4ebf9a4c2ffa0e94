//! The TCP state machine as the specification prints it: rows are segments, columns the present state.

/// A state by its two letters.
pub type State = &'static str;

const STATES: [State; 11] = ["NO", "ES", "SS", "SR", "FW", "TW", "CL", "CW", "LA", "LI", "SA"];

const INPUT: &str = "
SYN SR ES ES SR SR SR SR SR SR SR SR
FIN CL CW SS TW TW TW CL CW LA LI TW
ACK ES ES SS ES FW TW CL CW CL LI ES
RST CL CL CL SR CL CL CL CL LA LI SR";
const OUTPUT: &str = "
SYN SS ES SS SR SS SS SS SS SS LI SR
FIN TW FW SS TW FW TW CL TW LA LI TW
ACK ES ES SS ES FW TW CL CW LA ES ES
RST CL CL SS CL CL TW CL CL CL CL CL";
const INPUT_ONLY: &str = "
SYN SR ES ES SR SR SR SR SR SR SR SR
FIN CL FW SS TW FW TW CL CW LA LI TW
ACK ES ES SS ES FW TW CL CW CL LI ES
RST CL CL CL SR CL CL CL CL LA LI CL";

/// From which side a segment came, and whether the other side is seen at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Client,
    Server,
    ClientAlone,
}

/// The state after a segment with these flags (byte 13 of the header).
pub fn next(state: State, side: Side, flags: u8) -> State {
    let class = match flags {
        _ if flags & 0x04 != 0 => "RST",
        _ if flags & 0x02 != 0 => "SYN",
        _ if flags & 0x01 != 0 => "FIN",
        _ if flags & 0x10 != 0 => "ACK",
        _ => return "CL",
    };
    let table = match side {
        Side::Client => INPUT,
        Side::Server => OUTPUT,
        Side::ClientAlone => INPUT_ONLY,
    };
    let row = table.lines().find(|row| row.starts_with(class)).expect("a row for each class");
    let column = STATES.iter().position(|known| *known == state).expect("a known state");
    row.split(' ').nth(column + 1).expect("a cell for each state")
}

/// Seconds a connection in this state lives, unless an operator has set it.
pub fn timeout_s(state: State) -> u64 {
    let column = STATES.iter().position(|known| *known == state).expect("a known state");
    [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120][column]
}

/// As listings print it.
pub fn name(state: State) -> &'static str {
    match state {
        "NO" => "NONE",
        "ES" => "ESTABLISHED",
        "SS" => "SYN_SENT",
        "SR" => "SYN_RECV",
        "FW" => "FIN_WAIT",
        "TW" => "TIME_WAIT",
        "CL" => "CLOSE",
        "CW" => "CLOSE_WAIT",
        "LA" => "LAST_ACK",
        "LI" => "LISTEN",
        "SA" => "SYNACK",
        other => other,
    }
}

/// Whether its server counts it as active.
pub fn is_active(state: State) -> bool {
    ["ES", "SS", "SR", "SA"].contains(&state)
}
