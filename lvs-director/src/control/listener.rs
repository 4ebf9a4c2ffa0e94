//! The control socket's place: a unix socket that keeps datagrams apart, for its owner alone (mode 0600), in a folder
//! that nobody else may write. A socket file left behind by a process that is gone is replaced; a live one is not.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use lvs_client::socket::read_path;
use lvs_genl::server::Access;
use rustix::fs::{FlockOperation, Mode, OFlags};
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
    /// Held for as long as it listens.
    _lock: OwnedFd,
}

impl Listener {
    /// Listens at `path`, for its owner alone. A missing folder is made, for its owner alone.
    ///
    /// # Errors
    /// Others may write the folder, a live process has the socket, or something else is in its place.
    pub fn open(path: &Path) -> Result<Self, ListenError> {
        Self::listen(path, SocketType::SEQPACKET, Access::Full, 0o600, None)
    }

    /// The same for a stream of bytes, with the lock that goes with it: for HTTP.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_stream(path: &Path) -> Result<(UnixListener, OwnedFd), ListenError> {
        let Self { socket, _lock, .. } = Self::listen(path, SocketType::STREAM, Access::Full, 0o600, None)?;
        Ok((socket.into(), _lock))
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
        Self::listen(&read_path(path), SocketType::SEQPACKET, Access::Read, 0o660, Some(number))
    }

    fn listen(
        path: &Path,
        kind: SocketType,
        access: Access,
        mode: u32,
        group: Option<u32>,
    ) -> Result<Self, ListenError> {
        let failed = |complaint: &dyn fmt::Display| ListenError::new(path, complaint);
        prepare(folder_of(path), 0o700).map_err(|complaint| failed(&complaint))?;
        let lock = lock(path, kind).map_err(|complaint| failed(&complaint))?;
        refuse_what_is_there(path, kind).map_err(|complaint| failed(&complaint))?;
        // Made aside and moved into place, so that it is never there with other rights. Its name is short, because that of a
        // socket may have 107 bytes only.
        let aside = folder_of(path).join(format!(".{:x}", std::process::id()));
        let _ = fs::remove_file(&aside);
        let socket = listen(&aside, kind).map_err(|cause| failed(&cause))?;
        let give = || group.map_or(Ok(()), |group| std::os::unix::fs::chown(&aside, None, Some(group)));
        let moved = give()
            .and_then(|()| fs::set_permissions(&aside, fs::Permissions::from_mode(mode)))
            .and_then(|()| fs::rename(&aside, path));
        if let Err(cause) = moved {
            let _ = fs::remove_file(&aside);
            return Err(failed(&cause));
        }
        Ok(Self { socket, access, _lock: lock })
    }

    /// The next who wants to talk.
    ///
    /// # Errors
    /// What the system says; [`Errno::AGAIN`] if there is nobody.
    pub fn accept(&self) -> Result<OwnedFd, Errno> {
        rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn listen(path: &Path, kind: SocketType) -> Result<OwnedFd, io::Error> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
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

/// Makes the folder, or sees that nobody but its owner, this user or root, may write it. One that was made is looked at like
/// any other: somebody else may have been faster.
fn prepare(folder: &Path, mode: u32) -> Result<(), String> {
    match DirBuilder::new().mode(mode).create(folder) {
        Ok(()) => {
            // Whatever the umask says.
            let opened = open_folder(folder, OFlags::RDONLY)?;
            rustix::fs::fchmod(&opened, Mode::from_raw_mode(mode))
                .map_err(|cause| format!("cannot make {}: {}", folder.display(), io::Error::from(cause)))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                prepare(parent, mode)?;
                return prepare(folder, mode);
            }
            return Err(format!("cannot make {}: {error}", folder.display()));
        }
        // What cannot be made may be there already, on a file system that nobody may write.
        Err(error) if !folder.exists() => return Err(format!("cannot make {}: {error}", folder.display())),
        Err(_) => {}
    }
    let is = rustix::fs::fstat(open_folder(folder, OFlags::PATH)?)
        .map_err(|cause| format!("cannot look at {}: {}", folder.display(), io::Error::from(cause)))?;
    let me = rustix::process::geteuid().as_raw();
    if is.st_uid != me && is.st_uid != 0 {
        Err(format!("{} belongs to another user: choose a folder of your own", folder.display()))
    } else if is.st_mode & 0o022 != 0 {
        Err(format!(
            "others may write {}: take that right away (chmod go-w), or choose another folder",
            folder.display()
        ))
    } else {
        Ok(())
    }
}

/// The folder itself: what a link in its place leads to may be another one at the next look.
fn open_folder(folder: &Path, way: OFlags) -> Result<OwnedFd, String> {
    let flags = way | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let followed = if folder == Path::new(".") { OFlags::empty() } else { OFlags::NOFOLLOW };
    rustix::fs::open(folder, flags | followed, Mode::empty()).map_err(|cause| match cause {
        Errno::NOTDIR | Errno::LOOP => format!("{} is a link or no folder: name the folder itself", folder.display()),
        cause => format!("cannot look at {}: {}", folder.display(), io::Error::from(cause)),
    })
}

/// Locks a file beside the socket, so that of two that start at once one alone gets it. Sockets whose names differ in their
/// endings only share it, as they would share what is kept beside them.
fn lock(path: &Path, kind: SocketType) -> Result<OwnedFd, String> {
    if path.as_os_str().len() > PATH_MAX {
        return Err(format!("a socket's path has {PATH_MAX} bytes at most"));
    }
    let file = path.with_extension("lock");
    if [&file, &super::journal_path(path), &path.with_extension("new")].contains(&&path.to_owned()) {
        return Err("lvsd keeps a file of its own by this name: choose another ending, such as .sock".to_owned());
    }
    let failed = |cause: Errno| format!("cannot lock {}: {}", file.display(), io::Error::from(cause));
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let lock = rustix::fs::open(&file, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => {
            refuse_what_is_there(path, kind)?;
            Err(format!("another lvsd holds {}: choose a socket with another name", file.display()))
        }
        Err(cause) => Err(failed(cause)),
    }
}

/// A live process's socket, or what is no socket, is not replaced.
fn refuse_what_is_there(path: &Path, kind: SocketType) -> Result<(), String> {
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(cause.to_string()),
        Ok(there) => there,
    };
    if !std::os::unix::fs::FileTypeExt::is_socket(&there.file_type()) {
        return Err("something is there that is no socket".to_owned());
    }
    match ask(path, kind) {
        // Nobody listens: its process is gone.
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()),
        Err(cause) => Err(format!("cannot tell whose socket it is: {cause}")),
        Ok(Some(pid)) => Err(format!("process {pid} listens there{}", name_of(pid))),
        Ok(None) => Err("another process listens there".to_owned()),
    }
}

/// The process that listens at `path`.
fn ask(path: &Path, kind: SocketType) -> Result<Option<i32>, Errno> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(rustix::net::sockopt::socket_peercred(&socket).ok().map(|peer| peer.pid.as_raw_nonzero().get()))
}

fn name_of(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.trim().is_empty() { String::new() } else { format!(" ({})", name.trim()) }
}

/// unix(7): a path and its zero have 108 bytes at most.
const PATH_MAX: usize = 107;
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
