//! The knobs an operator knows as sysctls of `net.ipv4.vs`, under their own names, with Linux's defaults.
//! Changed at run time by [`crate::Command::SetSettings`]. Each is also known by its name ([`Settings::set`]).

pub(crate) mod named;
mod names;

use core::time::Duration;

use crate::answer_limit::AnswerRates;

pub use self::named::{Format, NamedValue, SetError};

/// Run-time behaviour switches. Every field has the name, meaning and default of the sysctl
/// `net.ipv4.vs.<name>`, or of the one it names; knobs that only concern the kernel's own surroundings are left out: connection tracking and
/// synchronisation (`backup_only` too), routing (`snat_reroute`; the caller routes), and `ignore_tunneled`, as packets of
/// protocols the director does not balance always pass.
///
/// ```
/// use lvs_core::Settings;
/// let settings = Settings::default().with(|settings| settings.sloppy_tcp = true);
/// assert_eq!(settings.conn_reuse_mode, 1);
/// ```
#[non_exhaustive]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Threshold of the automatic defence modes: fewer free places in the connection table than this are too few; so are
    /// as small a part of the templates, of the half-open connections there may be, or of FullNAT's ports. Linux counts
    /// free memory pages instead; a director's memory are its tables. A table smaller than the threshold is always short
    /// of places. `drop_packet` counts places that somebody would give up to a newcomer as free when it says how many it
    /// refuses. Default 1024.
    pub amemthresh: u32,
    /// `drop_packet` = 3: one in this many new connections is dropped. Default 10.
    pub am_droprate: u32,
    /// Random early removal of half-open and idle connections, every second: 0 off, 1 automatic (off), 2 automatic
    /// (on), 3 always. 1 and 2 change places by themselves, once a second. Default 0.
    pub drop_entry: u8,
    /// Refusal of new connections: 0 off, 1 and 2 automatic as `drop_entry`, 3 always (one in `am_droprate`).
    /// Default 0.
    pub drop_packet: u8,
    /// The stricter TCP table: 0 off, 1 and 2 automatic as `drop_entry`, 3 always. Default 0.
    pub secure_tcp: u8,
    /// A fwmark service without a usable server sends the packet on to its own destination. Default off.
    pub cache_bypass: bool,
    /// Connections of deleted servers end at once instead of being dropped silently. Default off.
    pub expire_nodest_conn: bool,
    /// Persistence templates of quiesced (weight 0) servers are not used any more. Default off.
    pub expire_quiescent_template: bool,
    /// TCP segments without SYN may open connections. Default off.
    pub sloppy_tcp: bool,
    /// SCTP packets other than INIT may open connections. Default off.
    pub sloppy_sctp: bool,
    /// A client's packet with a wrong transport checksum neither opens a connection nor brings one about: it is dropped
    /// ([`crate::DropReason::BadTransportChecksum`]), as its server would drop it. Costs the sum over the packet, for
    /// packets of new connections only. Linux does not look at the checksum, so a flood need not even compute one. Not
    /// a sysctl. Default off.
    pub drop_damaged_openings: bool,
    /// An SCTP packet with a wrong CRC32c is dropped where NAT changes a port, instead of getting a right one as in Linux,
    /// so that what was damaged on its way is not taken for whole. FullNAT always drops it. Not a sysctl. Default off.
    pub drop_damaged_sctp: bool,
    /// Replies of a known NAT server without a connection are answered by ICMP port unreachable. Default off.
    pub nat_icmp_send: bool,
    /// Path-MTU discovery for tunnels: copy DF and answer with fragmentation needed. Default on.
    pub pmtu_disc: bool,
    /// The path MTU of a tunnel is believed only if the ICMP error quotes what none but the path can know: outer packets
    /// with DF have an identification made for this server, those over IPv6 a flow label; then it is learned of every
    /// kind of tunnel over both families, however little is quoted. Off, as in Linux: of GUE from anybody, of IPIP and
    /// GRE where the client's packet is quoted too, over IPv6 not at all. Default on.
    pub tunnel_mtu_proof: bool,
    /// An IPv6 packet of 1280 bytes always goes into a tunnel, whose own packets are fragmented where the way takes less
    /// (RFC 2473 §7.1, RFC 4213 §3.2); no client is asked for less, which none could do. Off, as in Linux: clients are
    /// told less, and over IPv6 ways that take less than 1320 bytes nothing is sent. Default on.
    pub tunnel_least_mtu: bool,
    /// When a SYN on a finished connection is scheduled anew: 0 never, bit 0 after TIME_WAIT and CLOSE,
    /// bit 1 also in FIN_WAIT where replies bypass the director. Default 1.
    pub conn_reuse_mode: u8,
    /// ICMP errors about unknown flows may open connections. Default off.
    pub schedule_icmp: bool,
    /// Packets from one of the director's own addresses (virtual, local and those of its sides) may open connections.
    /// Connections they have opened go on when this is turned off. Linux: `net.ipv4.conf.<device>.accept_local`; here
    /// it holds for IPv6 too. Default off.
    pub accept_local: bool,
    /// Publish statistics and rates every 2 s. Default on.
    pub run_estimation: bool,
    /// Age at which an unused `lblc` entry is dropped. Default one day.
    pub lblc_expiration: Duration,
    /// Age at which an unused `lblcr` entry is dropped and its server set shrinks. Default one day.
    pub lblcr_expiration: Duration,
    /// `net.ipv4.icmp_ratelimit`: least time between ICMP errors to one receiver, after six in a row; zero: no limit.
    /// Default 1 s.
    pub icmp_ratelimit: Duration,
    /// `net.ipv4.icmp_ratemask`: which types of ICMP errors are limited, bit n for type n; fragmentation needed never is.
    /// Default 6168: destination unreachable, source quench, time exceeded, parameter problem.
    pub icmp_ratemask: u32,
    /// `net.ipv4.icmp_msgs_per_sec`: most limited ICMP errors in a second; zero: no limit. Default 1000.
    pub icmp_msgs_per_sec: u32,
    /// `net.ipv4.icmp_msgs_burst`: how many of them may come at once. Default 50.
    pub icmp_msgs_burst: u32,
    /// `net.ipv6.icmp.ratelimit`: least time between ICMPv6 errors to one receiver, after six in a row; packet too big is
    /// not limited; zero: no limit. Default 1 s.
    pub icmpv6_ratelimit: Duration,
    /// Most RSTs in a second that answer segments; zero: no limit. Default 0, as in Linux.
    pub resets_per_sec: u32,
}

