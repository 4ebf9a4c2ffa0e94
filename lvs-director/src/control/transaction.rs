//! Many commands, all or none of them: they are tried on a director that has what the master has, and carried out when all
//! were accepted there. Nobody else's commands come between: the control thread does one thing at a time.

use lvs_admin::{Configured, difference};
use lvs_core::{Command, Director, DirectorConfig, Instant, Seed};
use lvs_genl::Errno;
use lvs_genl::server::Refusal;

use super::owned;
use super::tables::{Tables, cannot_write};
use crate::say;

/// Commands on trial.
pub struct Trial {
    director: Director,
    accepted: Vec<Command>,
}

impl Trial {
    /// On a director with what `master` has, which was made with `config`. What has no part in whether a command is
    /// accepted, such as how far a drain is, it does not have.
    pub fn of(master: &Director, config: &DirectorConfig) -> Self {
        let mut director = Director::new(config.clone(), Seed::new(0));
        for command in difference(&Configured::of(&director), &Configured::of(master)) {
            // The master has accepted it all.
            let _ = director.apply(Instant::ZERO, &command);
        }
        Self { director, accepted: Vec::new() }
    }

    /// The director as it is with the commands so far.
    pub fn director(&self) -> &Director {
        &self.director
    }

    /// Tries one more.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn apply(&mut self, command: &Command) -> Result<(), Refusal> {
        self.director.apply(Instant::ZERO, command)?;
        while self.director.poll_event().is_some() {}
        self.accepted.push(command.clone());
        Ok(())
    }

    /// What was accepted, in order.
    pub fn into_commands(self) -> Vec<Command> {
        self.accepted
    }
}

impl Tables {
    /// What commands are checked on: the master, or the trial's director.
    pub fn decided(&self) -> &Director {
        self.trial.as_ref().map_or(&self.master, Trial::director)
    }

    /// # Errors
    /// While a transaction is under way: what cannot be part of one.
    pub fn refuse_on_trial(&self) -> Result<(), Refusal> {
        match self.trial {
            None => Ok(()),
            Some(_) => Err(Refusal {
                errno: Errno::NOT_SUPPORTED,
                text: Some("synchronisation is started and stopped outside of transactions".to_owned()),
                at: None,
            }),
        }
    }

    /// Tries a command of a transaction.
    ///
    /// # Errors
    /// Why it is refused, and with it the whole transaction.
    pub fn try_out(&mut self, command: &Command) -> Result<(), Refusal> {
        let outcome = owned::refuse(command, &self.files.configuration)
            .and_then(|()| self.trial.as_mut().map_or(Ok(()), |trial| trial.apply(command)));
        if let (Some(peer), Err(refusal)) = (self.peer, &outcome) {
            say::note(format_args!("{peer}: a transaction is refused, {refusal}: {}", words(command)));
        }
        outcome
    }

    /// Carries out what was tried: written down first, and acknowledged then.
    ///
    /// # Errors
    /// It cannot be written down, and nothing has changed.
    pub fn carry_out_trial(&mut self) -> Result<(), Refusal> {
        let commands = self.trial.take().map(Trial::into_commands).unwrap_or_default();
        let settings = self.master.settings().clone();
        if let Some(journal) = &mut self.journal {
            journal.write_all(&commands, &settings).map_err(cannot_write)?;
        }
        if let Some(peer) = self.peer {
            commands.iter().for_each(|command| say::note(format_args!("{peer}: {}", words(command))));
        }
        self.carry_out(&commands);
        Ok(())
    }

    /// Carries out what a trial has accepted: on the master, then handed on in order.
    pub fn carry_out(&mut self, commands: &[Command]) {
        let now = self.now();
        for command in commands {
            let outcome = self.master.apply(now, command);
            while self.master.poll_event().is_some() {}
            match outcome {
                Ok(()) => self.hand_on(command),
                Err(error) => say::error(format_args!(
                    "a fault in lvsd: {error}, though it was accepted before: {}",
                    words(command)
                )),
            }
        }
    }
}

/// A command for the record of what was changed.
pub fn words(command: &Command) -> String {
    lvs_admin::command_line(command).unwrap_or_else(|| format!("{command:?}"))
}
