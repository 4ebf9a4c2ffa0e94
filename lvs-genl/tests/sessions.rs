//! What programs see of a session beyond the recordings: who may do what, what stays when a stock program edits, requests
//! that are sent again, long listings, and the family of our own.

use std::collections::BTreeMap;
use std::time::Duration;

use lvs_core::service::{ClientAddress, SlowStart};
use lvs_core::{
    AfterDrain, Command, Director, DirectorConfig, Endpoint, ForwardMethod, Instant, OnServerGone, Protocol, Seed,
    ServerConfig, ServiceConfig, ServiceKey,
};
use lvs_genl::Errno;
use lvs_genl::client::{Client, Reply};
use lvs_genl::convert::Request;
use lvs_genl::ipvs::{ServiceMessage, command};
use lvs_genl::lvs;
use lvs_genl::server::{Access, DATAGRAM_MAX, Master, Refusal, Session, SyncDaemons};

/// A director and a program that talks to it.
struct Talk {
    director: Director,
    daemons: SyncDaemons,
    client: Client,
    access: Access,
    now: Instant,
}

impl Talk {
    fn new() -> Self {
        Self {
            director: Director::new(DirectorConfig::default(), Seed::new(1)),
            daemons: SyncDaemons::default(),
            client: Client::new(7),
            access: Access::Full,
            now: Instant::from_secs(1),
        }
    }

    /// Every datagram that is answered to one.
    fn datagrams(&mut self, asked: &[u8]) -> Vec<Vec<u8>> {
        let mut table = Master::new(&mut self.director, &mut self.daemons, self.now);
        let mut session = Session::new(self.access);
        session.receive(asked).unwrap();
        let (mut datagram, mut datagrams) = (Vec::new(), Vec::new());
        while session.next_datagram(&mut table, &mut datagram) {
            datagrams.push(datagram.clone());
        }
        assert!(session.is_idle());
        datagrams
    }

    fn replies(&mut self, asked: &[u8]) -> Vec<Reply> {
        let datagrams = self.datagrams(asked);
        datagrams.iter().flat_map(|datagram| self.client.replies(datagram)).map(Result::unwrap).collect()
    }

    fn ask(&mut self, request: &Request) -> Vec<Reply> {
        let asked = self.client.request(request);
        self.replies(&asked)
    }

    fn ask_lvs(&mut self, request: &lvs::Request) -> Vec<Reply> {
        let asked = self.client.lvs_request(request);
        self.replies(&asked)
    }

    /// Has a command carried out.
    fn apply(&mut self, command: &Command) -> Result<(), Refusal> {
        let replies = match Request::of_command(command) {
            Some(request) => self.ask(&request),
            None => self.ask_lvs(&lvs::Request::of_command(command).unwrap()),
        };
        match &replies[..] {
            [Reply::Ack] => Ok(()),
            [Reply::Refused(refusal)] => Err(refusal.clone()),
            other => panic!("{command:?} is answered {other:?}"),
        }
    }

    fn service(&mut self, key: &ServiceKey) -> ServiceConfig {
        match &self.ask(&Request::get_service(key))[..] {
            [Reply::Service(view), Reply::Ack] => view.config.clone(),
            other => panic!("{key:?} is answered {other:?}"),
        }
    }

    fn servers(&mut self, key: &ServiceKey) -> Vec<ServerConfig> {
        let replies = self.ask(&Request::get_servers(key));
        assert_eq!(replies.last(), Some(&Reply::Done));
        let only = |reply| match reply {
            Reply::Server(view) => Some(view.config),
            _ => None,
        };
        replies.into_iter().filter_map(only).collect()
    }
}

fn web() -> ServiceKey {
    ServiceKey::address(Protocol::Tcp, "192.0.2.80:80".parse().unwrap())
}

fn server(at: &str) -> ServerConfig {
    ServerConfig::nat(at.parse().unwrap())
}

/// A service with everything that IPVS never had.
fn rich() -> ServiceConfig {
    let mut config = ServiceConfig::new("wrr").persistent(60).helper("ftp");
    config.mss_clamp = Some(1400);
    config.slow_start = Some(SlowStart { window: Duration::from_millis(1500), min_share: 100, aggression: 2048 });
    config.full_nat.client_address = ClientAddress::ProxyV2;
    config.full_nat.rewrite_sequence = false;
    config.full_nat.remove_timestamps = false;
    config.timeouts.get_or_insert_default().tcp = Some(Duration::from_secs(86_400));
    config.on_server_gone = OnServerGone::Reset;
    config.reuse_reschedules = true;
    config
}

