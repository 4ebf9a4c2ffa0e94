//! A recording ("golden"): what was sent to Linux IPVS, when, and what came out. Reads the JSON described in
//! `goldens/README.md` into types; decides nothing about how it is replayed or compared.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

/// One recording.
#[derive(Clone, Debug)]
pub struct Golden {
    /// Its name: the file's, without `.json`.
    pub name: String,
    /// The group it belongs to: `nat`, `sched6`, …
    pub topic: String,
    /// One sentence on what it is about.
    pub about: String,
    /// The network around the recorded director.
    pub net: Net,
    /// Sysctls set before the setup: name without `net.ipv4.vs.`, value.
    pub sysctls: Vec<(String, String)>,
    /// ipvsadm commands that configured the director, in order.
    pub setup: Vec<String>,
    /// What was done to it, in order.
    pub steps: Vec<Step>,
    /// Steps whose outcome differed from one recording to the next: not compared.
    pub unstable: Vec<usize>,
}

/// The network around the recorded director: clients behind one link, real servers on the other.
#[derive(Clone, Debug)]
pub struct Net {
    /// The virtual addresses, local to the recorded host.
    pub vips: Vec<IpAddr>,
    /// The real servers. A server's index here is its identity in emitted packets.
    pub servers: Vec<IpAddr>,
    /// The link towards the clients.
    pub client_side: Side,
    /// The link towards the real servers.
    pub server_side: Side,
}

/// One link of the recorded director and its own addresses there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Side {
    /// MTU in bytes.
    pub mtu: u16,
    /// The director's IPv4 address.
    pub ipv4: Ipv4Addr,
    /// The director's IPv6 address.
    pub ipv6: Ipv6Addr,
}

/// Which link a packet enters or leaves by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Link {
    /// The clients' side; everything that is not a real server is behind it.
    Client,
    /// The real servers' side.
    Server,
}

/// One thing done to the director, and what it answered.
#[derive(Clone, Debug)]
pub struct Step {
    /// When it was done, after the start of the steps.
    pub at: Duration,
    /// What was done.
    pub action: Action,
    /// Packets that came out while the recorder waited for `at`.
    pub before: Vec<Emission>,
    /// Packets that came out because of the action.
    pub out: Vec<Emission>,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Action {
    /// A packet arrives.
    Packet {
        /// By which link.
        from: Link,
        /// The packet, from the IP header on.
        bytes: Vec<u8>,
        /// Its firewall mark; 0 is none.
        mark: u32,
        /// How long the recorder waited for what comes out.
        wait: Duration,
    },
    /// ipvsadm is run.
    Ipvsadm {
        /// Its arguments, as one would type them.
        arguments: String,
        /// What it reads.
        stdin: String,
        /// Its exit status.
        status: i64,
        /// What it printed.
        stdout: Text,
        /// What it complained about.
        stderr: Text,
    },
    /// The connection table is listed (`/proc/net/ip_vs_conn`, rows sorted).
    Connections(Text),
    /// A file is read.
    Read {
        /// Its path.
        path: String,
        /// Its content.
        text: Text,
    },
    /// Sysctls are changed.
    Sysctl(Vec<(String, String)>),
    /// Time passes.
    Sleep(Duration),
    /// Nothing: a remark, or a packet template that had nothing to answer.
    Nothing,
}

/// A recorded text. It was recorded twice; what differed between the two is noted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Text {
    /// The first recording.
    pub text: String,
    /// The second one, where it differed (clock columns).
    pub other: Option<String>,
    /// The two had the same lines in another order.
    pub is_unordered: bool,
}

/// A packet that came out of the director.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Emission {
    /// By which link.
    pub to: Link,
    /// To which real server ([`Net::servers`]); `None` for clients and multicast.
    pub server: Option<usize>,
    /// The packet, from the IP header on.
    pub bytes: Vec<u8>,
    /// Bytes that differ from one recording to the next: offset and length.
    pub volatile: Vec<(usize, usize)>,
    /// It only came out through a defect of the recorded kernel.
    pub is_quirk: bool,
}

