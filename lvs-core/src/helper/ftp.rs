//! FTP: learns from PORT, EPRT, PASV and EPSV where the data connections will be, and hides the real server's address
//! in the answers (227, 229). Reads commands and replies the way IPVS's helper does, its peculiarities included.
//! RFC 959 §4.1.2, §5.3.2; RFC 2428.

use alloc::format;
use alloc::string::String;
use core::net::{IpAddr, Ipv4Addr};
use core::ops::Range;

use super::{Edit, Expected, Findings, Helper, Notes, Session};
use crate::flow::{AddressFamily, Endpoint};

/// The FTP helper, registered as `ftp`. It holds for the control connection only; what it does for data:
///
/// | said | connection expected |
/// |---|---|
/// | client: PORT, EPRT | from the server's data port (20) to the announced endpoint, with the virtual address for source |
/// | server: 227, 229, after PASV, EPSV | from any port of the client to the announced port on the virtual address |
///
/// With FullNAT, a PORT or EPRT gets the local endpoint at which the director takes that connection, and data
/// connections have the local address of their control connection, since many servers want both from one. From IPv6
/// clients to IPv4 servers (NAT64), an EPRT and `EPSV 2` get the server's family.
///
/// A 227 gets the virtual address instead of the server's, a 229 loses an address if it has one. A 227 or 229 that was
/// not asked for, or comes a second time, passes as it is, as with IPVS.
///
/// Announced addresses are believed, whosever they are, as IPVS does.
///
/// ```
/// use lvs_core::helper::ftp::Ftp;
/// use lvs_core::{DirectorConfig, HelperRegistry};
/// // FTP that survives the loss of a 227 between director and client; Linux's does not.
/// let mut helpers = HelperRegistry::default();
/// helpers.register("ftp", Ftp { repeats: true });
/// let config = DirectorConfig::default().with(|config| config.helpers = helpers);
/// # let _ = config;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ftp {
    /// Whether a reply that is sent again is rewritten again. Default no, as recorded from Linux: it then shows the
    /// server's address and has another length than the first one, so that a client who lost that one waits in vain.
    pub repeats: bool,
}

/// What the client asked for last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nothing, or to be called back.
    Active,
    Passive,
    ExtendedPassive,
}

impl Mode {
    fn of(notes: Notes) -> Self {
        match notes.0 {
            1 => Self::Passive,
            2 => Self::ExtendedPassive,
            _ => Self::Active,
        }
    }

    fn notes(self) -> Notes {
        Notes(self as u64)
    }
}

impl Helper for Ftp {
    fn port(&self) -> u16 {
        CONTROL_PORT
    }

    fn repeats(&self) -> bool {
        self.repeats
    }

    fn request(&self, session: &Session, notes: &mut Notes, payload: &[u8]) -> Findings {
        let family = AddressFamily::of(session.client.address);
        match asked_for(family, payload) {
            Asked::Mode(mode) => {
                *notes = mode.notes();
                let edit = family_in_epsv(family, AddressFamily::of(session.real.address), payload);
                Findings { expected: None, edit }
            }
            Asked::Nothing => Findings::default(),
            Asked::Other => match announced_by_client(family, payload) {
                Some(client) => {
                    *notes = Mode::Active.notes();
                    // RFC 959 §3.2: the server's data port is the one below its control port.
                    let real = Endpoint::new(session.real.address, session.real.port.wrapping_sub(1));
                    let virtual_port = session.virtual_endpoint.port.wrapping_sub(1);
                    Findings { expected: Some(Expected { client, virtual_port, real }), edit: None }
                }
                None => Findings::default(),
            },
        }
    }

    fn announce(&self, session: &Session, payload: &[u8], local: Endpoint) -> Option<Edit> {
        let family = AddressFamily::of(session.client.address);
        let (range, is_extended) = announcement(family, payload)?;
        let text = match local.address {
            IpAddr::V4(address) if !is_extended => host_port_text(address, local.port),
            address => {
                let digit = char::from(family_digit(AddressFamily::of(address)));
                format!("|{digit}|{address}|{}|", local.port)
            }
        };
        Some(Edit { range, text: text.into_bytes() })
    }