#[test]
fn what_ipvs_never_had_is_set_and_read_back() {
    let mut talk = Talk::new();
    talk.apply(&Command::AddService(web(), rich())).unwrap();
    assert_eq!(talk.service(&web()), rich());
    let mut full_nat = ServerConfig::full_nat("10.0.0.2:8080".parse().unwrap());
    full_nat.mtu = Some(1400);
    talk.apply(&Command::AddServer(web(), full_nat.clone())).unwrap();
    assert_eq!(talk.servers(&web()), [full_nat]);
}

#[test]
fn a_service_without_additions_is_answered_with_the_kernels_attributes_alone() {
    let mut talk = Talk::new();
    talk.apply(&Command::AddService(web(), ServiceConfig::new("rr"))).unwrap();
    talk.apply(&Command::AddServer(web(), server("10.0.0.2:8080"))).unwrap();
    // The lengths of the recordings: 320 and 356 bytes.
    let asked = talk.client.request(&Request::dump(command::GET_SERVICE));
    assert_eq!(talk.datagrams(&asked)[0].len(), 320);
    let asked = talk.client.request(&Request::get_servers(&web()));
    assert_eq!(talk.datagrams(&asked)[0].len(), 356);
}

#[test]
fn a_stock_program_that_edits_leaves_alone_what_it_does_not_know() {
    let mut talk = Talk::new();
    talk.apply(&Command::AddService(web(), rich())).unwrap();
    let mut slow = server("10.0.0.2:8080");
    slow.mtu = Some(1300);
    talk.apply(&Command::AddServer(web(), slow.clone())).unwrap();
    // Neither request says anything of additions.
    talk.apply(&Command::EditService(web(), ServiceConfig::new("lc"))).unwrap();
    talk.apply(&Command::EditServer(web(), server("10.0.0.2:8080").weight(5))).unwrap();
    let mut expected = rich();
    expected.scheduler = "lc".to_owned();
    expected.persistence_timeout_s = None;
    assert_eq!(talk.service(&web()), expected);
    assert_eq!(talk.servers(&web()), [slow.clone().weight(5)]);
}

#[test]
fn a_program_that_knows_additions_replaces_all_of_them() {
    let mut talk = Talk::new();
    talk.apply(&Command::AddService(web(), rich())).unwrap();
    let mut clamped = ServiceConfig::new("lc");
    clamped.mss_clamp = Some(1200);
    talk.apply(&Command::EditService(web(), clamped.clone())).unwrap();
    assert_eq!(talk.service(&web()), clamped);
    // None at all, said by the mark alone.
    let mut request = Request::of_command(&Command::EditService(web(), ServiceConfig::new("lc"))).unwrap();
    request.service.as_mut().unwrap().additions.is_marked = true;
    assert_eq!(talk.ask(&request), [Reply::Ack]);
    assert_eq!(talk.service(&web()), ServiceConfig::new("lc"));
}

#[test]
fn the_method_of_a_server_is_always_said() {
    let mut talk = Talk::new();
    talk.apply(&Command::AddService(web(), ServiceConfig::new("rr"))).unwrap();
    talk.apply(&Command::AddServer(web(), ServerConfig::full_nat("10.0.0.2:8080".parse().unwrap()))).unwrap();
    talk.apply(&Command::EditServer(web(), server("10.0.0.2:8080"))).unwrap();
    assert_eq!(talk.servers(&web())[0].forward, ForwardMethod::Nat);
}

#[test]
fn who_may_not_write_is_refused_and_who_may_not_read_too() {
    let mut talk = Talk::new();
    talk.apply(&Command::AddService(web(), ServiceConfig::new("rr"))).unwrap();
    let refused = [Reply::Refused(Errno::NOT_PERMITTED.into())];
    talk.access = Access::Read;
    assert!(matches!(talk.ask(&Request::get_service(&web()))[..], [Reply::Service(_), Reply::Ack]));
    assert!(matches!(talk.ask_lvs(&lvs::Request::new(lvs::command::GET_STATE))[..], [Reply::State(_), Reply::Ack]));
    assert_eq!(talk.ask(&Request::new(command::FLUSH)), refused);
    talk.access = Access::None;
    assert_eq!(talk.ask(&Request::new(command::GET_INFO)), refused);
    let asked = talk.client.look_up("LVS");
    let found = Reply::Family { name: "LVS".to_owned(), id: lvs_genl::ctrl::LVS_ID };
    assert_eq!(talk.replies(&asked), [found, Reply::Ack]);
    assert_eq!(talk.director.services(talk.now).len(), 1);
}

