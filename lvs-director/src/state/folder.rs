//! The directory where state is kept, and its file: its owner's alone, no link is followed, and what was saved is there
//! whole or as it was before. Written aside, synced, then renamed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::denied::Denied;

/// The open directory: whatever its path comes to mean, it is the one that was checked.
#[derive(Clone, Debug)]
pub struct Folder {
    directory: Arc<OwnedFd>,
    path: PathBuf,
}

impl Folder {
    /// Opens the directory, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be had, is a link, somebody else's, or others may write in it.
    pub fn open(path: &Path) -> Result<Self, Denied> {
        let attempt = || format!("keep state in {}", path.display());
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(Denied::new(attempt(), error)),
            _ => {}
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|error| Denied::new(attempt(), error.into()))?;
        let is = fstat(&directory).map_err(|error| Denied::new(attempt(), error.into()))?;
        let path = path.to_owned();
        if is.st_uid != geteuid().as_raw() {
            let complaint = format!("{} is user {}'s, and lvsd believes no state of others", path.display(), is.st_uid);
            return Err(Denied::said(complaint).remedy("name a directory of lvsd's own user"));
        }
        if is.st_mode & 0o022 != 0 {
            let complaint = format!("others may write in {}, and lvsd believes what is there", path.display());
            return Err(Denied::said(complaint).remedy(&format!("'chmod 700 {}'", path.display())));
        }
        Ok(Self { directory: Arc::new(directory), path })
    }

    /// Where the file is.
    pub fn file_path(&self) -> PathBuf {
        self.path.join(NAME)
    }

    /// The file, if there is one.
    ///
    /// # Errors
    /// A sentence: it cannot be opened, or is nothing of ours.
    pub fn read(&self) -> Result<Option<File>, String> {
        let path = self.file_path();
        // Without waiting, as it may be something else than a file.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match openat(&*self.directory, NAME, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(format!("{} is a link, which lvsd does not follow", path.display())),
            Err(error) => return Err(format!("cannot read {}: {}", path.display(), io::Error::from(error))),
        };
        let is = fstat(&file).map_err(|error| format!("cannot read {}: {}", path.display(), io::Error::from(error)))?;
        if !is_ours(&is) {
            return Err(format!("{} is no file of lvsd's own user that only it may change", path.display()));
        }
        Ok(Some(File::from(file)))
    }

    /// Has the file written anew.
    ///
    /// # Errors
    /// What `write` or the system said; the file is as it was.
    pub fn write(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let outcome = self.write_aside(write).and_then(|()| {
            renameat(&*self.directory, NEW, &*self.directory, NAME)?;
            Ok(fsync(&*self.directory)?)
        });
        if outcome.is_err() {
            let _ = unlinkat(&*self.directory, NEW, AtFlags::empty());
        }
        outcome
    }

    fn write_aside(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        // What an lvsd that was killed has left half-written.
        match unlinkat(&*self.directory, NEW, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(self.directory.as_fd(), NEW, flags, Mode::RUSR | Mode::WUSR)?;
        let mut to = BufWriter::with_capacity(1 << 18, File::from(file));
        write(&mut to)?;
        to.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }

    /// Puts a file that cannot be read out of the way; where it is then.
    ///
    /// # Errors
    /// The system refuses.
    pub fn put_aside(&self) -> io::Result<PathBuf> {
        renameat(&*self.directory, NAME, &*self.directory, BROKEN)?;
        Ok(self.path.join(BROKEN))
    }
}

fn is_ours(is: &Stat) -> bool {
    let is_file = FileType::from_raw_mode(is.st_mode) == FileType::RegularFile;
    is_file && is.st_uid == geteuid().as_raw() && is.st_mode & 0o077 == 0
}

const NAME: &str = "connections";
/// While it is written.
const NEW: &str = "connections.new";
/// One that could not be read, for whoever wants to know why.
const BROKEN: &str = "connections.broken";
