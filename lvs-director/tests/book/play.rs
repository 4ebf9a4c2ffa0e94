//! Carries a page out: its machines are made, its files written, its commands run one after the other, and what they
//! print is compared with what the page shows. Decides who waits for whom.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lvs_director::denied::Denied;

use crate::expect::{is_as_shown, lines};
use crate::machines::{self, Machine, PATIENCE, Shell};
use crate::page::{Command, Page, Step, Terminal};

/// # Errors
/// This machine lacks what the page needs: what that is.
///
/// # Panics
/// If something is not as the page says.
pub fn play(name: &str, page: &Page) -> Result<(), Denied> {
    let programs = programs()?;
    let search = format!("{}:{}:/usr/sbin:/sbin", programs.display(), std::env::var("PATH").unwrap_or_default());
    if let Some(missing) = missing(page, &search) {
        return Err(Denied::said(format_args!("{missing} is not installed")));
    }
    // An ordinary user may not be allowed to open it.
    if page.commands().any(|command| command.text.contains("--tun"))
        && let Err(cause) = fs::File::options().read(true).write(true).open(TUN)
    {
        return Err(Denied::new(format_args!("open {TUN}"), cause));
    }
    if !rustix::process::geteuid().is_root() {
        lvs_director::demo::namespaces::enter_user_namespace()?;
    }
    let machines = machines::network(&page.machines(), &page.plugs, &programs)?;
    let mut stage = Stage { name, machines, shells: BTreeMap::new(), search };
    for step in &page.steps {
        match step {
            Step::File { machine, path, text } => stage.machines[machine].write(path, text),
            Step::Command(command) => stage.act(command),
        }
    }
    Ok(())
}

struct Stage<'a> {
    name: &'a str,
    machines: BTreeMap<String, Machine>,
    shells: BTreeMap<Terminal, Shell>,
    search: String,
}

impl Stage<'_> {
    fn act(&mut self, command: &Command) {
        let machine = &self.machines[&command.terminal.machine];
        let shell = self.shells.entry(command.terminal.clone()).or_insert_with(|| Shell::new(machine, &self.search));
        let stays = command.terminal.number.is_some();
        let (printed, status) = if command.text == "^C" {
            shell.interrupt(machine)
        } else if stays {
            shell.start(&command.text);
            let printed = shell.wait_until(|text| is_as_shown(&command.printed, &lines(text), true));
            (printed, "0".to_owned())
        } else {
            let end = Instant::now() + PATIENCE;
            loop {
                let (printed, status) = shell.run(&command.text);
                let is_done = is_as_shown(&command.printed, &lines(&printed), false) && status == "0";
                if is_done || shows() || !is_a_look(&command.text) || Instant::now() > end {
                    break (printed, status);
                }
            }
        };
        if shows() {
            println!("{}# {}\n{printed}", command.terminal.machine, command.text);
            return;
        }
        let is_right = is_as_shown(&command.printed, &lines(&printed), stays) && status == "0";
        assert!(
            is_right,
            "{}:{}: {}\n--- shown\n{}\n--- printed\n{printed}\n--- exit status {status}",
            self.name,
            command.line,
            command.text,
            command.printed.join("\n"),
        );
    }
}

/// For whoever writes a page: with LVS_BOOK_SHOW nothing is compared, but printed.
fn shows() -> bool {
    std::env::var_os("LVS_BOOK_SHOW").is_some()
}

/// Whether a command only looks: it may be given again until what it shows has come about.
fn is_a_look(command: &str) -> bool {
    let command = command.trim_start_matches("lvsadm exec -- ");
    ["lvsadm -L", "ipvsadm -L", "ip address show", "ip route show", "cat ", "grep ", "lvsd realserver status"]
        .iter()
        .any(|start| command.starts_with(start))
}

/// A program of others that the page wants and that is not here.
fn missing(page: &Page, search: &str) -> Option<&'static str> {
    let is_here = |program: &str| search.split(':').any(|folder| Path::new(folder).join(program).is_file());
    let is_wanted = |program: &str| {
        let is_it = |word: &str| word == program;
        page.commands().any(|command| command.text.split(|c: char| c.is_whitespace() || c == '(').any(is_it))
    };
    let needed = ["unshare", "nsenter", "ip", "mount"].into_iter().find(|program| !is_here(program));
    needed.or_else(|| OTHERS.iter().copied().find(|program| is_wanted(program) && !is_here(program)))
}

/// What TUN devices are opened by.
const TUN: &str = "/dev/net/tun";

/// Programs that a machine may lack.
const OTHERS: [&str; 6] = ["curl", "ipvsadm", "keepalived", "python3", "sysctl", "nft"];

/// The folder of `lvsd`, `lvsadm` and the preload library, which are built where they are not.
fn programs() -> Result<PathBuf, Denied> {
    let lvsd = std::env::var_os("LVSD").map_or_else(|| env!("CARGO_BIN_EXE_lvsd").into(), PathBuf::from);
    let folder = lvsd.parent().expect("a file is in a folder").to_owned();
    lift_library(&folder);
    if ["lvsadm", "liblvs_preload.so"].iter().all(|name| folder.join(name).is_file()) {
        return Ok(folder);
    }
    Err(Denied::said("lvsadm or liblvs_preload.so is not built: cargo build -p lvs-cli -p lvs-preload"))
}

/// `cargo test` leaves the preload library among the parts it was built from; `lvsadm` looks for it beside itself.
fn lift_library(folder: &Path) {
    let (built, wanted) = (folder.join("deps/liblvs_preload.so"), folder.join("liblvs_preload.so"));
    let age = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    if age(&built) > age(&wanted) {
        // Put there in one step: other pages may look for it just now.
        let aside = folder.join(format!(".liblvs_preload.{}", std::process::id()));
        let _ = std::fs::copy(&built, &aside).and_then(|_| std::fs::rename(&aside, &wanted));
    }
}
