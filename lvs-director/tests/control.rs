//! `lvsd` driven while it runs, by its control socket.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lvs_client::{Running, Trouble};
use lvs_core::{Command as Change, Protocol, ServerConfig, ServiceConfig, ServiceKey};
use lvs_genl::Errno;
use rustix::process::{Pid, Signal, kill_process};

/// An `lvsd` without devices. It ends with this.
struct Daemon {
    child: Child,
    folder: PathBuf,
}

impl Daemon {
    fn start(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("lvsd-control-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        // lvsd makes the folder, for its owner alone.
        Self { child: lvsd(&folder), folder }
    }

    /// Kills it and starts another in its place.
    fn kill_and_start_again(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = lvsd(&self.folder);
    }

    /// Connects as soon as it listens.
    fn connect(&self) -> Running {
        loop {
            match Running::connect(&self.folder.join("control.sock")) {
                Ok(running) => return running,
                Err(Trouble::Unreachable(_)) => std::thread::yield_now(),
                Err(trouble) => panic!("{trouble}"),
            }
        }
    }
}

fn lvsd(folder: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_lvsd"))
        .args(["run", "--control"])
        .arg(folder.join("control.sock"))
        .stderr(Stdio::null())
        .spawn()
        .expect("lvsd starts")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn web() -> ServiceKey {
    ServiceKey::address(Protocol::Tcp, "192.0.2.80:80".parse().unwrap())
}

#[test]
fn services_are_added_listed_and_deleted_while_it_runs() {
    let daemon = Daemon::start("listed");
    let mut running = daemon.connect();
    running.apply(&Change::AddService(web(), ServiceConfig::new("wrr"))).unwrap();
    for server in ["10.0.0.2:80", "10.0.0.3:80"] {
        running.apply(&Change::AddServer(web(), ServerConfig::nat(server.parse().unwrap()))).unwrap();
    }
    // Another program sees it.
    let mut other = daemon.connect();
    let mut services = other.services().unwrap();
    other.fill_servers(&mut services).unwrap();
    assert_eq!(services[0].key, web());
    assert_eq!(services[0].servers.len(), 2);
    other.apply(&Change::DeleteService(web())).unwrap();
    assert!(running.services().unwrap().is_empty());
}

#[test]
fn a_refused_command_changes_nothing_and_says_why() {
    let daemon = Daemon::start("refused");
    let mut running = daemon.connect();
    running.apply(&Change::AddService(web(), ServiceConfig::new("wrr"))).unwrap();
    let Err(Trouble::Refused(refusal)) = running.apply(&Change::AddService(web(), ServiceConfig::new("rr"))) else {
        panic!("it is there already");
    };
    assert_eq!(refusal.errno, Errno::EXISTS);
    assert_eq!(running.services().unwrap()[0].config.scheduler, "wrr");
}

#[test]
fn settings_are_read_and_set_by_their_sysctl_names() {
    let daemon = Daemon::start("settings");
    let mut running = daemon.connect();
    running.set("drop_entry", "3").unwrap();
    assert_eq!(running.settings(Some("drop_entry")).unwrap(), [("drop_entry".to_owned(), "3".to_owned())]);
    let Err(Trouble::Refused(refusal)) = running.set("no_such_name", "1") else { panic!("there is no such setting") };
    assert_eq!(refusal.errno, Errno::NO_ENTRY);
}

#[test]
fn a_program_that_says_nothing_or_never_reads_keeps_nobody_waiting() {
    let daemon = Daemon::start("silent");
    let mut running = daemon.connect();
    for number in 0..200_u16 {
        let key = ServiceKey::address(Protocol::Udp, ([192, 0, 2, 80], number + 1).into());
        running.apply(&Change::AddService(key, ServiceConfig::new("rr"))).unwrap();
    }
    let silent: Vec<Running> = (0..100).map(|_| daemon.connect()).collect();
    // Questions whose answers nobody reads.
    let deaf = lvs_client::socket::Socket::connect(&daemon.folder.join("control.sock")).unwrap();
    let mut client = lvs_genl::client::Client::new(1);
    for _ in 0..16 {
        let question = lvs_genl::convert::Request::dump(lvs_genl::ipvs::command::GET_SERVICE);
        deaf.send(&client.request(&question)).unwrap();
    }
    assert_eq!(daemon.connect().services().unwrap().len(), 200);
    drop(silent);
}

/// One silent message and so many questions wait when it looks: its turn ends between one of them and its answer.
#[test]
fn every_question_is_answered_however_many_come_at_once() {
    let daemon = Daemon::start("many");
    drop(daemon.connect());
    let mut socket = lvs_client::socket::Socket::connect(&daemon.folder.join("control.sock")).unwrap();
    let mut client = lvs_genl::client::Client::new(1);
    let lvsd = Pid::from_child(&daemon.child);
    kill_process(lvsd, Signal::STOP).unwrap();
    // No request, and no acknowledgment is asked for.
    socket.send(&[16, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    const QUESTIONS: usize = 32;
    for _ in 0..QUESTIONS {
        socket.send(&client.request(&lvs_genl::convert::Request::dump(lvs_genl::ipvs::command::GET_SERVICE))).unwrap();
    }
    kill_process(lvsd, Signal::CONT).unwrap();
    for _ in 0..QUESTIONS {
        socket.receive().unwrap();
    }
}

#[test]
fn what_was_set_outlives_the_process() {
    let mut daemon = Daemon::start("outlives");
    let mut running = daemon.connect();
    let dns = ServiceKey::address(Protocol::Udp, "[2001:db8::53]:53".parse().unwrap());
    for change in [
        Change::AddService(web(), ServiceConfig::new("wrr")),
        Change::AddServer(web(), ServerConfig::nat("10.0.0.2:80".parse().unwrap()).weight(7)),
        Change::AddService(dns, ServiceConfig::new("rr")),
        Change::DeleteService(dns),
    ] {
        running.apply(&change).unwrap();
    }
    running.apply(&Change::AddService(web(), ServiceConfig::new("rr"))).unwrap_err();
    running.set("drop_entry", "3").unwrap();
    daemon.kill_and_start_again();
    let mut running = daemon.connect();
    let mut services = running.services().unwrap();
    running.fill_servers(&mut services).unwrap();
    assert_eq!(services.len(), 1);
    assert_eq!((services[0].key, services[0].config.scheduler.as_str()), (web(), "wrr"));
    assert_eq!(services[0].servers[0].config.weight, 7);
    assert_eq!(running.settings(Some("drop_entry")).unwrap()[0].1, "3");
}

#[test]
fn a_transaction_is_carried_out_whole_or_not_at_all() {
    let mut daemon = Daemon::start("transaction");
    let mut running = daemon.connect();
    let server = |address: &str| ServerConfig::nat(address.parse().unwrap());
    let dns = ServiceKey::address(Protocol::Udp, "[2001:db8::53]:53".parse().unwrap());
    running.apply(&Change::AddService(dns, ServiceConfig::new("rr"))).unwrap();
    let mut changes = vec![
        Change::Flush,
        Change::AddService(web(), ServiceConfig::new("wrr")),
        Change::AddServer(web(), server("10.0.0.2:80")),
        Change::EditServer(web(), server("10.0.0.2:80").weight(5)),
        Change::SetTimeouts { tcp: None, tcp_fin: None, udp: Some(std::time::Duration::from_secs(33)) },
    ];
    // The first that is refused is named; each is tried on what those before it come to.
    changes.push(Change::AddServer(web(), server("10.0.0.2:80")));
    changes.push(Change::DeleteService(dns));
    let Err(Trouble::Refused(refusal)) = running.apply_together(&changes) else {
        panic!("the server is there already")
    };
    assert_eq!((refusal.errno, refusal.at), (Errno::EXISTS, Some(5)));
    let keys =
        |running: &mut Running| running.services().unwrap().iter().map(|service| service.key).collect::<Vec<_>>();
    assert_eq!(keys(&mut running), [dns], "nothing has changed");
    // Nobody sees what is not carried out yet, and the next transaction begins anew.
    changes.truncate(5);
    running.apply_together(&changes).unwrap();
    let mut other = daemon.connect();
    assert_eq!(keys(&mut other), [web()]);
    assert_eq!(other.timeouts().unwrap().udp.as_secs(), 33);
    // It outlives the process as a whole.
    daemon.kill_and_start_again();
    let mut running = daemon.connect();
    let mut services = running.services().unwrap();
    running.fill_servers(&mut services).unwrap();
    assert_eq!((services.len(), services[0].servers[0].config.weight), (1, 5));
    assert_eq!(running.timeouts().unwrap().udp.as_secs(), 33);
}

#[test]
fn a_transaction_that_its_program_leaves_is_forgotten() {
    use lvs_genl::client::{Client, Reply};
    use lvs_genl::lvs::{Request, command};
    let daemon = Daemon::start("left");
    drop(daemon.connect());
    let connect = || lvs_client::socket::Socket::connect(&daemon.folder.join("control.sock")).unwrap();
    let ask = |socket: &mut lvs_client::socket::Socket, client: &mut Client, request: Vec<u8>| -> Reply {
        socket.send(&request).unwrap();
        client.replies(socket.receive().unwrap()).next().unwrap().unwrap()
    };
    let (mut socket, mut client) = (connect(), Client::new(1));
    for (command, errno) in [
        (command::COMMIT, Some(Errno::INVALID)),
        (command::ABORT, Some(Errno::INVALID)),
        (command::PLAN, Some(Errno::NOT_SUPPORTED)),
        (command::BEGIN, None),
        (command::BEGIN, Some(Errno::EXISTS)),
    ] {
        let request = client.lvs_request(&Request::new(command));
        let told = match ask(&mut socket, &mut client, request) {
            Reply::Refused(refusal) => Some(refusal.errno),
            reply => {
                assert_eq!(reply, Reply::Ack);
                None
            }
        };
        assert_eq!(told, errno, "{command}");
    }
    let add = lvs_genl::convert::Request::of_command(&Change::AddService(web(), ServiceConfig::new("rr"))).unwrap();
    let request = client.request(&add);
    assert_eq!(ask(&mut socket, &mut client, request), Reply::Ack, "it is kept");
    drop(socket);
    let mut running = daemon.connect();
    assert!(running.services().unwrap().is_empty());
    running.apply(&Change::AddService(web(), ServiceConfig::new("wrr"))).unwrap();
}

#[test]
fn lvsadm_restores_every_line_or_names_the_one_that_is_wrong() {
    let lvsadm = Path::new(env!("CARGO_BIN_EXE_lvsd")).with_file_name("lvsadm");
    if !lvsadm.is_file() {
        println!("skipped: lvsadm_restores_every_line_or_names_the_one_that_is_wrong: lvsadm is not built");
        return;
    }
    let daemon = Daemon::start("restored");
    let mut running = daemon.connect();
    let file = daemon.folder.join("rules");
    let rules = "-A -t 192.0.2.80:80 -s wrr\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m\n\n";
    let mut restore = |more: &str| {
        std::fs::write(&file, format!("{rules}{more}")).unwrap();
        let mut command = Command::new(&lvsadm);
        command.arg("--control").arg(daemon.folder.join("control.sock")).args(["restore", "--atomic"]).arg(&file);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
        (output.status.code(), said, running.services().unwrap().len())
    };
    let refused = "line 4: Service already exists; nothing is applied\n  -A -t 192.0.2.80:80 -s rr\n";
    assert_eq!(restore("-A -t 192.0.2.80:80 -s rr\n"), (Some(1), refused.to_owned(), 0));
    let (status, said, services) = restore("nonsense\n-A -t 192.0.2.81:80 -s rr\n");
    assert!(said.starts_with("line 4: ") && said.ends_with("\n  nonsense\n"), "{said}");
    assert_eq!((status, services), (Some(1), 0));
    assert_eq!(restore(""), (Some(0), String::new(), 1));
}

/// The environment names the socket, so that one which cannot be had is done without.
#[test]
fn an_lvsd_that_does_not_get_the_socket_carries_nothing_out_that_was_set_there() {
    use std::io::{BufRead, BufReader, Read};
    let daemon = Daemon::start("second");
    daemon.connect().apply(&Change::AddService(web(), ServiceConfig::new("wrr"))).unwrap();
    let mut second = Command::new(env!("CARGO_BIN_EXE_lvsd"))
        .args(["run", "--config", "/dev/null"])
        .env("LVS_CONTROL", daemon.folder.join("control.sock"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(second.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.take_while(|line| !line.contains("no devices")).any(|line| line.contains("cannot listen")));
    let pid = Pid::from_child(&second);
    kill_process(pid, Signal::USR1).unwrap();
    let mut printed = BufReader::new(second.stdout.take().unwrap());
    let mut text = String::new();
    printed.read_line(&mut text).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    printed.read_to_string(&mut text).unwrap();
    second.wait().unwrap();
    assert!(!text.contains("192.0.2.80"), "{text}");
}

#[test]
fn two_sockets_that_would_share_what_is_kept_are_refused() {
    let daemon = Daemon::start("shared");
    drop(daemon.connect());
    for name in ["control.ctl", "control.rules", "control.lock"] {
        let mut lvsd = Command::new(env!("CARGO_BIN_EXE_lvsd"));
        lvsd.args(["run", "--control"]).arg(daemon.folder.join(name)).stderr(Stdio::piped()).stdout(Stdio::null());
        let mut child = lvsd.spawn().unwrap();
        let is_over = (0..200).any(|_| {
            std::thread::park_timeout(std::time::Duration::from_millis(50));
            child.try_wait().unwrap().is_some()
        });
        let _ = child.kill();
        let said = child.wait_with_output().unwrap();
        assert!(is_over && !said.status.success(), "{name}");
        assert!(String::from_utf8_lossy(&said.stderr).contains("choose"), "{name}: {said:?}");
    }
}

/// As many as it has descriptors for, and more: those that came first go, and there is always room for one.
#[test]
fn programs_are_served_though_every_descriptor_is_used_up() {
    let mut daemon = Daemon::start("descriptors");
    drop(daemon.connect());
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let script = "ulimit -n 100; exec \"$0\" run --control \"$1\"";
    daemon.child = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_lvsd")])
        .arg(daemon.folder.join("control.sock"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(daemon.connect());
    let socket = daemon.folder.join("control.sock");
    let silent: Vec<_> = (0..200).filter_map(|_| lvs_client::socket::Socket::connect(&socket).ok()).collect();
    assert_eq!(silent.len(), 200);
    assert!(daemon.connect().services().unwrap().is_empty());
}

#[test]
fn drains_and_load_factors_outlive_the_process_and_a_drain_is_no_longer_for_it() {
    let mut daemon = Daemon::start("drains");
    let mut running = daemon.connect();
    let server = ServerConfig::nat("10.0.0.2:80".parse().unwrap());
    let deadline = std::time::Duration::from_secs(600);
    let drain = Change::Drain { service: web(), server: server.key, deadline, then: lvs_core::AfterDrain::Silence };
    for change in [
        Change::AddService(web(), ServiceConfig::new("wrr")),
        Change::AddServer(web(), server.clone()),
        Change::SetServerFactor { service: web(), server: server.key, factor: 300 },
        drain,
    ] {
        running.apply(&change).unwrap();
    }
    let journal = std::fs::read_to_string(daemon.folder.join("control.rules")).unwrap();
    // As if it had been told nine minutes ago.
    let aged: String = journal
        .lines()
        .map(|line| match line.strip_prefix("drain ").and_then(|rest| rest.split_once(' ')) {
            Some((end, rest)) => format!("drain {} {rest}\n", end.parse::<u64>().unwrap() - 540_000),
            None => format!("{line}\n"),
        })
        .collect();
    assert_ne!(aged, journal);
    assert!(journal.contains("factor 300"), "{journal}");
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    std::fs::write(daemon.folder.join("control.rules"), aged).unwrap();
    daemon.child = lvsd(&daemon.folder);
    let drain_of = |daemon: &Daemon| {
        let mut running = daemon.connect();
        let mut services = running.services().unwrap();
        running.fill_servers(&mut services).unwrap();
        services[0].servers[0].drain.expect("it drains")
    };
    let drain = drain_of(&daemon);
    assert!(drain.ends_in.as_secs() <= 60 && drain.then == lvs_core::AfterDrain::Silence, "{drain:?}");
    // Stock programs say nothing of drains: what they edit does not begin them anew.
    daemon.connect().apply(&Change::EditServer(web(), server.weight(5))).unwrap();
    assert!(drain_of(&daemon).ends_in.as_secs() <= 60);
}

#[test]
fn what_does_not_fit_any_more_is_told_line_by_line() {
    let mut daemon = Daemon::start("fits");
    drop(daemon.connect());
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let journal = daemon.folder.join("control.rules");
    let lines: String = (1..40).map(|weight| format!("-e -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w {weight}\n")).collect();
    std::fs::write(&journal, format!("nonsense\n{lines}")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_lvsd"))
        .args(["run", "--control"])
        .arg(daemon.folder.join("control.sock"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    daemon.child = child;
    let said = std::io::BufRead::lines(std::io::BufReader::new(stderr)).map_while(Result::ok);
    let said: Vec<String> = said.take_while(|line| !line.contains("no devices")).collect();
    let of_journal = |line: &&String| line.contains(&journal.display().to_string());
    assert!(said.iter().any(|line| line.ends_with(": nonsense")), "{said:?}");
    assert_eq!(said.iter().filter(of_journal).count(), 17, "{said:?}");
    assert!(said.iter().any(|line| line.contains("24 more lines")), "{said:?}");
}
