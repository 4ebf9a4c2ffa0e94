//! Machines: network, mount, host name and process namespaces with an `/etc` and a `/run` of their own, joined by
//! switches, and terminals on them. Everything ends with the process that holds them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lvs_director::denied::Denied;

use crate::page::Plug;

/// A machine, up as long as this is held.
#[derive(Debug)]
pub struct Machine {
    holder: Child,
    /// The process whose namespaces they are.
    id: u32,
    services: Vec<Child>,
}

impl Machine {
    /// Makes one.
    pub fn new(name: &str, programs: &Path) -> Result<Self, Denied> {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", SET_UP, "sh", name])
            .args([checkout, programs])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|cause| Denied::new("start unshare, of util-linux", cause))?;
        let mut said = [0; 6];
        let stdout = holder.stdout.as_mut().expect("piped");
        if stdout.read_exact(&mut said).is_err() {
            let output = holder.wait_with_output().expect("it was started");
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Denied::said(format_args!("no machine can be made: {said}")));
        }
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", holder.id()));
        let children = children.map_err(|cause| Denied::new("list the children of a process", cause))?;
        let id = children.trim().parse().expect("unshare has one child");
        Ok(Self { holder, id, services: Vec::new() })
    }

    /// A command that runs there, in the directory for a page's files.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.id.to_string(), "--net", "--mount", "--uts", "--pid"]);
        command.args(["--", "sh", "-c", "cd /run/work && exec \"$@\"", "sh", program]);
        command
    }

    /// Runs `script` there.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, script: &str) {
        let output = self.command("sh").args(["-ec", script]).output().expect("nsenter is where unshare is");
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs `ip` with its network alone: it sees the processes of the others.
    fn ip(&self, words: &str) {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.id.to_string(), "--net", "--", "ip"]).args(words.split(' '));
        let output = command.output().expect("nsenter is where unshare is");
        assert!(output.status.success(), "ip {words}\n{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Writes a file there.
    pub fn write(&self, path: &str, text: &str) {
        let folder = Path::new(path).parent().and_then(Path::to_str).unwrap_or(".");
        let script = format!("mkdir -p '{folder}' && cat >'{path}'");
        let mut child = self.command("sh").args(["-ec", &script]).stdin(Stdio::piped()).spawn().expect("a shell");
        child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
        assert!(child.wait().expect("it ends").success(), "{path} cannot be written");
    }

    /// Runs this program as a web server there.
    pub fn serve(&mut self, name: &str, at: &str) {
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = self.command(program.to_str().expect("text"));
        let mut server = command.args(["--serve", name, at]).stdout(Stdio::piped()).spawn().expect("it starts");
        server.stdout.as_mut().expect("piped").read_exact(&mut [0; 6]).expect("it listens");
        self.services.push(server);
    }

    /// Interrupts what runs in the foreground of the shell `shell`.
    fn interrupt(&self, shell: &str) {
        self.run(&format!("kill -INT $(cat /proc/{shell}/task/{shell}/children)"));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The end of its input is the end of its first process, and that of all others there.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
        for service in &mut self.services {
            let _ = service.kill();
            let _ = service.wait();
        }
    }
}

/// What makes a machine: of `/etc`, only what programs look for; of a checkout, what is installed from it.
const SET_UP: &str = r#"
    set -e
    hostname "$1"
    mkdir -p /tmp
    mount -t tmpfs tmpfs /run
    mkdir -p /run/etc /run/work/packaging /run/work/target
    mount --bind "$2/packaging" /run/work/packaging
    ln -s "$3" /run/work/target/release
    mount -t tmpfs tmpfs /var/log
    mount -t tmpfs -o mode=755 tmpfs /var/lib
    for file in passwd group hosts services protocols nsswitch.conf ld.so.cache ld.so.conf ld.so.conf.d; do
        [ ! -e "/etc/$file" ] || cp -rL "/etc/$file" /run/etc/
    done
    mount --bind /run/etc /etc
    ip link set lo up
    for name in default all; do
        [ ! -e "/proc/sys/net/ipv6/conf/$name/accept_dad" ] || echo 0 >"/proc/sys/net/ipv6/conf/$name/accept_dad"
    done
    echo ready
    read forever || true
"#;

