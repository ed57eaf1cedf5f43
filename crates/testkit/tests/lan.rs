//! Hosts on a network of our own: they hear each other until a link is cut, one way or both.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;

use testkit::{Host, Lan};

const PORT: u16 = 7_000;

/// A network, or none where there can be none: that is said, and a failure where it is asked for.
fn lan() -> Option<Lan> {
    if let Err(missing) = Lan::possible() {
        assert!(std::env::var_os("REQUIRE_NETNS").is_none(), "{missing}");
        eprintln!("left out, for want of network namespaces: {missing}");
        return None;
    }
    Some(Lan::new().unwrap())
}

/// What `work` gives, done on the host.
fn on<T: Send>(host: &Host, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            host.enter().unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

fn socket(host: &Host) -> UdpSocket {
    let address = host.address();
    on(host, || UdpSocket::bind((address, PORT)).unwrap())
}

fn tell(from: &UdpSocket, to: &Host, word: &str) {
    let sent = from.send_to(word.as_bytes(), (to.address(), PORT));
    assert_eq!(sent.unwrap(), word.len());
}

/// The next word that comes, and who said it.
fn hear(socket: &UdpSocket) -> (String, Ipv4Addr) {
    let mut bytes = [0; 64];
    let (length, SocketAddr::V4(from)) = socket.recv_from(&mut bytes).unwrap() else {
        panic!("an address of another kind");
    };
    let word = String::from_utf8(bytes[..length].to_vec());
    (word.unwrap(), *from.ip())
}

#[test]
fn a_link_is_cut_one_way_or_both_and_heals() {
    let Some(lan) = lan() else { return };
    let (one, two) = (lan.host().unwrap(), lan.host().unwrap());
    let (here, there) = (socket(&one), socket(&two));
    tell(&here, &two, "hello");
    assert_eq!(hear(&there), ("hello".to_owned(), one.address()));
    lan.cut(&one, &two);
    tell(&here, &two, "unheard");
    tell(&there, &one, "the other way");
    assert_eq!(hear(&here).0, "the other way");
    lan.part(&one, &[&two]);
    tell(&there, &one, "unheard too");
    lan.heal(&one, &[&two]);
    tell(&here, &two, "back");
    tell(&there, &one, "again");
    // What was said meanwhile would have come first.
    assert_eq!(hear(&there).0, "back");
    assert_eq!(hear(&here).0, "again");
}

#[test]
fn all_comes_through_a_link_that_is_slow_and_lossy_and_then_is_not() {
    let Some(lan) = lan() else { return };
    let (one, two) = (lan.host().unwrap(), lan.host().unwrap());
    let address = (two.address(), PORT);
    let listener = on(&two, || TcpListener::bind(address).unwrap());
    let carry = |bytes: &[u8]| {
        let mut stream = on(&one, || TcpStream::connect(address).unwrap());
        let (mut heard, _) = listener.accept().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || stream.write_all(bytes).unwrap());
            let mut all = Vec::new();
            heard.read_to_end(&mut all).unwrap();
            assert_eq!(all, bytes);
        });
    };
    one.slow(4_000).unwrap();
    carry(&vec![7; 200_000]);
    lan.lossy(&one, &two, 20);
    carry(&vec![8; 200_000]);
    lan.heal(&one, &[&two]);
    one.quick().unwrap();
    carry(&vec![9; 2_000_000]);
}

#[test]
fn a_program_runs_on_its_host_and_dies_by_its_own_id() {
    let Some(lan) = lan() else { return };
    let host = lan.host().unwrap();
    let mut cat = host.command("cat");
    let cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped());
    // Once it answers it is the program, and no longer the one that put it there.
    let mut start = || {
        let mut child = cat.spawn().unwrap();
        let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        to.write_all(b"x").unwrap();
        from.read_exact(&mut [0]).unwrap();
        (child, to)
    };
    let (mut child, _to) = start();
    let name = std::fs::read_to_string(format!("/proc/{}/comm", child.id()));
    assert_eq!(name.unwrap().trim(), "cat");
    child.kill().unwrap();
    child.wait().unwrap();
    let show = ["-brief", "-4", "address", "show"];
    let shown = host.command("ip").args(show).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains(&host.address().to_string()), "{shown}");
    let (mut left, _to_left) = start();
    drop(lan);
    // The network took with it what ran there.
    assert!(!left.wait().unwrap().success());
}

#[test]
fn networks_have_the_same_addresses_and_nothing_in_common() {
    let Some(lan) = lan() else { return };
    let Ok(other) = Lan::new() else {
        panic!("one more network")
    };
    let (mine, theirs) = (lan.host().unwrap(), other.host().unwrap());
    assert_eq!(mine.address(), theirs.address());
    let bound = socket(&mine);
    // The same address and port, at the same time.
    let also_bound = socket(&theirs);
    drop((bound, also_bound));
    drop(lan);
    on(&theirs, || ());
    drop(other);
    assert!(theirs.enter().is_err(), "it is removed");
}
