//! Every option ipvsadm 1.31 knows, and the scanner that cuts an argument list into them.
//! Decides what an option is and which words are its value, never what they mean.
//! What is ours and not ipvsadm's stands at the end of each list, FullNAT in DPVS's words where it has some.
//! Option syntax as popt's: `-t X`, `-tX`, `-t=X`, bundles (`-Ln`), `--long X`, `--long=X`, `--`; no abbreviations.

use crate::UsageError;

/// What an option is for. Those that start a command come first and stand for themselves; the others are
/// [`Group`]s: ipvsadm counts `-t`, `-u`, `--sctp-service` and `-f` as one option, as it does `-g`, `-i` and `-m`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Meaning {
    AddService,
    EditService,
    DeleteService,
    Flush,
    Restore,
    Save,
    AddServer,
    EditServer,
    DeleteServer,
    List,
    Zero,
    SetTimeouts,
    StartDaemon,
    StopDaemon,
    /// Ours.
    AddLocalAddress,
    /// Ours.
    DeleteLocalAddress,
    Help,
    Version,
    TcpService,
    UdpService,
    SctpService,
    FwMarkService,
    Ipv6,
    Gatewaying,
    Ipip,
    Masquerading,
    /// Ours.
    FullNat,
    /// Does nothing; sorting is the default.
    Sort,
    /// Means what its group's name says.
    Plain(Group),
}

/// An option as ipvsadm counts and names them. The order is the one in which it complains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Group {
    Numeric,
    Connection,
    Service,
    Scheduler,
    Persistent,
    Netmask,
    RealServer,
    Forward,
    Weight,
    UpperThreshold,
    LowerThreshold,
    McastInterface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    SyncId,
    Exact,
    OnePacket,
    PersistenceEngine,
    SchedulerFlags,
    McastAddress,
    McastPort,
    McastTtl,
    SyncMaxlen,
    TunnelInfo,
    TunnelType,
    TunnelPort,
    TunnelNoChecksum,
    TunnelChecksum,
    TunnelRemoteChecksum,
    /// Ours, as what follows.
    LocalAddress,
    ClientAddress,
    KeepSequence,
    KeepTimestamps,
    MssClamp,
    Helper,
    TcpTimeout,
    TcpFinTimeout,
    UdpTimeout,
    SlowStart,
    OnServerGone,
    ReuseReschedules,
    Mtu,
    Drain,
    DrainReset,
    OnReplyConflict,
    CheckWindow,
}

