//! Follows what becomes of the device while a worker has it. When it goes down the kernel keeps the sockets and serves
//! them again when it is up. When it is deleted they are dead: once there is another device of that name, every queue is
//! opened anew, by whichever worker sees it first, since the kernel numbers the members of a fanout group in the order
//! they join.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lvs_io::l2::MacAddress;
use lvs_io::{AddressChange, DeviceState, Link, LinkWatch};

use crate::addresses::Orders;
use crate::bell::Bell;
use crate::error::AfPacketError;
use crate::open::{Opened, Plan};
use crate::ring::TransmitRing;
use crate::sink::Sockets;

/// Opens all queues of a device anew, for all of their workers.
#[derive(Debug)]
pub(crate) struct Reopener {
    plan: Plan,
    /// How often that was done.
    generation: AtomicU64,
    /// Opened for a queue whose worker has not come for it yet.
    waiting: Mutex<Vec<Option<Opened>>>,
    bells: Vec<Arc<Bell>>,
}

impl Reopener {
    /// For queues of this plan, whose workers are woken by these bells.
    pub(crate) fn new(plan: Plan, bells: Vec<Arc<Bell>>) -> Self {
        Self { plan, generation: AtomicU64::new(0), waiting: Mutex::default(), bells }
    }
}

/// One queue's share in it.
#[derive(Debug)]
pub(crate) struct Reopening {
    reopener: Arc<Reopener>,
    queue: usize,
    generation: u64,
}

impl Reopening {
    pub(crate) fn new(reopener: Arc<Reopener>, queue: usize) -> Self {
        Self { reopener, queue, generation: 0 }
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.reopener.plan
    }

    /// Whether it is the queue that answers questions.
    pub(crate) fn is_first(&self) -> bool {
        self.queue == 0
    }

    /// Whether another queue's worker has opened this one anew.
    fn is_behind(&self) -> bool {
        self.reopener.generation.load(Ordering::Acquire) != self.generation
    }

    /// The queue, opened anew on this device.
    fn open(&mut self, link: Link) -> Result<Opened, AfPacketError> {
        let mut waiting = self.reopener.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_behind()
            && let Some(opened) = waiting.get_mut(self.queue).and_then(Option::take)
            && opened.index == link.index
        {
            self.generation = self.reopener.generation.load(Ordering::Acquire);
            return Ok(opened);
        }
        // What nobody came for is of no use any more.
        *waiting = Vec::new();
        *waiting = self.reopener.plan.open()?.into_iter().map(Some).collect();
        self.generation = self.reopener.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.reopener.bells.iter().for_each(|bell| bell.ring());
        Ok(waiting[self.queue].take().expect("every queue was opened"))
    }
}

/// News of the device for the sending half.
#[derive(Debug)]
pub(crate) enum News {
    /// It is up again.
    IsBack,
    /// It is another one: what to send by, and as whom.
    IsNew((Sockets, TransmitRing), MacAddress),
}

/// The way from the receiving half to the sending one.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    has_news: AtomicBool,
    news: Mutex<Option<News>>,
}

impl Handover {
    /// What there is to know since the last time.
    pub(crate) fn take(&self) -> Option<News> {
        if !self.has_news.load(Ordering::Relaxed) {
            return None;
        }
        let mut news = self.lock();
        self.has_news.store(false, Ordering::Relaxed);
        news.take()
    }

    fn put(&self, latest: News) {
        let mut news = self.lock();
        // A new device that nobody has heard of is not less new for being back.
        if !matches!((&latest, &*news), (News::IsBack, Some(News::IsNew(..)))) {
            *news = Some(latest);
        }
        self.has_news.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Option<News>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches over one queue of the device.
#[derive(Debug)]
pub(crate) struct Guard {
    watch: LinkWatch,
    reopening: Reopening,
    /// What is open now.
    index: u32,
    mac: MacAddress,
    state: DeviceState,
    orders: Arc<Orders>,
    handover: Arc<Handover>,
}

impl Guard {
    /// Of a queue that is open on the device of this number, as this station.
    pub(crate) fn new(
        watch: LinkWatch,
        reopening: Reopening,
        (index, mac): (u32, MacAddress),
        orders: Arc<Orders>,
        handover: Arc<Handover>,
    ) -> Self {
        Self { watch, reopening, index, mac, state: DeviceState::Present, orders, handover }
    }

    pub(crate) fn state(&self) -> DeviceState {
        self.state
    }

    /// Looks after the device if there is reason to: `is_alarmed`, word from the kernel, or from another queue. Returns
    /// what to receive by from now on, and as whom, if that has changed.
    ///
    /// # Errors
    /// The device is there, and cannot be opened.
    pub(crate) fn check(&mut self, is_alarmed: bool) -> io::Result<Option<Opened>> {
        if !self.watch.has_changed() && !is_alarmed && !self.reopening.is_behind() {
            return Ok(None);
        }
        // Under another name it is still the same device.
        let link = match self.watch.look()? {
            None => self.watch.look_at(self.index)?,
            link => link,
        };
        let Some(link) = link else {
            self.state = DeviceState::Gone;
            return Ok(None);
        };
        if !link.is_up {
            self.state = DeviceState::Down;
            return Ok(None);
        }
        let is_own_mac = self.reopening.plan().options.mac.is_some();
        let is_same = link.index == self.index && (is_own_mac || link.mac == Some(self.mac));
        if !is_same || self.reopening.is_behind() {
            return self.reopen(link);
        }
        if std::mem::take(&mut self.state) != DeviceState::Present {
            self.handover.put(News::IsBack);
        }
        Ok(None)
    }

    fn reopen(&mut self, link: Link) -> io::Result<Option<Opened>> {
        let opened = match self.reopening.open(link) {
            Ok(opened) => opened,
            Err(error) if is_loss(&error.source) => {
                // It went again; its next coming will be told.
                self.state = DeviceState::Gone;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        (self.index, self.mac) = (opened.index, opened.mac);
        self.state = DeviceState::Present;
        self.orders.move_to(opened.index);
        Ok(Some(opened))
    }

    /// Takes in that an address of the services has come or gone: of several queues the first one does for all.
    pub(crate) fn learn(&self, change: &AddressChange) {
        if self.reopening.is_first() {
            self.reopening.plan().learn(change);
        }
    }

    /// Tells the sending half what to send by.
    pub(crate) fn hand_over(&self, sender: (Sockets, TransmitRing)) {
        self.handover.put(News::IsNew(sender, self.mac));
    }
}

/// Whether the kernel says that there is no such device, or that it is down.
fn is_loss(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO | libc::ENETDOWN))
}
