//! What clients ask and servers answer, over the kernel's TCP and UDP: enough HTTP for curl. A server's answers say who
//! it is; long ones, in either direction, are bytes in which a lost, repeated or moved piece would be seen.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lvs_testkit::network::Failure;

/// Long enough for many super-packets, and no multiple of anything.
pub const LONG: usize = 10_000_019;

/// Length of the answer to a datagram, and of datagrams: short, as long as most links take, and in fragments.
pub const DATAGRAMS: [usize; 3] = [40, 1_200, 4_000];

/// Long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Who came to a server.
#[derive(Clone, Default, Debug)]
pub struct Guests {
    pub tcp: Vec<SocketAddr>,
    pub udp: Vec<SocketAddr>,
}

/// Answers by TCP and UDP at this address, for ever, as the server called `name`; notes who came.
pub fn serve(at: SocketAddr, name: &'static str) -> Result<Arc<Mutex<Guests>>, Failure> {
    let listener = TcpListener::bind(at)?;
    let socket = UdpSocket::bind(at)?;
    let guests = Arc::new(Mutex::new(Guests::default()));
    let (tcp_guests, udp_guests) = (Arc::clone(&guests), Arc::clone(&guests));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(from) = stream.peer_addr() else { continue };
            tcp_guests.lock().expect("nobody panics").tcp.push(from);
            // A connection that breaks is noticed by the client.
            thread::spawn(move || answer(stream, name));
        }
    });
    thread::spawn(move || {
        let mut question = [0; 65_535];
        while let Ok((len, from)) = socket.recv_from(&mut question) {
            udp_guests.lock().expect("nobody panics").udp.push(from);
            let _ = socket.send_to(&[name.as_bytes(), b" ", &question[..len]].concat(), from);
        }
    });
    Ok(guests)
}

/// One request: `GET /` for the server's name, `GET /bytes/N`, or a `POST` of a long body.
fn answer(stream: TcpStream, name: &str) -> Result<(), Failure> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut from = BufReader::new(&stream);
    let (request, head) = (line(&mut from)?, head(&mut from)?);
    let path = request.split(' ').nth(1).ok_or("a path")?;
    let answer = if request.starts_with("POST ") {
        let mut upload = vec![0; content_len(&head)?];
        from.read_exact(&mut upload)?;
        let what = if upload == body(upload.len()) { "whole" } else { "altered" };
        format!("{name} {what} {}", upload.len()).into_bytes()
    } else if let Some(len) = path.strip_prefix("/bytes/") {
        body(len.parse()?)
    } else {
        name.as_bytes().to_vec()
    };
    let mut to = &stream;
    let len = answer.len();
    write!(to, "HTTP/1.1 200 OK\r\nServer: {name}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n")?;
    Ok(to.write_all(&answer)?)
}

/// What a client got: who answered, and what.
pub struct Answer {
    pub server: String,
    pub body: Vec<u8>,
    /// The client's own end.
    pub client: SocketAddr,
}

/// Asks by TCP: `upload` is sent, if there is any.
pub fn ask(to: SocketAddr, path: &str, upload: &[u8]) -> Result<Answer, Failure> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let (verb, len) = (if upload.is_empty() { "GET" } else { "POST" }, upload.len());
    write!(stream, "{verb} {path} HTTP/1.1\r\nHost: lvs.test\r\nContent-Length: {len}\r\n\r\n")?;
    stream.write_all(upload)?;
    let mut from = BufReader::new(&stream);
    let status = line(&mut from)?;
    if status != "HTTP/1.1 200 OK" {
        return Err(format!("{path}: {status}").into());
    }
    let head = head(&mut from)?;
    let server = head.iter().find_map(|line| line.strip_prefix("Server: ")).ok_or("no server")?.to_owned();
    let mut body = vec![0; content_len(&head)?];
    from.read_exact(&mut body)?;
    Ok(Answer { server, body, client: stream.local_addr()? })
}

/// Asks by UDP; returns who answered.
pub fn ask_by_datagram(from: IpAddr, to: SocketAddr, len: usize) -> Result<String, Failure> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    socket.send(&body(len))?;
    let mut answer = vec![0; 65_535];
    let answer_len = socket.recv(&mut answer)?;
    let mut words = answer[..answer_len].splitn(2, |byte| *byte == b' ');
    let (Some(name), Some(echo)) = (words.next(), words.next()) else { return Err("no answer of ours".into()) };
    if echo != body(len) {
        return Err("another datagram came back".into());
    }
    Ok(String::from_utf8(name.to_vec())?)
}

fn line(from: &mut impl BufRead) -> Result<String, Failure> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// The lines up to the empty one.
fn head(from: &mut impl BufRead) -> Result<Vec<String>, Failure> {
    let mut head = Vec::new();
    loop {
        match line(from)? {
            line if line.is_empty() => return Ok(head),
            line => head.push(line),
        }
    }
}

fn content_len(head: &[String]) -> Result<usize, Failure> {
    Ok(head.iter().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(Ok(0), str::parse)?)
}

pub fn body(len: usize) -> Vec<u8> {
    (0..len as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}
