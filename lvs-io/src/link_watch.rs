//! Notices when a network device comes, goes, or changes, by name: multicasts of rtnetlink (RFC 3549 §2.3.3.1), which
//! the kernel sends to whoever asks, privileged or not. Looks at the device when something has changed; what follows
//! from that is the owner's to decide.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::net::netlink::SocketAddrNetlink;

use crate::l2::MacAddress;
use crate::netdev::index_bytes;
use crate::netlink::{self, HEADER_LEN, Message, attributes};

/// A device as the kernel describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its number, which no other device of the namespace gets after it.
    pub index: u32,
    /// Whether it is set up (`ip link set DEVICE up`).
    pub is_up: bool,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddress>,
}

/// Watches one device of the network namespace it was made in, whichever thread asks later.
///
/// ```no_run
/// use lvs_io::LinkWatch;
///
/// let watch = LinkWatch::new("eth0")?;
/// // When `watch.fd()` is readable:
/// if watch.has_changed() {
///     match watch.look()? {
///         Some(link) => println!("eth0 has number {}, up: {}", link.index, link.is_up),
///         None => println!("there is no eth0"),
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct LinkWatch {
    name: String,
    changes: OwnedFd,
    /// Apart from the other, so that no answer has to be looked for among changes.
    questions: OwnedFd,
}

/// Changes of links (`linux/rtnetlink.h`).
const RTMGRP_LINK: u32 = 1;

/// So many changes are taken notice of at once; more ring again.
const CHANGES_MAX: usize = 1024;

impl LinkWatch {
    /// Watches the device `name`, which need not exist.
    ///
    /// # Errors
    /// If the process has no file descriptors left, or the kernel has no rtnetlink.
    pub fn new(name: &str) -> io::Result<Self> {
        let changes = netlink::socket()?;
        rustix::io::ioctl_fionbio(&changes, true)?;
        rustix::net::bind(&changes, &SocketAddrNetlink::new(0, RTMGRP_LINK))?;
        Ok(Self { name: name.to_owned(), changes, questions: netlink::socket()? })
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Readable when a device, this one or another, has changed.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }

    /// Whether a device has changed since the last time this was asked, or as much as that is not known. Never blocks.
    pub fn has_changed(&self) -> bool {
        let mut has_changed = false;
        for _ in 0..CHANGES_MAX {
            // Which one it was is seen by looking: the rest of the message is thrown away.
            match rustix::net::recv(&self.changes, &mut [0; 1][..], RecvFlags::empty()) {
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                // ENOBUFS: there were more than the socket holds.
                Ok(_) | Err(_) => has_changed = true,
            }
        }
        has_changed
    }

    /// The device as it is; `None` if there is none of that name.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn look(&self) -> io::Result<Option<Link>> {
        let mut message = Message::query(libc::RTM_GETLINK);
        message.put(&[0; 16]).attribute(libc::IFLA_IFNAME, &[self.name.as_bytes(), &[0]].concat());
        self.ask(message)
    }

    /// Whether a device of this number exists, whatever its name, and is up.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn look_at(&self, index: u32) -> io::Result<Option<Link>> {
        let mut message = Message::query(libc::RTM_GETLINK);
        message.put(&[0; 4]).put(&index_bytes(index)).put(&[0; 8]);
        self.ask(message)
    }

    fn ask(&self, message: Message) -> io::Result<Option<Link>> {
        let answer = message.ask(&self.questions)?;
        if answer.get(4..6) != Some(&libc::RTM_NEWLINK.to_ne_bytes()) {
            return match netlink::acknowledgement(&answer) {
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
                Err(error) => Err(error),
                Ok(()) => Ok(None),
            };
        }
        // `struct ifinfomsg`: family, padding, type, index, flags, which flags change.
        let word =
            |at| answer.get(HEADER_LEN + at..).and_then(|rest| rest.first_chunk()).copied().map(u32::from_ne_bytes);
        let (Some(index), Some(flags)) = (word(4), word(8)) else { return Ok(None) };
        let mut of_link = attributes(answer.get(HEADER_LEN + 16..).unwrap_or_default());
        let mac = of_link.find(|(kind, _)| *kind == libc::IFLA_ADDRESS).and_then(|(_, value)| value.try_into().ok());
        Ok(Some(Link { index, is_up: flags & libc::IFF_UP as u32 != 0, mac: mac.map(MacAddress) }))
    }
}
