//! Names for ports and hosts, from the texts of `/etc/services` and `/etc/hosts`.
//! Decides nothing by itself and asks no name server: whoever has the files lends their text.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use lvs_core::Protocol;

/// A table of port and host names. Empty ([`Names::none`]), it leaves every listing numeric and takes only numbers.
///
/// ```
/// use lvs_admin::Names;
/// use lvs_core::Protocol;
///
/// let names = Names::from_files("http 80/tcp www\n", "127.0.0.1 localhost\n");
/// assert_eq!(names.port("www", Protocol::Tcp), Some(80));
/// assert_eq!(names.port_name(80, Protocol::Tcp), Some("http"));
/// assert_eq!(names.port_name(80, Protocol::Udp), None);
/// assert_eq!(names.host_name("127.0.0.1".parse().unwrap()), Some("localhost"));
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names {
    ports: HashMap<(String, Protocol), u16>,
    port_names: HashMap<(u16, Protocol), String>,
    hosts: HashMap<String, Ipv4Addr>,
    host_names: HashMap<IpAddr, String>,
}

impl Names {
    /// No names at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// The names in the texts of `/etc/services` and `/etc/hosts`. Lines that cannot be read are skipped;
    /// of two entries for one name or one number the first counts. See services(5) and hosts(5).
    pub fn from_files(services: &str, hosts: &str) -> Self {
        let mut names = Self::default();
        for line in services.lines() {
            names.add_service_line(line);
        }
        for line in hosts.lines() {
            names.add_host_line(line);
        }
        names
    }

    /// The port a service name stands for. Names are case-sensitive.
    pub fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.ports.get(&(name.to_owned(), protocol)).copied()
    }

    /// The first name of a port.
    pub fn port_name(&self, port: u16, protocol: Protocol) -> Option<&str> {
        self.port_names.get(&(port, protocol)).map(String::as_str)
    }

    /// The IPv4 address of a host name; ipvsadm looks up no others. Case does not count.
    pub fn host(&self, name: &str) -> Option<Ipv4Addr> {
        self.hosts.get(&name.to_ascii_lowercase()).copied()
    }

    /// The first name of an address.
    pub fn host_name(&self, address: IpAddr) -> Option<&str> {
        self.host_names.get(&address).map(String::as_str)
    }

    fn add_service_line(&mut self, line: &str) {
        let mut words = without_comment(line).split_whitespace();
        let (Some(name), Some(number)) = (words.next(), words.next()) else { return };
        let Some((port, protocol)) = number.split_once('/') else { return };
        let Ok(port) = port.parse::<u16>() else { return };
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return,
        };
        self.port_names.entry((port, protocol)).or_insert_with(|| name.to_owned());
        for alias in core::iter::once(name).chain(words) {
            self.ports.entry((alias.to_owned(), protocol)).or_insert(port);
        }
    }

    fn add_host_line(&mut self, line: &str) {
        let mut words = without_comment(line).split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { return };
        for (index, name) in words.enumerate() {
            if index == 0 {
                self.host_names.entry(address).or_insert_with(|| name.to_owned());
            }
            if let IpAddr::V4(address) = address {
                self.hosts.entry(name.to_ascii_lowercase()).or_insert(address);
            }
        }
    }
}

fn without_comment(line: &str) -> &str {
    line.split('#').next().unwrap_or(line)
}