    fn reply(&self, session: &Session, notes: &mut Notes, payload: &[u8]) -> Findings {
        let announced = match Mode::of(*notes) {
            Mode::Active => None,
            Mode::Passive => passive_reply(payload),
            Mode::ExtendedPassive => extended_passive_reply(session.real.address, payload),
        };
        let Some((range, real)) = announced else { return Findings::default() };
        let edit = Edit { range, text: reply_text(Mode::of(*notes), session, real.port).into_bytes() };
        *notes = Mode::Active.notes();
        // Whence the client will come is only known when it does.
        let client = Endpoint::new(session.client.address, 0);
        Findings { expected: Some(Expected { client, virtual_port: real.port, real }), edit: Some(edit) }
    }
}

/// What stands in place of what the server announced.
fn reply_text(mode: Mode, session: &Session, port: u16) -> alloc::string::String {
    match (mode, session.virtual_endpoint.address) {
        (Mode::Passive, IpAddr::V4(address)) => host_port_text(address, port),
        _ => format!("|||{port}|"),
    }
}

fn host_port_text(address: Ipv4Addr, port: u16) -> String {
    let [a, b, c, d] = address.octets();
    format!("{a},{b},{c},{d},{},{}", port >> 8, port & 0xff)
}

/// What `EPSV 2` must say to a server of another family than the client's.
fn family_in_epsv(family: AddressFamily, servers: AddressFamily, payload: &[u8]) -> Option<Edit> {
    let asked = [EPSV, b" ", &[family_digit(family)]].concat();
    let at = (0..payload.len()).find(|at| starts_with(&payload[*at..], &asked)).filter(|_| family != servers)?;
    let digit = at + asked.len() - 1;
    Some(Edit { range: digit..digit + 1, text: [family_digit(servers)].to_vec() })
}

/// What a segment from the client asks for, wherever in it.
enum Asked {
    Mode(Mode),
    /// An EPSV with an argument that asks for nothing: `EPSV ALL`, or another family.
    Nothing,
    Other,
}

fn asked_for(family: AddressFamily, payload: &[u8]) -> Asked {
    let last = (payload.len() + 1).saturating_sub(PASV.len());
    // Four letters at once, whatever their case.
    let may_begin = |start: &usize| {
        let word = payload[*start..].first_chunk().map(|word| u32::from_be_bytes(*word) | 0x2020_2020);
        word == Some(u32::from_be_bytes(*b"pasv")) || word == Some(u32::from_be_bytes(*b"epsv"))
    };
    for rest in (0..last).filter(may_begin).map(|start| &payload[start..]) {
        if family == AddressFamily::Ipv4 && starts_with(rest, PASV) {
            return Asked::Mode(Mode::Passive);
        }
        if starts_with(rest, EPSV) {
            match rest[EPSV.len()] {
                b'\r' => return Asked::Mode(Mode::ExtendedPassive),
                b' ' => {
                    let is_family =
                        rest[EPSV.len() + 1] == family_digit(family) && rest.get(EPSV.len() + 2) == Some(&b'\r');
                    return if is_family { Asked::Mode(Mode::ExtendedPassive) } else { Asked::Nothing };
                }
                _ => {}
            }
        }
    }
    Asked::Other
}

/// The endpoint of a PORT or EPRT at the start of a segment.
fn announced_by_client(family: AddressFamily, payload: &[u8]) -> Option<Endpoint> {
    let client = match argument(payload, PORT) {
        Some(list) if family == AddressFamily::Ipv4 => host_port(list)?.0,
        _ => extended(argument(payload, EPRT)?, None, family)?.0,
    };
    (client.port != 0).then_some(client)
}

