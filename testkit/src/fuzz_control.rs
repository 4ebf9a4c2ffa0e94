//! What the fuzz targets of the control protocol do with their bytes, and what must hold whatever those are. Plain
//! functions, so that the committed corpora also run as ordinary tests.

use lvs_core::Instant;
use lvs_genl::client::{Client, Reply};
use lvs_genl::ipvs::{Body, DaemonMessage, ServerMessage, ServiceMessage, Side};
use lvs_genl::server::{Access, DATAGRAM_MAX, Master, Session, SyncDaemons};
use lvs_genl::wire::{Attributes, ERROR, Header, Messages, Writer};
use lvs_genl::{lvs, wire};

use crate::Desk;

/// Any bytes as a datagram of requests to a director that has something to list: no panic; answers are whole messages
/// that a client reads, in datagrams of bounded length; each request has an end. The first byte chooses what the program
/// may do.
pub fn requests(data: &[u8]) {
    let Some((&choice, datagram)) = data.split_first() else { return };
    let mut desk = Desk::new(RULES);
    let access = [Access::Full, Access::Read, Access::None, Access::Full][usize::from(choice % 4)];
    let mut session = Session::new(access);
    session.cap_errors(choice & 4 != 0);
    if choice & 8 != 0 {
        session = session.port(4711);
    }
    let mut daemons = SyncDaemons::default();
    let client = Client::new(0);
    // Twice: the second one meets whatever the first one left.
    for _ in 0..2 {
        if session.receive(datagram).is_err() {
            return;
        }
        let mut table = Master::new(&mut desk.director, &mut daemons, Instant::from_secs(1));
        let interface = |_: &str, _| Ok(1500);
        table = table.interfaces(&interface);
        let mut out = Vec::new();
        let asked = Messages::new(datagram).count();
        let mut datagrams = 0;
        while session.next_datagram(&mut table, &mut out) {
            check_datagram(&client, datagram, &out);
            datagrams += 1;
            // An answer and its acknowledgment; or a listing, which is short here, and its end.
            assert!(datagrams <= asked * 3, "{datagrams} datagrams to {asked} requests");
        }
        assert!(session.is_idle(), "every request has an end");
    }
    // Nobody that may not write has written.
    if access != Access::Full {
        assert_eq!(desk.director.services(desk.now), Desk::new(RULES).director.services(desk.now));
    }
}

fn check_datagram(client: &Client, asked: &[u8], out: &[u8]) {
    let messages: Vec<_> = Messages::new(out).collect();
    let len: usize = messages.iter().map(|message| message.bytes().len().next_multiple_of(4)).sum();
    assert_eq!(len, out.len(), "whole messages, padded, and nothing else");
    let quotes = messages.iter().any(|message| message.header.kind == ERROR);
    assert!(out.len() <= DATAGRAM_MAX || quotes && out.len() <= asked.len() + 256, "{} bytes", out.len());
    for reply in client.replies(out) {
        assert!(reply.is_ok(), "a client reads what a session writes");
    }
}

/// Any bytes as a datagram of answers, and as the inside of each attribute: no panic, and what is read is written and
/// read again as it was.
pub fn answers(data: &[u8]) {
    let client = Client::new(0);
    for reply in client.replies(data).flatten() {
        if let Reply::Connection(view) = reply {
            let bytes = written(|out| lvs::write_connection(out, &view));
            assert_eq!(lvs::read_connection(inside(&bytes)), Ok(view));
        }
    }
    for message in Messages::new(data) {
        let _ = (message.payload(), message.error());
        if let Some((generic, attributes)) = message.generic() {
            let _ = Body::read(attributes.clone());
            let _ = lvs::Request::read(generic.command, false, attributes);
        }
    }
    again(data, ServiceMessage::read, |read, out| read.write(out, 1, Side::Client));
    again(data, ServerMessage::read, |read, out| read.write(out, 2, Side::Director));
    again(data, DaemonMessage::read, |read, out| read.write(out, 3, Side::Client));
    again(data, lvs::State::read, |read, out| read.write(out));
    again(data, lvs::read_connection, |read, out| lvs::write_connection(out, read));
}

/// What can be read is written and read again as it was.
fn again<T: PartialEq + std::fmt::Debug, E: std::fmt::Debug>(
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Result<T, E>,
    write: impl Fn(&T, &mut Writer<'_>),
) {
    let Ok(first) = read(bytes) else { return };
    let rewritten = written(|out| write(&first, out));
    // What was longer than an attribute can be is left out.
    if rewritten.len() <= wire::ATTRIBUTE_HEADER_LEN && bytes.len() > 1000 {
        return;
    }
    assert_eq!(read(inside(&rewritten)).expect("it was just written"), first);
}

fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut datagram = Vec::new();
    let mut message = Writer::new(&mut datagram, Header { length: 0, kind: 32, flags: 0, sequence: 0, port: 0 });
    write(&mut message);
    message.finish();
    datagram
}

/// The value of the only attribute in a message.
fn inside(datagram: &[u8]) -> &[u8] {
    let message = Messages::new(datagram).next().expect("one was written");
    Attributes::new(message.payload()).next().map(|found| found.value).unwrap_or_default()
}

const RULES: &str = "-A -t 192.0.2.1:80 -s wrr -p 60\n-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m -w 3\n\
    -a -t 192.0.2.1:80 -r 10.0.0.3:8080 -g\n-A -u [2001:db8::1]:53 -s rr -o\n-a -u [2001:db8::1]:53 -r [fd00::2]:53 -m\n\
    -A -f 7 -s sh --mss-clamp 1400\n-a -f 7 -r 10.0.0.2:0 -i --tun-type gue --tun-port 6080";
