//! A command as the ipvsadm command line that asks for it: for records of what was changed, and to be read back.

use core::time::Duration;

use lvs_core::{Command, ServerKey, ServiceKey};

use crate::Names;
use crate::label::Labels;
use crate::rules::{SaveOptions, service_option, write_server, write_service};

/// The arguments that ask for `command`, numbers instead of names, thresholds included; `None` for a command that has no
/// words there. What [`crate::save`] leaves out as without effect is left out here too.
///
/// ```
/// use lvs_admin::{Request, command_line, parse, split_words};
///
/// let line = "-a -t 192.0.2.80:80 -r 10.0.0.2:8080 -m -w 3 -x 100 -y 50";
/// let Ok(Request::Apply(command)) = parse(&split_words(line)) else { panic!("a command") };
/// assert_eq!(command_line(&command).as_deref(), Some(line));
/// ```
pub fn command_line(command: &Command) -> Option<String> {
    let names = Names::none();
    let labels = Labels::new(true, &names);
    let key = |key: &ServiceKey| service_option(*key, &labels);
    let about_server = |verb: &str, service: &ServiceKey, server: &ServerKey| {
        format!("{verb} {} -r {}", key(service), labels.server(*service, *server))
    };
    let mut text = String::new();
    match command {
        Command::AddService(service, config) => write_service(&mut text, "-A", &key(service), config),
        Command::EditService(service, config) => write_service(&mut text, "-E", &key(service), config),
        Command::DeleteService(service) => text = format!("-D {}", key(service)),
        Command::Flush => text = "-C".to_owned(),
        Command::AddServer(service, config) | Command::EditServer(service, config) => {
            let verb = if matches!(command, Command::AddServer(..)) { "-a" } else { "-e" };
            let options = SaveOptions { numeric: true, thresholds: true };
            write_server(&mut text, verb, &key(service), *service, config, options, &labels);
        }
        Command::DeleteServer(service, server) => text = about_server("-d", service, server),
        Command::AddLocalAddress(service, address) => {
            text = format!("--add-laddr {} --local-address {address}", key(service));
        }
        Command::DeleteLocalAddress(service, address) => {
            text = format!("--del-laddr {} --local-address {address}", key(service));
        }
        Command::Zero(None) => text = "-Z".to_owned(),
        Command::Zero(Some(service)) => text = format!("-Z {}", key(service)),
        Command::SetTimeouts { tcp, tcp_fin, udp } => {
            let [tcp, tcp_fin, udp] = [tcp, tcp_fin, udp].map(|timeout| timeout.unwrap_or(Duration::ZERO).as_secs());
            text = format!("--set {tcp} {tcp_fin} {udp}");
        }
        _ => return None,
    }
    Some(text.trim_end().to_owned())
}
