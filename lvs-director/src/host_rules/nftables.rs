//! Transactions of nftables: changes of one table that the kernel makes all at once, or not at all. Knows how tables,
//! chains, sets and rules are written; what they are for is said in `host_rules.rs`. As nft(8) shows them, and as `nft
//! --debug=netlink` writes the same rules.

use std::io;
use std::os::fd::OwnedFd;

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::nftables::{
    Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, Expressions, Hook, HookNumber, Immediate,
    InetHookNumber, ListAttribute, Lookup, Meta, MetaKey, NfTablesMessage, Operator, Payload, Register, RuleAttribute,
    RuleMessage, SetAttribute, SetElementAttribute, SetElementList, SetElementMessage, SetMessage, TableAttribute,
    TableMessage, Verdict, VerdictAttribute,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};

/// Changes of one table of the family `inet`, in order.
#[derive(Debug)]
pub struct Transaction {
    table: &'static str,
    changes: Vec<(NfTablesMessage, u16)>,
}

/// Where a chain sees packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// As they come in.
    Prerouting,
    /// As the host sends them.
    Output,
}

/// A set: its name, and nft(8)'s numbers of the types its keys are put together from, with their lengths in bytes.
pub type Set = (&'static str, &'static [(u32, u32)]);

impl Transaction {
    /// Nothing to change yet.
    pub fn of(table: &'static str) -> Self {
        Self { table, changes: Vec::new() }
    }

    /// Adds the table; one of the name goes before, with everything in it.
    pub fn replace_table(&mut self) {
        // What is not there cannot be deleted.
        self.add_table();
        self.delete_table();
        self.add_table();
    }

    fn add_table(&mut self) {
        self.change(NfTablesMessage::NewTable(self.table_message()), NLM_F_CREATE);
    }

    /// Deletes the table, with everything in it.
    pub fn delete_table(&mut self) {
        self.change(NfTablesMessage::DeleteTable(self.table_message()), 0);
    }

    fn table_message(&self) -> TableMessage {
        TableMessage { attributes: vec![TableAttribute::Name(self.name())] }
    }

    /// Adds a chain that lets everything pass that its rules do not drop, before connections are tracked.
    pub fn add_chain(&mut self, name: &str, place: Place) {
        let hook = match place {
            Place::Prerouting => InetHookNumber::PreRouting,
            Place::Output => InetHookNumber::LocalOut,
        };
        let attributes = vec![
            ChainAttribute::Table(self.name()),
            ChainAttribute::Name(name.to_owned()),
            ChainAttribute::Hook(vec![Hook::Number(HookNumber::Inet(hook)), Hook::Priority(RAW.cast_unsigned())]),
            ChainAttribute::Policy(ACCEPT),
            ChainAttribute::Type("filter".to_owned()),
        ];
        self.change(NfTablesMessage::NewChain(ChainMessage { attributes }), NLM_F_CREATE);
    }

    /// Adds an empty set.
    pub fn add_set(&mut self, (name, types): Set) {
        let attributes = vec![
            SetAttribute::Table(self.name()),
            SetAttribute::Name(name.to_owned()),
            // The number by which later messages of the transaction may call it.
            SetAttribute::Id(self.changes.len() as u32),
            SetAttribute::KeyType(types.iter().fold(0, |all, (kind, _)| all << 6 | kind)),
            // Each part begins at a multiple of four bytes.
            SetAttribute::KeyLen(types.iter().map(|(_, len)| len.next_multiple_of(4)).sum()),
        ];
        self.change(NfTablesMessage::NewSet(SetMessage { attributes }), NLM_F_CREATE);
    }

    /// Adds keys to a set. One that it has already stays.
    pub fn add_elements(&mut self, set: &str, keys: &[Vec<u8>]) {
        for keys in keys.chunks(ELEMENTS_PER_MESSAGE) {
            self.change(NfTablesMessage::NewSetElement(self.elements(set, keys)), NLM_F_CREATE);
        }
    }

    /// Takes keys out of a set that has them.
    pub fn delete_elements(&mut self, set: &str, keys: &[Vec<u8>]) {
        for keys in keys.chunks(ELEMENTS_PER_MESSAGE) {
            self.change(NfTablesMessage::DeleteSetElement(self.elements(set, keys)), 0);
        }
    }

