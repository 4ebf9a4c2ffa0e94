//! What a running `lvsd` does when it is signalled, and what the service manager hears of it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};

use lvs_client::Running;
use lvs_core::{Command as Change, Protocol, ServerConfig, ServiceConfig, ServiceKey};
use rustix::process::{Pid, Signal, kill_process};

/// An `lvsd` without devices, with files of its own. It ends with this.
struct Daemon {
    child: Child,
    stderr: BufReader<ChildStderr>,
    folder: PathBuf,
}

const CONFIG: &str = "rules = \"rules\"\ncontrol = \"run/control.sock\"\n";
const RULES: &str = "-A -t 192.0.2.80:80 -s wrr\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 1\n\
                     -a -t 192.0.2.80:80 -r 10.0.0.3:80 -m -w 1\n-A -u 192.0.2.53:53 -s rr\n";

impl Daemon {
    fn start(name: &str, config: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("signals-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("the directory for temporary files can be written");
        fs::write(folder.join("lvsd.toml"), config).expect("it can be written");
        fs::write(folder.join("rules"), RULES).expect("it can be written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_lvsd"));
        command.args(["run", "--config"]).arg(folder.join("lvsd.toml")).stdout(Stdio::piped()).stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().expect("lvsd starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut daemon = Self { child, stderr, folder };
        daemon.wait_for("no devices: nothing is forwarded");
        daemon
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.join(name), text).expect("it can be written");
    }

    /// The next line it says with these words in it.
    fn wait_for(&mut self, words: &str) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            let count = self.stderr.read_line(&mut line).expect("text");
            assert_ne!(count, 0, "it ended before it said {words:?}:\n{all}");
            if line.contains(words) {
                return line;
            }
            all += &line;
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Has it read its files again, and returns the sentence about that.
    fn reload(&mut self) -> String {
        self.signal(Signal::HUP);
        loop {
            let line = self.wait_for("read again");
            if !line.contains("read again: -") && !line.contains("read again: settings") {
                return line;
            }
        }
    }

    fn connect(&self) -> Running {
        Running::connect(&self.folder.join("run/control.sock")).expect("it listens")
    }

    /// Services and servers with weights, as `ipvsadm -Sn` tells them.
    fn rules(&self) -> String {
        let mut running = self.connect();
        let mut services = running.services().unwrap();
        running.fill_servers(&mut services).unwrap();
        let options = lvs_admin::SaveOptions { numeric: true, ..lvs_admin::SaveOptions::default() };
        lvs_admin::save(&services, options, &lvs_admin::Names::none())
    }

