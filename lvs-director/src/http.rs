//! Just enough HTTP/1.1 (RFC 9112) to prove that bytes arrive: `GET /bytes/N` answers N bytes that name their server.
//! Decides what a request and an answer look like and whether an answer is whole and unaltered; the same functions
//! serve the kernel's sockets here and the simulator's TCP stacks. One request a connection, no keep-alive.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The bytes of a request for `len` bytes of body from `host` (as it stands in a URL: `192.0.2.80`, `[2001:db8::80]`).
pub fn request(host: &str, len: usize) -> Vec<u8> {
    format!("GET /bytes/{len} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: lvsd-demo\r\nConnection: close\r\n\r\n")
        .into_bytes()
}

/// How a URL names the host at this address.
pub fn host(at: SocketAddr) -> String {
    match at {
        SocketAddr::V4(at) => at.ip().to_string(),
        SocketAddr::V6(at) => format!("[{}]", at.ip()),
    }
}

/// The answer of the server called `name` to the bytes received so far; `None` while the request's head is not
/// complete. Anything but `GET /` (a short greeting) and `GET /bytes/N` with N up to 1 MiB gets an error status.
///
/// ```
/// use lvs_director::http;
/// let answer = http::answer("ant", &http::request("192.0.2.80", 100)).unwrap();
/// let answer = http::Answer::parse(&answer).unwrap();
/// assert_eq!((answer.server.as_str(), answer.body_len), ("ant", 100));
/// ```
pub fn answer(name: &str, received: &[u8]) -> Option<Vec<u8>> {
    let head_len = head_len(received)?;
    let head = String::from_utf8_lossy(&received[..head_len]);
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, path, version) = (words.next(), words.next().unwrap_or_default(), words.next());
    let (status, body) = match (method, body_len_wanted(path, name), version) {
        (Some("GET"), Some(len), Some("HTTP/1.1" | "HTTP/1.0")) => ("200 OK", body(name, len)),
        (Some("GET"), None, Some("HTTP/1.1" | "HTTP/1.0")) => ("404 Not Found", b"try /bytes/1000\n".to_vec()),
        (Some(_), _, Some("HTTP/1.1" | "HTTP/1.0")) => ("405 Method Not Allowed", b"only GET\n".to_vec()),
        _ => ("400 Bad Request", b"not HTTP/1.1\n".to_vec()),
    };
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nServer: {name}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(&body);
    Some(bytes)
}

/// The end of the head in `bytes`, if it is there: the position behind the empty line.
fn head_len(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|position| position + 4)
}

fn body_len_wanted(path: &str, name: &str) -> Option<usize> {
    if path == "/" {
        return Some(greeting(name).len());
    }
    path.strip_prefix("/bytes/")?.parse().ok().filter(|&len| len <= BODY_LEN_MAX)
}

/// `len` bytes that only the server called `name` would send: its greeting, over and over.
fn body(name: &str, len: usize) -> Vec<u8> {
    greeting(name).bytes().cycle().take(len).collect()
}

fn greeting(name: &str) -> String {
    format!("Hello from {name}.\n")
}

/// A complete answer whose every byte was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Who sent it: the `Server` header.
    pub server: String,
    /// How many bytes of body it had.
    pub body_len: usize,
}

impl Answer {
    /// Reads everything a connection delivered until its end.
    ///
    /// # Errors
    /// [`HttpError`] says in which way the bytes are not the complete, unaltered answer of one of our servers.
    pub fn parse(bytes: &[u8]) -> Result<Self, HttpError> {
        let head_len = head_len(bytes).ok_or(HttpError::Truncated { received: bytes.len() })?;
        let (head, received_body) = bytes.split_at(head_len);
        let head = std::str::from_utf8(head).map_err(|_| HttpError::NotHttp)?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).ok_or(HttpError::NotHttp)?;
        if !status.starts_with("200 ") {
            return Err(HttpError::Status(status.to_owned()));
        }
        let (mut server, mut body_len) = (None, None);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            match name.to_ascii_lowercase().as_str() {
                "server" => server = Some(value.trim().to_owned()),
                "content-length" => body_len = value.trim().parse::<usize>().ok(),
                _ => {}
            }
        }
        let (server, body_len) = server.zip(body_len).ok_or(HttpError::NotHttp)?;
        if received_body.len() < body_len {
            return Err(HttpError::Truncated { received: bytes.len() });
        }
        if received_body != body(&server, body_len) {
            return Err(HttpError::Altered { server });
        }
        Ok(Self { server, body_len })
    }
}

