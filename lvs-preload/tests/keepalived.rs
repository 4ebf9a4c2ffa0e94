//! Stock keepalived, by the preload library: its health checks move servers in and out of a director of ours.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lvs_core::view::ServerView;
use lvs_core::{Director, Instant, Protocol, ServiceKey};
use lvs_testkit::served::Served;
use rustix::process::{Pid, Signal, kill_process};

/// keepalived's checker, in the foreground. It is killed with this.
struct Keepalived {
    child: Child,
    folder: PathBuf,
}

impl Keepalived {
    /// `None`, with the reason printed, where it is not installed or would not be let.
    fn start(test: &str, served: &Served, servers: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: {test}: keepalived wants to be root");
            return None;
        }
        let folder = served.path().with_file_name("keepalived");
        fs::create_dir_all(&folder).expect("a folder");
        configure(&folder, servers);
        let file = |name: &str| folder.join(name).display().to_string();
        let child = Command::new("keepalived")
            .args(["--dont-fork", "--log-console", "--check"])
            .args(["--use-file", &file("conf"), "--pid", &file("pid"), "--checkers_pid", &file("checkers")])
            .env("LD_PRELOAD", library())
            .env("LVS_CONTROL", served.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match child {
            Ok(child) => Some(Self { child, folder }),
            Err(error) => {
                println!("skipped: {test}: keepalived cannot be run: {error}");
                None
            }
        }
    }

    fn reload(&self, servers: &str) {
        configure(&self.folder, servers);
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process");
        kill_process(pid, signal).expect("it runs");
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        // So that its own children end too.
        self.signal(Signal::TERM);
        let _ = self.child.wait();
    }
}

fn library() -> PathBuf {
    let program = std::env::current_exe().expect("a test is a program");
    program.with_file_name("liblvs_preload.so")
}

fn configure(folder: &std::path::Path, servers: &str) {
    let text = format!(
        "global_defs {{ router_id test }}\nvirtual_server 192.0.2.80 80 {{\n delay_loop 1\n lb_algo wrr\n lb_kind NAT\n \
         protocol TCP\n sorry_server 10.0.0.99 80\n{servers}}}\n"
    );
    fs::write(folder.join("conf"), text).expect("it can be written");
}

fn server(at: SocketAddr, weight: u32) -> String {
    // keepalived wants each word on a line of its own.
    let check = "TCP_CHECK {\n connect_timeout 1\n retry 0\n }";
    format!(" real_server {} {} {{\n weight {weight}\n {check}\n }}\n", at.ip(), at.port())
}

fn servers(director: &mut Director) -> Vec<ServerView> {
    let web = ServiceKey::address(Protocol::Tcp, "192.0.2.80:80".parse().unwrap());
    director.service(Instant::ZERO, &web).map(|service| service.servers).unwrap_or_default()
}

/// Whether the director's servers come to be these ports with these weights.
fn becomes(served: &Served, wanted: &[(u16, u32)]) -> bool {
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    served.wait_until(Duration::from_secs(30), |director| {
        let mut there: Vec<_> =
            servers(director).iter().map(|server| (server.config.key.port, server.config.weight)).collect();
        there.sort_unstable();
        there == wanted
    })
}

#[test]
fn health_checks_take_a_dead_server_out_and_bring_it_back() {
    let served = Served::start(Default::default());
    let one = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at_one, at_other) = (one.local_addr().unwrap(), other.local_addr().unwrap());
    let both = server(at_one, 1) + &server(at_other, 2);
    let name = "health_checks_take_a_dead_server_out_and_bring_it_back";
    let Some(keepalived) = Keepalived::start(name, &served, &both) else { return };
    assert!(becomes(&served, &[(at_one.port(), 1), (at_other.port(), 2)]), "both are there at the start");
    drop(other);
    assert!(becomes(&served, &[(at_one.port(), 1)]), "the dead one is taken out");
    drop(one);
    assert!(becomes(&served, &[(80, 1)]), "the sorry server stands in");
    let _one = TcpListener::bind(at_one).unwrap();
    let _other = TcpListener::bind(at_other).unwrap();
    assert!(becomes(&served, &[(at_one.port(), 1), (at_other.port(), 2)]), "both are back");
    keepalived.reload(&(server(at_one, 5) + &server(at_other, 2)));
    assert!(becomes(&served, &[(at_one.port(), 5), (at_other.port(), 2)]), "a reload changes a weight");
    drop(keepalived);
    assert!(becomes(&served, &[]), "nothing is left at the end");
}
