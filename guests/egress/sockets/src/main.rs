//! Tries each thing that a socket can do with the address on its input, and says which it could;
//! what the tests of sockets call.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

fn main() -> io::Result<()> {
    let mut to = String::new();
    io::stdin().read_to_string(&mut to)?;
    let found = to.to_socket_addrs().and_then(|mut found| {
        let none = || io::Error::other("no address");
        found.next().ok_or_else(none)
    });
    say("look-up", &found);
    say("connect", &TcpStream::connect(&to).and_then(greet));
    let send = |socket: UdpSocket| socket.send_to(b"hello", &to);
    say("send", &UdpSocket::bind("0.0.0.0:0").and_then(send));
    say("bind", &UdpSocket::bind("127.0.0.1:0"));
    say("listen", &TcpListener::bind("0.0.0.0:0"));
    Ok(())
}

/// Says hello and hears what the other says.
fn greet(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"hello")?;
    let mut heard = [0; 5];
    stream.read_exact(&mut heard)
}

fn say<T>(what: &str, outcome: &io::Result<T>) {
    let word = match outcome {
        Ok(_) => "yes",
        Err(_) => "no",
    };
    println!("{what} {word}");
}