/// Which bytes of a PORT or EPRT say where, and whether it is an EPRT.
fn announcement(family: AddressFamily, payload: &[u8]) -> Option<(Range<usize>, bool)> {
    let range = |argument: &[u8], len| payload.len() - argument.len()..payload.len() - argument.len() + len;
    match argument(payload, PORT) {
        Some(list) if family == AddressFamily::Ipv4 => Some((range(list, host_port(list)?.1), false)),
        _ => {
            let text = argument(payload, EPRT)?;
            Some((range(text, extended(text, None, family)?.1), true))
        }
    }
}

/// What follows a command and the blanks behind it.
fn argument<'a>(payload: &'a [u8], command: &[u8]) -> Option<&'a [u8]> {
    let rest = starts_with(payload, command).then(|| &payload[command.len()..])?;
    let blanks = rest.iter().take_while(|byte| **byte == b' ').count();
    (blanks > 0).then(|| &rest[blanks..])
}

/// `227 text h1,h2,h3,h4,p1,p2`: which bytes are the numbers, and what they say.
fn passive_reply(payload: &[u8]) -> Option<(Range<usize>, Endpoint)> {
    let start = payload.strip_prefix(b"227 ").map(|_| 4)?;
    let mark = start + payload[start..].iter().position(|byte| byte.is_ascii_digit() || *byte == b'(')?;
    let start = mark + payload[mark..].iter().take_while(|byte| **byte == b'(').count();
    let (real, len) = host_port(&payload[start..])?;
    (real.port != 0).then_some((start..start + len, real))
}

/// `229 text (|||port|)`: which bytes the parentheses hold, and what they say. `real` is the server's address, which is
/// meant where none is given.
fn extended_passive_reply(real: IpAddr, payload: &[u8]) -> Option<(Range<usize>, Endpoint)> {
    let start = payload.strip_prefix(b"229 ").map(|_| 4)?;
    let start = start + payload[start..].iter().position(|byte| *byte == b'(')? + 1;
    let (real, len) = extended(&payload[start..], Some(real), AddressFamily::of(real))?;
    Some((start..start + len, real))
}

/// Six numbers between commas (RFC 959 §4.1.2, HOST-PORT), and how many bytes they are. Something must follow them.
fn host_port(list: &[u8]) -> Option<(Endpoint, usize)> {
    let mut numbers = [0; 6];
    let mut len = 0;
    for (index, number) in numbers.iter_mut().enumerate() {
        if index > 0 {
            (list.get(len) == Some(&b',')).then_some(())?;
            len += 1;
        }
        let digits = digits_len(&list[len..]);
        *number = decimal::<u8>(&list[len..len + digits])?;
        len += digits;
    }
    list.get(len)?;
    let [a, b, c, d, high, low] = numbers;
    Some((Endpoint::new(IpAddr::from([a, b, c, d]), u16::from_be_bytes([high, low])), len))
}

/// `<d>family<d>address<d>port<d>` (RFC 2428 §2), and how many bytes it is. Family and address may be left out if
/// `address` says which is meant.
fn extended(text: &[u8], address: Option<IpAddr>, family: AddressFamily) -> Option<(Endpoint, usize)> {
    let delimiter = *text.first().filter(|byte| (33..=126).contains(*byte))?;
    let mut fields = text[1..].splitn(4, |byte| *byte == delimiter);
    let (protocol, network, port) = (fields.next()?, fields.next()?, fields.next()?);
    // A fourth part, empty or not, means that the last delimiter is there.
    fields.next()?;
    let address = match (protocol, network, address) {
        ([], [], Some(address)) => address,
        ([digit], network, _) if *digit == family_digit(family) => {
            let address: IpAddr = core::str::from_utf8(network).ok()?.parse().ok()?;
            Some(address).filter(|address| AddressFamily::of(*address) == family)?
        }
        _ => return None,
    };
    let len = 4 + protocol.len() + network.len() + port.len();
    let port = decimal::<u16>(port).filter(|port| *port != 0)?;
    Some((Endpoint::new(address, port), len))
}

