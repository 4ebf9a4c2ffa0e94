//! The control socket's place: a unix socket that keeps datagrams apart, for its owner alone (mode 0600), in a folder
//! that nobody else may write. A socket file left behind by a process that is gone is replaced; a live one is not.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use lvs_client::socket::read_path;
use lvs_genl::server::Access;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::group::group_number;

/// Whether members of a group can pass the socket's folder.
///
/// # Errors
/// What lets them pass.
pub fn lets_pass(path: &Path) -> Result<(), String> {
    let folder = folder_of(path);
    match fs::metadata(folder) {
        Ok(is) if is.mode() & 0o001 == 0 => {
            let folder = folder.display();
            Err(format!("others may not pass {folder}, where the group's socket is: 'chmod o+x {folder}'"))
        }
        _ => Ok(()),
    }
}

/// The default, or what the environment's `LVS_CONTROL` says.
pub fn default_path() -> PathBuf {
    lvs_client::socket::path(None)
}

/// The control socket cannot be had.
#[derive(Debug)]
pub struct ListenError {
    path: PathBuf,
    complaint: String,
}

impl ListenError {
    pub(super) fn new(path: &Path, complaint: impl fmt::Display) -> Self {
        Self { path: path.to_owned(), complaint: complaint.to_string() }
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen at {}: {}", self.path.display(), self.complaint)
    }
}

impl std::error::Error for ListenError {}

/// A socket that listens, and what who connects there may do. Its file stays when it ends: whoever asks while `lvsd` is started again finds it and waits.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    /// Most that anybody may do who connects.
    pub access: Access,
}

impl Listener {
    /// Listens at `path`, for its owner alone. A missing folder is made, for its owner alone.
    ///
    /// # Errors
    /// Others may write the folder, a live process has the socket, or something else is in its place.
    pub fn open(path: &Path) -> Result<Self, ListenError> {
        Self::listen(path, Access::Full, 0o600, None)
    }

    /// Listens at `path`, and where there is a group, beside it for its members, who may read ([`read_path`]). A missing
    /// folder is made so that they can pass.
    ///
    /// # Errors
    /// As [`Self::open`]; there is no such group, or this user may give nothing to it.
    pub fn open_all(path: &Path, group: Option<&str>) -> Result<Vec<Self>, ListenError> {
        let Some(group) = group else { return Ok(vec![Self::open(path)?]) };
        prepare(folder_of(path), 0o711).map_err(|complaint| ListenError::new(path, complaint))?;
        Ok(vec![Self::open(path)?, Self::open_for_group(path, group)?])
    }

    fn open_for_group(path: &Path, group: &str) -> Result<Self, ListenError> {
        let number = group_number(group).map_err(|complaint| ListenError::new(path, complaint))?;
        Self::listen(&read_path(path), Access::Read, 0o660, Some(number))
    }

    fn listen(path: &Path, access: Access, mode: u32, group: Option<u32>) -> Result<Self, ListenError> {
        let failed = |complaint: &dyn fmt::Display| ListenError::new(path, complaint);
        prepare(folder_of(path), 0o700).map_err(|complaint| failed(&complaint))?;
        refuse_what_is_there(path).map_err(|complaint| failed(&complaint))?;
        // Made aside and moved into place, so that it is never there with other rights.
        let aside = path.with_extension(format!("new-{}", std::process::id()));
        let _ = fs::remove_file(&aside);
        let socket = listen(&aside).map_err(|cause| failed(&cause))?;
        let give = || group.map_or(Ok(()), |group| std::os::unix::fs::chown(&aside, None, Some(group)));
        let moved = give()
            .and_then(|()| fs::set_permissions(&aside, fs::Permissions::from_mode(mode)))
            .and_then(|()| fs::rename(&aside, path));
        if let Err(cause) = moved {
            let _ = fs::remove_file(&aside);
            return Err(failed(&cause));
        }
        Ok(Self { socket, access })
    }

    /// The next who wants to talk; `None` if there is nobody.
    pub fn accept(&self) -> Option<OwnedFd> {
        rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn listen(path: &Path) -> Result<OwnedFd, io::Error> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // Between its making and the change of its rights nobody else gets in.
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(path)?);
    rustix::process::umask(before);
    bound?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the folder, or sees that nobody but its owner, this user or root, may write it.
fn prepare(folder: &Path, mode: u32) -> Result<(), String> {
    match fs::metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(folder)
            // Whatever the umask says.
            .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(mode)))
            .map_err(|cause| format!("cannot make {}: {cause}", folder.display())),
        Err(cause) => Err(format!("cannot look at {}: {cause}", folder.display())),
        Ok(folder_is) => {
            let me = rustix::process::geteuid().as_raw();
            if folder_is.uid() != me && folder_is.uid() != 0 {
                Err(format!("{} belongs to another user: choose a folder of your own", folder.display()))
            } else if folder_is.mode() & 0o022 != 0 {
                Err(format!(
                    "others may write {}: take that right away (chmod go-w), or choose another folder",
                    folder.display()
                ))
            } else {
                Ok(())
            }
        }
    }
}

/// A live process's socket, or what is no socket, is not replaced.
fn refuse_what_is_there(path: &Path) -> Result<(), String> {
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(cause.to_string()),
        Ok(there) => there,
    };
    if !std::os::unix::fs::FileTypeExt::is_socket(&there.file_type()) {
        return Err("something is there that is no socket".to_owned());
    }
    match ask(path) {
        // Nobody listens: its process is gone.
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()),
        Err(cause) => Err(format!("cannot tell whose socket it is: {cause}")),
        Ok(Some(pid)) => Err(format!("process {pid} listens there{}", name_of(pid))),
        Ok(None) => Err("another process listens there".to_owned()),
    }
}

/// The process that listens at `path`.
fn ask(path: &Path) -> Result<Option<i32>, Errno> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(rustix::net::sockopt::socket_peercred(&socket).ok().map(|peer| peer.pid.as_raw_nonzero().get()))
}

fn name_of(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.trim().is_empty() { String::new() } else { format!(" ({})", name.trim()) }
}

/// Stock ipvsadm connects anew for every request.
const BACKLOG: i32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str, mode: u32) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("lvsd-listener-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        folder
    }

    #[test]
    fn the_socket_is_for_its_owner_alone() {
        let folder = folder("owner", 0o700);
        let path = folder.join("made").join("control.sock");
        let _listener = Listener::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_live_socket_is_refused_by_its_process_and_a_dead_one_replaced() {
        let folder = folder("live", 0o700);
        let path = folder.join("control.sock");
        let first = Listener::open(&path).unwrap();
        let complaint = Listener::open(&path).unwrap_err().to_string();
        assert!(complaint.contains(&format!("process {} listens there", std::process::id())), "{complaint}");
        drop(first);
        Listener::open(&path).unwrap();
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_that_others_may_write_and_a_file_in_the_way_are_refused() {
        let open_to_all = folder("open", 0o777);
        let complaint = Listener::open(&open_to_all.join("control.sock")).unwrap_err().to_string();
        assert!(complaint.contains("others may write"), "{complaint}");
        fs::remove_dir_all(open_to_all).unwrap();
        let folder = folder("file", 0o700);
        fs::write(folder.join("control.sock"), "").unwrap();
        let complaint = Listener::open(&folder.join("control.sock")).unwrap_err().to_string();
        assert!(complaint.contains("no socket"), "{complaint}");
        fs::remove_dir_all(folder).unwrap();
    }
}
