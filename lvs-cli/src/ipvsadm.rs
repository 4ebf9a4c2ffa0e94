//! ipvsadm's command lines: read by `lvs-admin`, asked of a running director in the order in which ipvsadm asks, answered
//! in its words and with its exit statuses.
//! Source of sentences and statuses: the recordings in `conformance/netlink/`.

use std::io::Read;

use lvs_admin::{ListOptions, Listing, Names, Request, SaveOptions};
use lvs_core::Command;
use lvs_core::view::ServiceView;
use lvs_genl::Errno;

use crate::json;
use crate::said::Said;
use lvs_client::{Running, Trouble};

/// What surrounds a command line.
pub struct Surroundings<'a> {
    /// Host and port names.
    pub names: &'a Names,
    /// Standard input, for `-R`.
    pub stdin: &'a mut dyn Read,
    /// Listings as JSON.
    pub json: bool,
    /// Thresholds in `-S`, which ipvsadm forgets.
    pub thresholds: bool,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").field("json", &self.json).finish_non_exhaustive()
    }
}

/// Runs an ipvsadm command line, without the program's name. `connect` is called first, as ipvsadm does; what needs no
/// director, such as `-h`, is answered without one too.
pub fn run(
    words: &[&str],
    connect: impl FnOnce() -> Result<Running, Trouble>,
    surroundings: &mut Surroundings<'_>,
) -> Said {
    let request = lvs_admin::parse_with_names(words, surroundings.names);
    let connected = connect().and_then(|mut running| running.check().map(|()| running));
    let mut running = match (connected, &request) {
        (Ok(running), _) => running,
        (Err(_), Ok(Request::Help)) => return Said::text(lvs_admin::usage()),
        (Err(_), Ok(Request::Version)) => return Said::text(lvs_admin::version()),
        (Err(trouble), _) => return no_director(&trouble),
    };
    match request {
        Ok(Request::Restore) => restore(&mut running, surroundings),
        Ok(request) => perform(&mut running, request, surroundings),
        Err(error) => Said::complaint(error.exit_status, error),
    }
}

fn no_director(trouble: &Trouble) -> Said {
    match trouble {
        Trouble::Refused(refusal) if refusal.errno == Errno::NOT_PERMITTED => Said::complaint(
            NO_DIRECTOR,
            "Can't initialize ipvs: Permission denied (you must be root)\n\
             Are you sure that IP Virtual Server is built in the kernel or as module?",
        ),
        trouble => Said::complaint(NO_DIRECTOR, format!("Can't initialize ipvs: {trouble}")),
    }
}

fn perform(running: &mut Running, request: Request, surroundings: &Surroundings<'_>) -> Said {
    let outcome = match &request {
        Request::Apply(command) => running.apply(command).map_err(|trouble| refused(&trouble, Some(command))),
        Request::StartDaemon(daemon) => running.start_daemon(daemon).map_err(|trouble| daemon_refused(&trouble)),
        Request::StopDaemon(role) => running.stop_daemon(*role).map_err(|trouble| daemon_refused(&trouble)),
        Request::List(options) => return list(running, options, surroundings),
        Request::Save { numeric } => return save(running, *numeric, surroundings),
        Request::Help => return Said::text(lvs_admin::usage()),
        Request::Version => return Said::text(lvs_admin::version()),
        Request::Restore => Ok(()),
    };
    match outcome {
        Ok(()) => Said::default(),
        Err(said) => said,
    }
}

/// `-R`: each line when the one before it is carried out; a refused one is told and the next is done; a line that cannot
/// be read ends it. Changes that follow each other go out together.
fn restore(running: &mut Running, surroundings: &mut Surroundings<'_>) -> Said {
    let mut text = String::new();
    if let Err(error) = surroundings.stdin.read_to_string(&mut text) {
        return Said::complaint(NO_DIRECTOR, format!("cannot read standard input: {error}"));
    }
    let mut said = Said::default();
    let mut waiting: Vec<Command> = Vec::new();
    for request in lvs_admin::restore(&text, surroundings.names) {
        match request {
            Ok(Request::Apply(command)) => {
                waiting.push(command);
                if waiting.len() < TOGETHER {
                    continue;
                }
                if !carry_out(running, &mut waiting, &mut said) {
                    return said;
                }
            }
            Ok(request) => {
                if !carry_out(running, &mut waiting, &mut said) {
                    return said;
                }
                said.then(perform(running, request, surroundings));
            }
            Err(refused) => {
                if carry_out(running, &mut waiting, &mut said) {
                    said.then(Said::complaint(refused.error.exit_status, refused.error));
                }
                return said;
            }
        }
    }
    carry_out(running, &mut waiting, &mut said);
    said
}

/// Carries the commands out, in order; `false` if the director went away.
fn carry_out(running: &mut Running, commands: &mut Vec<Command>, said: &mut Said) -> bool {
    let outcome = running.apply_all(commands.iter(), |index, outcome| {
        said.then(match outcome {
            Ok(()) => Said::default(),
            Err(refusal) => refused(&Trouble::Refused(refusal), commands.get(index)),
        });
    });
    commands.clear();
    if let Err(trouble) = outcome {
        said.then(refused(&trouble, None));
        return false;
    }
    true
}

