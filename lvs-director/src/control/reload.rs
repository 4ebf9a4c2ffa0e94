//! SIGHUP: the files are read again, and what has changed between the files as they were and as they are is carried out, all
//! of it or nothing. What the control socket has set beside it is left alone; where both speak of the same thing, the files
//! have the last word, because theirs is the later one.

use lvs_admin::difference;
use lvs_core::{Command, Director, Settings};

use super::owned;
use super::tables::Tables;
use super::transaction::Trial;
use crate::files::Files;
use crate::{notify, say};

impl Tables {
    /// Reads the files again and carries out what has changed. What is wrong is told, and nothing changes then.
    pub fn reload(&mut self) {
        notify::reloading();
        match self.reloaded() {
            Ok(0) => say::note("read again: nothing has changed"),
            Ok(count) => say::note(format_args!("read again: {count} changes carried out")),
            Err(complaint) => say::error(format_args!("read again, and nothing is changed: {complaint}")),
        }
        notify::reloaded();
    }

    fn reloaded(&mut self) -> Result<usize, String> {
        let files = self.files.again()?;
        let mut trial = Trial::of(&self.master, &self.config);
        for command in difference(&self.files.configured, &files.configured) {
            let Some(command) = fitted(command, trial.director(), &self.files) else { continue };
            let words = || lvs_admin::command_line(&command).unwrap_or_else(|| "the settings".to_owned());
            owned::refuse(&command, &files.configuration)
                .and_then(|()| trial.apply(&command))
                .map_err(|refusal| format!("{refusal}: {}", words()))?;
        }
        let commands = trial.into_commands();
        if let Some(journal) = &mut self.journal {
            let services = self.files.configured.services.iter().map(|service| service.key);
            journal
                .yield_to(&commands, services)
                .map_err(|cause| format!("cannot write down what is left: {cause}"))?;
        }
        for command in &commands {
            let words = lvs_admin::command_line(command).unwrap_or_else(|| "settings".to_owned());
            say::note(format_args!("read again: {words}"));
        }
        self.carry_out(&commands);
        let left = self.files.left_for_the_next_start(&files);
        if !left.is_empty() {
            say::warning(format_args!("what has changed of {} counts from the next start on", left.join(", ")));
        }
        self.files = files;
        Ok(commands.len())
    }
}

/// The command as it fits a director that was told more than the files' words; `None` where there is nothing left to do.
fn fitted(command: Command, director: &Director, files: &Files) -> Option<Command> {
    let service = |key| director.service_config(key);
    let server = |key, server| director.server_config(key, server);
    match command {
        Command::AddService(key, config) | Command::EditService(key, config)
            if service(&key).is_some_and(|known| *known == config) =>
        {
            None
        }
        Command::AddService(key, config) if service(&key).is_some() => Some(Command::EditService(key, config)),
        Command::EditService(key, _) | Command::DeleteService(key) if service(&key).is_none() => None,
        Command::AddServer(key, _) if service(&key).is_none() => None,
        Command::AddServer(key, config) | Command::EditServer(key, config)
            if server(&key, &config.key).is_some_and(|known| *known == config) =>
        {
            None
        }
        Command::AddServer(key, config) if server(&key, &config.key).is_some() => {
            Some(Command::EditServer(key, config))
        }
        Command::EditServer(key, config) if server(&key, &config.key).is_none() => None,
        Command::DeleteServer(key, gone) if server(&key, &gone).is_none() => None,
        Command::AddLocalAddress(key, address) => {
            let locals = director.service_alone(&key)?.local_addresses;
            (!locals.contains(&address)).then_some(Command::AddLocalAddress(key, address))
        }
        Command::DeleteLocalAddress(key, address) => {
            let locals = director.service_alone(&key)?.local_addresses;
            locals.contains(&address).then_some(Command::DeleteLocalAddress(key, address))
        }
        Command::SetSettings(wanted) => {
            let merged = merged(director.settings(), &files.configured.settings, &wanted);
            (merged != *director.settings()).then_some(Command::SetSettings(merged))
        }
        command => Some(command),
    }
}

/// What is set, with what the files say otherwise than before.
fn merged(set: &Settings, before: &Settings, after: &Settings) -> Settings {
    let mut settings = set.clone();
    for named in Settings::names() {
        if let Some(value) = after.get(named.name).filter(|value| before.get(named.name).as_ref() != Some(value)) {
            // It is a value that this very setting had.
            let _ = settings.set(named.name, &value);
        }
    }
    settings
}