fn starts_with(text: &[u8], word: &[u8]) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

fn digits_len(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn decimal<T: core::str::FromStr>(digits: &[u8]) -> Option<T> {
    let all_digits = digits_len(digits) == digits.len();
    core::str::from_utf8(digits).ok().filter(|_| all_digits)?.parse().ok()
}

/// RFC 2428 §2: the numbers of the address families.
const fn family_digit(family: AddressFamily) -> u8 {
    match family {
        AddressFamily::Ipv4 => b'1',
        AddressFamily::Ipv6 => b'2',
    }
}

const CONTROL_PORT: u16 = 21;
const PASV: &[u8] = b"PASV\r\n";
const EPSV: &[u8] = b"EPSV";
const PORT: &[u8] = b"PORT";
const EPRT: &[u8] = b"EPRT";

#[cfg(test)]
mod tests {
    use super::*;

    fn session(is_v6: bool) -> Session {
        let endpoint = |v4: &str, v6: &str, port| Endpoint::new(if is_v6 { v6 } else { v4 }.parse().unwrap(), port);
        Session {
            client: endpoint("198.51.100.7", "2001:db8::7", 1024),
            virtual_endpoint: endpoint("192.0.2.21", "2001:db8:21::1", 21),
            real: endpoint("10.0.0.2", "fd00::2", 2121),
        }
    }

    /// What is expected of the client's command: `client > virtual port > server`, or nothing.
    fn check_command(is_v6: bool, command: &str, expected: Option<&str>) {
        let findings = Ftp::default().request(&session(is_v6), &mut Notes::default(), command.as_bytes());
        assert_eq!(findings.edit, None, "commands are never changed");
        assert_eq!(findings.expected.map(shown).as_deref(), expected, "{command:?}");
    }

    /// What becomes of the server's reply to `command`, and what is expected after it.
    fn check_reply(is_v6: bool, (command, reply): (&str, &str), expected: Option<(&str, &str)>) {
        let mut notes = Notes::default();
        Ftp::default().request(&session(is_v6), &mut notes, command.as_bytes());
        let findings = Ftp::default().reply(&session(is_v6), &mut notes, reply.as_bytes());
        let text = findings.edit.map(|edit| {
            let mut bytes = reply.as_bytes().to_vec();
            bytes.splice(edit.range, edit.text);
            String::from_utf8(bytes).unwrap()
        });
        let found = text.zip(findings.expected.map(shown));
        let found = found.as_ref().map(|(text, shown)| (text.as_str(), shown.as_str()));
        assert_eq!(found, expected, "{command:?} {reply:?}");
        if expected.is_some() {
            let again = Ftp::default().reply(&session(is_v6), &mut notes, reply.as_bytes());
            assert_eq!(again, Findings::default(), "a second reply was not asked for");
        }
    }

    fn shown(expected: Expected) -> String {
        format!("{} > {} > {}", expected.client, expected.virtual_port, expected.real)
    }

    #[test]
    fn a_client_that_wants_to_be_called_back_is_called_from_the_port_below() {
        let expected = Some("198.51.100.7:42645 > 20 > 10.0.0.2:2120");
        check_command(false, "PORT 198,51,100,7,166,149\r\n", expected);
        check_command(false, "port   198,51,100,7,166,149)", expected);
        check_command(false, "EPRT |1|198.51.100.7|42645|\r\n", expected);
        check_command(false, "EPRT !1!198.51.100.7!42645!", expected);
        check_command(true, "EPRT |2|2001:db8::7|42645|\r\n", Some("[2001:db8::7]:42645 > 20 > [fd00::2]:2120"));
        check_command(false, "PORT 192,0,2,99,0,80\r\n", Some("192.0.2.99:80 > 20 > 10.0.0.2:2120"));
    }

    #[test]
    fn what_is_not_quite_a_port_command_says_nothing() {
        for command in [
            "PORT198,51,100,7,166,149\r\n",
            "PORT 198,51,100,7,166,149",
            "PORT 198,51,100,256,166,149\r\n",
            "PORT 198,51,100,7,166\r\n",
            "PORT 198,51,100,,7,166,149\r\n",
            "PORT 198,51,100,7,0,0\r\n",
            "NOOP\r\nPORT 198,51,100,7,166,149\r\n",
            "EPRT |2|2001:db8::7|42645|\r\n",
            "EPRT |1|2001:db8::7|42645|\r\n",
            "EPRT |1|198.51.100.7|42645\r\n",
            "EPRT |1|198.51.100.7|0|\r\n",
            "EPRT |1|198.51.100.7|65536|\r\n",
            "EPRT |1|198.51.100.7|+1|\r\n",
            "EPRT |||42645|\r\n",
            "EPRT \u{7f}1\u{7f}198.51.100.7\u{7f}42645\u{7f}\r\n",
            "EPRT",
            "PORT ",
            "",
        ] {
            check_command(false, command, None);
        }
        check_command(true, "PORT 198,51,100,7,166,149\r\n", None);
    }

    #[test]
    fn a_passive_reply_gets_the_virtual_address_and_keeps_the_port() {
        let expected = "198.51.100.7:0 > 51210 > 10.0.0.2:51210";
        let check = |reply, text| check_reply(false, ("PASV\r\n", reply), Some((text, expected)));
        check("227 Entering (10,0,0,2,200,10).\r\n", "227 Entering (192,0,2,21,200,10).\r\n");
        check("227 =10,0,0,2,200,10\r\n", "227 =192,0,2,21,200,10\r\n");
        check("227 ((10,0,0,2,200,10))", "227 ((192,0,2,21,200,10))");
    }

    #[test]
    fn an_extended_passive_reply_loses_its_address() {
        let check = |reply, text, expected| check_reply(false, ("epsv\r\n", reply), Some((text, expected)));
        check("229 (|||51210|)\r\n", "229 (|||51210|)\r\n", "198.51.100.7:0 > 51210 > 10.0.0.2:51210");
        check("229 (!!!51210!)\r\n", "229 (|||51210|)\r\n", "198.51.100.7:0 > 51210 > 10.0.0.2:51210");
        check("229 (|1|10.0.0.9|51210|)\r\n", "229 (|||51210|)\r\n", "198.51.100.7:0 > 51210 > 10.0.0.9:51210");
        let text = "229 Extended (|||51210|)\r\n";
        let expected = Some((text, "[2001:db8::7]:0 > 51210 > [fd00::2]:51210"));
        check_reply(true, ("EPSV 2\r\n", text), expected);
        check_reply(true, ("NOOP\r\nEPSV\r\n", text), expected);
    }

    #[test]
    fn a_reply_that_was_not_asked_for_or_does_not_begin_its_segment_passes() {
        let passive = "227 (10,0,0,2,200,10)\r\n";
        let extended = "229 (|||51210|)\r\n";
        for (command, reply) in [
            ("", passive),
            ("PASV", passive),
            ("PASV\r\n", extended),
            ("EPSV\r\n", passive),
            ("EPSV ALL\r\nPASV\r\n", passive),
            ("EPSV 2\r\n", extended),
            ("EPSV 1", extended),
            ("PASV\r\n", "200 x\r\n227 (10,0,0,2,200,10)\r\n"),
            ("PASV\r\n", "227 (10,0,0,2,200)\r\n"),
            ("PASV\r\n", "227 no numbers"),
            ("PASV\r\n", "227 (x10,0,0,2,200,10)\r\n"),
            ("EPSV\r\n", "229 |||51210|\r\n"),
            ("EPSV\r\n", "229 (|||51210)\r\n"),
            ("EPSV\r\n", "229 (|2|fd00::2|51210|)\r\n"),
        ] {
            check_reply(false, (command, reply), None);
        }
        check_reply(true, ("PASV\r\n", passive), None);
    }
}
