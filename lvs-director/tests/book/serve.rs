//! The web servers of the pages: each names itself and the client that it sees, or that a PROXY
//! header names.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Serves at `at`, a port or an address with one, for ever.
pub fn serve(name: &str, at: &str) -> ! {
    let listener = match at.parse::<u16>() {
        Ok(port) => TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port))),
        Err(_) => TcpListener::bind(at),
    };
    let listener = listener.unwrap_or_else(|error| panic!("{name} {at}: {error}"));
    println!("ready");
    loop {
        let Ok((stream, client)) = listener.accept() else { continue };
        let (name, client) = (name.to_owned(), client.ip().to_canonical().to_string());
        // A client that goes away is its own affair.
        thread::spawn(move || greet(stream, &name, client));
    }
}

fn greet(stream: TcpStream, name: &str, mut client: String) -> std::io::Result<()> {
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    // The head ends with an empty line (RFC 9112 §2.1).
    while reader.read_line(&mut line)? > 2 {
        // PROXY protocol, version 1: `PROXY TCP4 SOURCE …`.
        if let Some(source) = line.strip_prefix("PROXY ").and_then(|rest| rest.split(' ').nth(1)) {
            client = source.to_owned();
        }
        line.clear();
    }
    let body = format!("{name} greets {client}\n");
    write!(&stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
