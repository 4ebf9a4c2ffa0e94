//! What `lvsd run` is to do: a configuration file, if there is one, and the command line, which stands above it. Decides
//! which of the two counts; what the values mean is said where they are used.

pub mod check;
pub mod file;

use std::fs;
use std::path::{Path, PathBuf};

use crate::address_owner::AddressOwner;
use crate::args::{self, OnDeviceLoss};
use crate::capacity::Assignment;
use crate::control;
use crate::devices::Devices;
use crate::log::Format;
use crate::web::HttpAt;
use file::File;

/// Everything that was said about a run, with defaults filled in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configuration {
    /// The file of rules.
    pub rules: Option<PathBuf>,
    /// The devices.
    pub devices: Devices,
    /// How many threads share the work.
    pub workers: u16,
    /// What happens without a device.
    pub on_device_loss: OnDeviceLoss,
    /// Whose the virtual addresses are.
    pub addresses: AddressOwner,
    /// The control socket.
    pub control: PathBuf,
    /// Whether a control socket was asked for; else it is left out where it cannot be had.
    pub control_is_wanted: bool,
    /// Who may read at the second socket beside it.
    pub control_group: Option<String>,
    /// Where HTTP is served.
    pub http: Vec<HttpAt>,
    /// Where the token is that HTTP over TCP asks for.
    pub http_token: Option<PathBuf>,
    /// Where the secret is that hashes begin with.
    pub seed_file: Option<PathBuf>,
    /// Where connections outlive a restart.
    pub state: Option<PathBuf>,
    /// Every how many seconds they are saved, beside the end.
    pub state_every: Option<u32>,
    /// How what happens is told.
    pub log: Format,
    /// Settings and bounds by their names, the file's first: the last word counts.
    pub settings: Vec<Assignment>,
}

impl Configuration {
    /// Reads the file that `options` name, if they do, and puts the options above it.
    ///
    /// # Errors
    /// A sentence: the file cannot be read, or what is wrong in which line of it.
    pub fn of(options: &args::Run) -> Result<Self, String> {
        let file = options.config.as_deref().map(read).transpose()?.unwrap_or_default();
        Ok(Self::with(options, file))
    }

    /// What a file says by itself.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn of_file(path: &Path) -> Result<Self, String> {
        Ok(Self::with(&args::Run::default(), read(path)?))
    }

    /// Whether these devices can do with virtual addresses of this owner.
    ///
    /// # Errors
    /// A sentence, where they cannot.
    pub fn check_addresses(&self) -> Result<(), String> {
        match (self.addresses, &self.devices) {
            (AddressOwner::Host, Devices::Tun(names)) if !names.is_empty() => Err(format!(
                "the host cannot own the virtual addresses with the TUN device {}: what comes for them would be delivered to \
                 the host itself, and never routed into it; take Ethernet devices (--afpacket), or --addresses lvsd",
                names.join(" and ")
            )),
            _ => Ok(()),
        }
    }

    /// Whether what is to be saved has a place.
    ///
    /// # Errors
    /// A sentence, where it has not.
    pub fn check_state(&self) -> Result<(), String> {
        match (&self.state, self.state_every) {
            (None, Some(_)) => Err("state-every saves nothing without 'state', which says where".to_owned()),
            _ => Ok(()),
        }
    }

    fn with(options: &args::Run, file: File) -> Self {
        let control = options.control.clone().or(file.control);
        let state = options.state.clone().or(file.state);
        // Workers share clients, and FullNAT's ports, by the same secret in the next life.
        let kept_seed = state.as_ref().map(|folder| folder.join("seed"));
        Self {
            rules: options.rules.clone().or(file.rules),
            devices: options.devices.devices().or(file.devices).unwrap_or(Devices::Tun(Vec::new())),
            workers: options.workers.or(file.workers).unwrap_or(1),
            on_device_loss: options.on_device_loss.or(file.on_device_loss).unwrap_or_default(),
            addresses: options.addresses.or(file.addresses).unwrap_or_default(),
            control_is_wanted: control.is_some(),
            control: control.unwrap_or_else(control::default_path),
            control_group: options.control_group.clone().or(file.control_group),
            http: if options.http.is_empty() { file.http } else { options.http.clone() },
            http_token: options.http_token.clone().or(file.http_token),
            seed_file: options.seed_file.clone().or(file.seed_file).or(kept_seed),
            state,
            state_every: options.state_every.or(file.state_every),
            log: options.log.or(file.log).unwrap_or_default(),
            settings: file.settings.into_iter().chain(options.settings.clone()).collect(),
        }
    }
}

/// Reads a configuration file. Paths in it that begin with no slash begin in the file's own folder.
fn read(path: &Path) -> Result<File, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let mut file = file::parse(&text).map_err(|error| format!("{}, {error}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let paths = [&mut file.rules, &mut file.control, &mut file.seed_file, &mut file.state, &mut file.http_token];
    let sockets = file.http.iter_mut().filter_map(HttpAt::path_mut);
    for path in paths.into_iter().flatten().chain(sockets) {
        *path = folder.join(&*path);
    }
    Ok(file)
}