    fn end(&mut self) -> String {
        self.signal(Signal::TERM);
        let mut stdout = String::new();
        self.child.stdout.take().expect("piped").read_to_string(&mut stdout).expect("text");
        assert!(self.child.wait().expect("it ended").success());
        stdout
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn start(name: &str) -> Daemon {
    Daemon::start(name, CONFIG, |_| {})
}

fn web() -> ServiceKey {
    ServiceKey::address(Protocol::Tcp, "192.0.2.80:80".parse().unwrap())
}

#[test]
fn sighup_carries_out_what_has_changed_in_the_rules() {
    let mut daemon = start("changed");
    assert!(daemon.reload().contains("nothing has changed"));
    let rules = "-A -t 192.0.2.80:80 -s wrr\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 5\n\
                 -a -t 192.0.2.80:80 -r 10.0.0.4:80 -m -w 1\n-A -t [2001:db8::80]:80 -s rr\n";
    daemon.write("rules", rules);
    daemon.signal(Signal::HUP);
    let words = [
        "-D -u 192.0.2.53:53",
        "-d -t 192.0.2.80:80 -r 10.0.0.3:80",
        "-e -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 5",
        "-a -t 192.0.2.80:80 -r 10.0.0.4:80 -m -w 1",
        "-A -t [2001:db8::80]:80 -s rr",
    ];
    for words in words {
        assert_eq!(daemon.wait_for("read again"), format!("lvsd: read again: {words}\n"));
    }
    assert_eq!(daemon.wait_for("read again"), "lvsd: read again: 5 changes carried out\n");
    assert_eq!(daemon.rules(), rules);
    assert!(daemon.reload().contains("nothing has changed"));
}

#[test]
fn sighup_leaves_alone_what_the_socket_has_set() {
    let mut daemon = start("alone");
    let mut running = daemon.connect();
    let added = ServiceKey::address(Protocol::Tcp, "192.0.2.90:80".parse().unwrap());
    for change in [
        Change::AddService(added, ServiceConfig::new("lc")),
        Change::AddServer(web(), ServerConfig::nat("10.0.0.9:80".parse().unwrap()).weight(9)),
        Change::EditServer(web(), ServerConfig::nat("10.0.0.3:80".parse().unwrap()).weight(0)),
    ] {
        running.apply(&change).unwrap();
    }
    running.set("drop_packet", "3").unwrap();
    // Rules that say something about neither, and a setting.
    daemon.write("rules", &RULES.replace("-s rr", "-s wlc"));
    daemon.write("lvsd.toml", &format!("{CONFIG}[settings]\ndrop_entry = 3\n"));
    assert!(daemon.reload().contains("2 changes carried out"));
    assert_eq!(
        daemon.rules(),
        "-A -t 192.0.2.80:80 -s wrr\n-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m -w 1\n\
         -a -t 192.0.2.80:80 -r 10.0.0.3:80 -m -w 0\n-a -t 192.0.2.80:80 -r 10.0.0.9:80 -m -w 9\n\
         -A -t 192.0.2.90:80 -s lc\n-A -u 192.0.2.53:53 -s wlc\n"
    );
    let value = |running: &mut Running, name| running.settings(Some(name)).unwrap()[0].1.clone();
    assert_eq!((value(&mut running, "drop_entry"), value(&mut running, "drop_packet")), ("3".into(), "3".into()));
}

#[test]
fn where_files_and_socket_speak_of_the_same_the_later_word_counts_also_after_a_restart() {
    let mut daemon = start("later");
    let mut running = daemon.connect();
    let server = |weight| ServerConfig::nat("10.0.0.3:80".parse().unwrap()).weight(weight);
    running.apply(&Change::EditServer(web(), server(7))).unwrap();
    running
        .apply(&Change::DeleteService(ServiceKey::address(Protocol::Udp, "192.0.2.53:53".parse().unwrap())))
        .unwrap();
    let rules = RULES.replace("10.0.0.3:80 -m -w 1", "10.0.0.3:80 -m -w 4").replace("-s rr", "-s wlc");
    daemon.write("rules", &rules);
    assert!(daemon.reload().contains("1 changes carried out"), "the deleted service stays deleted");
    let web = rules.replace("-A -u 192.0.2.53:53 -s wlc\n", "");
    assert_eq!(daemon.rules(), web);
    daemon.signal(Signal::KILL);
    daemon.child.wait().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lvsd"));
    command
        .args(["run", "--config"])
        .arg(daemon.folder.join("lvsd.toml"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    daemon.child = command.spawn().expect("lvsd starts");
    daemon.stderr = BufReader::new(daemon.child.stderr.take().expect("piped"));
    daemon.wait_for("no devices: nothing is forwarded");
    assert_eq!(daemon.rules(), web);
}

#[test]
fn what_is_wrong_in_a_file_is_told_at_sighup_and_nothing_changes() {
    let mut daemon = start("wrong");
    daemon.write("rules", &format!("{}-A -t 192.0.2.80:80 -s rr\n", RULES.replace("-w 1", "-w 2")));
    let said = daemon.reload();
    assert!(said.contains("read again, and nothing is changed: ") && said.contains("/rules, line 5: "), "{said}");
    daemon.write("rules", &RULES.replace("-w 1", "-w 2"));
    daemon.write("lvsd.toml", &format!("{CONFIG}\nspeed = 1\n"));
    let said = daemon.reload();
    assert!(said.contains("/lvsd.toml, line 4: unknown field `speed`"), "{said}");
    assert_eq!(daemon.rules(), RULES);
    // Made right, all of it counts at once.
    daemon.write("lvsd.toml", &format!("{CONFIG}workers = 2\n[settings]\nconnections_max = 5000\n"));
    assert!(daemon.wait_for_reload().contains("2 changes carried out"));
    assert_eq!(daemon.rules(), RULES.replace("-w 1", "-w 2"));
}

impl Daemon {
    /// As [`Self::reload`], where a warning comes before.
    fn wait_for_reload(&mut self) -> String {
        self.signal(Signal::HUP);
        let said = self.wait_for("warning: ");
        assert!(said.contains("what has changed of workers, connections_max counts from the next start on"), "{said}");
        self.wait_for("read again")
    }
}

#[test]
fn sigusr1_prints_the_tables_and_sigterm_ends_it_well() {
    let mut daemon = start("print");
    daemon.signal(Signal::USR1);
    let mut stdout = BufReader::new(daemon.child.stdout.take().expect("piped"));
    let mut text = String::new();
    while !text.contains("packets received") {
        assert_ne!(stdout.read_line(&mut text).expect("text"), 0, "{text}");
    }
    assert!(text.contains("TCP  192.0.2.80:80 wrr\n  -> 10.0.0.2:80"), "{text}");
    daemon.child.stdout = Some(stdout.into_inner());
    assert_eq!(daemon.end(), "");
}

#[test]
fn the_service_manager_hears_when_it_is_ready_reads_again_lives_and_ends() {
    let path = std::env::temp_dir().join(format!("lvsd-notify-{}", std::process::id()));
    let _ = fs::remove_file(&path);
    let manager = UnixDatagram::bind(&path).expect("it can be had");
    let mut daemon = Daemon::start("notify", CONFIG, |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000").env_remove("WATCHDOG_PID");
    });
    // What is heard next beside signs of life; whether there was one.
    let next = || {
        let mut lives = false;
        loop {
            let mut bytes = [0; 512];
            let count = manager.recv(&mut bytes).expect("lvsd tells something");
            match std::str::from_utf8(&bytes[..count]).expect("text") {
                "WATCHDOG=1\n" => lives = true,
                text => return (text.to_owned(), lives),
            }
        }
    };
    assert_eq!(next().0, "READY=1\nSTATUS=no devices: nothing is forwarded\n");
    daemon.reload();
    let (said, _) = next();
    let microseconds = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("both at once").trim();
    assert!(microseconds.parse::<u64>().is_ok(), "{said}");
    assert_eq!(next().0, "READY=1\n", "what it is doing stays as it was told");
    let mut bytes = [0; 512];
    let count = manager.recv(&mut bytes).expect("lvsd lives");
    assert_eq!(&bytes[..count], b"WATCHDOG=1\n");
    daemon.end();
    assert_eq!(next().0, "STOPPING=1\n");
    let _ = fs::remove_file(&path);
}

#[test]
fn of_the_rights_of_root_only_those_on_the_network_are_kept() {
    let daemon = start("rights");
    let network = 1_u64 << 12 | 1 << 13; // CAP_NET_ADMIN, CAP_NET_RAW
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.child.id())).expect("it runs");
    let mut count = 0;
    for task in tasks {
        let status = fs::read_to_string(task.expect("readable").path().join("status")).expect("readable");
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("it is told");
            u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a number")
        };
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(value(set) & !network, 0, "{set} of {status}");
        }
        assert_eq!(value("NoNewPrivs"), 1);
        if rustix::process::geteuid().is_root() {
            assert_eq!((value("CapBnd"), value("CapEff")), (network, network), "{status}");
        }
        count += 1;
    }
    assert!(count >= 2, "the control thread too");
    // Its own folder it can still use.
    daemon.connect().apply(&Change::DeleteService(web())).expect("it is written down");
}
