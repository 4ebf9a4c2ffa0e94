//! A group's own socket: its members read, and change nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lvs_client::{Running, Trouble};
use lvs_core::{Command as Change, Protocol, ServiceConfig, ServiceKey};
use lvs_genl::Errno;

/// An `lvsd` without devices, with a service, that lets group 54321 read. It ends with this.
struct Daemon {
    child: Child,
    folder: PathBuf,
}

impl Daemon {
    fn start(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("lvsd-group-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let words = ["run", "--control-group", "54321", "--control"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_lvsd"));
        let child = command.args(words).arg(folder.join("control.sock")).stderr(Stdio::null()).spawn();
        let daemon = Self { child: child.expect("lvsd starts"), folder };
        let mut running = loop {
            match Running::connect(&daemon.folder.join("control.sock")) {
                Ok(running) => break running,
                Err(Trouble::Unreachable(_)) => std::thread::yield_now(),
                Err(trouble) => panic!("{trouble}"),
            }
        };
        running.apply(&Change::AddService(web(), ServiceConfig::new("wrr"))).unwrap();
        daemon
    }

    /// A copy of a file, which everybody may read.
    fn copy_for_all(&self, file: &Path) -> PathBuf {
        let copy = self.folder.join(file.file_name().expect("it has a name"));
        fs::copy(file, &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        copy
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn web() -> ServiceKey {
    ServiceKey::address(Protocol::Tcp, "192.0.2.80:80".parse().unwrap())
}

/// A program of user 54321, in this group alone.
fn as_a_user_of(group: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "54321", "--regid", group, "--clear-groups"]).current_dir("/");
    command
}

/// What a member of the group may do, as a process of such a user: see below.
#[test]
#[ignore = "run by the test below, as another user"]
fn as_a_member_of_the_group() {
    let path = PathBuf::from(std::env::var_os("LVSD_TEST_SOCKET").expect("it is told"));
    // It asks for the first socket, and gets the other one.
    let mut running = Running::connect(&path).unwrap();
    assert_eq!(running.services().unwrap()[0].key, web());
    let Err(Trouble::Refused(refusal)) = running.apply(&Change::DeleteService(web())) else {
        panic!("it may only read")
    };
    assert_eq!(refusal.errno, Errno::NOT_PERMITTED);
    let Err(Trouble::Refused(refusal)) = running.set("drop_entry", "1") else { panic!("it may only read") };
    assert_eq!(refusal.errno, Errno::NOT_PERMITTED);
}

#[test]
fn members_of_a_group_read_at_a_second_socket_and_others_do_nothing() {
    if !rustix::process::geteuid().is_root() {
        println!(
            "skipped: members_of_a_group_read_at_a_second_socket_and_others_do_nothing: it takes root to be others"
        );
        return;
    }
    let daemon = Daemon::start("members");
    let path = daemon.folder.join("control.sock");
    let read = fs::metadata(lvs_client::socket::read_path(&path)).unwrap();
    assert_eq!((read.mode() & 0o777, read.gid()), (0o660, 54321));
    let copy = daemon.copy_for_all(&std::env::current_exe().unwrap());
    let member = |group: &str| {
        let mut command = as_a_user_of(group);
        command.arg(&copy).args(["--exact", "as_a_member_of_the_group", "--ignored"]).env("LVSD_TEST_SOCKET", &path);
        let output = command.output().expect("setpriv, of util-linux, starts");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (is_right, said) = member("54321");
    assert!(is_right, "{said}");
    let (is_right, said) = member("54322");
    assert!(!is_right && said.contains("PermissionDenied"), "{said}");
}

/// Sentences and statuses are those recorded of a user who is not root.
#[test]
fn stock_ipvsadm_lists_for_members_of_the_group_and_is_denied_to_others() {
    let library = Path::new(env!("CARGO_BIN_EXE_lvsd")).with_file_name("liblvs_preload.so");
    let has_ipvsadm = Command::new("ipvsadm").arg("--version").output().is_ok();
    if !rustix::process::geteuid().is_root() || !library.is_file() || !has_ipvsadm {
        println!(
            "skipped: stock_ipvsadm_lists_for_members_of_the_group_and_is_denied_to_others: it takes root, ipvsadm and the \
             preload library"
        );
        return;
    }
    let daemon = Daemon::start("stock");
    let library = daemon.copy_for_all(&library);
    let ipvsadm = |group: &str, words: &[&str]| {
        let mut command = as_a_user_of(group);
        command.arg("env").arg(format!("LD_PRELOAD={}", library.display())).arg("ipvsadm").args(words);
        let output = command.env("LVS_CONTROL", daemon.folder.join("control.sock")).output().expect("setpriv starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let denied = "Can't initialize ipvs: Permission denied (you must be root)\n\
                  Are you sure that IP Virtual Server is built in the kernel or as module?\n";
    let (status, listed, said) = ipvsadm("54321", &["-Ln"]);
    assert_eq!((status, said.as_str()), (Some(0), ""));
    assert!(listed.ends_with("TCP  192.0.2.80:80 wrr\n"), "{listed}");
    let (status, _, said) = ipvsadm("54321", &["-D", "-t", "192.0.2.80:80"]);
    assert!(status == Some(255) && said.contains("Permission denied"), "{status:?}: {said}");
    assert_eq!(ipvsadm("54322", &["-Ln"]), (Some(2), String::new(), denied.to_owned()));
}