impl Group {
    /// In ipvsadm's order, with the names it uses in its complaints.
    pub(crate) const ALL: [(Self, &'static str); 51] = [
        (Self::Numeric, "numeric"),
        (Self::Connection, "connection"),
        (Self::Service, "service-address"),
        (Self::Scheduler, "scheduler"),
        (Self::Persistent, "persistent"),
        (Self::Netmask, "netmask"),
        (Self::RealServer, "real-server"),
        (Self::Forward, "forwarding-method"),
        (Self::Weight, "weight"),
        (Self::UpperThreshold, "u-threshold"),
        (Self::LowerThreshold, "l-threshold"),
        (Self::McastInterface, "mcast-interface"),
        (Self::Timeout, "timeout"),
        (Self::Daemon, "daemon"),
        (Self::Stats, "stats"),
        (Self::Rate, "rate"),
        (Self::Thresholds, "thresholds"),
        (Self::PersistentConn, "persistent-conn"),
        (Self::NoSort, "nosort"),
        (Self::SyncId, "syncid"),
        (Self::Exact, "exact"),
        (Self::OnePacket, "ops"),
        (Self::PersistenceEngine, "pe"),
        (Self::SchedulerFlags, "sched-flags"),
        (Self::McastAddress, "mcast-group"),
        (Self::McastPort, "mcast-port"),
        (Self::McastTtl, "mcast-ttl"),
        (Self::SyncMaxlen, "sync-maxlen"),
        (Self::TunnelInfo, "tun-info"),
        (Self::TunnelType, "tun-type"),
        (Self::TunnelPort, "tun-port"),
        (Self::TunnelNoChecksum, "tun-nocsum"),
        (Self::TunnelChecksum, "tun-csum"),
        (Self::TunnelRemoteChecksum, "tun-remcsum"),
        (Self::LocalAddress, "local-address"),
        (Self::ClientAddress, "client-address"),
        (Self::KeepSequence, "keep-sequence"),
        (Self::KeepTimestamps, "keep-timestamps"),
        (Self::MssClamp, "mss-clamp"),
        (Self::Helper, "helper"),
        (Self::TcpTimeout, "tcp-timeout"),
        (Self::TcpFinTimeout, "tcpfin-timeout"),
        (Self::UdpTimeout, "udp-timeout"),
        (Self::SlowStart, "slow-start"),
        (Self::OnServerGone, "on-server-gone"),
        (Self::ReuseReschedules, "reuse-reschedules"),
        (Self::Mtu, "mtu"),
        (Self::Drain, "drain"),
        (Self::DrainReset, "drain-reset"),
        (Self::OnReplyConflict, "on-reply-conflict"),
        (Self::CheckWindow, "check-window"),
    ];

    pub(crate) const fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// A set of option groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Groups(u64);

impl Groups {
    pub(crate) const fn of(groups: &[Group]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < groups.len() {
            bits |= 1 << groups[index] as u64;
            index += 1;
        }
        Self(bits)
    }

    pub(crate) const fn has(self, group: Group) -> bool {
        self.0 & (1 << group as u64) != 0
    }

    /// Adds `group`; whether it was absent before.
    pub(crate) fn insert(&mut self, group: Group) -> bool {
        let is_new = !self.has(group);
        self.0 |= 1 << group as u64;
        is_new
    }
}

/// Whether an option takes a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Value {
    None,
    Required,
    /// The next word, unless it begins with `-`.
    Optional,
}

struct Spec {
    long: &'static str,
    short: Option<char>,
    value: Value,
    meaning: Meaning,
}

/// One option found in the arguments.
pub(crate) struct Found<'a> {
    pub(crate) meaning: Meaning,
    /// Its value: always there when required, never when the option takes none.
    pub(crate) value: Option<&'a str>,
    /// The last word it consumed: what popt names as the bad option.
    pub(crate) word: &'a str,
}

/// Walks over arguments. Words that are neither options nor values collect in [`Scanner::positional`].
pub(crate) struct Scanner<'a> {
    words: &'a [&'a str],
    /// A bundle of short options being taken apart: the whole word and what is left of it.
    bundle: Option<(&'a str, &'a str)>,
    pub(crate) positional: Vec<&'a str>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(words: &'a [&'a str]) -> Self {
        Self { words, bundle: None, positional: Vec::new() }
    }

    /// The next option, or `None` at the end of the arguments.
    pub(crate) fn next(&mut self) -> Result<Option<Found<'a>>, UsageError> {
        if let Some((word, rest)) = self.bundle.take() {
            return self.short(word, rest).map(Some);
        }
        while let Some((&word, rest)) = self.words.split_first() {
            self.words = rest;
            if word == "--" {
                self.positional.extend_from_slice(rest);
                self.words = &[];
            } else if let Some(long) = word.strip_prefix("--") {
                return self.long(word, long).map(Some);
            } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                return self.short(word, letters).map(Some);
            } else {
                self.positional.push(word);
            }
        }
        Ok(None)
    }

    fn long(&mut self, word: &'a str, long: &'a str) -> Result<Found<'a>, UsageError> {
        let (name, attached) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (long, None),
        };
        let spec = OPTIONS.iter().find(|spec| spec.long == name).ok_or_else(|| UsageError::option(word, UNKNOWN))?;
        self.finish(spec, word, attached)
    }

    fn short(&mut self, word: &'a str, letters: &'a str) -> Result<Found<'a>, UsageError> {
        let unknown = || UsageError::option(word, UNKNOWN);
        let mut rest = letters.chars();
        let letter = rest.next().ok_or_else(unknown)?;
        // popt: -X is a second short form of --exact, -l of --list.
        let letter = match letter {
            'X' => return self.short_of("exact", word, rest.as_str()),
            'l' => 'L',
            letter => letter,
        };
        let spec = OPTIONS.iter().find(|spec| spec.short == Some(letter)).ok_or_else(unknown)?;
        self.short_of(spec.long, word, rest.as_str())
    }

    fn short_of(&mut self, long: &str, word: &'a str, rest: &'a str) -> Result<Found<'a>, UsageError> {
        let spec = OPTIONS.iter().find(|spec| spec.long == long).ok_or_else(|| UsageError::option(word, UNKNOWN))?;
        if rest.is_empty() {
            return self.finish(spec, word, None);
        }
        if spec.value == Value::None && !rest.starts_with('=') {
            self.bundle = Some((word, rest));
            return self.finish(spec, word, None);
        }
        self.finish(spec, word, Some(rest.strip_prefix('=').unwrap_or(rest)))
    }

    /// Fetches the value from the next word where it is not attached.
    fn finish(&mut self, spec: &Spec, word: &'a str, attached: Option<&'a str>) -> Result<Found<'a>, UsageError> {
        let meaning = spec.meaning;
        match (spec.value, attached) {
            (Value::None, Some(_)) => Err(UsageError::option(word, "option does not take an argument")),
            (Value::None, None) => Ok(Found { meaning, value: None, word }),
            (_, Some(value)) => Ok(Found { meaning, value: Some(value), word }),
            (kind, None) => match self.words.split_first() {
                Some((&value, rest)) if kind == Value::Required || !value.starts_with('-') => {
                    self.words = rest;
                    Ok(Found { meaning, value: Some(value), word: value })
                }
                _ if kind == Value::Optional => Ok(Found { meaning, value: None, word }),
                _ => Err(UsageError::option(word, "missing argument")),
            },
        }
    }
}

