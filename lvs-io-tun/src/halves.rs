//! The two halves of a queue, as a worker has them: reading batches of packets and writing single ones, their
//! virtio-net headers turned into offload contexts and back; and what they do when the device is lost. The kernel
//! detaches a descriptor from a device that is deleted, for good; another device of that name needs another descriptor.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lvs_core::{Offload, PacketBuf};
use lvs_io::{BATCH, BatchBuffers, DeviceState, LinkWatch, PacketSink, PacketSource, SinkOffloads, vnet};
use rustix::io::Errno;

use crate::queue::{TunOffloads, TunQueue};
use crate::sys;

/// What both halves read and write by.
pub(crate) struct Attachment {
    fd: Mutex<Arc<OwnedFd>>,
    /// How often it was renewed.
    generation: AtomicU64,
    offloads: TunOffloads,
}

impl Attachment {
    pub(crate) fn new(fd: OwnedFd, offloads: TunOffloads) -> Self {
        Self { fd: Mutex::new(Arc::new(fd)), generation: AtomicU64::new(0), offloads }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<OwnedFd>> {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.lock())
    }

    fn renew(&self, fd: OwnedFd) {
        *self.lock() = Arc::new(fd);
        self.generation.fetch_add(1, Ordering::Release);
    }
}

pub(crate) struct TunSource {
    attachment: Arc<Attachment>,
    fd: Arc<OwnedFd>,
    is_multi_queue: bool,
    /// What tells of the device; nothing where the kernel does not.
    watch: Option<LinkWatch>,
    state: DeviceState,
    was_looked_at: bool,
    /// Nothing had come the last time.
    was_empty: bool,
    buffers: BatchBuffers,
    lost: u64,
}

pub(crate) struct TunSink {
    attachment: Arc<Attachment>,
    fd: Arc<OwnedFd>,
    generation: u64,
}

impl TunSource {
    /// Of the device `name`, for packets of so many bytes.
    pub(crate) fn new(attachment: Arc<Attachment>, name: String, packet_max: usize) -> Self {
        let fd = attachment.get();
        let is_multi_queue = sys::tun_attached(fd.as_fd()).is_ok_and(|(_, flags)| flags & libc::IFF_MULTI_QUEUE != 0);
        Self {
            attachment,
            fd,
            is_multi_queue,
            watch: LinkWatch::new(&name).ok(),
            state: DeviceState::Present,
            was_looked_at: false,
            was_empty: false,
            buffers: BatchBuffers::new(BATCH, packet_max).of_host(),
            lost: 0,
        }
    }

    /// Reads what waits, as much as there is room for.
    fn read(&mut self) -> rustix::io::Result<()> {
        // The header, where there is one, comes to lie in the headroom: one piece is cheaper than two.
        let has_header = self.attachment.offloads.header;
        let header_len = if has_header { vnet::HEADER_LEN } else { 0 };
        while let Some(slot) = self.buffers.next_slot_from(header_len) {
            let len = match rustix::io::read(&self.fd, &mut *slot) {
                // A packet longer than the slot is reported with its full length.
                Ok(len) => len.min(slot.len()).saturating_sub(header_len),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            let offload = if has_header { slot.first_chunk().and_then(vnet::decode) } else { Some(Offload::default()) };
            match offload {
                Some(offload) if len > 0 => self.buffers.commit(len, offload, 0),
                _ => self.lost += 1,
            }
        }
        Ok(())
    }

    /// Looks after the device; `is_detached` if the descriptor has lost it.
    fn look_after_device(&mut self, is_detached: bool) -> io::Result<()> {
        let Some(watch) = &self.watch else { return Ok(()) };
        if !watch.has_changed() && !is_detached && self.was_looked_at {
            return Ok(());
        }
        self.was_looked_at = true;
        if is_detached || sys::tun_attached(self.fd.as_fd()).is_err() {
            self.state = DeviceState::Gone;
            if watch.look()?.is_none() {
                return Ok(());
            }
            // Of another kind, or somebody else's: not the one that is waited for.
            let name = watch.name();
            let Ok(fd) = TunQueue::attach_alike(name, self.attachment.offloads, self.is_multi_queue) else {
                return Ok(());
            };
            self.attachment.renew(fd);
            self.fd = self.attachment.get();
        }
        // Under another name, or in another namespace, it cannot be seen; the descriptor has it still.
        let is_down = watch.look()?.is_some_and(|link| !link.is_up);
        self.state = if is_down { DeviceState::Down } else { DeviceState::Present };
        Ok(())
    }
}

impl PacketSource for TunSource {
    fn receive(&mut self, handle: &mut dyn FnMut(&mut [PacketBuf<'_>])) -> io::Result<usize> {
        let outcome = self.read();
        let count = self.buffers.lend(handle);
        let is_detached = match outcome {
            Ok(()) => false,
            // The device was deleted.
            Err(Errno::BADFD) if self.watch.is_some() => true,
            Err(error) => return Err(error.into()),
        };
        let was_empty = std::mem::replace(&mut self.was_empty, count == 0);
        // Nothing came twice: something else has woken the worker, or nothing has.
        if is_detached || (was_empty && self.was_empty) {
            self.look_after_device(is_detached)?;
        }
        Ok(count)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.watch {
            // A descriptor without a device is readable all the time.
            Some(watch) if self.state == DeviceState::Gone => Some(watch.fd()),
            _ => Some(self.fd.as_fd()),
        }
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(LinkWatch::fd)
    }

    fn lost(&self) -> u64 {
        self.lost
    }

    fn state(&self) -> DeviceState {
        self.state
    }
}

impl TunSink {
    pub(crate) fn new(attachment: Arc<Attachment>) -> Self {
        let fd = attachment.get();
        Self { attachment, fd, generation: 0 }
    }
}

impl PacketSink for TunSink {
    fn send(&mut self, packet: &mut PacketBuf<'_>, _next_hop: IpAddr) -> io::Result<()> {
        let generation = self.attachment.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.generation = generation;
            self.fd = self.attachment.get();
        }
        if !self.attachment.offloads.header {
            rustix::io::write(&self.fd, packet.bytes())?;
            return Ok(());
        }
        let header = vnet::encode(&packet.offload, packet.bytes());
        // One piece is cheaper than two.
        if packet.grow_front(header.len()).is_some() {
            packet.bytes_mut()[..header.len()].copy_from_slice(&header);
            rustix::io::write(&self.fd, packet.bytes())?;
        } else {
            rustix::io::writev(&self.fd, &[IoSlice::new(&header), IoSlice::new(packet.bytes())])?;
        }
        Ok(())
    }

    fn offloads(&self) -> SinkOffloads {
        let offloads = self.attachment.offloads;
        // The kernel completes checksums for whoever sends it a header, whatever was agreed on for receiving.
        SinkOffloads { checksum: offloads.header, tcp: offloads.tcp, udp: offloads.udp }
    }
}
