//! The director: one struct, owned by one thread. Packets, commands and the time go in; verdicts, events and views come
//! out.

mod carry_out;
mod clock;
mod config;
mod control;
mod decide;
mod explain;
mod fragments;
mod full_nat;
mod outbox;
mod pieces;
mod plan;
mod restore;
mod save;
mod schedulers;
mod server_timers;
mod services;
mod steady;
mod tables;
mod upkeep;
mod view;

use core::hint::black_box;
use core::net::IpAddr;

use self::carry_out::accounting::EventQueue;
use self::clock::Clock;
pub use self::config::DirectorConfig;
pub use self::config::HalfOpenPolicy;
pub use self::config::Side;
use self::decide::classify::Outcome;
use self::fragments::FragmentTable;
use self::full_nat::FullNat;
use self::outbox::Outbox;
use self::outbox::Owed;
use self::plan::Plan;
use self::schedulers::Schedulers;
use self::services::Services;
use self::steady::FlowHashes;
use self::tables::Flows;
use self::tables::Outlet;
use self::tables::Site;
use self::tables::Tables;
use self::tables::Upkeep;
use crate::answer_limit::AnswerLimit;
use crate::client_group::{ClientGroups, share};
use crate::command::Command;
use crate::connection::followed::FollowedTable;
use crate::connection::newcomer::Newcomer;
use crate::connection::table::ConnectionTable;
use crate::defence::Defence;
use crate::drop_reason::DropReason;
use crate::error::ControlError;
use crate::event::Event;
use crate::explanation::Explanation;
use crate::flow::AddressFamily;
use crate::helper::table::HelpedTable;
use crate::packet::PacketBuf;
use crate::persistence::TemplateTable;
use crate::reserve::{OutOfMemory, Refused};
use crate::rng::Seed;
use crate::settings::Settings;
use crate::time::Instant;
use crate::verdict::Verdict;
use crate::view::{DefenceCounters, Gauges};
use crate::wire::parse::{self, Headers};

/// The load balancer: services, servers, connections, and the verbs that move them.
///
/// Owned by one thread; a machine with many cores runs one director each. Nothing enters it but packets, commands and
/// the time.
///
/// ```
/// use lvs_core::{Command, Director, DirectorConfig, Instant, Protocol, Seed, ServerConfig, ServiceConfig, ServiceKey};
///
/// let mut director = Director::new(DirectorConfig::default(), Seed::new(1));
/// let web = ServiceKey::address(Protocol::Tcp, "192.0.2.80:80".parse().unwrap());
/// director.apply(Instant::ZERO, &Command::AddService(web, ServiceConfig::new("rr"))).unwrap();
/// let server = ServerConfig::nat("10.0.0.2:8080".parse().unwrap());
/// director.apply(Instant::ZERO, &Command::AddServer(web, server)).unwrap();
/// assert_eq!(director.services(Instant::ZERO)[0].servers.len(), 1);
/// ```
pub struct Director {
    site: Site,
    services: Services,
    schedulers: Schedulers,
    flows: Flows,
    fragments: FragmentTable,
    defence: Defence,
    outlet: Outlet,
    upkeep: Upkeep,
    clock: Clock,
}