const UNKNOWN: &str = "unknown option";

const fn flag(long: &'static str, short: Option<char>, meaning: Meaning) -> Spec {
    Spec { long, short, value: Value::None, meaning }
}

const fn valued(long: &'static str, short: Option<char>, meaning: Meaning) -> Spec {
    Spec { long, short, value: Value::Required, meaning }
}

/// ipvsadm(8), and `ipvsadm -h`.
static OPTIONS: [Spec; 77] = [
    flag("add-service", Some('A'), Meaning::AddService),
    flag("edit-service", Some('E'), Meaning::EditService),
    flag("delete-service", Some('D'), Meaning::DeleteService),
    flag("clear", Some('C'), Meaning::Flush),
    flag("restore", Some('R'), Meaning::Restore),
    flag("save", Some('S'), Meaning::Save),
    flag("add-server", Some('a'), Meaning::AddServer),
    flag("edit-server", Some('e'), Meaning::EditServer),
    flag("delete-server", Some('d'), Meaning::DeleteServer),
    flag("list", Some('L'), Meaning::List),
    flag("zero", Some('Z'), Meaning::Zero),
    flag("set", None, Meaning::SetTimeouts),
    valued("start-daemon", None, Meaning::StartDaemon),
    valued("stop-daemon", None, Meaning::StopDaemon),
    flag("help", Some('h'), Meaning::Help),
    flag("version", Some('v'), Meaning::Version),
    valued("tcp-service", Some('t'), Meaning::TcpService),
    valued("udp-service", Some('u'), Meaning::UdpService),
    valued("sctp-service", None, Meaning::SctpService),
    valued("fwmark-service", Some('f'), Meaning::FwMarkService),
    flag("ipv6", Some('6'), Meaning::Ipv6),
    valued("scheduler", Some('s'), Meaning::Plain(Group::Scheduler)),
    Spec { long: "persistent", short: Some('p'), value: Value::Optional, meaning: Meaning::Plain(Group::Persistent) },
    valued("netmask", Some('M'), Meaning::Plain(Group::Netmask)),
    flag("ops", Some('o'), Meaning::Plain(Group::OnePacket)),
    valued("pe", None, Meaning::Plain(Group::PersistenceEngine)),
    valued("sched-flags", Some('b'), Meaning::Plain(Group::SchedulerFlags)),
    valued("real-server", Some('r'), Meaning::Plain(Group::RealServer)),
    flag("gatewaying", Some('g'), Meaning::Gatewaying),
    flag("ipip", Some('i'), Meaning::Ipip),
    flag("masquerading", Some('m'), Meaning::Masquerading),
    valued("weight", Some('w'), Meaning::Plain(Group::Weight)),
    valued("u-threshold", Some('x'), Meaning::Plain(Group::UpperThreshold)),
    valued("l-threshold", Some('y'), Meaning::Plain(Group::LowerThreshold)),
    valued("tun-type", None, Meaning::Plain(Group::TunnelType)),
    valued("tun-port", None, Meaning::Plain(Group::TunnelPort)),
    flag("tun-nocsum", None, Meaning::Plain(Group::TunnelNoChecksum)),
    flag("tun-csum", None, Meaning::Plain(Group::TunnelChecksum)),
    flag("tun-remcsum", None, Meaning::Plain(Group::TunnelRemoteChecksum)),
    flag("numeric", Some('n'), Meaning::Plain(Group::Numeric)),
    flag("connection", Some('c'), Meaning::Plain(Group::Connection)),
    flag("timeout", None, Meaning::Plain(Group::Timeout)),
    flag("daemon", None, Meaning::Plain(Group::Daemon)),
    flag("stats", None, Meaning::Plain(Group::Stats)),
    flag("rate", None, Meaning::Plain(Group::Rate)),
    flag("thresholds", None, Meaning::Plain(Group::Thresholds)),
    flag("persistent-conn", None, Meaning::Plain(Group::PersistentConn)),
    flag("tun-info", None, Meaning::Plain(Group::TunnelInfo)),
    flag("exact", None, Meaning::Plain(Group::Exact)),
    flag("sort", None, Meaning::Sort),
    flag("nosort", None, Meaning::Plain(Group::NoSort)),
    valued("syncid", None, Meaning::Plain(Group::SyncId)),
    valued("sync-maxlen", None, Meaning::Plain(Group::SyncMaxlen)),
    valued("mcast-interface", None, Meaning::Plain(Group::McastInterface)),
    valued("mcast-group", None, Meaning::Plain(Group::McastAddress)),
    valued("mcast-port", None, Meaning::Plain(Group::McastPort)),
    valued("mcast-ttl", None, Meaning::Plain(Group::McastTtl)),
    // Ours. No short forms: DPVS's -z and -b are unknown or taken in ipvsadm.
    flag("add-laddr", None, Meaning::AddLocalAddress),
    flag("del-laddr", None, Meaning::DeleteLocalAddress),
    valued("local-address", None, Meaning::Plain(Group::LocalAddress)),
    flag("fullnat", None, Meaning::FullNat),
    valued("client-address", None, Meaning::Plain(Group::ClientAddress)),
    flag("keep-sequence", None, Meaning::Plain(Group::KeepSequence)),
    flag("keep-timestamps", None, Meaning::Plain(Group::KeepTimestamps)),
    valued("mss-clamp", None, Meaning::Plain(Group::MssClamp)),
    valued("helper", None, Meaning::Plain(Group::Helper)),
    valued("tcp-timeout", None, Meaning::Plain(Group::TcpTimeout)),
    valued("tcpfin-timeout", None, Meaning::Plain(Group::TcpFinTimeout)),
    valued("udp-timeout", None, Meaning::Plain(Group::UdpTimeout)),
    valued("slow-start", None, Meaning::Plain(Group::SlowStart)),
    valued("on-server-gone", None, Meaning::Plain(Group::OnServerGone)),
    flag("reuse-reschedules", None, Meaning::Plain(Group::ReuseReschedules)),
    valued("mtu", None, Meaning::Plain(Group::Mtu)),
    valued("drain", None, Meaning::Plain(Group::Drain)),
    flag("drain-reset", None, Meaning::Plain(Group::DrainReset)),
    valued("on-reply-conflict", None, Meaning::Plain(Group::OnReplyConflict)),
    flag("check-window", None, Meaning::Plain(Group::CheckWindow)),
];
