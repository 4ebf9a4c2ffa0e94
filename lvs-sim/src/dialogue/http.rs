//! HTTP/1.1 (RFC 9112), as little of it as shows who answered: one request, one response, then the server closes.

use super::{Dialogue, Script};

/// What an HTTP server answers with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpSite {
    /// The name it gives in the `Server` field.
    pub name: String,
    /// Bytes in each response's body.
    pub body_len: usize,
}

impl HttpSite {
    /// A site with this name and a body of a few bytes.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), body_len: 16 }
    }

    fn response(&self, status: &str) -> Vec<u8> {
        let mut response = format!(
            "HTTP/1.1 {status}\r\nServer: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.name, self.body_len
        )
        .into_bytes();
        response.extend((0..self.body_len).map(body_byte));
        response
    }
}

/// The server's end: waits for a request's header section, answers, closes.
#[derive(Debug)]
pub(crate) struct HttpServer {
    site: HttpSite,
    heard: Vec<u8>,
    response: Option<Script>,
    is_over: bool,
}

impl HttpServer {
    pub(crate) fn new(site: HttpSite) -> Self {
        Self { site, heard: Vec::new(), response: None, is_over: false }
    }
}

impl Dialogue for HttpServer {
    fn hear(&mut self, bytes: &[u8]) {
        if self.response.is_some() {
            return;
        }
        self.heard.extend_from_slice(bytes);
        if header_len(&self.heard).is_some() {
            let status = if self.heard.starts_with(b"GET ") { "200 OK" } else { "501 Not Implemented" };
            self.response = Some(Script::new(self.site.response(status)));
        } else if self.heard.len() > HEADER_MAX {
            self.response = Some(Script::new(self.site.response("431 Request Header Fields Too Large")));
        }
    }

    fn hear_end(&mut self) {
        self.is_over = self.response.is_none();
    }

    fn speak(&mut self, into: &mut [u8]) -> usize {
        self.response.as_mut().map_or(0, |response| response.speak(into))
    }

    fn has_said_all(&self) -> bool {
        self.is_over || self.response.as_ref().is_some_and(Script::is_said)
    }
}

/// The client's end: one GET, and a look at every byte of the answer.
#[derive(Debug)]
pub(crate) struct HttpClient {
    request: Script,
    heard: Vec<u8>,
    header: Option<Header>,
    body_heard: usize,
    is_damaged: bool,
    is_over: bool,
}

#[derive(Debug)]
struct Header {
    body_len: usize,
    server: String,
}

impl HttpClient {
    pub(crate) fn new(host: impl std::fmt::Display) -> Self {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        Self {
            request: Script::new(request.into_bytes()),
            heard: Vec::new(),
            header: None,
            body_heard: 0,
            is_damaged: false,
            is_over: false,
        }
    }

    fn hear_body(&mut self, bytes: &[u8]) {
        let expected = (self.body_heard..).map(body_byte);
        self.is_damaged |= !bytes.iter().zip(expected).all(|(heard, expected)| *heard == expected);
        self.body_heard += bytes.len();
    }
}

impl Dialogue for HttpClient {
    fn hear(&mut self, bytes: &[u8]) {
        if self.header.is_some() {
            return self.hear_body(bytes);
        }
        self.heard.extend_from_slice(bytes);
        let Some(len) = header_len(&self.heard) else {
            self.is_damaged |= self.heard.len() > HEADER_MAX;
            return;
        };
        let body = self.heard.split_off(len);
        self.header = parse_header(&self.heard);
        self.is_damaged |= self.header.is_none();
        self.hear_body(&body);
    }

    fn hear_end(&mut self) {
        self.is_over = true;
    }

    fn speak(&mut self, into: &mut [u8]) -> usize {
        self.request.speak(into)
    }

    fn has_said_all(&self) -> bool {
        // The client closes after the server has: a half-closed request would look like a client that left.
        self.is_over || self.is_satisfied() || self.is_damaged
    }

    fn is_satisfied(&self) -> bool {
        !self.is_damaged && self.header.as_ref().is_some_and(|header| self.body_heard == header.body_len)
    }

    fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    fn server_name(&self) -> Option<&str> {
        self.header.as_ref().map(|header| header.server.as_str())
    }
}

/// Length of the header section with its empty line, once it is complete.
fn header_len(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|position| position + 4)
}

/// Reads a response's header section; `None` if it is not a 200 with a length.
fn parse_header(bytes: &[u8]) -> Option<Header> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.split("\r\n");
    lines.next()?.strip_prefix("HTTP/1.1 200 ")?;
    let mut header = Header { body_len: 0, server: String::new() };
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        match name {
            "Content-Length" => header.body_len = value.parse().ok()?,
            "Server" => header.server = value.to_owned(),
            _ => {}
        }
    }
    Some(header)
}

/// The byte of a body at an index: letters in turn, so that a shift by a segment does not go unseen
/// (23 divides no usual segment length).
fn body_byte(index: usize) -> u8 {
    b'a' + (index % 23) as u8
}

/// Longest header section either end takes.
const HEADER_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets client and server talk, `step` bytes at a time.
    fn talk(client: &mut HttpClient, server: &mut HttpServer, step: usize) {
        let mut buffer = vec![0; step];
        for _ in 0..100_000 {
            let asked = client.speak(&mut buffer);
            server.hear(&buffer[..asked]);
            let answered = server.speak(&mut buffer);
            client.hear(&buffer[..answered]);
            if client.has_said_all() && server.has_said_all() {
                return;
            }
        }
        panic!("the dialogue does not end");
    }

    #[test]
    fn a_client_learns_who_answered_whatever_the_segments() {
        for step in [1, 7, 4096] {
            let mut client = HttpClient::new("192.0.2.80");
            talk(&mut client, &mut HttpServer::new(HttpSite { name: "web1".into(), body_len: 1000 }), step);
            assert!(client.is_satisfied());
            assert_eq!(client.server_name(), Some("web1"));
        }
    }

    #[test]
    fn a_flipped_bit_in_the_body_is_seen() {
        let mut response = HttpSite::new("web1").response("200 OK");
        *response.last_mut().unwrap() ^= 1;
        let mut client = HttpClient::new("192.0.2.80");
        client.hear(&response);
        assert!(client.is_damaged() && !client.is_satisfied());
    }

    #[test]
    fn an_endless_header_is_refused() {
        let mut server = HttpServer::new(HttpSite::new("web1"));
        server.hear(&[b'a'; HEADER_MAX + 1]);
        let mut buffer = [0; 64];
        server.speak(&mut buffer);
        assert!(buffer.starts_with(b"HTTP/1.1 431 "));
    }
}