fn list(running: &mut Running, options: &ListOptions, surroundings: &Surroundings<'_>) -> Said {
    match text_of_list(running, options, surroundings) {
        Ok(text) => Said::text(text),
        Err(trouble) => refused_listing(&trouble),
    }
}

fn text_of_list(
    running: &mut Running,
    options: &ListOptions,
    surroundings: &Surroundings<'_>,
) -> Result<String, Trouble> {
    let names = surroundings.names;
    Ok(match options.listing {
        Listing::Services(_) => {
            let services = match &options.service {
                Some(key) => vec![running.service(key)?],
                None => running.services()?,
            };
            let services = with_servers(running, services, options.unsorted)?;
            if surroundings.json {
                json::text(&json::services(&services))
            } else {
                // The service asked for is there: it was answered.
                lvs_admin::list(&services, options, names).unwrap_or_default()
            }
        }
        Listing::Connections { .. } => {
            let mut connections = Vec::new();
            running.connections(|connection| connections.push(connection))?;
            if surroundings.json {
                json::text(&json::connections(&connections))
            } else {
                lvs_admin::list_connections(&connections, options, names)
            }
        }
        Listing::Timeouts => {
            let timeouts = running.timeouts()?;
            if surroundings.json { json::text(&json::timeouts(&timeouts)) } else { lvs_admin::list_timeouts(&timeouts) }
        }
        Listing::Daemons => {
            let daemons = running.daemons()?;
            if surroundings.json { json::text(&json::daemons(&daemons)) } else { lvs_admin::list_daemons(&daemons) }
        }
    })
}

fn save(running: &mut Running, numeric: bool, surroundings: &Surroundings<'_>) -> Said {
    let services = running.services().and_then(|services| with_servers(running, services, false));
    let options = SaveOptions { numeric, thresholds: surroundings.thresholds };
    match services {
        Ok(services) if surroundings.json => Said::text(json::text(&json::services(&services))),
        Ok(services) => Said::text(lvs_admin::save(&services, options, surroundings.names)),
        Err(trouble) => refused_listing(&trouble),
    }
}

/// Asks for the servers of services, in the order in which they are shown: that is ipvsadm's.
fn with_servers(running: &mut Running, services: Vec<ServiceView>, as_told: bool) -> Result<Vec<ServiceView>, Trouble> {
    let mut services = if as_told { services } else { lvs_admin::sort(services) };
    running.fill_servers(&mut services)?;
    Ok(services)
}

/// What ipvsadm says of a command that the kernel refuses: by its number and the command.
fn refused(trouble: &Trouble, command: Option<&Command>) -> Said {
    let Trouble::Refused(refusal) = trouble else { return Said::complaint(REFUSED, trouble) };
    let sentence = match (command, refusal.errno) {
        (Some(Command::AddService(..)), Errno::EXISTS) => "Service already exists",
        (Some(Command::AddServer(..)), Errno::EXISTS) => "Destination already exists",
        (Some(Command::AddLocalAddress(..)), Errno::EXISTS) => "Local address already exists",
        (Some(Command::AddService(..) | Command::EditService(..)), Errno::NO_ENTRY) => {
            "Scheduler or persistence engine not found"
        }
        (Some(Command::EditServer(..) | Command::DeleteServer(..) | Command::Drain { .. }), Errno::NO_ENTRY) => {
            "No such destination"
        }
        (Some(Command::DeleteLocalAddress(..)), Errno::NO_ENTRY) => "No such local address",
        (Some(Command::EditService(..) | Command::DeleteService(..) | Command::Zero(_)), Errno::NO_SUCH) => {
            "No such service"
        }
        (Some(_), Errno::NO_SUCH) => "Service not defined",
        (Some(Command::AddServer(..) | Command::EditServer(..)), Errno::INVALID) => {
            "Invalid operation.  Possibly wrong module version, address not unicast, ..."
        }
        (_, errno) => return Said::complaint(REFUSED, errno),
    };
    Said::complaint(REFUSED, sentence)
}

fn daemon_refused(trouble: &Trouble) -> Said {
    let Trouble::Refused(refusal) = trouble else { return Said::complaint(REFUSED, trouble) };
    match refusal.errno {
        Errno::EXISTS => Said::complaint(REFUSED, "Daemon has already run"),
        Errno::NO_SUCH => Said::complaint(REFUSED, "No daemon is running"),
        errno => Said::complaint(REFUSED, errno),
    }
}

/// An error in a listing: status 1.
fn refused_listing(trouble: &Trouble) -> Said {
    match trouble {
        Trouble::Refused(refusal) if refusal.errno == Errno::NO_SUCH => Said::complaint(NOT_LISTED, "No such service"),
        Trouble::Refused(refusal) => Said::complaint(NOT_LISTED, refusal.errno),
        trouble => Said::complaint(NOT_LISTED, trouble),
    }
}

/// ipvsadm's exit status for what the kernel refuses.
const REFUSED: u8 = 255;
/// ... for a listing that fails.
const NOT_LISTED: u8 = 1;
/// ... where there is no IPVS.
const NO_DIRECTOR: u8 = 2;
/// Lines of `-R` carried out together.
const TOGETHER: usize = 1024;
