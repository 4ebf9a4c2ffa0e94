//! `none`: no server, ever. `choice = ∅`.
//!
//! What ipvsadm can name but nothing stands behind: a service that is configured, listed and refuses every new
//! connection. Connections that exist already go on.
//!
//! Traps: clients are told "port unreachable", not silence.

use alloc::boxed::Box;

use super::{Request, Scheduler};
use crate::service::RealServer;

/// Never chooses a server. Also stands in for a service's scheduler while that is lent out.
#[derive(Clone, Debug, Default)]
pub struct NeverChoose;

impl Scheduler for NeverChoose {
    fn name(&self) -> &'static str {
        "none"
    }

    fn schedule(&mut self, _: &Request<'_>, _: &[RealServer]) -> Option<usize> {
        None
    }

    fn boxed_clone(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }
}
