//! What the client of a row does: asks each server something short, takes a long answer from it, sends it something
//! long, and asks by UDP. Its own HTTP, or curl's.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;

use lvs_testkit::network::Failure;

use crate::ground::{NAMES, PORT, received_by};
use crate::rows::{Browser, Family, Row};
use crate::traffic::{Answer, DATAGRAMS, LONG, ask, ask_by_datagram, body};

/// How many long answers a client gets, and sends as many: one of each to every server.
pub const LONG_COUNT: usize = NAMES.len();

/// What a client has seen.
#[derive(Debug, Default)]
pub struct Browsed {
    /// Its ends of its TCP connections.
    pub ends: Vec<SocketAddr>,
    /// Who answered requests for a name, and for a long answer; to whom something long was sent; who answered
    /// datagrams.
    pub by: [Vec<String>; 4],
    /// Bytes that came by its device.
    pub received: u64,
}

/// Everything a client does. The scheduler is round robin: each server has half of each.
pub fn browse(row: Row) -> Result<Browsed, Failure> {
    let to = row.virtual_address();
    let mut seen = Browsed::default();
    let (upload, paths) = (body(LONG), ["/".to_owned(), format!("/bytes/{LONG}"), "/upload".to_owned()]);
    for (kind, count) in [(0, 4), (1, LONG_COUNT), (2, LONG_COUNT)] {
        for _ in 0..count {
            let path = paths[kind].as_str();
            let upload = if kind == 2 { &upload[..] } else { &[] };
            let answer = match row.browser {
                Browser::Own => ask(to, path, upload),
                Browser::Curl => curl(&row, path, upload),
            };
            let answer = answer.map_err(|error| format!("{path} by TCP: {error}"))?;
            let expected = match kind {
                0 => answer.server.clone().into_bytes(),
                1 => body(LONG),
                _ => format!("{} whole {LONG}", answer.server).into_bytes(),
            };
            if answer.body != expected {
                return Err(format!("{path}: another body, {} bytes", answer.body.len()).into());
            }
            seen.by[kind].push(answer.server);
            seen.ends.push(answer.client);
        }
    }
    for len in DATAGRAMS {
        for _ in NAMES {
            if !row.takes_fragments() && len > 1_400 {
                continue;
            }
            let by = ask_by_datagram(row.client(), to, len).map_err(|error| format!("{len} bytes by UDP: {error}"))?;
            seen.by[3].push(by);
        }
    }
    seen.received = received_by("eth0")?;
    Ok(seen)
}

/// The same request by curl, which names the server and its own end behind the answer, on standard error.
fn curl(row: &Row, path: &str, upload: &[u8]) -> Result<Answer, Failure> {
    let address = row.virtual_address();
    let mut command = Command::new("curl");
    // First of all: no configuration file.
    command.args(["--disable", "--silent", "--show-error", "--noproxy", "*", "--max-time", "60"]);
    command.arg(if row.clients == Family::Ipv4 { "-4" } else { "-6" });
    command.args(["--resolve", &format!("lvs.test:{PORT}:{}", row.resolved())]);
    command.args(["--write-out", "%{stderr}%{http_code} %{remote_ip} %{local_ip} %{local_port} %header{server}"]);
    if !upload.is_empty() {
        // No question beforehand whether it is welcome.
        command.args(["--header", "Expect:", "--data-binary", "@-"]);
    }
    command.arg(format!("http://lvs.test:{PORT}{path}"));
    let mut curl = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut to_curl = curl.stdin.take().ok_or("a pipe")?;
    let output = thread::scope(|scope| {
        // If curl gives up, its status says so.
        scope.spawn(move || {
            let _ = to_curl.write_all(upload);
        });
        curl.wait_with_output()
    })?;
    let said = String::from_utf8(output.stderr)?;
    let words: Vec<&str> = said.split(' ').collect();
    match words[..] {
        ["200", remote, local, port, server] if output.status.success() && remote == address.ip().to_string() => {
            let client = SocketAddr::new(local.parse()?, port.parse()?);
            Ok(Answer { server: server.to_owned(), body: output.stdout, client })
        }
        _ => Err(format!("curl: {}, {said:?}", output.status).into()),
    }
}
