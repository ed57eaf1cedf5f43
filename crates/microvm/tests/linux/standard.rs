//! What programs of Rust's standard library do: collections, threads, files, time, sockets.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn main() {
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).unwrap();
    let mut counts: HashMap<&str, u32> = HashMap::new();
    for word in input.split_whitespace() {
        *counts.entry(word).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort();
    println!("{counts:?}");
    let total = Arc::new(Mutex::new(0_u64));
    let threads: Vec<_> = (0..8_u64)
        .map(|index| {
            let total = total.clone();
            std::thread::spawn(move || {
                for value in 0..1000 {
                    *total.lock().unwrap() += value * index;
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    println!("{}", total.lock().unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send("by channel").unwrap());
    println!("{}", receiver.recv_timeout(Duration::from_secs(5)).unwrap());
    let begin = Instant::now();
    std::thread::sleep(Duration::from_millis(3));
    println!("{}", begin.elapsed() >= Duration::from_millis(3));
    std::fs::create_dir_all("/tmp/a/b").unwrap();
    std::fs::write("/tmp/a/b/file", "contents").unwrap();
    std::fs::copy("/tmp/a/b/file", "/tmp/a/copy").unwrap();
    let mut names: Vec<_> = std::fs::read_dir("/tmp/a").unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    println!("{names:?} {}", std::fs::read_to_string("/tmp/a/copy").unwrap());
    std::fs::remove_dir_all("/tmp/a").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        stream.write_all(text.to_uppercase().as_bytes()).unwrap();
    });
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"over loopback").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    server.join().unwrap();
    println!("{text}");
    println!("{:?}", std::env::args().collect::<Vec<_>>());
    let caught = std::panic::catch_unwind(|| panic!("caught"));
    println!("{}", caught.is_err());
    if std::env::var_os("PANIC").is_some() {
        panic!("asked to");
    }
}