    fn elements(&self, set: &str, keys: &[Vec<u8>]) -> SetElementMessage {
        let element =
            |key: &Vec<u8>| ListAttribute::Element(vec![SetElementAttribute::Key(DataAttribute::Value(key.clone()))]);
        let attributes = vec![
            SetElementList::Table(self.name()),
            SetElementList::Set(set.to_owned()),
            SetElementList::Elements(keys.iter().map(element).collect()),
        ];
        SetElementMessage { attributes }
    }

    /// Adds a rule behind those of the chain.
    pub fn add_rule(&mut self, chain: &str, rule: Rule) {
        let attributes = vec![
            RuleAttribute::Table(self.name()),
            RuleAttribute::Chain(chain.to_owned()),
            RuleAttribute::Expressions(rule.0.into_iter().map(Into::into).collect()),
        ];
        self.change(NfTablesMessage::NewRule(RuleMessage { attributes }), NLM_F_CREATE | NLM_F_APPEND);
    }

    fn name(&self) -> String {
        self.table.to_owned()
    }

    fn change(&mut self, message: NfTablesMessage, flags: u16) {
        self.changes.push((message, flags));
    }

    /// Makes the changes, in the calling thread's network namespace. Needs CAP_NET_ADMIN there.
    ///
    /// # Errors
    /// What the kernel says of the first change it does not make; it makes none then.
    pub fn commit(self) -> io::Result<()> {
        let socket = socket()?;
        let last = self.changes.len();
        let mut bytes = Vec::new();
        put(&mut bytes, control(ControlMessage::BatchBegin), 0, 0);
        for (index, (message, flags)) in self.changes.into_iter().enumerate() {
            // A refusal is told anyway; the last one's acknowledgment is that of all.
            let ack = if index + 1 == last { NLM_F_ACK } else { 0 };
            let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
            put(&mut bytes, NetfilterMessage::new(header, message), flags | ack, index as u32 + 1);
        }
        put(&mut bytes, control(ControlMessage::BatchEnd), 0, last as u32 + 1);
        make_room(&socket, bytes.len());
        rustix::net::send(&socket, &bytes, SendFlags::empty())?;
        answer(&socket)
    }
}

/// What has to be true of a packet, part by part, and what becomes of it then.
#[derive(Debug)]
pub struct Rule(Vec<Expressions>);

/// A family of packets, by the numbers of `linux/netfilter.h` that nft(8) calls `meta nfproto`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    Ipv4 = 2,
    /// IPv6.
    Ipv6 = 10,
}

impl Rule {
    /// Lets pass what comes by the device of this number.
    pub fn accept_from(index: u32) -> Self {
        let mut rule = Self(vec![load_meta(MetaKey::Iif, FIRST)]);
        rule.equals(&index.to_ne_bytes());
        rule.0.push(verdict(ACCEPT));
        rule
    }

    /// Packets of this family.
    pub fn of(family: Family) -> Self {
        let mut rule = Self(vec![load_meta(MetaKey::Nfproto, FIRST)]);
        rule.equals(&[family as u8]);
        rule
    }

    /// Whose protocol, then target address, then target port if `has_port`, are a key of the set.
    #[must_use]
    pub fn whose_target_is_in(mut self, family: Family, set: &str, has_port: bool) -> Self {
        let (_, [offset, len]) = addresses(family);
        self.0.push(load_meta(MetaKey::L4Proto, FIRST));
        self.0.push(load(NETWORK_HEADER, offset, len, FIRST + 1));
        if has_port {
            // TCP, UDP and SCTP have it in the same place.
            self.0.push(load(TRANSPORT_HEADER, 2, 2, FIRST + 1 + len / 4));
        }
        self.0.push(look_up(set));
        self
    }

    /// Whose source address is a key of the set.
    #[must_use]
    pub fn whose_source_is_in(mut self, family: Family, set: &str) -> Self {
        let ([offset, len], _) = addresses(family);
        self.0.push(load(NETWORK_HEADER, offset, len, FIRST));
        self.0.push(look_up(set));
        self
    }