impl Golden {
    /// Reads a recording from a file. The error says what is wrong with the file.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        Self::parse(&text)
    }

    /// Reads a recording from JSON text. The error says which key is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let golden = value.as_object().ok_or("not a JSON object")?;
        if let Some(error) = golden.get("error") {
            return Err(format!("the recording failed: {error}"));
        }
        if golden.get("format").and_then(Value::as_u64) != Some(1) {
            return Err("unknown format (only 1 is known)".into());
        }
        let steps = array(golden, "steps")?;
        Ok(Self {
            name: string(golden, "name")?,
            topic: string(golden, "topic")?,
            about: string(golden, "about")?,
            net: parse_net(golden.get("net").and_then(Value::as_object).ok_or("net is missing")?)?,
            sysctls: parse_sysctls(golden.get("sysctl")),
            setup: strings(golden, "setup")?,
            steps: (steps.iter().enumerate())
                .map(|(index, step)| parse_step(step).map_err(|error| format!("step {index}: {error}")))
                .collect::<Result<_, _>>()?,
            unstable: unstable_steps(golden),
        })
    }
}

impl Emission {
    /// A packet without volatile bytes, to a server or (with `None`) to the client side.
    pub fn new(server: Option<usize>, bytes: Vec<u8>) -> Self {
        let to = if server.is_some() { Link::Server } else { Link::Client };
        Self { to, server, bytes, volatile: Vec::new(), is_quirk: false }
    }

    /// Where it went, in words: `server 1`, `client`.
    pub fn destination(&self) -> String {
        match (self.to, self.server) {
            (Link::Client, _) => "client".into(),
            (Link::Server, Some(index)) => format!("server {index}"),
            (Link::Server, None) => "the servers' link".into(),
        }
    }
}

impl Text {
    /// A text both recordings agree on.
    pub fn exact(text: impl Into<String>) -> Self {
        Self { text: text.into(), other: None, is_unordered: false }
    }
}

fn parse_net(net: &Map<String, Value>) -> Result<Net, String> {
    Ok(Net {
        vips: addresses(net, "vips")?,
        servers: addresses(net, "rs")?,
        client_side: Side {
            mtu: mtu(net, "client_mtu")?,
            ipv4: parsed(&string(net, "cip4")?)?,
            ipv6: parsed(&string(net, "cip6")?)?,
        },
        server_side: Side {
            mtu: mtu(net, "rs_mtu")?,
            ipv4: parsed(&string(net, "dip4")?)?,
            ipv6: parsed(&string(net, "dip6")?)?,
        },
    })
}

fn parse_step(value: &Value) -> Result<Step, String> {
    let step = value.as_object().ok_or("not an object")?;
    let at = step.get("t_ms").and_then(Value::as_f64).ok_or("t_ms is missing")?;
    Ok(Step {
        at: Duration::try_from_secs_f64(at / 1000.0).map_err(|_| "t_ms is negative")?,
        action: parse_action(step)?,
        before: parse_emissions(step, "before")?,
        out: parse_emissions(step, "out")?,
    })
}

fn parse_action(step: &Map<String, Value>) -> Result<Action, String> {
    if step.contains_key("from") {
        return parse_packet(step);
    }
    if let Some(arguments) = step.get("ipvsadm").or_else(|| step.get("show")) {
        return Ok(Action::Ipvsadm {
            arguments: arguments.as_str().ok_or("ipvsadm's arguments are not a string")?.into(),
            stdin: step.get("stdin").and_then(Value::as_str).unwrap_or_default().into(),
            status: step.get("rc").and_then(Value::as_i64).ok_or("rc is missing")?,
            stdout: parse_text(step, "stdout")?,
            stderr: parse_text(step, "stderr")?,
        });
    }
    if step.contains_key("conns") {
        return Ok(Action::Connections(parse_text(step, "text")?));
    }
    if step.contains_key("read") {
        return Ok(Action::Read { path: string(step, "read")?, text: parse_text(step, "text")? });
    }
    if step.contains_key("sysctl") {
        return Ok(Action::Sysctl(parse_sysctls(step.get("sysctl"))));
    }
    if let Some(sleep) = step.get("sleep_ms") {
        return Ok(Action::Sleep(Duration::from_millis(sleep.as_u64().ok_or("sleep_ms is not a number")?)));
    }
    if step.contains_key("note") { Ok(Action::Nothing) } else { Err("an unknown kind of step".into()) }
}