impl Director {
    /// A director without services. `seed` decides every random choice; memory for as many connections, templates and
    /// fragmented datagrams as `config` allows is reserved here: [`DirectorConfig::reserved_bytes`].
    ///
    /// # Panics
    /// If the allocator does not give that memory. Where that can be, use [`Self::try_new`].
    pub fn new(config: DirectorConfig, seed: Seed) -> Self {
        Self::try_new(config, seed).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same on a machine that may not have the memory.
    ///
    /// ```
    /// use lvs_core::{Director, DirectorConfig, Seed};
    ///
    /// // A small machine: 128 connections, few of anything else, in less than 72 KiB.
    /// let config = DirectorConfig::default().with(|config| {
    ///     config.connections_max = 128;
    ///     config.templates_max = 16;
    ///     config.fragments_max = 8;
    ///     config.fragment_bytes_max = 8192;
    ///     config.events_max = 16;
    /// });
    /// assert!(config.reserved_bytes() < 72 << 10);
    /// let director = Director::try_new(config, Seed::new(0x5eed))?;
    /// # Ok::<(), lvs_core::OutOfMemory>(())
    /// ```
    ///
    /// # Errors
    /// The allocator does not give the memory; nothing is kept of what it gave.
    pub fn try_new(config: DirectorConfig, seed: Seed) -> Result<Self, OutOfMemory> {
        let bytes = config.reserved_bytes();
        Self::reserve(config, seed).map_err(|Refused| OutOfMemory { bytes })
    }

    fn reserve(config: DirectorConfig, seed: Seed) -> Result<Self, Refused> {
        let groups = ClientGroups::new(config.client_ipv6_prefix);
        let client_templates_max = share(config.client_templates_max, config.templates_max);
        let services = Services::new([seed.derive(1), seed.derive(2)], config.timeouts.clone());
        let flows = Flows {
            connections: ConnectionTable::try_new(
                config.connections_max,
                config.client_endpoint_max,
                groups,
                seed.derive(3),
            )?,
            helped: HelpedTable::new(seed.derive(9)),
            templates: TemplateTable::try_new(config.templates_max, client_templates_max, groups, seed.derive(4))?,
            full_nat: FullNat::new(config.local_ports, groups, seed.derive(8)),
            followed: FollowedTable::new(seed.derive(13)),
        };
        let outlet = Outlet {
            outbox: Outbox::new(config.fragment_bytes_max),
            events: EventQueue::new(config.events_max),
            drops: [0; DropReason::ALL.len()],
            full_announced: [false; 4],
            answers: 0,
            answer_limit: AnswerLimit::new(seed.derive(10)),
            reply_conflicts: 0,
            disbelieved: 0,
        };
        let fragments = FragmentTable::try_new(config.fragments_max, config.fragment_bytes_max, seed.derive(5))?;
        let identification_secret = seed.derive(6).derive(decide::route::IDENTIFICATION).value();
        let mut director = Self {
            site: Site { config, seed: seed.derive(6), identification_secret },
            services,
            schedulers: Schedulers::default(),
            flows,
            fragments,
            defence: Defence::new(seed.derive(7)),
            outlet,
            upkeep: Upkeep::default(),
            clock: Clock::START,
        };
        director.evaluate_defence(Instant::ZERO);
        Ok(director)
    }

    /// Decides about one packet and rewrites it in place. The verdict says what to do with it; `Pass` and `Drop`
    /// leave the bytes as they came.
    pub fn handle_packet(&mut self, now: Instant, packet: &mut PacketBuf<'_>) -> Verdict {
        let now = self.clock.advance(now);
        self.steady(now, packet, FlowHashes::default()).unwrap_or_else(|| self.handle_any(now, packet))
    }

    /// The same without the short way.
    #[inline(never)]
    fn handle_any(&mut self, now: Instant, packet: &mut PacketBuf<'_>) -> Verdict {
        let verdict = match &parse::parse(packet.bytes()) {
            Ok(headers) => self.dispatch(now, packet, headers),
            Err(reason) => Verdict::Drop(*reason),
        };
        match verdict {
            Verdict::Drop(reason) => self.count_drop(reason),
            Verdict::Reply { .. } => self.spend_answer(packet.bytes()),
            _ => {}
        }
        verdict
    }

    /// Decides about many packets, in order; equal in effect to `handle_packet` on each, and faster where there are too
    /// many connections for the cache. `each` is called once for each packet with its index in `packets`.
    pub fn handle_batch(
        &mut self,
        now: Instant,
        packets: &mut [PacketBuf<'_>],
        mut each: impl FnMut(usize, &mut PacketBuf<'_>, Verdict),
    ) {
        let mut start = 0;
        for chunk in packets.chunks_mut(BATCH) {
            let hashes = self.flows.prepare(chunk);
            for (index, (packet, hashes)) in chunk.iter_mut().zip(hashes).enumerate() {
                let now = self.clock.advance(now);
                let verdict = self.steady(now, packet, hashes).unwrap_or_else(|| self.handle_any(now, packet));
                each(start + index, packet, verdict);
            }
            start += BATCH;
        }
    }
}

impl Flows {
    /// Reads the memory that the lookups of a chunk will need, so that by the time each packet is handled it is in the
    /// cache. Each loop only does what can be under way for all packets at once: none waits for another's memory, and
    /// a record is not asked for before its index entry has had time to come. Returns the hashes there were to be
    /// computed.
    fn prepare(&self, chunk: &[PacketBuf<'_>]) -> [FlowHashes; BATCH] {
        let mut all = [FlowHashes::default(); BATCH];
        for (hashes, packet) in all.iter_mut().zip(chunk) {
            if let Some((protocol, source, _)) = parse::guess_flow(packet.bytes()) {
                let hash = self.connections.hash_request(protocol, source);
                black_box(self.connections.touch_index(hash));
                hashes.request = Some(hash);
            }
        }
        for (hashes, packet) in all.iter_mut().zip(chunk) {
            // A packet is looked up as a request first; only where there is none, as a reply.
            let Some(hash) = hashes.request else { continue };
            if black_box(self.connections.touch_record(hash)).is_none() {
                let Some((protocol, _, destination)) = parse::guess_flow(packet.bytes()) else { continue };
                let hash = self.connections.hash_request(protocol, destination);
                black_box(self.connections.touch_index(hash));
                hashes.reply = Some(hash);
            }
        }
        for hash in all.iter().filter_map(|hashes| hashes.reply) {
            black_box(self.connections.touch_record(hash));
        }
        all
    }
}

impl Director {
    /// When `handle_timeout` next has something to do; `None` while nothing is timed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_due().and_then(|due| self.clock.told_at(due))
    }

    /// Does the work that is due: at most [`TIMEOUT_WORK_MAX`] connections, templates, fragments, samples of counters
    /// and deleted servers in each call; call again while `poll_timeout` is not after `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        self.run_timers(now);
    }

    /// Carries out a command; an `Err` has changed nothing.
    ///
    /// # Errors
    /// As ipvsadm words them; see [`ControlError`].
    pub fn apply(&mut self, now: Instant, command: &Command) -> Result<(), ControlError> {
        let now = self.clock.advance(now);
        self.command(now, command)
    }

    /// The next thing worth telling.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.outlet.events.pop()
    }

    /// The next packet the director itself owes the wire (a fragment that waited for its datagram's first one),
    /// written into `into`, with the verdict it would have had. Call until `None` after each packet, batch and timeout.
    pub fn poll_transmit(&mut self, into: &mut PacketBuf<'_>) -> Option<Verdict> {
        let packet = match self.outlet.outbox.pop()? {
            Owed::Packet(packet) => packet,
            Owed::Part(part, decision) => self.release(part, decision),
        };
        let verdict = packet.write(into);
        if let Verdict::Drop(reason) = verdict {
            self.count_drop(reason);
        }
        Some(verdict)
    }

    /// What would happen to this packet now, and why, step by step. Changes nothing.
    ///
    /// A new connection first clears some ended ones away, which this does not: call [`Director::handle_timeout`]
    /// before it for counts that are exact to the moment.
    pub fn explain(&self, now: Instant, packet: &PacketBuf<'_>) -> Explanation {
        let tables = Tables { now: self.clock.time_at(now), ..self.tables() };
        tables.explain_packet(packet, &mut self.schedulers.copies())
    }

    /// How full the tables are.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            connections: self.flows.connections.len(),
            half_open: self.flows.connections.newcomers_len(Newcomer::HalfOpen),
            unproven: self.flows.connections.newcomers_len(Newcomer::Unproven),
            expected: self.flows.connections.newcomers_len(Newcomer::Expected),
            templates: self.flows.templates.len(),
            templates_unproven: self.flows.templates.unproven_len(),
            local_ports: self.flows.full_nat.pool.leased(),
            fragments: self.fragments.memory.len(),
            transmits: self.outlet.outbox.len(),
            deleted_servers: self.services.servers.deleted_len(),
        }
    }

    /// How many services there are; at most `services_max`.
    pub fn service_count(&self) -> u32 {
        self.services.table.len()
    }

    /// How many real servers all services have together; with [`Gauges::deleted_servers`] at most `servers_max`.
    pub fn server_count(&self) -> u32 {
        self.services.servers.len() - self.services.servers.deleted_len()
    }

    /// What the defences have done to entries that were already there.
    pub fn defence_counters(&self) -> DefenceCounters {
        DefenceCounters {
            entries_removed: self.defence.drop_entry.removed,
            half_open_evicted: self.defence.half_open_evicted,
            newcomers_evicted: self.defence.newcomers_evicted,
            talked_evicted: self.defence.talked_evicted,
            templates_evicted: self.defence.templates_evicted,
            expectations_evicted: self.defence.expectations_evicted,
            ports_taken_back: self.defence.ports_taken_back,
            datagrams_given_up: self.defence.datagrams_given_up,
        }
    }

    /// The settings in force. A mode that switches itself (`drop_entry`, `drop_packet`, `secure_tcp`) reads as it is
    /// now.
    pub fn settings(&self) -> &Settings {
        &self.site.config.settings
    }

    /// Connections opened so far that took the replies of another one, because their client, port and NAT server are
    /// the same ([`Event::ReplyConflict`]).
    pub fn reply_conflicts(&self) -> u64 {
        self.outlet.reply_conflicts
    }

    /// TCP segments and SCTP packets so far that would have shortened their connection's life, or opened it, and were not
    /// believed because of their numbers, tag or checksum ([`crate::ServiceConfig::check_window`]). They went their way and
    /// moved nothing.
    pub fn segments_disbelieved(&self) -> u64 {
        self.outlet.disbelieved
    }

    /// Packets refused so far, for one reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.outlet.drops[reason as usize]
    }
}

