//! What changes the director by HTTP, and what says beforehand what a change would do. Everything is carried out as the
//! control socket does it: checked, written down for the next start, told in the log with whoever asked.

use hyper::StatusCode;
use lvs_admin::{Request, words};
use lvs_core::{AfterDrain, Command, ServerConfig, ServerKey, ServiceKey};
use lvs_genl::Errno;
use lvs_genl::server::{Refusal, Table};

use super::answer::Complaint;
use super::types::{
    ApplyRequest, Changed, DrainRequest, Plan, PlanRequest, PlannedCommand, Then, TouchedConnections, UndrainRequest,
    WeightRequest,
};
use crate::control::{self, Asker, Peer, Tables, Touched, WrongLine};

/// What leads to these rules.
pub(super) async fn plan(asker: &Asker, request: PlanRequest) -> Result<Plan, Complaint> {
    Ok((&asker.ask(move |tables| tables.plan(&request.rules)).await??).into())
}

/// Carries rules or commands out.
pub(super) async fn apply(asker: &Asker, peer: Peer, request: ApplyRequest) -> Result<Changed, Complaint> {
    let ApplyRequest { rules, commands, expect } = request;
    let wanted = match (rules, commands) {
        (Some(rules), None) => Wanted::Rules(rules),
        (None, Some(lines)) => Wanted::Commands(read(&lines)?),
        _ => return Err(Complaint::bad("say rules or commands, one of the two")),
    };
    let change = move |tables: &mut Tables| {
        if expect.is_some_and(|expected| expected != tables.generation) {
            let detail = format!("it has changed since: its generation is {} now; plan again", tables.generation);
            return Err(Complaint::new(StatusCode::PRECONDITION_FAILED, detail));
        }
        tables.asked_by(peer);
        let commands = match wanted {
            Wanted::Rules(text) => tables.plan(&text)?.commands.into_iter().map(|(command, _)| command).collect(),
            Wanted::Commands(commands) => commands,
        };
        tables.apply_together(&commands)?;
        Ok(Changed { commands: commands.len(), generation: tables.generation })
    };
    asker.ask(change).await?
}

enum Wanted {
    Rules(String),
    Commands(Vec<Command>),
}

fn read(lines: &[String]) -> Result<Vec<Command>, Complaint> {
    let one = |(index, line): (usize, &String)| {
        let wrong = |detail: String| Complaint { at: u32::try_from(index + 1).ok(), ..Complaint::bad(detail) };
        match lvs_admin::parse(&lvs_admin::split_words(line)) {
            Ok(Request::Apply(command)) => Ok(command),
            Ok(_) => Err(wrong(format!("{line:?} changes nothing"))),
            Err(error) => Err(wrong(error.message)),
        }
    };
    lines.iter().enumerate().map(one).collect()
}

/// Begins a drain.
pub(super) async fn drain(asker: &Asker, peer: Peer, request: DrainRequest) -> Result<Changed, Complaint> {
    let (service, server) = place(&request.service, &request.server)?;
    let deadline = words::duration(&request.deadline).map_err(Complaint::bad)?;
    let then = match request.then.unwrap_or_default() {
        Then::Reset => AfterDrain::Reset,
        Then::Silence => AfterDrain::Silence,
    };
    change(asker, peer, move |_| Ok(Command::Drain { service, server, deadline, then })).await
}

/// Ends a drain.
pub(super) async fn undrain(asker: &Asker, peer: Peer, request: UndrainRequest) -> Result<Changed, Complaint> {
    edit(asker, peer, (&request.service, &request.server), |config| config.drain = None).await
}

/// Gives a server another weight. A drain goes on.
pub(super) async fn weight(asker: &Asker, peer: Peer, request: WeightRequest) -> Result<Changed, Complaint> {
    edit(asker, peer, (&request.service, &request.server), move |config| config.weight = request.weight).await
}

async fn edit(
    asker: &Asker,
    peer: Peer,
    (service, server): (&str, &str),
    edit: impl FnOnce(&mut ServerConfig) + Send + 'static,
) -> Result<Changed, Complaint> {
    let (service, server) = place(service, server)?;
    let command = move |tables: &mut Tables| {
        if tables.service_config(&service).is_none() {
            return Err(Refusal::from(Errno::NO_SUCH));
        }
        let mut config = tables.server(&service, &server).ok_or(Errno::NO_ENTRY)?;
        edit(&mut config);
        Ok(Command::EditServer(service, config))
    };
    change(asker, peer, command).await
}

async fn change(
    asker: &Asker,
    peer: Peer,
    command: impl FnOnce(&mut Tables) -> Result<Command, Refusal> + Send + 'static,
) -> Result<Changed, Complaint> {
    let change = move |tables: &mut Tables| {
        tables.asked_by(peer);
        let command = command(tables)?;
        tables.apply(&command)?;
        Ok::<_, Refusal>(Changed { commands: 1, generation: tables.generation })
    };
    Ok(asker.ask(change).await??)
}

fn place(service: &str, server: &str) -> Result<(ServiceKey, ServerKey), Complaint> {
    Ok((words::service(service).map_err(Complaint::bad)?, words::server(server).map_err(Complaint::bad)?))
}

impl From<Refusal> for Complaint {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.errno {
            Errno::NO_SUCH | Errno::NO_ENTRY => StatusCode::NOT_FOUND,
            Errno::EXISTS | Errno::ADDRESS_IN_USE => StatusCode::CONFLICT,
            Errno::NO_MEMORY => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let detail = match (refusal.errno, &refusal.text) {
            (Errno::NO_SUCH, None) => "there is no such service".to_owned(),
            (Errno::NO_ENTRY, None) => "the service has no such server".to_owned(),
            _ => refusal.to_string(),
        };
        Self { at: refusal.at.map(|at| at + 1), ..Self::new(status, detail) }
    }
}

impl From<WrongLine> for Complaint {
    fn from(wrong: WrongLine) -> Self {
        Self { at: u32::try_from(wrong.line).ok(), ..Self::bad(wrong.complaint) }
    }
}

impl From<&control::Plan> for Plan {
    fn from(plan: &control::Plan) -> Self {
        let one = |(command, touched): &(Command, Touched)| PlannedCommand {
            command: lvs_admin::command_line(command).unwrap_or_else(|| "settings".to_owned()),
            connections: TouchedConnections {
                moved: touched.moved,
                reset: touched.reset,
                dropped: touched.dropped,
                left: touched.left,
            },
        };
        Self { commands: plan.commands.iter().map(one).collect(), generation: plan.generation }
    }
}