fn parse_packet(step: &Map<String, Value>) -> Result<Action, String> {
    let Some(packet) = step.get("packet").and_then(Value::as_str) else {
        return Ok(Action::Nothing); // a template that had nothing to answer
    };
    Ok(Action::Packet {
        from: parse_link(step, "from")?,
        bytes: parse_hex(packet)?,
        mark: match step.get("mark") {
            Some(mark) => mark.as_u64().and_then(|mark| mark.try_into().ok()).ok_or("mark is not a 32-bit number")?,
            None => 0,
        },
        wait: Duration::from_millis(step.get("wait_ms").and_then(Value::as_u64).unwrap_or(0)),
    })
}

fn parse_emissions(step: &Map<String, Value>, key: &str) -> Result<Vec<Emission>, String> {
    let Some(emissions) = step.get(key) else { return Ok(Vec::new()) };
    let emissions = emissions.as_array().ok_or_else(|| format!("{key} is not a list"))?;
    emissions.iter().map(parse_emission).collect()
}

fn parse_emission(value: &Value) -> Result<Emission, String> {
    let emission = value.as_object().ok_or("an emitted packet is not an object")?;
    let mut volatile = Vec::new();
    for range in emission.get("volatile").and_then(Value::as_array).into_iter().flatten() {
        let number = |index: usize| range.get(index).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        volatile.push((number(0).ok_or("a volatile offset")?, number(1).ok_or("a volatile length")?));
    }
    Ok(Emission {
        to: parse_link(emission, "to")?,
        server: emission.get("rs").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok()),
        bytes: parse_hex(&string(emission, "packet")?)?,
        volatile,
        is_quirk: emission.contains_key("quirk"),
    })
}

fn parse_link(object: &Map<String, Value>, key: &str) -> Result<Link, String> {
    match object.get(key).and_then(Value::as_str) {
        Some("client") => Ok(Link::Client),
        Some("rs") => Ok(Link::Server),
        _ => Err(format!("{key} is neither client nor rs")),
    }
}

fn parse_text(step: &Map<String, Value>, key: &str) -> Result<Text, String> {
    Ok(Text {
        text: string(step, key)?,
        other: step.get(&format!("{key}_2")).and_then(Value::as_str).map(Into::into),
        is_unordered: step.get(&format!("{key}_unordered")).and_then(Value::as_bool).unwrap_or(false),
    })
}

fn parse_sysctls(value: Option<&Value>) -> Vec<(String, String)> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), Into::into);
    entries.map(|(name, value)| (name.clone(), plain(value))).collect()
}

/// The step numbers of lines such as `step 17: packets differ`.
fn unstable_steps(golden: &Map<String, Value>) -> Vec<usize> {
    let lines = golden.get("unstable").and_then(Value::as_array).into_iter().flatten();
    let number = |line: &str| line.strip_prefix("step ")?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    lines.filter_map(Value::as_str).filter_map(number).collect()
}

fn string(object: &Map<String, Value>, key: &str) -> Result<String, String> {
    object.get(key).and_then(Value::as_str).map(Into::into).ok_or_else(|| format!("{key} is missing or not a string"))
}

fn array<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a Vec<Value>, String> {
    object.get(key).and_then(Value::as_array).ok_or_else(|| format!("{key} is missing or not a list"))
}