impl Tables<'_> {
    /// Whether this is one of the director's own addresses, on either side.
    fn is_own_address(&self, address: IpAddr) -> bool {
        let sides = [&self.site.config.client_side, &self.site.config.server_side];
        sides.iter().any(|side| side.address(AddressFamily::of(address)) == Some(address))
    }
}

impl Director {
    /// Looks the packet up, then lets the part that knows its kind of flow handle it.
    fn dispatch(&mut self, now: Instant, packet: &mut PacketBuf<'_>, headers: &Headers) -> Verdict {
        if headers.fragment.is_some() {
            return self.fragment(now, packet, headers);
        }
        self.whole_packet(now, packet, headers, |_| ()).0
    }

    /// A packet that carries its transport header: what comes of it is decided, then done. `keep` takes from the plan what
    /// the caller needs of it.
    fn whole_packet<R>(
        &mut self,
        now: Instant,
        packet: &mut PacketBuf<'_>,
        headers: &Headers,
        keep: impl FnOnce(&Plan) -> R,
    ) -> (Verdict, R) {
        let classified = self.tables().classify(now, packet, headers);
        let is_first = matches!(classified.outcome, Outcome::First(_));
        if is_first && !self.defence.drop_packet.is_due() || matches!(classified.outcome, Outcome::ServerInitiated(_)) {
            // So that the newcomer's scheduler sees true counts.
            self.expire_some(now);
        }
        let (tables, schedulers) = self.apart();
        let mut plan = tables.decide(classified, packet, headers, schedulers, &mut ());
        if is_first {
            self.defence.drop_packet.refuses();
        }
        let verdict = self.carry_out(&mut plan, packet, headers);
        (verdict, keep(&plan))
    }
}

impl core::fmt::Debug for Director {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Director")
            .field("services", &self.services.table)
            .field("connections", &self.flows.connections.len())
            .field("templates", &self.flows.templates.len())
            .field("now", &self.clock.now)
            .finish_non_exhaustive()
    }
}

/// Packets whose lookups are prepared together.
const BATCH: usize = 32;

/// Most entries one call of [`Director::handle_timeout`] looks at.
pub const TIMEOUT_WORK_MAX: u32 = 4_096;
