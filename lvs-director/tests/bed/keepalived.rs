//! Stock keepalived on a machine, by the preload library.

use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use super::{Folder, Lvsd, Machine, Process};

/// keepalived in the foreground.
pub struct Keepalived {
    process: Process,
    configuration: PathBuf,
    said: PathBuf,
}

/// Why it cannot be run, if it cannot.
pub fn is_installed() -> Result<(), String> {
    match Command::new("keepalived").arg("--version").output() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("keepalived cannot be run: {error}")),
    }
}

impl Keepalived {
    /// Starts it for the director on the same machine; with VRRP where the configuration has an instance.
    pub fn start(machine: &Machine, folder: &Folder, name: &str, lvsd: &Lvsd, text: &str) -> Self {
        let configuration = folder.write(&format!("{name}.conf"), text);
        let file = |what: &str| folder.path(&format!("{name}.{what}"));
        let mut command = Command::new("keepalived");
        command.args(["--dont-fork", "--log-console", "--log-detail"]);
        if !text.contains("vrrp_instance") {
            command.arg("--check");
        }
        command.arg("--use-file").arg(&configuration).arg("--pid").arg(file("pid"));
        command.arg("--checkers_pid").arg(file("checkers")).arg("--vrrp_pid").arg(file("vrrp"));
        command.env("LD_PRELOAD", library()).env("LVS_CONTROL", lvsd.control());
        let said = file("log");
        Self { process: machine.spawn(command, &said), configuration, said }
    }

    /// Gives it another configuration.
    pub fn reload(&self, text: &str) {
        std::fs::write(&self.configuration, text).expect("it can be written");
        self.process.signal(Signal::HUP);
    }

    /// Kills it, and lets nothing of it say goodbye.
    pub fn kill(&self) {
        let children = format!("/proc/{0}/task/{0}/children", self.process.id());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        self.process.signal(Signal::KILL);
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            if let Some(pid) = rustix::process::Pid::from_raw(child) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        self.kill();
    }
}

fn library() -> PathBuf {
    std::env::current_exe().expect("a test is a program").with_file_name("liblvs_preload.so")
}
