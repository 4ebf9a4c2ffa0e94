//! `lvsd` on a TUN device in this namespace, and `lvsadm` that drives it.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use lvs_io::netdev;

use crate::stream;

pub type Failure = Box<dyn Error + Send + Sync>;

/// What is measured.
pub struct Programs {
    lvsd: PathBuf,
    lvsadm: PathBuf,
}

impl Programs {
    pub fn find() -> Result<Self, Failure> {
        let lvsd = PathBuf::from(env!("CARGO_BIN_EXE_lvsd"));
        let lvsadm = lvsd.with_file_name("lvsadm");
        match lvsadm.is_file() && lvsd.with_file_name("liblvs_preload.so").is_file() {
            true => Ok(Self { lvsd, lvsadm }),
            false => {
                Err("lvsadm or liblvs_preload.so is not built: cargo build --release -p lvs-cli -p lvs-preload".into())
            }
        }
    }
}

/// A running `lvsd`. Ends with this.
pub struct Lvsd {
    child: Child,
    lvsadm: PathBuf,
    pub folder: PathBuf,
}

impl Lvsd {
    /// Starts it, and returns when it forwards.
    pub fn start(programs: &Programs) -> Result<Self, Failure> {
        let folder = std::env::temp_dir().join(format!("lvs-bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let rules = folder.join("rules");
        crate::write_stream_rules(&rules)?;
        stream::prepare()?;
        let mut command = Command::new(&programs.lvsd);
        command.arg("run").arg(&rules).args(["--tun", DEVICE, "--control"]).arg(folder.join("run/control.sock"));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("piped")?).lines();
        let lvsd = Self { child, lvsadm: programs.lvsadm.clone(), folder };
        let mut said = String::new();
        loop {
            let line = lines.next().ok_or_else(|| format!("lvsd ended: {said}"))??;
            if line.starts_with("lvsd: forwarding on ") {
                break;
            }
            said.push_str(&line);
        }
        // Every command is told; somebody has to read.
        thread::spawn(move || lines.for_each(drop));
        netdev::set_up(DEVICE)?;
        stream::lead_to(DEVICE)?;
        Ok(lvsd)
    }

    /// Runs `lvsadm` against it.
    pub fn lvsadm(&self, words: &[&str], input: Option<&str>) -> Result<(), Failure> {
        self.lvsadm_at(&self.folder.join("run/control.sock"), words, input)
    }

    /// Runs `lvsadm` against whoever answers at `control`. What it prints goes into a file, as a pipe would slow it.
    pub fn lvsadm_at(&self, control: &Path, words: &[&str], input: Option<&str>) -> Result<(), Failure> {
        let stdin = match input {
            Some(text) => {
                fs::write(self.folder.join("input"), text)?;
                File::open(self.folder.join("input"))?.into()
            }
            None => Stdio::null(),
        };
        let mut command = Command::new(&self.lvsadm);
        command.args(words).env("LVS_CONTROL", control).stdin(stdin).stdout(File::create(self.folder.join("output"))?);
        let ended = command.stderr(Stdio::piped()).output()?;
        match ended.status.success() {
            true => Ok(()),
            false => {
                Err(format!("lvsadm {words:?}: {}: {}", ended.status, String::from_utf8_lossy(&ended.stderr)).into())
            }
        }
    }
}

impl Drop for Lvsd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const DEVICE: &str = "lvs0";