/// Why an answer is not the one our servers give.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpError {
    /// The connection ended too early.
    Truncated {
        /// Bytes that did arrive.
        received: usize,
    },
    /// The bytes are not an HTTP/1.1 answer with `Server` and `Content-Length`.
    NotHttp,
    /// A status other than 200.
    Status(String),
    /// The body is not what the server that signed it sends.
    Altered {
        /// The server that signed it.
        server: String,
    },
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { received } => write!(f, "the answer ended early, after {received} bytes"),
            Self::NotHttp => write!(f, "the answer is not HTTP"),
            Self::Status(status) => write!(f, "the server answered {status}"),
            Self::Altered { server } => write!(f, "the body from {server} was altered on the way"),
        }
    }
}

impl std::error::Error for HttpError {}

/// One request over the kernel's TCP: connects, asks for `len` bytes, reads to the end and checks every byte.
///
/// # Errors
/// What the kernel said of the connection, or `InvalidData` holding an [`HttpError`]. Never blocks past `deadline`.
pub fn get(to: SocketAddr, len: usize, deadline: Instant) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&to, time_left(deadline)?)?;
    stream.set_write_timeout(Some(time_left(deadline)?))?;
    stream.write_all(&request(&host(to), len))?;
    let bytes = read_while(&mut stream, deadline, |_| true)?;
    Answer::parse(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads one request from `stream` and answers it as the server called `name`.
///
/// # Errors
/// What the kernel said of the connection; `InvalidData` if no request came within [`HEAD_LEN_MAX`] bytes.
/// Never blocks past `deadline`.
pub fn serve(name: &str, mut stream: TcpStream, deadline: Instant) -> io::Result<()> {
    let received =
        read_while(&mut stream, deadline, |received| head_len(received).is_none() && received.len() < HEAD_LEN_MAX)?;
    let answer = answer(name, &received).ok_or(io::ErrorKind::InvalidData)?;
    stream.set_write_timeout(Some(time_left(deadline)?))?;
    stream.write_all(&answer)
}

/// Reads until the peer is done or `more`, asked after each piece, says that it is enough.
fn read_while(stream: &mut TcpStream, deadline: Instant, more: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let mut received = Vec::new();
    let mut piece = [0; 16 * 1024];
    while more(&received) && received.len() < BODY_LEN_MAX + HEAD_LEN_MAX {
        stream.set_read_timeout(Some(time_left(deadline)?))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => received.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A socket's receive timeout reports EAGAIN, whose text ("try again") would mislead.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(timed_out()),
            Err(error) => return Err(error),
        }
    }
    Ok(received)
}

fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(timed_out()) } else { Ok(left) }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

/// Longest body a server sends: 1 MiB.
pub const BODY_LEN_MAX: usize = 1 << 20;

/// Longest request head a server reads, as common servers limit it.
pub const HEAD_LEN_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_its_server_and_has_the_length_that_was_asked_for() {
        let bytes = answer("bee", b"GET /bytes/30 HTTP/1.1\r\nHost: x\r\n\r\n").expect("the head is complete");
        let text = String::from_utf8(bytes.clone()).expect("plain text");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nServer: bee\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\nHello from bee.\nHello from bee"), "{text}");
        assert_eq!(Answer::parse(&bytes), Ok(Answer { server: "bee".to_owned(), body_len: 30 }));
    }

    #[test]
    fn a_request_is_answered_only_when_its_head_is_complete() {
        assert_eq!(answer("bee", b"GET / HTTP/1.1\r\nHost: x\r\n"), None);
        assert!(answer("bee", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").is_some());
    }

    #[test]
    fn requests_that_are_not_ours_get_an_error_status() {
        for (request, status) in [
            ("GET /bytes/1048577 HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("GET /other HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("POST / HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
            ("hello\r\n\r\n", "400 Bad Request"),
        ] {
            let bytes = answer("bee", request.as_bytes()).expect("the head is complete");
            assert_eq!(Answer::parse(&bytes), Err(HttpError::Status(status.to_owned())), "{request}");
        }
    }

    #[test]
    fn an_altered_or_shortened_answer_is_noticed() {
        let whole = b"HTTP/1.1 200 OK\r\nServer: bee\r\nContent-Length: 16\r\n\r\nHello from bee.\n";
        assert!(Answer::parse(whole).is_ok());
        let shortened = &whole[..whole.len() - 1];
        assert_eq!(Answer::parse(shortened), Err(HttpError::Truncated { received: shortened.len() }));
        let altered = String::from_utf8_lossy(whole).replace("from bee.", "from ant.");
        assert_eq!(Answer::parse(altered.as_bytes()), Err(HttpError::Altered { server: "bee".to_owned() }));
        assert_eq!(Answer::parse(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), Err(HttpError::NotHttp));
    }
}