fn strings(object: &Map<String, Value>, key: &str) -> Result<Vec<String>, String> {
    let plain = |value: &Value| value.as_str().map(Into::into).ok_or_else(|| format!("{key} holds more than strings"));
    array(object, key)?.iter().map(plain).collect()
}

fn addresses(object: &Map<String, Value>, key: &str) -> Result<Vec<IpAddr>, String> {
    strings(object, key)?.iter().map(|text| parsed(text)).collect()
}

fn mtu(object: &Map<String, Value>, key: &str) -> Result<u16, String> {
    let value = object.get(key).and_then(Value::as_u64).and_then(|mtu| mtu.try_into().ok());
    value.ok_or_else(|| format!("{key} is missing or not an MTU"))
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is not an address"))
}

fn parse_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return Err("hex with an odd number of digits".into());
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).ok_or("not a hex digit");
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for pair in digits.chunks_exact(2) {
        bytes.push((nibble(pair[0])? << 4 | nibble(pair[1])?) as u8);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{"name":"n","topic":"t","about":"a","format":1,
        "net":{"dip4":"10.1.255.254","dip6":"fd01::ff","cip4":"192.0.2.1","cip6":"2001:db8:c::1",
               "client_mtu":1300,"rs_mtu":1500,"vips":["10.0.0.1"],"rs":["10.1.0.1","fd01::1"]},
        "sysctl":{"sloppy_tcp":1},"setup":["-A -t 10.0.0.1:80"],"unstable":["step 2: packets differ"],
        "steps":[
          {"from":"client","packet":"4500","mark":7,"t_ms":0.25,
           "out":[{"to":"rs","packet":"45ff","rs":1,"volatile":[[4,2]],"quirk":"stale-route"}]},
          {"from":"rs","packet":null,"skipped":true,"t_ms":1.5,"out":[]},
          {"conns":true,"at_ms":9,"t_ms":9.5,"text":"x","text_2":"y"},
          {"show":"-Ln","rc":0,"stdout":"s","stderr":"","stdout_unordered":true,"t_ms":10},
          {"sleep_ms":2500,"t_ms":11,"out":[]}]}"#;

    #[test]
    fn a_recording_is_read_whole() {
        let golden = Golden::parse(SMALL).expect("a good recording");
        assert_eq!(golden.net.client_side.mtu, 1300);
        assert_eq!(golden.net.servers.len(), 2);
        assert_eq!(golden.sysctls, [("sloppy_tcp".to_owned(), "1".to_owned())]);
        assert_eq!(golden.unstable, [2]);
        assert_eq!(golden.steps[0].at, Duration::from_micros(250));
        let Action::Packet { from, bytes, mark, .. } = &golden.steps[0].action else { panic!("a packet") };
        assert_eq!((*from, bytes.as_slice(), *mark), (Link::Client, &[0x45, 0x00][..], 7));
        let emission = &golden.steps[0].out[0];
        assert_eq!((emission.server, emission.volatile.as_slice(), emission.is_quirk), (Some(1), &[(4, 2)][..], true));
        assert!(matches!(golden.steps[1].action, Action::Nothing));
        let Action::Connections(text) = &golden.steps[2].action else { panic!("connections") };
        assert_eq!(text.other.as_deref(), Some("y"));
        let Action::Ipvsadm { stdout, .. } = &golden.steps[3].action else { panic!("ipvsadm") };
        assert!(stdout.is_unordered);
        assert!(matches!(golden.steps[4].action, Action::Sleep(sleep) if sleep == Duration::from_millis(2500)));
    }

    #[test]
    fn a_broken_recording_is_refused_with_the_place() {
        let broken = SMALL.replace("\"4500\"", "\"45x0\"");
        assert_eq!(Golden::parse(&broken).err().as_deref(), Some("step 0: not a hex digit"));
        let newer = SMALL.replace("\"format\":1", "\"format\":2");
        assert!(Golden::parse(&newer).is_err_and(|error| error.contains("format")));
        assert!(Golden::parse("[]").is_err());
    }
}
