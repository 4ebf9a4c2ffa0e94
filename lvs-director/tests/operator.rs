//! What can go wrong around `lvsd` on a machine: a second one on the same device, a terminal that hangs up, a full disk,
//! a host that is in the way. Each case runs in namespaces of its own.

mod cases;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitCode, Stdio};

use cases::Case;
use lvs_director::demo::namespaces;
use lvs_director::denied::Denied;
use lvs_io_tun::{TunOptions, TunQueue, netdev};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::OpenptFlags;

/// What a case does.
type Run = fn() -> Result<(), Denied>;

const CASES: [(&str, Run); 7] = [
    ("it_is_ready_once_it_forwards_keeps_few_rights_and_every_worker_reads_again", it_is_ready_once_it_forwards),
    ("tun_refuses_an_address_the_host_owns", tun_refuses_an_address_the_host_owns),
    ("tun_says_what_leads_past_it", tun_says_what_leads_past_it),
    ("a_second_lvsd_on_a_device_is_refused_until_the_first_has_ended", a_second_lvsd_on_a_device_is_refused),
    ("a_terminal_that_hangs_up_ends_it_with_its_tables", a_terminal_that_hangs_up_ends_it_with_its_tables),
    ("nohup_is_respected", nohup_is_respected),
    ("a_real_server_with_a_full_disk_leaves_nothing_behind", a_real_server_with_a_full_disk_leaves_nothing_behind),
];

const RULES: &str = "-A -t 192.0.2.80:80 -s rr\n-a -t 192.0.2.80:80 -r 10.9.0.11:80 -m\n";

/// An Ethernet device with nobody behind it.
fn lonely_device() -> Result<(), Denied> {
    namespaces::enter_user_namespace()?;
    namespaces::enter_network_namespace()?;
    let here = fs::File::open("/proc/self/ns/net").expect("it is there");
    netdev::add_veth("eth0", "far0", here.as_fd()).map_err(|error| Denied::described(&error))?;
    for device in ["eth0", "far0"] {
        netdev::set_up(device).expect("the device is there");
    }
    netdev::add_address("eth0", [10, 9, 0, 1].into(), 24).expect("the device is there");
    Ok(())
}

fn a_second_lvsd_on_a_device_is_refused() -> Result<(), Denied> {
    lonely_device()?;
    let rules = Scratch::file("second", RULES);
    let words = ["run", rules.path(), "--afpacket", "eth0"];
    let mut first = Lvsd::spawn(&words);
    assert!(first.line().starts_with("lvsd: forwarding on eth0"));
    let mut second = Lvsd::spawn(&words);
    let refusal = format!("lvsd: process {} is forwarding on eth0 already: end that first\n", first.child.id());
    assert_eq!(second.line(), refusal);
    assert_eq!(second.child.wait().expect("it ended").code(), Some(1));
    // On another device, or where nobody is any more, it is welcome; the kernel sees to that, however the first one ends.
    let mut other = Lvsd::spawn(&["run", rules.path(), "--afpacket", "far0"]);
    assert!(other.line().starts_with("lvsd: forwarding on far0"));
    first.child.kill().and_then(|()| first.child.wait()).expect("it runs");
    assert!(Lvsd::spawn(&words).line().starts_with("lvsd: forwarding on eth0"));
    Ok(())
}

fn tun_refuses_an_address_the_host_owns() -> Result<(), Denied> {
    lonely_device()?;
    let rules = Scratch::file("owned", "-A -t 10.9.0.1:80 -s rr\n");
    let mut lvsd = Lvsd::spawn(&["run", rules.path(), "--tun", "lvs0"]);
    let said = lvsd.line();
    assert!(said.contains("this host owns the virtual or local address 10.9.0.1"), "{said}");
    assert_eq!(lvsd.child.wait().expect("it ended").code(), Some(1));
    Ok(())
}

fn tun_says_what_leads_past_it() -> Result<(), Denied> {
    lonely_device()?;
    let rules = Scratch::file("past", RULES);
    // Another queue of the device keeps it, and its routes, while lvsd comes and goes.
    let options = TunOptions { queues: 3, ..TunOptions::default() };
    let _kept = TunQueue::open_all("lvs0", &options)?.split_off(2);
    netdev::set_up("lvs0").expect("the device is there");
    let warnings = || {
        let mut lvsd = Lvsd::spawn(&["run", rules.path(), "--tun", "lvs0", "--workers", "2"]);
        let is_said = |line: &String| !line.is_empty() && !line.starts_with("lvsd: each worker has ");
        let lines = std::iter::from_fn(|| Some(lvsd.line()).filter(is_said));
        lines.filter(|line| !line.starts_with("lvsd: forwarding on ")).collect::<String>()
    };
    fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("it is this namespace's");
    let said = warnings();
    assert!(said.contains("this host does not forward") && said.contains("'sysctl net.ipv4.ip_forward=1'"), "{said}");
    assert!(
        said.contains("nothing leads to the director yet for 192.0.2.80: 'ip route add ADDRESS dev lvs0'"),
        "{said}"
    );
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("it is this namespace's");
    netdev::add_route([192, 0, 2, 80].into(), 32, "lvs0").expect("the device is there");
    assert_eq!(warnings(), "", "replies find no way at all");
    netdev::add_route([0, 0, 0, 0].into(), 0, "eth0").expect("the device is there");
    let said = warnings();
    assert!(
        said.contains("replies of the server 10.9.0.11 come by eth0, and the host sends them on by eth0"),
        "{said}"
    );
    netdev::divert("eth0", "lvs0", 101).expect("the devices are there");
    assert_eq!(warnings(), "");
    Ok(())
}

