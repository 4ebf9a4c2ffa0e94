//! Which options go with which command, with which tunnel and with each other: tables, and the complaints they lead to.

use lvs_core::ForwardMethod;
use lvs_core::service::TunnelKind;

use crate::options::{Group, Groups, Meaning};
use crate::request::UsageError;

/// What a command line does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    AddService,
    EditService,
    DeleteService,
    Flush,
    Restore,
    Save,
    AddServer,
    EditServer,
    DeleteServer,
    List,
    Zero,
    SetTimeouts,
    StartDaemon,
    StopDaemon,
}

impl Action {
    pub(super) const fn of(meaning: Meaning) -> Option<Self> {
        Some(match meaning {
            Meaning::AddService => Self::AddService,
            Meaning::EditService => Self::EditService,
            Meaning::DeleteService => Self::DeleteService,
            Meaning::Flush => Self::Flush,
            Meaning::Restore => Self::Restore,
            Meaning::Save => Self::Save,
            Meaning::AddServer => Self::AddServer,
            Meaning::EditServer => Self::EditServer,
            Meaning::DeleteServer => Self::DeleteServer,
            Meaning::List => Self::List,
            Meaning::Zero => Self::Zero,
            Meaning::SetTimeouts => Self::SetTimeouts,
            Meaning::StartDaemon => Self::StartDaemon,
            Meaning::StopDaemon => Self::StopDaemon,
            _ => return None,
        })
    }

    /// As ipvsadm names it in complaints.
    const fn name(self) -> &'static str {
        match self {
            Self::AddService => "add-service",
            Self::EditService => "edit-service",
            Self::DeleteService => "delete-service",
            Self::Flush => "flush",
            Self::Restore => "restore",
            Self::Save => "save",
            Self::AddServer => "add-server",
            Self::EditServer => "edit-server",
            Self::DeleteServer => "delete-server",
            Self::List => "list",
            Self::Zero => "zero",
            Self::SetTimeouts => "set",
            Self::StartDaemon => "start-daemon",
            Self::StopDaemon => "stop-daemon",
        }
    }

    const fn required(self) -> Groups {
        match self {
            Self::AddService | Self::EditService | Self::DeleteService => Groups::of(&[Group::Service]),
            Self::AddServer | Self::EditServer | Self::DeleteServer => Groups::of(&[Group::Service, Group::RealServer]),
            _ => Groups::of(&[]),
        }
    }

    const fn allowed(self) -> Groups {
        use Group::*;
        match self {
            Self::AddService | Self::EditService => {
                Groups::of(&[Service, Scheduler, Persistent, Netmask, OnePacket, PersistenceEngine, SchedulerFlags])
            }
            Self::DeleteService | Self::Zero => Groups::of(&[Service]),
            Self::AddServer | Self::EditServer => Groups::of(&[
                Service,
                RealServer,
                Forward,
                Weight,
                UpperThreshold,
                LowerThreshold,
                TunnelType,
                TunnelPort,
                TunnelNoChecksum,
                TunnelChecksum,
                TunnelRemoteChecksum,
            ]),
            Self::DeleteServer => Groups::of(&[Service, RealServer]),
            Self::List => Groups::of(&[
                Numeric,
                Connection,
                Service,
                Timeout,
                Daemon,
                Stats,
                Rate,
                Thresholds,
                PersistentConn,
                NoSort,
                SyncId,
                Exact,
                TunnelInfo,
            ]),
            Self::Save => Groups::of(&[Numeric]),
            Self::StartDaemon => Groups::of(&[SyncId, McastInterface, McastAddress, McastPort, McastTtl, SyncMaxlen]),
            Self::StopDaemon => Groups::of(&[SyncId]),
            Self::Flush | Self::Restore | Self::SetTimeouts => Groups::of(&[]),
        }
    }
}

/// Options a command needs or does not know.
pub(super) fn options(action: Action, given: Groups) -> Result<(), UsageError> {
    let (required, allowed, command) = (action.required(), action.allowed(), action.name());
    for (group, name) in Group::ALL {
        if required.has(group) && !given.has(group) {
            let message = format!("You need to supply the '{name}' option for the '{command}' command");
            return Err(UsageError::check(message));
        }
        if given.has(group) && !allowed.has(group) {
            return Err(UsageError::check(format!("Illegal '{name}' option with the '{command}' command")));
        }
    }
    Ok(())
}

/// Listings that exclude each other.
pub(super) fn listing(given: Groups) -> Result<(), UsageError> {
    const SUBJECTS: [Group; 4] = [Group::Connection, Group::Service, Group::Timeout, Group::Daemon];
    for (index, later) in SUBJECTS.into_iter().enumerate() {
        for earlier in SUBJECTS.into_iter().take(index) {
            if given.has(later) && given.has(earlier) {
                let (later, earlier) = (later.name(), earlier.name());
                return Err(UsageError::check(format!(
                    "The option '{later}' conflicts with the '{earlier}' option in the 'list' command"
                )));
            }
        }
    }
    let is_table = !(given.has(Group::Connection) || given.has(Group::Timeout) || given.has(Group::Daemon));
    let has_columns = given.has(Group::Stats) || given.has(Group::Rate) || given.has(Group::Thresholds);
    let has_persistent = given.has(Group::PersistentConn) && !given.has(Group::Connection);
    if !is_table && (has_columns || has_persistent) {
        return Err(UsageError::check("options conflicts in the list command"));
    }
    Ok(())
}

/// Tunnel options: only with `-i`, and only those its kind knows.
pub(super) fn tunnel(given: Groups, forward: ForwardMethod, kind: TunnelKind) -> Result<(), UsageError> {
    use Group::{TunnelChecksum, TunnelNoChecksum, TunnelPort, TunnelRemoteChecksum};
    const DETAILS: [Group; 4] = [TunnelPort, TunnelNoChecksum, TunnelChecksum, TunnelRemoteChecksum];

    if forward != ForwardMethod::Tunnel {
        return match DETAILS.into_iter().chain([Group::TunnelType]).any(|group| given.has(group)) {
            true => Err(UsageError::check("Tunnel options conflict with forward method")),
            false => Ok(()),
        };
    }
    let (type_name, required, allowed) = match kind {
        TunnelKind::Ipip => ("ipip", Groups::of(&[]), Groups::of(&[])),
        TunnelKind::Gue => ("gue", Groups::of(&[TunnelPort]), Groups::of(&DETAILS)),
        TunnelKind::Gre => ("gre", Groups::of(&[]), Groups::of(&[TunnelNoChecksum, TunnelChecksum])),
    };
    for group in DETAILS {
        let name = group.name();
        if required.has(group) && !given.has(group) {
            let message = format!("You need to supply the '{name}' option for the '{type_name}' tunnel type");
            return Err(UsageError::check(message));
        }
        if given.has(group) && !allowed.has(group) {
            return Err(UsageError::check(format!("Illegal '{name}' option with the '{type_name}' tunnel type")));
        }
    }
    let exclusions = [
        (TunnelChecksum, TunnelNoChecksum),
        (TunnelRemoteChecksum, TunnelNoChecksum),
        (TunnelRemoteChecksum, TunnelChecksum),
    ];
    for (later, earlier) in exclusions {
        if given.has(later) && given.has(earlier) {
            return Err(UsageError::check(format!(
                "The option '{}' conflicts with the '{}' option in the '{type_name}' tunnel type",
                later.name(),
                earlier.name()
            )));
        }
    }
    Ok(())
}
