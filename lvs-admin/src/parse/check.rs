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
    AddLocalAddress,
    DeleteLocalAddress,
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
            Meaning::AddLocalAddress => Self::AddLocalAddress,
            Meaning::DeleteLocalAddress => Self::DeleteLocalAddress,
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
            Self::AddLocalAddress => "add-laddr",
            Self::DeleteLocalAddress => "del-laddr",
        }
    }

    const fn required(self) -> Groups {
        match self {
            Self::AddService | Self::EditService | Self::DeleteService => Groups::of(&[Group::Service]),
            Self::AddServer | Self::EditServer | Self::DeleteServer => Groups::of(&[Group::Service, Group::RealServer]),
            Self::AddLocalAddress | Self::DeleteLocalAddress => Groups::of(&[Group::Service, Group::LocalAddress]),
            _ => Groups::of(&[]),
        }
    }

    const fn allowed(self) -> Groups {
        use Group::*;
        match self {
            Self::AddService | Self::EditService => Groups::of(&[
                Service,
                Scheduler,
                Persistent,
                Netmask,
                OnePacket,
                PersistenceEngine,
                SchedulerFlags,
                ClientAddress,
                KeepSequence,
                KeepTimestamps,
                MssClamp,
                Helper,
                TcpTimeout,
                TcpFinTimeout,
                UdpTimeout,
                SlowStart,
                OnServerGone,
                ReuseReschedules,
                OnReplyConflict,
                CheckWindow,
            ]),
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
                Mtu,
                Drain,
                DrainReset,
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
            Self::AddLocalAddress | Self::DeleteLocalAddress => Groups::of(&[Service, LocalAddress]),
            Self::Flush | Self::Restore | Self::SetTimeouts => Groups::of(&[]),
        }
    }
}

/// Options a command needs, does not know, or does not take together.
pub(super) fn options(action: Action, given: Groups) -> Result<(), UsageError> {
    let rules = Rules {
        required: action.required(),
        allowed: action.allowed(),
        exclusive: if action == Action::List { &LIST_SUBJECTS } else { &[] },
        of: format!("'{}' command", action.name()),
    };
    rules.check(&Group::ALL.map(|(group, _)| group), given)?;

    let is_table = !(given.has(Group::Connection) || given.has(Group::Timeout) || given.has(Group::Daemon));
    let has_columns = given.has(Group::Stats) || given.has(Group::Rate) || given.has(Group::Thresholds);
    let has_persistent = given.has(Group::PersistentConn) && !given.has(Group::Connection);
    if action == Action::List && !is_table && (has_columns || has_persistent) {
        return Err(UsageError::check("options conflicts in the list command"));
    }
    Ok(())
}

/// What happens at the end of a drain is only said of one.
pub(super) fn drain(given: Groups) -> Result<(), UsageError> {
    match given.has(Group::DrainReset) && !given.has(Group::Drain) {
        true => Err(UsageError::check("You need to supply the 'drain' option for the 'drain-reset' option")),
        false => Ok(()),
    }
}

/// Tunnel options: only with `-i`, and only those its kind knows.
pub(super) fn tunnel(given: Groups, forward: ForwardMethod, kind: TunnelKind) -> Result<(), UsageError> {
    if forward != ForwardMethod::Tunnel {
        return match TUNNEL_DETAILS.into_iter().chain([Group::TunnelType]).any(|group| given.has(group)) {
            true => Err(UsageError::check("Tunnel options conflict with forward method")),
            false => Ok(()),
        };
    }
    let (name, required, allowed) = match kind {
        TunnelKind::Ipip => ("ipip", Groups::of(&[]), Groups::of(&[])),
        TunnelKind::Gue => ("gue", Groups::of(&[Group::TunnelPort]), Groups::of(&TUNNEL_DETAILS)),
        TunnelKind::Gre => ("gre", Groups::of(&[]), Groups::of(&[Group::TunnelNoChecksum, Group::TunnelChecksum])),
    };
    let [_, exclusive @ ..] = &TUNNEL_DETAILS;
    Rules { required, allowed, exclusive, of: format!("'{name}' tunnel type") }.check(&TUNNEL_DETAILS, given)
}

/// Which options go with something.
struct Rules {
    required: Groups,
    allowed: Groups,
    /// At most one of these.
    exclusive: &'static [Group],
    /// With what, as complaints end.
    of: String,
}

impl Rules {
    /// Looks at each of `groups` in turn; the first that is wrong is complained about.
    fn check(&self, groups: &[Group], given: Groups) -> Result<(), UsageError> {
        let Self { required, allowed, exclusive, of } = self;
        for &group in groups {
            let name = group.name();
            if !given.has(group) {
                if required.has(group) {
                    let message = format!("You need to supply the '{name}' option for the {of}");
                    return Err(UsageError::check(message));
                }
                continue;
            }
            if !allowed.has(group) {
                return Err(UsageError::check(format!("Illegal '{name}' option with the {of}")));
            }
            let earlier = exclusive.iter().take_while(|&&other| other != group).find(|&&other| given.has(other));
            if let (Some(other), true) = (earlier, exclusive.contains(&group)) {
                let other = other.name();
                let message = format!("The option '{name}' conflicts with the '{other}' option in the {of}");
                return Err(UsageError::check(message));
            }
        }
        Ok(())
    }
}

/// What a listing can be about, but the whole table.
const LIST_SUBJECTS: [Group; 4] = [Group::Connection, Group::Service, Group::Timeout, Group::Daemon];
/// What a tunnel can be told. All but the port exclude each other.
const TUNNEL_DETAILS: [Group; 4] =
    [Group::TunnelPort, Group::TunnelNoChecksum, Group::TunnelChecksum, Group::TunnelRemoteChecksum];