#[test]
fn a_listing_of_many_servers_fills_its_datagrams_and_loses_none() {
    let mut talk = Talk::new();
    talk.apply(&Command::AddService(web(), ServiceConfig::new("rr"))).unwrap();
    for number in 0..500_u16 {
        let [high, low] = number.to_be_bytes();
        talk.apply(&Command::AddServer(web(), server(&format!("10.1.{high}.{low}:80")))).unwrap();
    }
    assert_eq!(talk.servers(&web()).len(), 500);
    let asked = talk.client.request(&Request::get_servers(&web()));
    let lengths: Vec<_> = talk.datagrams(&asked).iter().map(Vec::len).collect();
    // 46 servers in 16,376 bytes, as recorded; 500 = 10 · 46 + 40; the end in a datagram of its own.
    assert_eq!(lengths[..10], [16_376; 10]);
    assert_eq!(lengths[10..], [40 * 356, 20]);
    assert!(lengths.iter().all(|len| *len <= DATAGRAM_MAX));
}

#[test]
fn a_drain_a_factor_and_local_addresses_reach_the_director() {
    let mut talk = Talk::new();
    let at = Endpoint::new("10.0.0.2".parse().unwrap(), 8080);
    talk.apply(&Command::AddService(web(), ServiceConfig::new("rr"))).unwrap();
    talk.apply(&Command::AddServer(web(), server("10.0.0.2:8080").weight(8))).unwrap();
    talk.apply(&Command::SetServerFactor { service: web(), server: at, factor: 512 }).unwrap();
    assert_eq!(talk.director.service(talk.now, &web()).unwrap().servers[0].effective_weight, 4);
    talk.apply(&Command::AddLocalAddress(web(), "10.0.0.254".parse().unwrap())).unwrap();
    assert_eq!(talk.director.service(talk.now, &web()).unwrap().local_addresses.len(), 1);
    let drain =
        Command::Drain { service: web(), server: at, deadline: Duration::from_secs(60), then: AfterDrain::Silence };
    talk.apply(&drain).unwrap();
    assert_eq!(talk.director.service(talk.now, &web()).unwrap().servers[0].effective_weight, 0);
}

