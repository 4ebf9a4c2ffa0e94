//! What runs on the server of a case: nginx or HAProxy, which take the PROXY header and say whose connection it is, on one
//! port before the client has said anything; or something that counts.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lvs_testkit::network::Failure;

use crate::ground::{ASKING, GREETING, Place};

/// Somebody else's server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// Its stream module speaks first.
    Nginx,
    /// Before a server of ours that speaks first, and that HAProxy tells what it was told.
    Haproxy,
}

impl Program {
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    pub fn is_installed(self) -> bool {
        let has_modules = self != Self::Nginx || Path::new(STREAM_MODULE).exists();
        has_modules && Command::new(self.path()).arg("-v").output().is_ok()
    }

    fn path(self) -> PathBuf {
        let sbin = Path::new("/usr/sbin").join(self.name());
        if sbin.exists() { sbin } else { self.name().into() }
    }
}

/// Where Debian's libnginx-mod-stream has it.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A program that ends with this.
pub struct Running {
    child: Child,
    directory: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Starts a program in the calling thread's namespace and waits until it listens.
pub fn start(program: Program, place: Place) -> Result<Running, Failure> {
    let directory = std::env::temp_dir().join(format!("lvs-peers-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let file = directory.join("configuration");
    let at = |port| SocketAddr::new(place.server(), port);
    let (text, arguments) = match program {
        Program::Nginx => (nginx(&directory, at(GREETING), at(ASKING)), vec!["-p", ".", "-c"]),
        Program::Haproxy => {
            greet_behind_haproxy()?;
            (haproxy(at(GREETING), at(ASKING)), vec!["-db", "-f"])
        }
    };
    fs::write(&file, text)?;
    let log = fs::File::create(directory.join("log"))?;
    let mut command = Command::new(program.path());
    command.args(arguments).arg(&file).current_dir(&directory).stdin(Stdio::null());
    let child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
    let mut running = Running { child, directory };
    for port in [GREETING, ASKING] {
        wait_for(at(port), &mut running)?;
    }
    Ok(running)
}

/// Asks whether somebody listens until somebody does.
fn wait_for(at: SocketAddr, running: &mut Running) -> Result<(), Failure> {
    let patience = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(at).is_err() {
        let log = || fs::read_to_string(running.directory.join("log")).unwrap_or_default();
        if Instant::now() > patience {
            return Err(format!("nobody listens at {at}: {}", log()).into());
        }
        if let Some(status) = running.child.try_wait()? {
            return Err(format!("it ended: {status}: {}", log()).into());
        }
        thread::yield_now();
    }
    Ok(())
}

fn nginx(directory: &Path, greeting: SocketAddr, asking: SocketAddr) -> String {
    let directory = directory.display();
    format!(
        "load_module {STREAM_MODULE};\n\
         user root root;\n\
         daemon off; master_process off; pid {directory}/pid; error_log stderr;\n\
         events {{ worker_connections 64; }}\n\
         stream {{ server {{\n\
           listen {greeting} proxy_protocol;\n\
           return \"220 $proxy_protocol_addr $proxy_protocol_port\\r\\n\";\n\
         }} }}\n\
         http {{\n\
           access_log off;\n\
           client_body_temp_path {directory}/a; proxy_temp_path {directory}/b; fastcgi_temp_path {directory}/c;\n\
           uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;\n\
           server {{\n\
             listen {asking} proxy_protocol;\n\
             location / {{ return 200 \"$proxy_protocol_addr $proxy_protocol_port\"; }}\n\
           }}\n\
         }}\n"
    )
}

fn haproxy(greeting: SocketAddr, asking: SocketAddr) -> String {
    format!(
        "defaults\n  timeout connect 20s\n  timeout client 20s\n  timeout server 20s\n\
         frontend greeting\n  mode tcp\n  bind {greeting} accept-proxy\n  default_backend behind\n\
         backend behind\n  mode tcp\n  server behind {BEHIND} send-proxy\n\
         frontend asking\n  mode http\n  bind {asking} accept-proxy\n\
         \x20 http-request return status 200 content-type text/plain lf-string \"%[src] %[src_port]\"\n"
    )
}

/// Where the server behind HAProxy is, on the same host.
const BEHIND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2_525);

/// A server that, once it knows whose connection it is, speaks first.
fn greet_behind_haproxy() -> Result<(), Failure> {
    each_guest(BEHIND, |guest| {
        let mut line = String::new();
        BufReader::new(&*guest).read_line(&mut line)?;
        // PROXY TCP4 client virtual client's-port virtual-port
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["PROXY", _, client, _, port, _] = words[..] {
            write!(guest, "220 {client} {port}\r\n")?;
        }
        Ok(())
    })
}

/// A server that answers with how many bytes it was sent.
pub fn count_bytes(port: u16) -> Result<(), Failure> {
    each_guest(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), |guest| {
        let mut all = Vec::new();
        guest.read_to_end(&mut all)?;
        write!(guest, "{}", all.len())
    })
}

/// Serves everybody for as long as this process lives.
fn each_guest(at: SocketAddr, serve: fn(&mut TcpStream) -> std::io::Result<()>) -> Result<(), Failure> {
    let listener = TcpListener::bind(at)?;
    thread::spawn(move || {
        for mut guest in listener.incoming().flatten() {
            // A guest who goes away is no matter of ours.
            thread::spawn(move || serve(&mut guest));
        }
    });
    Ok(())
}