fn a_terminal_that_hangs_up_ends_it_with_its_tables() -> Result<(), Denied> {
    lonely_device()?;
    let rules = Scratch::file("hang-up", RULES);
    let terminal = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .map_err(|cause| Denied::new("open a terminal", cause.into()))?;
    rustix::pty::grantpt(&terminal).and_then(|()| rustix::pty::unlockpt(&terminal)).expect("it is ours");
    let other_end = rustix::pty::ptsname(&terminal, Vec::new()).expect("it has a name");
    let other_end = fs::OpenOptions::new().read(true).write(true).open(other_end.to_str().expect("text"));
    let mut command = Command::new("setsid");
    command.args(["--ctty", env!("CARGO_BIN_EXE_lvsd"), "run", rules.path(), "--afpacket", "eth0"]);
    let mut lvsd = Lvsd::of(command.stdin(other_end.expect("it is there")));
    drop(command);
    assert!(lvsd.line().starts_with("lvsd: forwarding on eth0"));
    // While the terminal is there, SIGHUP is another word.
    kill_process(Pid::from_child(&lvsd.child), Signal::HUP).expect("it runs");
    while !lvsd.line().contains("read again: nothing has changed") {}
    drop(terminal);
    let tables = lvsd.rest_of_stdout();
    assert!(lvsd.child.wait().expect("it ended").success());
    assert!(tables.contains("TCP  192.0.2.80:80 rr\n"), "{tables}");
    Ok(())
}

fn it_is_ready_once_it_forwards() -> Result<(), Denied> {
    lonely_device()?;
    let folder = Scratch::folder("ready");
    let file = |name: &str| folder.0.join(name);
    fs::write(file("rules"), RULES).expect("it can be written");
    let text = "rules = \"rules\"\ncontrol = \"run/control.sock\"\nworkers = 2\n[[device]]\nname = \"eth0\"\nkind = \"afpacket\"\n";
    fs::write(file("lvsd.toml"), text).expect("it can be written");
    let manager = UnixDatagram::bind(file("notify")).expect("it can be had");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lvsd"));
    command.args(["run", "--config"]).arg(file("lvsd.toml")).env("NOTIFY_SOCKET", file("notify"));
    let mut lvsd = Lvsd::of(&mut command);
    let mut bytes = [0; 512];
    let count = manager.recv(&mut bytes).expect("lvsd tells something");
    assert_eq!(&bytes[..count], b"READY=1\nSTATUS=forwarding with 2 workers\n");
    // Every thread: two workers, the control thread, the one for signals, the first.
    let tasks = fs::read_dir(format!("/proc/{}/task", lvsd.child.id())).expect("it runs");
    let statuses: Vec<String> = tasks
        .map(|task| fs::read_to_string(task.expect("readable").path().join("status")).expect("readable"))
        .collect();
    assert!(statuses.len() >= 5, "{statuses:?}");
    for status in statuses {
        for (set, kept) in [("CapPrm", 0x3000), ("CapEff", 0x3000), ("CapBnd", 0x3000), ("CapAmb", 0)] {
            let line = status.lines().find_map(|line| line.strip_prefix(set)).expect("it is told");
            assert_eq!(u64::from_str_radix(line.trim_start_matches(':').trim(), 16), Ok(kept), "{set} of {status}");
        }
    }
    fs::write(file("rules"), format!("{RULES}-A -u [2001:db8::53]:53 -s rr\n").replace("-m\n", "-m -w 7\n"))
        .expect("it can be written");
    let id = Pid::from_child(&lvsd.child);
    kill_process(id, Signal::HUP).expect("it runs");
    while !lvsd.line().contains("read again: 2 changes carried out") {}
    // Workers do what they are told in order: one that answers has done what it was told before.
    let mut running = lvs_client::Running::connect(&file("run/control.sock")).expect("it listens");
    assert_eq!(running.services().expect("workers answer").len(), 2);
    kill_process(id, Signal::TERM).expect("it runs");
    // At the end they are the workers' own.
    let tables = lvsd.rest_of_stdout();
    assert!(lvsd.child.wait().expect("it ended").success());
    assert!(tables.contains("UDP  [2001:db8::53]:53 rr\n") && tables.contains("Masq    7 "), "{tables}");
    Ok(())
}

