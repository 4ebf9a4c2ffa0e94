//! Services' options for what IPVS never had, there and back: what each word sets, and how it is saved.
//! Which commands take them is for `parse/check`, how they are told apart for `options`.

use core::fmt::Write;

use lvs_core::ServiceConfig;
use lvs_core::service::ClientAddress;

use crate::options::Group;
use crate::parse::values::number;
use crate::request::UsageError;

/// Takes one option in; those that are not of ours, or not about services, change nothing.
pub(crate) fn take(config: &mut ServiceConfig, group: Group, text: &str) -> Result<(), UsageError> {
    let illegal = |what: &str| UsageError::check(format!("illegal {what} specified"));
    match group {
        Group::ClientAddress => {
            config.full_nat.client_address = named(&CLIENT_ADDRESSES, text).ok_or_else(|| illegal("client address"))?;
        }
        Group::KeepSequence => config.full_nat.rewrite_sequence = false,
        Group::KeepTimestamps => config.full_nat.remove_timestamps = false,
        Group::MssClamp => {
            let most = number(text, 1, u16::MAX.into()).ok_or_else(|| illegal("mss-clamp"))?;
            config.mss_clamp = Some(most);
        }
        _ => {}
    }
    Ok(())
}

/// The options that make these settings, each with a blank before it; defaults are not written.
pub(crate) fn write(text: &mut String, config: &ServiceConfig) {
    let full_nat = config.full_nat;
    if let Some(name) = name_of(&CLIENT_ADDRESSES, full_nat.client_address) {
        let _ = write!(text, " --client-address {name}");
    }
    if !full_nat.rewrite_sequence {
        text.push_str(" --keep-sequence");
    }
    if !full_nat.remove_timestamps {
        text.push_str(" --keep-timestamps");
    }
    if let Some(most) = config.mss_clamp {
        let _ = write!(text, " --mss-clamp {most}");
    }
}

fn named<T: Copy>(names: &[(&str, T)], text: &str) -> Option<T> {
    names.iter().find(|(name, _)| *name == text).map(|&(_, value)| value)
}

/// The name of a value that is not the default.
fn name_of<T: PartialEq + Default>(names: &[(&'static str, T)], value: T) -> Option<&'static str> {
    names.iter().find(|(_, named)| *named == value && value != T::default()).map(|&(name, _)| name)
}

/// `--client-address`.
const CLIENT_ADDRESSES: [(&str, ClientAddress); 5] = [
    ("none", ClientAddress::None),
    ("toa", ClientAddress::Toa),
    ("uoa", ClientAddress::Uoa),
    ("proxy-v1", ClientAddress::ProxyV1),
    ("proxy-v2", ClientAddress::ProxyV2),
];