#[test]
fn settings_are_listed_read_and_set_by_name_and_a_refusal_says_why() {
    let mut talk = Talk::new();
    let set = |name: &str, value: &str| lvs::Request {
        name: Some(name.to_owned()),
        value: Some(value.to_owned()),
        ..lvs::Request::new(lvs::command::SET_SETTING)
    };
    assert_eq!(talk.ask_lvs(&set("sloppy_tcp", "1")), [Reply::Ack]);
    assert!(talk.director.settings().sloppy_tcp);
    let all = talk.ask_lvs(&lvs::Request::dump(lvs::command::GET_SETTING));
    let listed: BTreeMap<_, _> = (all.iter())
        .filter_map(|reply| match reply {
            Reply::Setting { name, value } => Some((name.as_str(), value.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!((listed["sloppy_tcp"], listed.len()), ("1", all.len() - 1));
    let get = lvs::Request { name: Some("sloppy_tcp".to_owned()), ..lvs::Request::new(lvs::command::GET_SETTING) };
    let found = Reply::Setting { name: "sloppy_tcp".to_owned(), value: "1".to_owned() };
    assert_eq!(talk.ask_lvs(&get), [found, Reply::Ack]);
    for (name, value, errno, word) in
        [("no_such", "1", Errno::NO_ENTRY, "no_such"), ("sloppy_tcp", "many", Errno::INVALID, "many")]
    {
        let replies = talk.ask_lvs(&set(name, value));
        let [Reply::Refused(Refusal { errno: told, text: Some(text), .. })] = &replies[..] else {
            panic!("{name}={value} is answered {replies:?}");
        };
        assert_eq!(*told, errno);
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn connections_and_counters_are_read_as_the_director_has_them() {
    let mut desk = lvs_testkit::Desk::new(
        "-A -t 192.0.2.1:80 -s rr -p 60\n-a -t 192.0.2.1:80 -r 10.0.0.2:8080 -m\n\
         -A -u [2001:db8::1]:53 -s rr\n-a -u [2001:db8::1]:53 -r [fd00::2]:53 -m",
    );
    for port in 1000..1200 {
        desk.send(&lvs_testkit::tcp(format!("198.51.100.7:{port}").as_str(), "192.0.2.1:80").syn().build());
    }
    desk.send(&lvs_testkit::udp("[2001:db8:2::7]:1000", "[2001:db8::1]:53").build());
    let expected: Vec<_> = desk.director.connections(desk.now).collect();
    let statistics = desk.director.statistics();
    let mut talk = Talk { director: desk.director, now: desk.now, ..Talk::new() };
    let mut replies = talk.ask_lvs(&lvs::Request::dump(lvs::command::GET_CONNECTION));
    assert_eq!(replies.pop(), Some(Reply::Done));
    assert_eq!(replies, expected.into_iter().map(Reply::Connection).collect::<Vec<_>>());
    let told = talk.ask_lvs(&lvs::Request::new(lvs::command::GET_STATISTICS));
    let Reply::Statistics(told) = told[0] else { panic!("{told:?}") };
    assert_eq!((told.published, told.rates), (statistics.published, statistics.rates));
}

#[test]
fn requests_of_one_datagram_are_answered_in_order_and_a_refusal_stops_none() {
    let mut talk = Talk::new();
    let add = Request::of_command(&Command::AddService(web(), ServiceConfig::new("rr"))).unwrap();
    let mut asked = talk.client.request(&add);
    asked.extend(talk.client.request(&add));
    asked.extend(talk.client.request(&Request::dump(command::GET_SERVICE)));
    asked.extend(talk.client.request(&Request::new(command::FLUSH)));
    let replies = talk.replies(&asked);
    assert!(
        matches!(&replies[..], [Reply::Ack, Reply::Refused(exists), Reply::Service(_), Reply::Done, Reply::Ack]
            if exists.errno == Errno::EXISTS),
        "{replies:?}"
    );
}

#[test]
fn a_service_attribute_is_found_wrong_before_it_is_looked_for_and_a_servers_after() {
    let mut talk = Talk::new();
    let refused = |errno: Errno| [Reply::Refused(errno.into())];
    let bare = ServiceMessage::of_key(&web());
    let set = Request { service: Some(bare.clone()), ..Request::new(command::SET_SERVICE) };
    assert_eq!(talk.ask(&set), refused(Errno::INVALID));
    let add = Request { service: Some(bare), ..Request::new(command::NEW_SERVER) };
    assert_eq!(talk.ask(&add), refused(Errno::NO_SUCH));
    talk.apply(&Command::AddService(web(), ServiceConfig::new("rr"))).unwrap();
    assert_eq!(talk.ask(&add), refused(Errno::INVALID));
}

#[test]
fn a_table_without_transactions_refuses_to_commit_and_nothing_is_carried_out() {
    let mut talk = Talk::new();
    let add = Request::of_command(&Command::AddService(web(), ServiceConfig::new("rr"))).unwrap();
    let mut asked = talk.client.lvs_request(&lvs::Request::new(lvs::command::BEGIN));
    asked.extend(talk.client.request(&add));
    // Questions are answered from the tables as they are.
    asked.extend(talk.client.request(&Request::get_service(&web())));
    asked.extend(talk.client.lvs_request(&lvs::Request::new(lvs::command::COMMIT)));
    // It has ended with that.
    asked.extend(talk.client.request(&add));
    let replies = talk.replies(&asked);
    assert!(
        matches!(&replies[..], [Reply::Ack, Reply::Ack, Reply::Refused(none), Reply::Refused(commit), Reply::Ack]
            if none.errno == Errno::NO_SUCH && commit.errno == Errno::NOT_SUPPORTED),
        "{replies:?}"
    );
    assert_eq!(talk.director.services(talk.now).len(), 1);
}

/// Programs sort what they are told by a comparison that is no order, so that it shows what came first.
#[test]
fn services_of_one_chain_are_told_newest_first_and_marks_last() {
    let mut talk = Talk::new();
    for line in ["-A -f 5 -s rr", "-A -t 10.0.0.1:80 -s rr", "-A -t 203.0.113.1:80 -s rr", "-A -t 172.16.0.1:80 -s rr"]
    {
        for command in lvs_admin::parse_rules(line).unwrap() {
            talk.apply(&command).unwrap();
        }
    }
    let told = |talk: &mut Talk| {
        let replies = talk.ask(&Request::dump(command::GET_SERVICE));
        let keys = replies.into_iter().filter_map(|reply| match reply {
            Reply::Service(service) => Some(format!("{:?}", service.key)),
            _ => None,
        });
        keys.collect::<Vec<_>>()
    };
    let keys = told(&mut talk);
    let expected = ["172.16.0.1", "203.0.113.1", "10.0.0.1", "mark: 5"];
    assert!(keys.iter().zip(expected).all(|(key, part)| key.contains(part)) && keys.len() == 4, "{keys:?}");
}