fn nohup_is_respected() -> Result<(), Denied> {
    lonely_device()?;
    let rules = Scratch::file("nohup", RULES);
    let script = format!("trap '' HUP; exec {} run {} --afpacket eth0", env!("CARGO_BIN_EXE_lvsd"), rules.path());
    let mut lvsd = Lvsd::of(Command::new("sh").args(["-c", &script]));
    assert!(lvsd.line().starts_with("lvsd: forwarding on eth0"));
    let id = Pid::from_child(&lvsd.child);
    kill_process(id, Signal::HUP).expect("it runs");
    assert!(lvsd.child.try_wait().expect("asked").is_none());
    kill_process(id, Signal::TERM).expect("it runs");
    assert!(lvsd.child.wait().expect("it ended").success());
    Ok(())
}

fn a_real_server_with_a_full_disk_leaves_nothing_behind() -> Result<(), Denied> {
    namespaces::enter_user_namespace()?;
    namespaces::enter_network_namespace()?;
    netdev::set_up("lo").expect("there is always one");
    let disk = Scratch::folder("disk");
    // A disk of one page, in a mount namespace that goes with the shell. What is there after each step is printed.
    let script = r#"
        set -u
        mount -t tmpfs -o size=4k tiny "$1" || exit 77
        fill() { head -c 4096 /dev/zero >"$1/filler" 2>/dev/null; }
        act() { "$2" realserver "$3" ${4:+--vip "$4"} --memory "$1/memory"; echo "$3 ${4:-} -> $?"; ls "$1"; }
        fill "$1"; act "$1" "$2" start 192.0.2.80; "$2" realserver status --memory "$1/memory"
        rm "$1/filler"; act "$1" "$2" start 192.0.2.81; fill "$1"
        act "$1" "$2" start 192.0.2.82
        cat /proc/sys/net/ipv4/conf/all/arp_ignore
        act "$1" "$2" stop
        cat /proc/sys/net/ipv4/conf/all/arp_ignore
    "#;
    let unshared = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", disk.path(), env!("CARGO_BIN_EXE_lvsd")])
        .output();
    let output = unshared.map_err(|cause| Denied::new("start unshare, of util-linux", cause))?;
    let said = String::from_utf8(output.stdout).expect("text") + &String::from_utf8(output.stderr).expect("text");
    if output.status.code() == Some(77) {
        return Err(Denied::said(format_args!("cannot mount a small disk: {said}")));
    }
    let order = ["start 192.0.2.80 -> 1\nfiller\nnot a real server\n", "start 192.0.2.81 -> 0\nmemory\n"];
    for part in order {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
    assert!(said.contains("start 192.0.2.82 -> 1\nfiller\nmemory\n1\n"), "what was there stays: {said}");
    assert!(said.contains("stop  -> 0\nfiller\n0\n"), "it is undone though nothing can be written: {said}");
    assert_eq!(said.matches("No space left on device").count(), 2, "{said}");
    let addresses = netdev::addresses("lo").expect("it is there");
    let is_ours = |address: &IpAddr| address.to_string().starts_with("192.0.2.");
    assert!(!addresses.iter().any(|(address, _)| is_ours(address)), "{addresses:?}");
    Ok(())
}

/// A file or folder that is gone when the case is.
struct Scratch(PathBuf);

impl Scratch {
    fn named(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("operator-{name}.{}", std::process::id()))
    }

    fn file(name: &str, text: &str) -> Self {
        let path = Self::named(name);
        fs::write(&path, text).expect("the directory for temporary files can be written");
        Self(path)
    }

    fn folder(name: &str) -> Self {
        let path = Self::named(name);
        fs::create_dir_all(&path).expect("the directory for temporary files can be written");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("text")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0).or_else(|_| fs::remove_dir_all(&self.0));
    }
}

/// A running `lvsd`, ended with the case at the latest.
struct Lvsd {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Lvsd {
    fn spawn(words: &[&str]) -> Self {
        Self::of(Command::new(env!("CARGO_BIN_EXE_lvsd")).args(words))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("lvsd starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        Self { child, stderr }
    }

    /// The next line it says.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).expect("text");
        line
    }

    fn rest_of_stdout(&mut self) -> String {
        let mut text = String::new();
        self.child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
        text
    }
}

impl Drop for Lvsd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() -> ExitCode {
    let case = |(name, run): (&str, Run)| Case {
        name: name.to_owned(),
        is_extra: false,
        run: Box::new(move || run().map_err(|denied| Box::new(denied) as _)),
    };
    cases::main(&CASES.map(case), 1, "", |_| {})
}
