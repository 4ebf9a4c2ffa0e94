//! Transactions: what a program asks between BEGIN and COMMIT is kept as it came, and carried out together, all of it or
//! nothing. What is kept belongs to the conversation and ends with it.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::answer::Asked;
use super::{Access, Refusal, Table};
use crate::ctrl::{Family, IPVS_ID};
use crate::errno::Errno;
use crate::lvs::command;
use crate::wire::Messages;

/// Most requests of a transaction.
pub const KEPT_MAX: u32 = 1 << 20;
/// Most bytes of them: 64 MiB, which is some 400,000 servers.
pub const KEPT_BYTES_MAX: usize = 1 << 26;

/// Requests that wait for COMMIT.
#[derive(Debug, Default)]
pub(super) struct Kept {
    requests: Vec<u8>,
    count: u32,
}

impl Kept {
    /// Keeps one more.
    ///
    /// # Errors
    /// [`Errno::NO_MEMORY`] where there are too many.
    pub fn keep(&mut self, request: &[u8]) -> Result<(), Refusal> {
        let len = request.len().next_multiple_of(4);
        if self.count >= KEPT_MAX || self.requests.len() + len > KEPT_BYTES_MAX {
            let text = "a transaction takes no more: commit it, or do without".to_string();
            return Err(Refusal { text: Some(text), at: Some(self.count), ..Errno::NO_MEMORY.into() });
        }
        self.requests.extend_from_slice(request);
        self.requests.resize(self.requests.len() + len - request.len(), 0);
        self.count += 1;
        Ok(())
    }

    /// Carries all of them out, or none.
    fn carry_out(&self, table: &mut impl Table) -> Result<(), Refusal> {
        table.begin()?;
        let mut answers = Vec::new();
        for (at, message) in (0..).zip(Messages::new(&self.requests)) {
            answers.clear();
            let outcome = match (Family::by_id(message.header.kind), message.generic()) {
                (Some(family), Some((generic, attributes))) => {
                    let asked = Asked { command: generic.command, is_dump: false, attributes, reply: message.header };
                    match family.id {
                        IPVS_ID => asked.ipvs(family, Access::Full, table, &mut answers).map(drop),
                        _ => asked.lvs(family, Access::Full, table, &mut answers).map(drop),
                    }
                }
                _ => Err(Errno::INVALID.into()),
            };
            if let Err(refusal) = outcome {
                table.abort();
                return Err(Refusal { at: Some(at), ..refusal });
            }
        }
        table.commit()
    }
}

/// BEGIN, COMMIT or ABORT.
///
/// # Errors
/// There is a transaction already, or none; or what is wrong in it. After COMMIT there is none, whatever became of it.
pub(super) fn change(transaction: &mut Option<Kept>, asked: u8, table: &mut impl Table) -> Result<(), Refusal> {
    let text = |text: &str| Some(text.to_string());
    match (asked, transaction.take()) {
        (command::BEGIN, None) => {
            *transaction = Some(Kept::default());
            Ok(())
        }
        (command::BEGIN, Some(kept)) => {
            *transaction = Some(kept);
            Err(Refusal { text: text("a transaction has begun already"), ..Errno::EXISTS.into() })
        }
        (_, None) => Err(Refusal { text: text("no transaction has begun"), ..Errno::INVALID.into() }),
        (command::COMMIT, Some(kept)) => kept.carry_out(table),
        (_, Some(_)) => Ok(()),
    }
}