impl Settings {
    /// The same with some fields changed. Fields may be added in any version, so a literal outside this crate is no way to
    /// make one.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// How many packets may be answered.
    pub const fn answer_rates(&self) -> AnswerRates {
        AnswerRates {
            icmp_ratelimit: self.icmp_ratelimit,
            icmp_ratemask: self.icmp_ratemask,
            icmp_msgs_per_sec: self.icmp_msgs_per_sec,
            icmp_msgs_burst: self.icmp_msgs_burst,
            icmpv6_ratelimit: self.icmpv6_ratelimit,
            resets_per_sec: self.resets_per_sec,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            amemthresh: 1024,
            am_droprate: 10,
            drop_entry: 0,
            drop_packet: 0,
            secure_tcp: 0,
            cache_bypass: false,
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            sloppy_tcp: false,
            sloppy_sctp: false,
            drop_damaged_openings: false,
            drop_damaged_sctp: false,
            nat_icmp_send: false,
            pmtu_disc: true,
            tunnel_mtu_proof: true,
            tunnel_least_mtu: true,
            conn_reuse_mode: 1,
            schedule_icmp: false,
            accept_local: false,
            run_estimation: true,
            lblc_expiration: Duration::from_secs(86_400),
            lblcr_expiration: Duration::from_secs(86_400),
            icmp_ratelimit: AnswerRates::LINUX.icmp_ratelimit,
            icmp_ratemask: AnswerRates::LINUX.icmp_ratemask,
            icmp_msgs_per_sec: AnswerRates::LINUX.icmp_msgs_per_sec,
            icmp_msgs_burst: AnswerRates::LINUX.icmp_msgs_burst,
            icmpv6_ratelimit: AnswerRates::LINUX.icmpv6_ratelimit,
            resets_per_sec: AnswerRates::LINUX.resets_per_sec,
        }
    }
}