/// The machines of these plugs (and of these names, without any), each plugged into its switches.
pub fn network(names: &[String], plugs: &[Plug], programs: &Path) -> Result<BTreeMap<String, Machine>, Denied> {
    // The switches are in the first one.
    let switches = Machine::new("switches", programs)?;
    let mut machines = BTreeMap::new();
    for name in names {
        machines.insert(name.clone(), Machine::new(name, programs)?);
    }
    let mut made: Vec<&str> = Vec::new();
    for (index, plug) in plugs.iter().enumerate() {
        let (switch, device, machine) = (plug.network.as_str(), &plug.device, &machines[&plug.machine]);
        if !made.contains(&switch) {
            switches.ip(&format!("link add name {switch} type bridge mcast_snooping 0"));
            switches.ip(&format!("link set {switch} up"));
            made.push(switch);
        }
        switches.ip(&format!("link add name port{index} type veth peer name {device} netns {}", machine.id));
        switches.ip(&format!("link set port{index} master {switch} up"));
        machine.run(&format!("ip link set {device} up"));
        for address in &plug.addresses {
            machine.run(&format!("ip address add {address} dev {device} {}", nodad(address)));
        }
        for gateway in &plug.gateways {
            let family = if gateway.contains(':') { "-6" } else { "-4" };
            machine.run(&format!("ip {family} route add default via {gateway}"));
        }
    }
    for plug in plugs {
        for at in &plug.http {
            machines.get_mut(&plug.machine).expect("made above").serve(&plug.machine, at);
        }
    }
    machines.insert("switches".to_owned(), switches);
    Ok(machines)
}

fn nodad(address: &str) -> &'static str {
    if address.contains(':') { "nodad" } else { "" }
}

/// A shell on a machine.
#[derive(Debug)]
pub struct Shell {
    child: Child,
    stdin: ChildStdin,
    output: Arc<(Mutex<String>, Condvar)>,
    /// Its number among the machine's processes.
    id: String,
}

impl Shell {
    pub fn new(machine: &Machine, path: &str) -> Self {
        let mut command = machine.command("sh");
        command.env("PATH", path).env_remove("LVS_CONTROL").env("LC_ALL", "C.UTF-8").env("TERM", "dumb");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
        let stdin = child.stdin.take().expect("piped");
        let mut stdout = child.stdout.take().expect("piped");
        let output = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let shared = Arc::clone(&output);
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(len @ 1..) = stdout.read(&mut piece) {
                let (text, changed) = &*shared;
                text.lock().expect("nobody panics with it").push_str(&String::from_utf8_lossy(&piece[..len]));
                changed.notify_all();
            }
        });
        let mut shell = Self { child, stdin, output, id: String::new() };
        let (said, _) = shell.run("echo $$");
        shell.id = said.trim().to_owned();
        shell
    }

    /// Gives it a command. What was printed before is forgotten.
    pub fn start(&mut self, command: &str) {
        self.output.0.lock().expect("nobody panics with it").clear();
        // Its exit status follows on what it has printed.
        let text = format!("{{\n{command}\n}} </dev/null 2>&1\nprintf '\\n{END}%s\\n' \"$?\"\n");
        self.stdin.write_all(text.as_bytes()).expect("the shell reads");
    }

    /// Runs a command to its end: what it printed, and its exit status.
    pub fn run(&mut self, command: &str) -> (String, String) {
        self.start(command);
        self.ended()
    }

    /// Interrupts what runs, and waits for its end.
    pub fn interrupt(&mut self, machine: &Machine) -> (String, String) {
        self.output.0.lock().expect("nobody panics with it").clear();
        machine.interrupt(&self.id);
        self.ended()
    }

    fn ended(&self) -> (String, String) {
        let text = self.wait_until(|text| text.contains(END) && text.ends_with('\n'));
        match text.split_once(END) {
            Some((printed, status)) => {
                (printed.strip_suffix('\n').unwrap_or(printed).to_owned(), status.trim().to_owned())
            }
            None => (text, "none: it has not ended".to_owned()),
        }
    }

    /// What was printed once it is as wished, or when patience has ended.
    pub fn wait_until(&self, is_as_wished: impl Fn(&str) -> bool) -> String {
        let (text, changed) = &*self.output;
        let end = Instant::now() + PATIENCE;
        let mut text = text.lock().expect("nobody panics with it");
        while !is_as_wished(&text) && Instant::now() < end {
            (text, _) = changed.wait_timeout(text, end - Instant::now()).expect("nobody panics with it");
        }
        text.clone()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const END: &str = "--exit status: ";
/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