    /// TCP resets.
    #[must_use]
    pub fn resets(mut self) -> Self {
        self.0.push(load_meta(MetaKey::L4Proto, FIRST));
        self.equals(&[6]);
        // RFC 9293 §3.1: the flags' byte, and RST in it.
        self.0.push(load(TRANSPORT_HEADER, 13, 1, FIRST));
        let value = |byte| DataAttribute::Value(vec![byte]);
        self.0.push(Expressions::Bitwise(vec![
            Bitwise::SourceRegister(Register::Other(FIRST)),
            Bitwise::DestinationRegister(Register::Other(FIRST)),
            Bitwise::Length(1),
            Bitwise::Mask(value(4)),
            Bitwise::Xor(value(0)),
        ]));
        self.equals(&[4]);
        self
    }

    /// Drops them.
    #[must_use]
    pub fn dropped(mut self) -> Self {
        self.0.push(verdict(DROP));
        self
    }

    fn equals(&mut self, value: &[u8]) {
        self.0.push(Expressions::Cmp(vec![
            Cmp::SourceRegister(Register::Other(FIRST)),
            Cmp::Op(Operator::Equal),
            Cmp::Data(DataAttribute::Value(value.to_vec())),
        ]));
    }
}

fn load_meta(key: MetaKey, register: u32) -> Expressions {
    Expressions::Meta(vec![Meta::DestinationRegister(Register::Other(register)), Meta::Key(key)])
}

fn load(base: u32, offset: u32, len: u32, register: u32) -> Expressions {
    let register = Payload::DestinationRegister(Register::Other(register));
    Expressions::Payload(vec![register, Payload::Base(base), Payload::Offset(offset), Payload::Len(len)])
}

fn look_up(set: &str) -> Expressions {
    Expressions::Lookup(vec![Lookup::Set(set.to_owned()), Lookup::SourceRegister(Register::Other(FIRST))])
}

fn verdict(code: u32) -> Expressions {
    let code = VerdictAttribute::Code(Verdict::Other(code));
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![code])),
    ])
}

/// Where source and target address are, and how long (RFC 791 §3.1, RFC 8200 §3).
fn addresses(family: Family) -> ([u32; 2], [u32; 2]) {
    match family {
        Family::Ipv4 => ([12, 4], [16, 4]),
        Family::Ipv6 => ([8, 16], [24, 16]),
    }
}

fn control(message: ControlMessage) -> NetfilterMessage {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, libc::NFNL_SUBSYS_NFTABLES as u16);
    NetfilterMessage::new(header, NetfilterMessageInner::None(message))
}

fn put(bytes: &mut Vec<u8>, message: NetfilterMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len(), 0);
    message.emit(&mut bytes[start..]);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn socket() -> io::Result<OwnedFd> {
    let protocol = Some(netlink::NETFILTER);
    Ok(rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?)
}

/// A transaction is one datagram. Where the kernel grants no more room, sending says so.
fn make_room(socket: &OwnedFd, len: usize) {
    let _ = sockopt::set_socket_send_buffer_size(socket, len.max(SEND_BUFFER));
}

/// The first answer: an acknowledgment of all, or the first refusal.
fn answer(socket: &OwnedFd) -> io::Result<()> {
    let mut answer = [0; 64];
    loop {
        match rustix::net::recv(socket, &mut answer, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            outcome => _ = outcome?,
        }
        let word = |at: usize| answer[at..at + 4].first_chunk().copied().map(i32::from_ne_bytes).unwrap_or_default();
        // An answer begins with its length, then its type and flags, its sequence number and port; then the error.
        if u16::from_ne_bytes([answer[4], answer[5]]) == libc::NLMSG_ERROR as u16 {
            return match word(16) {
                0 => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno.wrapping_neg())),
            };
        }
    }
}

/// The first of the registers of four bytes.
const FIRST: u32 = 8;
/// Bases of what a payload expression loads.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// Verdicts of `linux/netfilter.h`.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// nft(8): the priority `raw`, before connection tracking.
const RAW: i32 = -300;
/// An attribute is at most 65,535 bytes long, an element at most 40.
const ELEMENTS_PER_MESSAGE: usize = 1024;
const SEND_BUFFER: usize = 212_992;
